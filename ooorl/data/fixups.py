"""The catalogue's corrections that change rows; those of how a file is read are arguments of `load`."""

from dataclasses import replace

import numpy as np

from ooorl.data import regions
from ooorl.errors import UsageError

_WHEN_READING = ("goes_on_after_terminal", "clip_actions")


def apply(dataset, entry):
    """Applies a catalogue entry's row corrections in their order and notes each.

    Raises:
      UsageError: where a correction is not known.
    """
    for name, parameters in entry.fixups:
        if name in _WHEN_READING:
            continue
        if name not in _CORRECTIONS:
            raise UsageError(
                f"A known correction is needed; {entry.id} names {name!r}; use one of catalogue.FIXUPS."
            )
        dataset = _CORRECTIONS[name](dataset, **parameters)
    return replace(dataset, name=entry.id)


def terminal_at_reward(dataset, reward):
    """The MDP ends only where the reward equals `reward`; a last row that loses its end becomes a cut.

    A cut needs its true successor, so rows whose successor was a stand-in are dropped.
    """
    transitions = dataset.transitions
    wrong = (transitions.discount == 0) & (transitions.reward != reward)
    stand_in = wrong & (transitions.next_observation == transitions.observation).all(axis=1)
    discount = np.where(wrong, np.float32(1), transitions.discount)
    changed = replace(dataset, transitions=transitions._replace(discount=discount))
    note = f"{int(wrong.sum())} terminal rows whose reward is not {reward:g} became cuts"
    return kept(_noted(changed, note), ~stand_in, "cuts without a recorded successor")


def remove_regions(dataset, discs=(), boxes=()):
    """Removes the rows whose first two observation entries lie in a region; see `regions.inside`."""
    removed = regions.inside(dataset.transitions.observation, discs, boxes)
    if removed.all():
        raise UsageError(f"Rows outside the regions are needed; all of {dataset.name} lies in them; give smaller ones.")
    return kept(dataset, ~removed, regions.described(discs, boxes))


def first_rows(dataset, rows):
    """Keeps the first `rows` rows of every episode."""
    boundary = dataset.transitions.extras["boundary"] > 0
    start = np.maximum.accumulate(np.where(np.append(True, boundary[:-1]), np.arange(len(boundary)), 0))
    return kept(dataset, np.arange(len(boundary)) - start < rows, f"behind the first {rows} of their episode")


def subsample(dataset, rows, seed):
    """Keeps `rows` random rows in their order."""
    chosen = np.zeros(dataset.num_rows, bool)
    count = min(rows, dataset.num_rows)
    chosen[np.random.default_rng(seed).choice(dataset.num_rows, count, replace=False)] = True
    return kept(dataset, chosen, f"not among {count} drawn with seed {seed}")


def kept(dataset, keep, reason):
    """The rows where `keep` holds; a row whose follower is removed ends its episode as a cut."""
    transitions = dataset.transitions
    boundary = transitions.extras["boundary"] > 0
    boundary[:-1] |= ~keep[1:]
    columns = [column[keep] for column in transitions[:-1]]
    extras = {"boundary": boundary[keep].astype(np.float32)}
    infos = {key: value[keep] for key, value in dataset.infos.items()}
    changed = replace(dataset, transitions=type(transitions)(*columns, extras=extras), infos=infos)
    return _noted(changed, f"{int((~keep).sum()):,} of {len(keep):,} rows removed: {reason}")


def _noted(dataset, note):
    return replace(dataset, notes=(*dataset.notes, note))


_CORRECTIONS = {
    "terminal_at_reward": terminal_at_reward,
    "remove_regions": remove_regions,
    "first_rows": first_rows,
    "subsample": subsample,
}
