"""Sentences on a finished run with the setting to change: what its own rows say of selection, weights, bonuses and time.

Thresholds are rules of thumb. A sentence needs half of the seeds, and numbers in it are means over those.

* few rows: weighted imitation, weights of whole episodes, or windows that fit into episodes come down to fewer than 10 rows
* dominant bonus: more than five times the size of a reward; constant bonus: larger than a reward, and its deviation below a
  tenth of its size
* too little time: values move one step in about 1 / polyak updates, so that updates * polyak steps are fewer than the longest
  success takes
* nothing to imitate: no success in what a phase learns from that wants rows of successes
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

FEW = 10.0  # rows
DOMINANT, FLAT = 5.0, 0.1  # of the size of a reward; of the size of the bonus


class Remedy(NamedTuple):
    """A finding: its name, the phase, the seeds that show it, and the sentence."""

    name: str
    phase: str
    seeds: tuple[int, ...]
    sentence: str


class _Case(NamedTuple):
    """The last rows of a phase in one seed, and the phase's settings."""

    row: Mapping
    table: Mapping
    updates: int


def remedies(summary: Mapping, rows: Sequence[Mapping]) -> list[Remedy]:
    """What could be set better, phase by phase; empty where the rows say nothing against the settings."""
    tables, last = settings_of(summary), {}
    for row in rows:
        if row.get('kind') in ('train', 'diagnostics'):
            last.setdefault((row['phase'], row['seed']), {}).update(row)
    found = []
    for phase in summary['phases']:
        own = {seed: row for (name, seed), row in last.items() if name == phase['name']}
        table = tables.get(_part(phase['name'], summary.get('kind')), {})
        for name, rule in RULES:
            hits = {seed: rule(_Case(row, table, phase.get('num_updates') or 0)) for seed, row in own.items()}
            hits = {seed: hit for seed, hit in hits.items() if hit is not None}
            if hits and 2 * len(hits) >= len(own):
                found.append(Remedy(name, phase['name'], tuple(hits), _sentence(phase['name'], list(hits.values()))))
    return found


def settings_of(summary):
    """The tables of a run's config, empty where there are none to read."""
    try:
        return tomllib.loads(summary.get('config_text') or '')
    except tomllib.TOMLDecodeError:
        return {}


def _part(name, kind):
    if kind != 'ooo':
        return 'agent'
    return 'exploit' if name.removeprefix('plain-').startswith('retrain') else 'explore'


def _sentence(phase, hits):
    text = hits[0][0]
    numbers = {key: float(np.mean([hit[1][key] for hit in hits if key in hit[1]])) for key in hits[0][1]}
    return text.format(phase=phase, **numbers)


def _weights(case):
    rows = case.row.get('policy/effective_rows')
    if rows is None or rows >= min(FEW, case.table.get('sampling', {}).get('batch_size', 256) / 2):
        return None
    spread = case.row.get('policy/advantage_deviation', 0.0)
    facts = {'rows': rows, 'capped': case.row.get('policy/capped', 0.0), 'spread': spread}
    return (
        'Weighted imitation needs more than a few rows of a batch; the weights of {phase} come down to {rows:.1f} of them, '
        '{capped:.0%} at the cap (the advantage deviates by {spread:.2g}); lower inverse_temperature or max_weight, or raise '
        'batch_size.',
        facts,
    )


def _selection(case):
    rows = case.row.get('mix/effective_rows')
    if rows is None or rows >= FEW:
        return None
    return (
        'Batches need more than a few rows to come from; the weights of episodes in {phase} come down to {rows:.1f} of them; '
        'raise weight_temperature or top_share, or lower weight_share.',
        {'rows': rows},
    )


def _windows(case):
    weight, rows = case.row.get('chunk/weight'), case.table.get('sampling', {}).get('batch_size', 256)
    if weight is None or weight * rows >= min(FEW, rows / 2):
        return None
    longest = max(case.table.get('backup_steps') or 1, case.table.get('chunk', 1))
    return (
        'Windows must fit into episodes, since one that a time-out cuts weighs nothing; those of {phase}, {longest:.0f} steps '
        'long, weigh {weight:.0%} on average; lower backup_steps or chunk.',
        {'longest': longest, 'weight': weight},
    )


def _dominant(case):
    size, reward = case.row.get('bonus/size'), case.row.get('bonus/reward_size')
    if size is None or not size > DOMINANT * max(reward, 1e-6):
        return None
    scale = case.table.get('bonus', {}).get('scale', 1.0)
    return (
        'A reward must be seen beside the bonus; in {phase} the bonus is {size:.3g} a step at the end and a reward {reward:.3g}; '
        'lower bonus.scale from {scale:g} to {better:.2g} or less.',
        {'size': size, 'reward': reward, 'scale': scale, 'better': scale * max(reward, 1e-2) / size},
    )


def _constant(case):
    size, spread, reward = (case.row.get(f'bonus/{name}') for name in ('size', 'spread', 'reward_size'))
    if size is None or not (size > reward and spread < FLAT * size):
        return None
    cure = 'set normaliser = "none"' if case.table.get('bonus', {}).get('normaliser') == 'deviation' else 'choose another signal'
    return (
        'A bonus must tell rows apart; that of {phase} is nearly a constant, {size:.3g} with a deviation of {spread:.2g}; '
        f'{cure} or lower bonus.scale.',
        {'size': size, 'spread': spread},
    )


def _time(case):
    polyak = case.table.get('polyak', case.table.get('critic', {}).get('polyak'))
    farthest = max((case.row.get(f'{source}/longest_success', 0.0) for source in ('dataset', 'online')), default=0.0)
    if polyak is None or not farthest:
        return None
    moved = case.updates * polyak * case.table.get('chunk', 1)
    if moved >= farthest:
        return None
    return (
        'Values need time to travel; the {updates:,.0f} updates of {phase} move them {moved:.0f} steps at polyak {polyak:g} and '
        'the longest success takes {farthest:.0f}; use {needed:,.0f} updates, a larger polyak, or chunks.',
        {'updates': case.updates, 'moved': moved, 'polyak': polyak, 'farthest': farthest, 'needed': farthest / polyak},
    )


def _nothing(case):
    counts = [case.row[f'{source}/successes'] for source in ('dataset', 'online') if f'{source}/successes' in case.row]
    if not counts or sum(counts) > 0 or not case.table.get('sampling', {}).get('success_rows'):
        return None
    return (
        'Retraining needs a success to learn from; {phase} had none in its rows; collect more, or help the explorer '
        '(bonus.scale, random_steps); success_reward may also be set too high.',
        {'none': 0.0},
    )


RULES: tuple[tuple[str, Callable], ...] = (
    ('few rows', _weights),
    ('few rows', _selection),
    ('few rows', _windows),
    ('dominant bonus', _dominant),
    ('constant bonus', _constant),
    ('too little time', _time),
    ('nothing to imitate', _nothing),
)
