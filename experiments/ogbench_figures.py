"""What results of `ogbench_curves.py` come to beside published curves: seeds of one setting together, a table, figures.

A label that ends in `seed-N` marks more seeds of the same; `ogbench_released-*.json` are curves of the released code on our files
and at our sizes. Intervals are over seeds.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ooorl.reporting import figures as drawing
from ooorl.reporting import intervals, tables, writers

RELEASED, COLUMNS = 'ogbench_released-', 3
HEAD = ('task', 'method', 'setting', 'updates', 'success by seed', 'mean [95 %]', 'published', 'within two deviations')


class Curve(NamedTuple):
    """Success of one method on one task in one setting: `{updates: one number a seed}`."""

    environment: str
    method: str
    setting: str
    success: dict[int, list[float]]


def setting_of(size: str, label: str) -> str:
    """What a curve is called; seeds of one setting have the same."""
    return ', '.join(filter(None, (f'ours, {size}', re.sub(r'-?seed-\d+$', '', label))))


def pooled(curves: Iterable[Curve]) -> list[Curve]:
    """Curves of the same task, method and setting as one, with the seeds of all."""
    found = {}
    for curve in curves:
        own = found.setdefault(curve[:3], {})
        for updates, success in curve.success.items():
            own.setdefault(updates, []).extend(success)
    return [Curve(*key, dict(sorted(success.items()))) for key, success in found.items()]


def released(folder: Path, named) -> list[Curve]:
    """Curves of the released code; `named(cell)` gives a cell's environment and method."""
    found = []
    for path in sorted(folder.glob(f'{RELEASED}*.json')):
        result = json.loads(path.read_text(encoding='utf-8'))
        for rows, curve in result['curves'].items():
            success = [np.ravel(own).tolist() for own in curve['success']]  # a number, or one a seed
            setting = f'released code, {rows}'
            found.append(Curve(*named(result['cell']), setting, dict(zip(curve['updates'], success, strict=True))))
    return found


def table(curves: Iterable[Curve], known: Mapping) -> str:
    """One line for every curve at every published number of updates."""
    rows = []
    for curve in curves:
        for updates, success in curve.success.items():
            there = known.get((curve.environment, curve.method, updates))
            if there is not None:
                rows.append(_row(curve, updates, success, *there))
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in [HEAD, ['---'] * len(HEAD), *rows])


def _row(curve, updates, success, mean, deviation):
    own = float(np.mean(success))
    within = abs(own - mean) <= 2.0 * deviation
    return [
        task_of(curve.environment), curve.method, curve.setting, f'{updates:,}', ' '.join(f'{value:.2f}' for value in success),
        _shown(success), f'{mean:.2f} ± {deviation:.2f}', 'yes' if within else f'no, by {own - mean:+.2f}',
    ]  # fmt: skip


def _shown(success):
    found = intervals.score_interval('success', success)
    ends = f' [{found.low:.2f}, {found.high:.2f}]' if np.isfinite(found.low) else ''
    return f'{found.point:.2f}{ends}'


def task_of(environment: str) -> str:
    """'scene 1' of 'scene-play-singletask-task1-v0'."""
    family, task = re.fullmatch(r'(.*)-play-singletask-task(\d)-v0', environment).groups()
    return f'{family} {task}'


def figures(curves: Iterable[Curve], known: Mapping, out: Path) -> list[Path]:
    """Draws `ogbench_curves-<task>.svg` for every task that has two methods, and says where."""
    by_task = {}
    for curve in curves:
        by_task.setdefault(curve.environment, {}).setdefault(curve.method, []).append(curve)
    paths = []
    for environment, methods in by_task.items():
        if len(methods) > 1:
            paths.append(out / f'ogbench_curves-{task_of(environment).replace(" ", "-")}.svg')
            with writers.atomically(paths[-1]) as file:
                file.write(drawing.svg(drawn(environment, methods, known)))
    return paths


def drawn(environment: str, methods: Mapping[str, list[Curve]], known: Mapping):
    """A panel for each method: its settings as lines through the means, seeds as dots, published means with two deviations."""
    rows = -(-len(methods) // COLUMNS)
    figure, panel = drawing.figure()
    panel.remove()
    figure.set_size_inches(7.2, 0.8 + 1.7 * rows)
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    settings = list(dict.fromkeys(curve.setting for own in methods.values() for curve in own))
    lines = {}
    for number, (panel, (method, own)) in enumerate(zip(panels, methods.items(), strict=False)):
        for curve in own:
            lines[curve.setting] = _line(panel, curve, settings.index(curve.setting))
        points = {key[2]: value for key, value in known.items() if key[:2] == (environment, method)}
        points = {updates: value for updates, value in points.items() if updates <= max(max(curve.success) for curve in own)}
        means, deviations = np.reshape(list(points.values()), (-1, 2)).T
        looks = {'fmt': 'k_', 'ms': 9, 'lw': 1.0, 'capsize': 3}
        lines['published, two deviations'] = panel.errorbar(list(points), means, 2.0 * deviations, **looks)
        drawing.finish(panel, 'updates', '' if number % COLUMNS else tables.LABELS['success'])
        panel.tick_params(labelbottom=True)
        panel.set_title(method, fontsize=8.5)
        panel.set_ylim(-0.05, 1.05)
    panels[0].set_xlim(left=0)
    for panel in panels[len(methods) :]:
        panel.set_axis_off()
    figure.legend(lines.values(), lines.keys(), frameon=False, fontsize=7.5, loc='outside lower center', ncols=2)
    return figure


def _line(panel, curve, number):
    looks = {'color': drawing.COLOURS[number % len(drawing.COLOURS)], 'marker': drawing.MARKERS[number % len(drawing.MARKERS)]}
    for updates, success in curve.success.items():
        panel.plot([updates] * len(success), success, ls='', ms=3, alpha=0.45, **looks)
    means = [float(np.mean(success)) for success in curve.success.values()]
    return panel.plot(list(curve.success), means, ls=drawing.STYLES[number % 4], lw=1.6, ms=4.5, **looks)[0]
