"""Replays recorded steps in a simulator: whether data are what their name claims, row by row."""

import zipfile
from dataclasses import dataclass, replace

import numpy as np

from ooorl.data import action_box, assemble, hdf5, ogbench, read_columns
from ooorl.data.recorded_states import Simulator, Steps, simulator, state_columns
from ooorl.errors import UsageError

# Errors of a row relative to the spread of steps in the file, as root mean square over entries.
_EXACT, _ELSEWHERE = 1e-2, 0.5
# Half of the rows may be off by this much: data of MuJoCo 2 on MuJoCo 3.11, where contacts begin elsewhere, give 0.08.
_ROUGHEST = 0.15
_FEW, _MANY = 0.02, 0.2  # shares of rows
_NUM_VARIANTS, _NUM_UNCLEAR = 12, 60


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What replaying single steps showed; errors are the largest over the entries of a step.

    Attributes:
      rows: steps replayed, spread evenly over the data; the rows of ends and of rare rewards come on top.
      bad_rows: those of them that lead elsewhere: their error is more than half of what a step changes.
      lost_rows: rows of the whole data that were left out, because their state is not recorded.
      median_error, max_error: of the whole observation.
      median_position_error, max_position_error: of its entries that are positions.
      kind: 'same' environment, 'rough' (another version of it, or rounded states) or 'other'.
      verdict: one sentence on where the steps lead.
      findings: one sentence each on rewards, ends and rows left out.
      wrong: whether something does not belong to the environment: steps, rewards or ends.
    """

    rows: int
    bad_rows: int
    lost_rows: int
    median_error: float
    max_error: float
    median_position_error: float
    max_position_error: float
    kind: str
    verdict: str
    findings: tuple[str, ...]
    wrong: bool


def audit(path, make_env, *, max_rows=1000, set_state=None, **reading) -> Audit:
    """Sets each recorded state, applies the recorded action and compares successor, reward and end with the recorded ones.

    States are the file's infos/qpos and infos/qvel, or the observation where it is all of them but the root's
    first coordinates. An environment whose state is more than these says what in `state_names` and takes it with
    `set_env_state`. Errors of about 1e-6 are the rounding of float32 files.

    Args:
      path: a D4RL HDF5 or npz file.
      make_env: makes the gymnasium environment, or the `Task`, the file claims to come from.
      max_rows: steps to replay, spread evenly.
      set_state: `(env, row) -> None` for an environment whose state is more than qpos and qvel.
      **reading: `action_low`, `action_high` and `observation_keys`, as in `ooorl.data.load`.

    Returns:
      an `Audit`.

    Raises:
      UsageError: where the file does not hold the states, or not those of this environment.
    """
    env = make_env()
    try:
        dataset = _in_full_precision(path, env, **reading)
        return replayed(simulator(env, dataset, path, set_state), dataset, path, max_rows)
    finally:
        if hasattr(env, 'close'):
            env.close()


def info_names(path) -> tuple[str, ...]:
    """What lies under `infos/` of an HDF5 or npz file, or the states of OGBench's layout; nothing in other formats."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = [name.removesuffix('.npy') for name in archive.namelist()]
            if ogbench.is_layout(members):
                return tuple(name for name in ogbench.STATES if name in members)
            return tuple(name.removeprefix('infos/') for name in members if name.startswith('infos/'))
    if not hdf5.h5py.is_hdf5(path):
        return ()
    with hdf5.opened(path) as file:
        return tuple(hdf5.names(file['infos'])) if 'infos' in file and hasattr(file['infos'], 'keys') else ()


def _in_full_precision(path, env, action_low=None, action_high=None, observation_keys=None):
    """The data set with observations and actions as recorded among its infos."""
    judge = getattr(env, 'unwrapped', None)
    labeller = judge if hasattr(judge, 'labelled') else None
    infos = state_columns(env, info_names(path))
    path, columns = read_columns(path, infos=infos, observation_keys=observation_keys, labeller=labeller)
    space = getattr(env, 'action_space', None)  # a `Task` has none: its actions are in [-1, 1]
    own = {'observations': columns.observations, 'actions': columns.actions}
    if columns.next_observations is not None:
        own['next_observations'] = columns.next_observations
    return assemble(
        columns._replace(infos={**columns.infos, **own}),
        source=path,
        name=path,
        clip_actions=True,
        stated_box=action_box.stated(action_low, action_high),
        environment_box=action_box.of_space(space, getattr(env.spec, 'id', 'the environment')),
    )


def replayed(simulated: Simulator, dataset, source, max_rows) -> Audit:
    """The judgement on a data set in a simulator.

    Raises:
      UsageError: where no row can be replayed.
    """
    t = dataset.transitions
    ended = t.discount == 0
    known, last = np.ones(len(ended), bool), np.flatnonzero(ended)
    known[last] = (t.next_observation[last] != t.observation[last]).any(axis=1)  # else the row's own observation stands in
    lost = _lost(simulated, dataset, known)
    known &= ~lost
    if not known.any():
        raise UsageError(f'Rows with a recorded state and successor are needed; {source} has none; record whole episodes.')
    spread = _some(np.flatnonzero(known), max_rows)
    beside = _beside_ends(t.extras['boundary'] > 0, max_rows // 3)
    farthest = _farthest(t, simulated.unsteady)
    special = [_some(np.flatnonzero(flags), max_rows // 3) for flags in (ended, _rare(t.reward))]
    rows = np.unique(np.concatenate([spread, beside, farthest, *special]))
    rows = rows[~lost[rows]]
    steps = simulated.step(rows, 0)
    errors = _errors(simulated, steps, dataset, rows)
    relative = _relative(errors, t, simulated.num_positions)
    evenly, certain = np.isin(rows, spread), known[rows]
    result = _judged(errors[evenly], relative[evenly], simulated.num_positions, source)
    findings = []
    if result.kind != 'other':
        elsewhere = certain & (relative > _ELSEWHERE)
        findings = _misplaced_ends(elsewhere, certain & np.isin(rows, beside), certain & np.isin(rows, farthest))
        usable = ~certain | (relative <= _EXACT)
        findings += _rewards_and_ends(simulated, dataset, rows[usable], Steps(*(column[usable] for column in steps)))
    wrong, num_lost = result.kind == 'other' or bool(findings), int(lost.sum())
    if num_lost:
        findings.append(f'{num_lost} of {dataset.num_rows} rows left out: their velocity is clipped, so their state is lost')
    return replace(result, findings=tuple(findings), wrong=wrong, lost_rows=num_lost)


def _some(rows, count):
    """At most `count` of the rows, spread evenly."""
    if len(rows) <= count:
        return rows
    return rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]


def _beside_ends(boundary, count):
    """Last rows of episodes, the rows before them and behind them."""
    ends = _some(np.flatnonzero(boundary), max(count // 3, 1))
    return np.unique(np.clip(np.concatenate([ends - 1, ends, ends + 1]), 0, len(boundary) - 1))


def _farthest(transitions, unsteady=(), count=30, block=1 << 16):
    """The rows whose steps are the largest, which are those into another episode where its end is not marked."""
    scale = _scale(transitions).astype(np.float32)
    scale[list(unsteady)] = np.inf
    size = np.concatenate([
        np.square((transitions.next_observation[i : i + block] - transitions.observation[i : i + block]) / scale).mean(axis=1)
        for i in range(0, len(transitions.reward), block)
    ])
    return np.sort(np.argsort(size)[-count:])


def _rare(rewards):
    """Rows whose reward is not the usual one, which in sparse tasks says most."""
    return rewards != np.median(rewards)


def _successors(dataset, rows):
    """Recorded successors `[n, O]`, in full precision where it was read and the next row is the successor."""
    following = np.asarray(dataset.transitions.next_observation[rows], np.float64)
    # Candidates in full precision; which of them is the successor, the data set has decided.
    for name, distance in (('observations', 1), ('next_observations', 0)):
        if name in dataset.infos:
            exact = dataset.infos[name][np.minimum(rows + distance, dataset.num_rows - 1)]
            following = np.where(exact.astype(np.float32) == following.astype(np.float32), exact, following)
    return following


def _errors(simulated, steps, dataset, rows):
    """`[n, O]` how far the simulator's successors are from the recorded ones; 0 where neither says much."""
    errors = np.abs(steps.observation - _successors(dataset, rows))
    errors[:, list(simulated.unsteady)] = 0.0
    return errors


def _lost(simulated, dataset, known):
    """The rows that may be lost, unless they replay all the same: then it is the simulator that holds a velocity there."""
    doubtful = _some(np.flatnonzero(simulated.lost & known), 50)
    if not len(doubtful):
        return simulated.lost
    errors = _errors(simulated, simulated.step(doubtful, 0), dataset, doubtful)
    exact = _relative(errors, dataset.transitions, simulated.num_positions) <= _EXACT
    return simulated.lost & (exact.mean() < 1.0 - _FEW)


def _relative(errors, transitions, num_positions):
    """`[n]` errors in units of what a step changes: over all entries, or over the positions where that is more."""
    squares = np.square(errors / _scale(transitions))
    whole = np.sqrt(squares.mean(axis=1))
    if not 0 < num_positions < errors.shape[1]:
        return whole
    return np.maximum(whole, np.sqrt(squares[:, :num_positions].mean(axis=1)))


def _scale(transitions):
    """`[O]` how much the steps of a data set spread in each entry."""
    some = _some(np.arange(len(transitions.reward)), 1000)
    scale = (transitions.next_observation[some] - transitions.observation[some]).std(axis=0).astype(np.float64)
    return np.maximum(scale, max(1e-2 * scale.max(), 1e-9))


def _judged(errors, relative, num_positions, source):
    largest = errors.max(axis=1)
    positions = errors[:, :num_positions].max(axis=1) if 0 < num_positions <= errors.shape[1] else largest
    rows, bad, typical = len(errors), int((relative > _ELSEWHERE).sum()), float(np.median(relative))
    if bad > max(1, _FEW * rows) or typical > _ROUGHEST:
        kind = 'other'
        how = f'{bad} of {rows} rows ({100 * bad / rows:.3g} %) lead elsewhere'
        if bad < rows / 10:
            how = f'{how}, and half of all are off by more than {100 * typical:.0f} % of a step' if typical > _ROUGHEST else how
        verdict = (
            f'{source} does not replay: {how}, by up to {largest.max():.3g}; it is no data of this environment, whatever its'
            ' name says.'
        )
    elif (relative <= _EXACT).mean() >= 1.0 - _FEW:
        kind = 'same'
        verdict = f'{source} replays step by step ({rows} rows): it is data of this environment.'
    else:
        kind = 'rough'
        verdict = (
            f'{source} replays roughly ({rows} rows, median error {np.median(largest):.2g}): the same task, but another'
            ' version of the simulator or rounded states.'
        )
    return Audit(
        rows=rows,
        bad_rows=bad,
        lost_rows=0,
        median_error=float(np.median(largest)),
        max_error=float(largest.max()),
        median_position_error=float(np.median(positions)),
        max_position_error=float(positions.max()),
        kind=kind,
        verdict=verdict,
        findings=(),
        wrong=kind == 'other',
    )


def _misplaced_ends(elsewhere, beside, farthest):
    """What the rows beside ends, and those with the largest steps, say about ends; `[n]` bool each."""
    bad = int((elsewhere & beside).sum())
    if bad > max(1, _MANY / 3 * beside.sum()):  # of three rows at an end, one leads elsewhere where its mark is misplaced
        where = 'ends are marked in the wrong rows, or successors are not true there'
        return [f'{bad} of {int(beside.sum())} rows beside the ends of episodes lead elsewhere: {where}']
    bad = int((elsewhere & farthest).sum())
    if bad > max(1, _MANY * farthest.sum()):
        return [f'{bad} of the {int(farthest.sum())} rows with the largest steps lead elsewhere: ends are not marked']
    return []


def _rewards_and_ends(simulated, dataset, rows, steps):
    t = dataset.transitions
    rewards, ended = np.asarray(t.reward[rows], np.float64), t.discount[rows] == 0
    other_reward, other_end = _unexplained(simulated, rows, rewards, ended, steps)
    # Of sparse rewards the rows with the usual one on both sides tell nothing.
    telling = other_reward | (rewards != np.median(rewards)) | (steps.reward != np.median(steps.reward))
    findings = []
    if len(rows) and other_reward.sum() > max(1, _MANY * telling.sum()):
        share = 100 * other_reward.mean()
        why = _explained(simulated, rewards, steps.reward, rows)
        findings.append(f'rewards are not those of this environment on {share:.3g} % of {len(rows)} rows{why}')
    missing, extra = int((ended & other_end).sum()), int((~ended & other_end).sum())
    if missing > max(1, _MANY * ended.sum()):
        findings.append(f'{missing} of {int(ended.sum())} terminal rows do not end the episode in this environment')
    if extra > max(1, _MANY * (extra + ended.sum() - missing)):
        findings.append(f'{extra} of {len(rows)} rows end the episode in this environment and are not marked terminal')
    return findings


def _unexplained(simulated, rows, rewards, ended, steps):
    """`([n], [n])` bool, rows whose recorded reward and end the simulator never answers.

    What a reset draws, such as a goal, is not recorded: a row counts only if no draw explains it. Of many such rows some are
    tried; where all of these are explained, so are the others, in proportion.
    """
    other_reward, other_end = ~_close(rewards, steps.reward, simulated.reward_slack), ended != steps.terminal
    unclear = np.flatnonzero(other_reward | other_end)
    tried = _some(unclear, _NUM_UNCLEAR)
    left_reward, left_end = other_reward[tried].copy(), other_end[tried].copy()
    for variant in range(1, _NUM_VARIANTS) if len(tried) else ():
        again = simulated.step(rows[tried], variant)
        left_reward &= ~_close(rewards[tried], again.reward, simulated.reward_slack)
        left_end &= ended[tried] != again.terminal
    nearest = np.searchsorted(tried, unclear).clip(max=len(tried) - 1)
    other_reward[unclear] &= left_reward[nearest] | ~other_reward[tried][nearest]
    other_end[unclear] &= left_end[nearest] | ~other_end[tried][nearest]
    return other_reward, other_end


def _close(left, right, slack):
    return np.abs(left - right) <= 1e-3 * (1.0 + np.abs(right)) + slack


def _explained(simulated, recorded, own, rows):
    """What was done to rewards, where that can be told."""
    low, high = np.argmin(own), np.argmax(own)
    slope = (recorded[high] - recorded[low]) / max(own[high] - own[low], 1e-9)
    guesses = [(-1.0, 0.0), (1.0, np.median(recorded - own)), (slope, recorded[low] - slope * own[low])]
    if np.ptp(own) > 0:
        guesses.append(tuple(np.polyfit(own, recorded, 1)))
    for scale, shift in guesses:
        if _close(recorded, scale * own + shift, simulated.reward_slack).mean() > 0.9:
            return f': they are {_in_words(scale, shift)}'
    for distance, where in ((-1, 'before'), (1, 'behind')):
        inside = (rows + distance >= 0) & (rows + distance < len(simulated.lost))
        there = simulated.step(rows[inside] + distance, 0).reward
        if _close(recorded[inside], there, simulated.reward_slack).mean() > 0.9:
            return f': they are those of the row {where}'
    return ''


def _in_words(scale, shift):
    moved = '' if abs(shift) < 1e-3 else f' {"+" if shift > 0 else "-"} {abs(shift):.4g}'
    if abs(scale - 1.0) < 1e-3:
        return f"the environment's{moved}"
    return f"{scale:.4g} times the environment's{moved}"
