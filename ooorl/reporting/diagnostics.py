"""What going from one phase to the next cost, and why: findings from the rows of a run, plain numbers in, sentences out.

`costs` measures the dip behind each switch to an online phase; `diagnose` names causes. The facts come from rows of kind
"diagnostics" (`ooorl.training.measure` lists them). A *certain* finding is a contradiction in what an agent was given, named
whether or not anything has suffered from it yet; a *likely* one is named only for an online phase that dipped, or that ended no
better than it began.

Certain:

* wrong normaliser: the same rows of data have another mean or size (5 %) than in the phase continued; or most online rows lie
  more than one range of the data outside of it.
* reward shift: scale or shift of the reward differ (1 %) from the phase continued; or online rows earn other rewards than rows
  of the data close to them.
* missing terminal mask: ends are kept in one phase and not in the one it continues; or no stored end is given as one; or rows of
  the highest reward end in one store and not in the other.
* warm-started optimiser: a phase that begins anew, or with fresh optimisers, has optimiser steps behind it.
* diverging values: mean Q is ten times the possible range outside of it.

Likely:

* warm-started optimiser: squared gradients 1000 times larger, or 10 000 times smaller, than the optimiser remembers.
* data set left out: online batches hold less than 5 % rows of the data that the agent was trained on.
* values too high, values too low: Q minus the Monte-Carlo return beyond a fifth of the possible range.

A finding needs half of the seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ooorl.reporting import series, stats, tables

DIP = 0.1  # of the scale of scores: a smaller one is not taken for a dip
CHANGE = 0.05  # of the size of observations
REWARD_CHANGE = 0.01  # of the reward range
MIN_ROWS = 5  # rows of a kind before their share is believed
MATCHED = 0.25  # share of online rows that must have a close row in the data
GROWTH = (1e-4, 1e3)  # of squared gradients at a switch
DIVERGED, OFF = 10.0, 0.2  # of the possible range of values
LEFT_OUT = 0.05  # share of a batch


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an online phase cost and bought, mean over seeds.

    Attributes:
      phase: its name.
      before: score before the switch; where the phase continues no evaluated one, its own first.
      lowest: lowest score until `before` was regained.
      dip: before - lowest, at least 0.
      steps_to_regain: environment steps from the switch until a score of at least `before`; None if that never came.
      last: final score.
      regret: mean shortfall from a perfect score as a share of it (`stats.regret`); None where no score is perfect.
    """

    phase: str
    before: float
    lowest: float
    dip: float
    steps_to_regain: float | None
    last: float
    regret: float | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A cause, where it was found, how sure, in which seeds, from which numbers (means over these seeds), and what to do."""

    name: str
    phase: str
    certain: bool
    seeds: tuple[int, ...]
    sentence: str
    evidence: Mapping[str, float] = field(default_factory=dict)


class Facts(NamedTuple):
    """One seed's rows around the beginning of a phase: the last of the phase continued (or None), its own first and last."""

    before: Mapping | None
    first: Mapping
    last: Mapping


def costs(summary: Mapping, rows: Sequence[Mapping], metric: str | None = None) -> list[Cost]:
    """The cost of each online phase that was evaluated at least twice; scores in units of `metric`."""
    metric = metric or tables.primary_metric([summary])
    curves = series.phase_curves(summary, rows, metric, 'env_steps')
    found = []
    for phase in summary['phases']:
        x, values = curves.get(phase['name'], ((), None))
        if not phase.get('num_env_steps') or len(x) == 0:
            continue
        mean = values.mean(axis=0)
        if phase.get('start') in curves:
            earlier, scores = curves[phase['start']]
            x, mean = np.append(min(earlier[-1], x[0]), x), np.append(scores[:, -1].mean(), mean)
        if len(mean) < 2:
            continue
        found.append(_cost(phase['name'], x, mean, tables.BEST.get(metric)))
    return found


def _cost(name, x, mean, best):
    regained = np.flatnonzero(mean[1:] >= mean[0])
    until = mean[: regained[0] + 2] if len(regained) else mean
    lowest = float(until.min()) if np.isfinite(mean).all() else np.nan
    curve = np.concatenate([[True], np.diff(x) > 0])
    regret = stats.regret(mean[curve], x[curve], best) / best if best and curve.sum() > 1 else None
    steps = float(x[regained[0] + 1] - x[0]) if len(regained) else None
    return Cost(
        phase=name,
        before=float(mean[0]),
        lowest=lowest,
        dip=float(mean[0]) - lowest,
        steps_to_regain=steps,
        last=float(mean[-1]),
        regret=None if regret is None else float(regret),
    )


def diagnose(summary: Mapping, rows: Sequence[Mapping], metric: str | None = None) -> list[Finding]:
    """Causes of trouble at the beginnings of phases, certain ones first; empty where nothing is wrong."""
    metric = metric or tables.primary_metric([summary])
    by_phase = {}
    for row in rows:
        if row.get('kind') == 'diagnostics':
            by_phase.setdefault(row['phase'], {}).setdefault(row['seed'], []).append(row)
    troubled = {cost.phase for cost in costs(summary, rows, metric) if _suffered(cost, summary, rows, metric)}
    found = []
    for phase in summary['phases']:
        seeds = by_phase.get(phase['name'], {})
        earlier = by_phase.get(phase.get('start'), {})
        cases = {s: Facts(earlier[s][-1] if s in earlier else None, own[0], own[-1]) for s, own in seeds.items()}
        for name, certain, rule in RULES:
            if certain or phase['name'] in troubled:
                found += _found(name, phase['name'], certain, rule, cases)
    named = {finding.name for finding in found if finding.certain}
    kept = [finding for finding in found if finding.certain or finding.name not in named]
    return sorted(kept, key=lambda finding: not finding.certain)


def _suffered(cost, summary, rows, metric):
    best = tables.BEST.get(metric)
    scores = [float(row[metric]) for row in rows if row.get('kind') == 'eval' and row.get(metric) is not None]
    scale = best or np.ptp(scores)
    stuck = cost.last <= cost.before and not (best and cost.last >= 0.99 * best)
    return cost.dip > DIP * scale or stuck


def _found(name, phase, certain, rule, cases):
    hits = {seed: hit for seed, case in cases.items() if (hit := rule(case)) is not None}
    if not hits or 2 * len(hits) < len(cases):
        return []
    sentences, numbers = zip(*hits.values(), strict=True)
    same = [evidence for evidence in numbers if evidence.keys() == numbers[0].keys()]
    evidence = {key: float(np.mean([e[key] for e in same])) for key in numbers[0]}
    text = sentences[0].format(phase=phase, **{key.replace('/', '_'): value for key, value in evidence.items()})
    return [Finding(name=name, phase=phase, certain=certain, seeds=tuple(hits), sentence=text, evidence=evidence)]


def _pair(case, *names):
    """Values of columns in the phase continued and in this one's first row, or None where either is unknown."""
    known = case.before is not None and 'dataset/reward' in case.before and 'dataset/reward' in case.first
    if not known or any(name not in row for name in names for row in (case.before, case.first)):
        return None
    return [(case.before[name], case.first[name]) for name in names]


def _normaliser(case):
    pair = _pair(case, 'given/observation_mean', 'given/observation_size')
    if pair is not None:
        (mean, new_mean), (size, new_size) = pair
        if max(abs(new_mean - mean), abs(new_size - size)) > CHANGE * max(size, 1e-6):
            return (
                'Both phases need the same observations; {phase} is given the same rows of data with mean {mean_after:.3g} and '
                'size {size_after:.3g} instead of {mean_before:.3g} and {size_before:.3g}; use the same statistics in both.',
                {'mean_before': mean, 'mean_after': new_mean, 'size_before': size, 'size_after': new_size},
            )
    if case.first.get('online/outside', 0.0) > 0.5:
        return (
            'Online observations must be on the scale of the data; {outside:.0%} of those in {phase} lie more than a whole range '
            'outside of it; compare how the environment and the data set normalise observations.',
            {'outside': case.first['online/outside'], 'distance': case.first['online/distance']},
        )
    return None


def _reward(case):
    first = case.first
    extent = first.get('dataset/reward_high', 0.0) - first.get('dataset/reward_low', 0.0)
    unit = max(abs(first.get('given/reward_scale', 1.0)) * extent, 0.1)
    pair = _pair(case, 'given/reward_scale', 'given/reward_shift')
    if pair is not None:
        (scale, new_scale), (shift, new_shift) = pair
        if abs(new_scale - scale) > REWARD_CHANGE * abs(scale) or abs(new_shift - shift) > REWARD_CHANGE * unit:
            return (
                'Both phases need the same reward; {phase} makes {scale_after:.3g} r {shift_after:+.3g} of a reward r, the phase '
                'it continues {scale_before:.3g} r {shift_before:+.3g}; wrap both with the same `rescaled_reward`.',
                {'scale_before': scale, 'scale_after': new_scale, 'shift_before': shift, 'shift_after': new_shift},
            )
    difference = first.get('match/difference')
    if difference is None or first.get('match/share', 0.0) < MATCHED:
        return None
    if abs(difference) > max(3.0 * first.get('match/noise', 0.0), 0.1 * unit):
        return (
            'Online steps must earn what the same steps earn in the data; in {phase} they earn {difference:+.3g} more '
            '({share:.0%} of them have a close row in the data); shift one of the two, or mend how the data were made.',
            {'difference': difference, 'share': first['match/share'], 'noise': first.get('match/noise', 0.0)},
        )
    return None


def _terminal(case):
    pair = _pair(case, 'given/terminal_kept')
    if pair is not None and abs(pair[0][0] - pair[0][1]) > 0.5:
        return (
            'Ends of the task must cut the values in both phases; {phase} keeps {after:.0%} of them and the phase it continues '
            '{before:.0%}; leave the discount of the batch as it is in both.',
            {'before': pair[0][0], 'after': pair[0][1]},
        )
    last = case.last
    ends = last.get('online/num_ends', 0.0) * last.get('online/ends_stored', 0.0)
    if ends >= MIN_ROWS and last.get('online/ends_given') == 0.0:
        return (
            'Ends of the task must cut the values; the store holds {ends:.0f} of them among the rows looked at and {phase} is '
            'given none; leave the discount of the batch as it is.',
            {'ends': ends},
        )
    same = last.get('dataset/reward_high') == last.get('online/reward_high', np.nan)
    enough = min(last.get(f'{source}/num_best', 0.0) for source in ('dataset', 'online')) >= MIN_ROWS
    if same and enough and last['dataset/reward_low'] < last['dataset/reward_high']:
        stored = {source: last[f'{source}/best_terminal'] for source in ('dataset', 'online')}
        if abs(stored['dataset'] - stored['online']) > 0.5:
            return (
                'The highest reward must end the task in the data and online alike; it ends {dataset:.0%} of such rows in the '
                'data and {online:.0%} of those collected by {phase}; set the discount by one rule (`terminal_at_reward`).',
                stored,
            )
    return None


def _warm_start(case):
    steps = case.first.get('optimizer/steps_at_start', 0.0)
    if case.first.get('optimizer/should_be_fresh') == 1.0 and steps > 0:
        return (
            '{phase} needs new optimisers; its own begin with {steps:,.0f} steps behind them; take them from `Agent.init`.',
            {'steps': steps},
        )
    return None


def _stale_moments(case):
    low, high = case.first.get('optimizer/growth_low'), case.first.get('optimizer/growth_high')
    if low is None or GROWTH[0] <= low and high <= GROWTH[1]:
        return None
    return (
        'An optimiser that is kept must remember gradients of the present size; squared gradients of {phase} are {low:.2g} to '
        '{high:.2g} times those it remembers; start the phase with `fresh_optimizers`.',
        {'low': low, 'high': high, 'steps': case.first['optimizer/steps_at_start']},
    )


def _width(row):
    return row.get('q/highest', np.nan) - row.get('q/lowest', np.nan)


def _diverging(case):
    row, width = case.last, _width(case.last)
    for q in (row[name] for name in ('q/online', 'q/dataset') if name in row):
        if width > 0 and not row['q/lowest'] - DIVERGED * width <= q <= row['q/highest'] + DIVERGED * width:
            return (
                'Rewards allow values from {lowest:.3g} to {highest:.3g}; the mean Q of {phase} is {q:.3g}; bound the values '
                '(`value_bounds`), add layer norm or lower the learning rate.',
                {'lowest': row['q/lowest'], 'highest': row['q/highest'], 'q': q},
            )
    return None


def _gap(sign):
    def rule(case):
        row = case.first if sign > 0 else case.before or {}
        name = 'q_minus_return/online' if sign > 0 and 'q_minus_return/online' in row else 'q_minus_return/dataset'
        gap, width = row.get(name), _width(row)
        if gap is None or not width > 0 or sign * gap <= OFF * width:
            return None
        cure = 'use more critics, layer norm or bounds' if sign > 0 else 'bound the pessimism by returns (`calql`)'
        return (
            'Values should be near the returns that follow; around the switch to {phase} Q is {gap:+.3g} away from them, where '
            f'all values span {{width:.3g}}; {cure}.',
            {'gap': gap, 'width': width},
        )

    return rule


def _left_out(case):
    before, after = (case.before or {}).get('mix/dataset', 0.0), case.first.get('mix/dataset', 0.0)
    if before > 0.5 and after < LEFT_OUT and 'mix/online' in case.first:
        return (
            'Rows of the data hold a policy in place while few are online; batches of {phase} hold {share:.0%} of them; raise '
            'the share of the data set in `mix`.',
            {'share': after},
        )
    return None


RULES: tuple[tuple[str, bool, Callable], ...] = (
    ('wrong normaliser', True, _normaliser),
    ('reward shift', True, _reward),
    ('missing terminal mask', True, _terminal),
    ('warm-started optimiser', True, _warm_start),
    ('diverging values', True, _diverging),
    ('warm-started optimiser', False, _stale_moments),
    ('data set left out', False, _left_out),
    ('values too high', False, _gap(1.0)),
    ('values too low', False, _gap(-1.0)),
)
