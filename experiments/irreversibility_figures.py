"""Figures of `irreversibility.py`: success against interventions, and the learnt risk beside the truth.

    python experiments/irreversibility_figures.py FOLDER
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np

from ooorl.reporting.intervals import score_interval

RESULTS = Path(__file__).resolve().parent / 'results' / 'irreversibility.json'


# A method keeps its colour in all panels; planned and fixed budgets are two families, the larger the budget the darker.
COLOURS = {
    'episodic': 'black', 'episodic_sac': 'gray', 'naive': 'tab:olive', 'oracle': 'tab:brown', 'paint': 'tab:red',
    'paint_without_floor': 'tab:pink', 'medal': 'tab:purple', 'rae': 'tab:cyan', 'neighbour': 'tab:green',
    'recovery': 'gold', 'paint_medal': 'magenta', 'priced': 'teal', 'value': 'lime', 'drop': 'navy', 'reach': 'salmon',
    'leave_no_trace': 'turquoise',
}  # fmt: skip
FAMILIES = {'fixed': 'Oranges', 'plan': 'Blues'}
BUDGETS = (1, 2, 5, 10, 20)


def colour(method: str):
    """The colour of a method in every panel.

    Raises:
      KeyError: of a method that has none yet.
    """
    family, _, budget = method.partition('@')
    if family in FAMILIES:
        return plt.get_cmap(FAMILIES[family])(0.35 + 0.6 * BUDGETS.index(int(budget)) / (len(BUDGETS) - 1))
    return COLOURS[method]


def _order(method):
    family, _, budget = method.partition('@')
    return family in FAMILIES, family, int(budget or 0)


def success_against_interventions(series: dict, path: Path) -> None:
    """One row of panels a series, one panel a task: every method's mean success over what it cost in resets, all evaluations
    joined by a line, the last with its 95 % interval."""
    figure, rows = plt.subplots(len(series), 3, figsize=(13, 3.9 * len(series) + 0.8), squeeze=False, sharey=True)
    lines = {}
    for (title, results), panels in zip(series.items(), rows, strict=True):
        shown = sorted((one for one in results.values() if 'curve' in one), key=lambda one: _order(one['method']))
        for place, panel in zip(('cliffs', 'maze', 'tabletop'), panels, strict=True):
            for found in (one for one in shown if one['task'] == place):
                lines[found['method']] = _line(panel, found)
            panel.set(title=f'{place}, {title}', xscale='log', xlabel='interventions', xlim=(0.8, 500), ylim=(-0.03, 1.03))
        panels[0].set_ylabel('deployed success')
    names = sorted(lines, key=_order)
    texts = [name.replace('_', ' ').replace('@', ', budget ') for name in names]
    figure.legend([lines[name] for name in names], texts, loc='lower center', ncols=8, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _line(panel, found):
    resets, success = (np.mean(found['curve'][name], axis=1) for name in ('interventions', 'success'))
    look = {'marker': '.', 'lw': 1.4, 'color': colour(found['method'])}
    last = score_interval('success', np.asarray(found['curve']['success'][-1]))
    ends = [[last.point - last.low], [last.high - last.point]]
    panel.errorbar(max(resets[-1], 1), last.point, yerr=ends, color=look['color'], lw=1, capsize=2)
    return panel.plot(np.maximum(resets, 1), success, **look)[0]


def risk_beside_truth(results: dict, path: Path) -> None:
    """The first seed's classifier over two columns of the observation, and what is irreversible there."""
    shown = {cell: found['risk'] for cell, found in results.items() if 'risk' in found}
    figure, panels = plt.subplots(2, max(len(shown), 1), figsize=(2.6 * max(len(shown), 1), 5), squeeze=False)
    for number, (cell, risk) in enumerate(shown.items()):
        ends = (risk['ticks'][0], risk['ticks'][-1]) * 2
        for panel, name in zip(panels[:, number], ('score', 'truth'), strict=True):
            panel.imshow(np.array(risk[name]).T, origin='lower', extent=ends, vmin=0, vmax=1, cmap='viridis')
            panel.set_title(f'{cell}: {name}', fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def reliability(results: dict, path: Path) -> None:
    """One panel a task: of the rows that a detector scores alike, how many are irreversible; all seeds together."""
    figure, panels = plt.subplots(1, len(results), figsize=(4.2 * len(results), 4.4), squeeze=False, sharey=True)
    for panel, (place, detectors) in zip(panels[0], results.items(), strict=True):
        panel.plot([0, 1], [0, 1], color='lightgray', lw=1)
        for name, found in detectors.items():
            curve = found['reliability']
            panel.plot(curve['predicted'], curve['observed'], marker='.', lw=1.4, label=name)
        panel.set(title=place, xlabel='mean score', xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    panels[0, 0].set_ylabel('share that is irreversible')
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc='lower center', ncols=5, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    found = json.loads(RESULTS.read_text(encoding='utf-8'))
    folder = Path(sys.argv[1])
    first = json.loads(RESULTS.with_name('irreversibility_first.json').read_text(encoding='utf-8'))
    series = {'imitating all rows': first, 'imitating demonstrations': found}
    success_against_interventions(series, folder / 'irreversibility-success.png')
    risk_beside_truth(found, folder / 'irreversibility-risk.png')
    told = json.loads(RESULTS.with_name('irreversibility_detectors.json').read_text(encoding='utf-8'))
    reliability(told, folder / 'irreversibility-reliability.png')
