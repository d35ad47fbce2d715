"""What the results of `parl_claim.py` say: scores, environment steps until the base method's final score, learning curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cells import Cell, draw_tasks

from ooorl.reporting import figures as drawing
from ooorl.reporting import intervals, tables

PREFIX = 'parl_claim-'
BASE = 'calql'
ARMS = {
    BASE: 'Cal-QL, Gaussian',
    'diffusion': 'PA-RL + diffusion',
    'flow': 'PA-RL + flow',
    'autoregressive': 'PA-RL + autoregressive',
    'gaussian': 'PA-RL + Gaussian',
}
WINDOW = 4  # evaluations that a score is averaged over: one of them alone, of few episodes, crosses any line by luck
MEDIAN_LEVEL = 0.93  # of five seeds the extremes hold the median with probability 0.9375
COLUMNS = (
    'arm', 'offline', 'at the end', 'environment steps half way there: mean curve', 'there: mean curve', 'times fewer',
    'there: median seed',
    'mean online score, minus the base',
)  # fmt: skip
LOOKS = {'calql': '--', 'diffusion': '-', 'flow': '-.', 'autoregressive': ':', 'gaussian': (0, (5, 1, 1, 1))}


class Curve(NamedTuple):
    """Scores `[S, K]` of the online phase against environment steps `[K]`, the first those of the offline phase's end."""

    steps: np.ndarray
    scores: np.ndarray


def metric(result: Mapping) -> str:
    """The score that counts: D4RL's where the task has one, else the success rate."""
    return 'normalised' if 'normalised' in result['curves']['finetune']['eval'] else 'success'


def curve(result: Mapping) -> Curve:
    """The raw learning curve of a result."""
    name, phases = metric(result), result['curves']
    before, online = (np.asarray(phases[phase]['eval'][name], np.float64) for phase in ('offline', 'finetune'))
    return Curve(np.array([0, *phases['finetune']['eval']['env_steps']]), np.concatenate([before[:, -1:], online], axis=1))


def smoothed(found: Curve) -> Curve:
    """Each evaluation as the mean of the `WINDOW` newest ones, as many as there are at the beginning."""
    columns = [found.scores[:, max(0, end - WINDOW) : end].mean(axis=1) for end in range(1, found.scores.shape[1] + 1)]
    return found._replace(scores=np.stack(columns, axis=1))


def steps_until(found: Curve, score: float) -> np.ndarray:
    """Environment steps `[S]` of the first smoothed evaluation that is at least `score`; infinite where there is none."""
    reached = smoothed(found).scores >= score - 1e-9 * abs(score)  # means of the same numbers in two orders
    return np.where(reached.any(axis=1), found.steps[reached.argmax(axis=1)].astype(np.float64), np.inf)


def mean_curve(found: Curve) -> Curve:
    """The mean over seeds as a curve of its own."""
    return found._replace(scores=found.scores.mean(axis=0, keepdims=True))


def final(found: Curve) -> np.ndarray:
    """The score `[S]` at the end."""
    return smoothed(found).scores[:, -1]


def shown_score(name: str, values: np.ndarray) -> str:
    """'62.1 [29.0, 89.3]': the mean over seeds and its interval."""
    return tables.cell(name, values.tolist())


def shown_steps(steps: np.ndarray, budget: float) -> str:
    """'12,000 [8,000, > 40,000]': the median over seeds and its interval; censored at the budget."""
    found = intervals.interval(np.minimum(steps, budget + 1), 'median', level=MEDIAN_LEVEL)
    if not np.isfinite(found.low):
        return f'{_counted(found.point, budget)} ({found.method})'
    return f'{_counted(found.point, budget)} [{_counted(found.low, budget)}, {_counted(found.high, budget)}]'


def _counted(steps, budget):
    return f'> {budget:,.0f}' if steps > budget else f'{steps:,.0f}'


def ratio(base: float, own: float, budget: float) -> str:
    """How many times fewer steps the arm needs; a bound where one of the two never got there."""
    if own > budget:
        return '-' if base > budget else f'< {base / budget:.2g}'
    if own == 0:
        return 'from the start'
    return f'> {budget / own:.2g}' if base > budget else f'{base / own:.2g}'


def verdict(name: str, own: Curve, base: Curve) -> str:
    """The mean online score, paired by seed: what an arm's curve has over the base method's, with its interval."""
    ours, theirs = (found.scores[:, 1:].mean(axis=1) for found in (own, base))
    found = intervals.score_difference(name, ours, theirs)
    if not np.isfinite(found.low):
        return f'not separated: {found.point:+.3g} ({found.method})'
    word = 'held' if found.low > 0 else 'reversed' if found.high < 0 else 'not separated'
    return f'{word}: {found.point:+.3g} [{found.low:+.3g}, {found.high:+.3g}]'


def table(results: Mapping[Cell, dict]) -> str:
    """The results as Markdown, a table a task."""
    lines = []
    for task in dict.fromkeys(cell.task for cell in results):
        lines += [*_task_table(results, task), '']
    return '\n'.join(lines).rstrip()


def _task_table(results, task):
    own = {cell.arm: results[cell] for cell in results if cell.task == task}
    if BASE not in own:
        return [f'{task}: the base method has not been run.']
    curves, name = {arm: curve(result) for arm, result in own.items()}, metric(own[BASE])
    budget, goal = curves[BASE].steps[-1], float(final(curves[BASE]).mean())
    half = 0.5 * (goal + float(curves[BASE].scores[:, 0].mean()))
    first = steps_until(mean_curve(curves[BASE]), goal)[0]
    lines = [
        f'{task}, {len(own[BASE]["seeds"])} seeds, {tables.LABELS[name]}; the base method ends at {tables.number(name, goal)}.',
        '',
        '| ' + ' | '.join(COLUMNS) + ' |',
        '|---' * len(COLUMNS) + '|',
    ]
    for arm, label in ARMS.items():
        if arm not in own:
            lines.append(f'| {label} |' + ' not run |' * (len(COLUMNS) - 1))
            continue
        halfway, steps = (steps_until(mean_curve(curves[arm]), score)[0] for score in (half, goal))
        entries = [
            shown_score(name, curves[arm].scores[:, 0]), shown_score(name, final(curves[arm])),
            _counted(halfway, budget), _counted(steps, budget),
            '1' if arm == BASE else ratio(first, steps, budget), shown_steps(steps_until(curves[arm], goal), budget),
            '' if arm == BASE else verdict(name, curves[arm], curves[BASE]),
        ]  # fmt: skip
        lines.append(f'| {label} | ' + ' | '.join(entries) + ' |')
    return lines


def figures(results: Mapping[Cell, dict], out: Path) -> list[Path]:
    """Draws the learning curves of each task, `parl_claim-<task>.svg`, and says where."""
    return draw_tasks(results, out, PREFIX, drawn)


def drawn(task: str, results: Mapping[Cell, dict]):
    """Mean and interval of every arm over environment steps; the base method's final score as a dotted line."""
    own = {cell.arm: results[cell] for cell in results if cell.task == task}
    figure, panel = drawing.figure(3.0)
    name, lines = metric(next(iter(own.values()))), []
    for arm, colour in zip(ARMS, drawing.COLOURS, strict=False):
        if arm in own:
            steps, scores = smoothed(curve(own[arm]))
            lines += panel.plot(steps, scores.mean(axis=0), color=colour, lw=1.8, ls=LOOKS[arm], label=ARMS[arm])
            ends = [intervals.score_interval(name, column) for column in scores.T]
            panel.fill_between(steps, [end.low for end in ends], [end.high for end in ends], color=colour, alpha=0.13, lw=0)
    if BASE in own:
        panel.axhline(final(curve(own[BASE])).mean(), color='#555555', lw=0.9, ls=':')
    drawing.finish(panel, 'environment steps', tables.LABELS[name])
    panel.set_title(task, fontsize=8.5)
    figure.legend(handles=lines, frameon=False, fontsize=7.5, loc='outside lower center', ncols=2)
    return figure
