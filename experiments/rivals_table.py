"""What the results of `rivals.py` say: success at the end, area under the learning curve, paired differences, figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cells import Cell, draw_tasks

from ooorl.reporting import figures as drawing
from ooorl.reporting import intervals, tables

PREFIX = 'rivals-'
ADDED = 'rivals_added-'  # seeds that were added after the first had been looked at
OWN = 'ooo'
METHODS = {OWN: 'OOO', 'wsrl': 'WSRL', 'rlpd': 'RLPD', 'calql': 'Cal-QL'}
LOOKS = {OWN: '-', 'wsrl': '--', 'rlpd': '-.', 'calql': ':'}
CURVE = ('env_steps', 'success')  # of a result, a row a seed
WINDOW = 4  # evaluations that a rival's final score is averaged over
COLUMNS = ('method', 'before any step', 'at the end', 'area under the curve', 'OOO - it, at the end', 'OOO - it, area')


class Curve(NamedTuple):
    """Success `[S, K]` after environment steps `[S, K]`; the first column is before any step."""

    steps: np.ndarray
    success: np.ndarray


def curve(result: Mapping) -> Curve:
    """The learning curve of a result."""
    return Curve(np.asarray(result['env_steps'], float), np.asarray(result['success'], float))


def at(found: Curve, steps: np.ndarray) -> np.ndarray:
    """Success `[S, n]` of what is deployed after `steps` `[n]`: that of the newest point that lies no later."""
    rows = [own[np.searchsorted(when, steps, 'right') - 1] for when, own in zip(found.steps, found.success, strict=True)]
    return np.stack(rows)


def area(found: Curve, budget: float) -> np.ndarray:
    """Mean success `[S]` over the steps 0 to `budget`, each point holding until the next one.

        area = 1 / budget  sum_k success_k (min(t_(k+1), budget) - t_k)
    """
    ends = np.concatenate([found.steps[:, 1:], np.full((len(found.steps), 1), np.inf)], axis=1)
    held = np.clip(np.minimum(ends, budget) - np.minimum(found.steps, budget), 0.0, None)
    return (found.success * held).sum(axis=1) / budget


def final(result: Mapping) -> np.ndarray:
    """Success `[S]` at the end: of OOO's last deployed policy, of a rival's newest `WINDOW` evaluations."""
    success = curve(result).success
    return success[:, -1] if 'trials' in result else success[:, -WINDOW:].mean(axis=1)


def budget_of(results: Mapping[Cell, dict], task: str) -> float:
    """The largest number of steps that any method of a task took."""
    return max(float(curve(result).steps.max()) for cell, result in results.items() if cell.task == task)


def verdict(own: np.ndarray, other: np.ndarray) -> str:
    """The paired difference over seeds with its interval and a word for it."""
    found = intervals.score_difference('success', own, other)
    if not np.isfinite(found.low):
        return f'not separated: {found.point:+.2f} ({found.method})'
    word = 'held' if found.low > 0 else 'reversed' if found.high < 0 else 'not separated'
    return f'{word}: {found.point:+.2f} [{found.low:+.2f}, {found.high:+.2f}]{tables.mark(found)}'


def shown(values: np.ndarray) -> str:
    """'0.62 [0.29, 0.89]', the mean over seeds and its interval."""
    found = intervals.interval(values, bounds=(0.0, 1.0))
    return f'{found.point:.2f} [{found.low:.2f}, {found.high:.2f}]{tables.mark(found)}'


def joined(results: Mapping[Cell, dict], added: Mapping[Cell, dict]) -> dict[Cell, dict]:
    """The results with the curves of added seeds behind those of the first, in tasks that every method has them in."""
    lacking = {cell.task for cell in results if cell not in added}
    both = {cell: [own] if cell.task in lacking else [own, added[cell]] for cell, own in results.items()}
    return {cell: {**own[0], **{key: sum((one[key] for one in own), []) for key in CURVE}} for cell, own in both.items()}


def told(results: Mapping[Cell, dict], added: Mapping[Cell, dict]) -> str:
    """All tables; where seeds were added, the first and the added ones by themselves as well."""
    first = {cell: own for cell, own in results.items() if cell in added}
    parts = [table(joined(results, added)), table(first, ' looked at first'), table(added, ' added, alone')]
    return '\n\n'.join(filter(None, parts))


def table(results: Mapping[Cell, dict], which: str = '') -> str:
    """The results as Markdown, a table a task; `which` says what seeds these are."""
    lines = []
    for task in dict.fromkeys(cell.task for cell in results):
        own = {cell.arm: result for cell, result in results.items() if cell.task == task}
        budget, seeds = budget_of(results, task), len(next(iter(own.values()))['success'])
        lines += [f'{task}, {seeds} seeds{which}, success; {budget:,.0f} environment steps.', '']
        lines += ['| ' + ' | '.join(COLUMNS) + ' |', '|---' * len(COLUMNS) + '|']
        for method, label in METHODS.items():
            if method not in own:
                lines.append(f'| {label} |' + ' not run |' * (len(COLUMNS) - 1))
                continue
            scores = final(own[method]), area(curve(own[method]), budget)
            entries = [shown(curve(own[method]).success[:, 0]), *map(shown, scores), '', '']
            if method != OWN and OWN in own:
                ours = final(own[OWN]), area(curve(own[OWN]), budget)
                entries[-2:] = [verdict(a, b) for a, b in zip(ours, scores, strict=True)]
            lines.append(f'| {label} | ' + ' | '.join(entries) + ' |')
        lines.append('')
    return '\n'.join(lines).rstrip()


def figures(results: Mapping[Cell, dict], out: Path) -> list[Path]:
    """Draws the learning curves of each task, `rivals-<task>.svg`, and says where."""
    return draw_tasks(results, out, PREFIX, drawn)


def drawn(task: str, results: Mapping[Cell, dict]):
    """Mean and interval over seeds of what each method deploys, over environment steps; a band that several have is grey."""
    own = {cell.arm: results[cell] for cell in results if cell.task == task}
    figure, panel = drawing.figure(3.0)
    steps, lines, bands = np.linspace(0.0, budget_of(results, task), 241), [], {}
    for method, colour in zip(METHODS, drawing.COLOURS, strict=False):
        if method in own:
            success = at(curve(own[method]), steps)
            style = {'color': colour, 'lw': 1.8, 'ls': LOOKS[method], 'label': METHODS[method], 'drawstyle': 'steps-post'}
            lines += panel.plot(steps, success.mean(axis=0), **style)
            ends = [intervals.score_interval('success', column) for column in success.T]
            band = tuple(end.low for end in ends), tuple(end.high for end in ends)
            bands[band] = '0.5' if band in bands else colour
    for (low, high), colour in bands.items():
        panel.fill_between(steps, low, high, color=colour, alpha=0.1, lw=0, step='post')
    drawing.finish(panel, 'environment steps', tables.LABELS['success'])
    panel.set_title(task, fontsize=8.5)
    figure.legend(handles=lines, frameon=False, fontsize=7.5, loc='outside lower center', ncols=4)
    return figure
