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

RESULTS = Path(__file__).resolve().parent / 'results' / 'irreversibility.json'


def success_against_interventions(results: dict, path: Path) -> None:
    """One panel a task: every method's mean success over what it cost in resets, all evaluations joined by a line."""
    places = sorted({found['task'] for found in results.values()})
    figure, panels = plt.subplots(1, len(places), figsize=(4.2 * len(places), 3.4), squeeze=False)
    for place, panel in zip(places, panels[0], strict=True):
        for found in results.values():
            if found['task'] == place and 'curve' in found:
                resets, success = (np.mean(found['curve'][name], axis=1) for name in ('interventions', 'success'))
                panel.plot(np.maximum(resets, 1), success, marker='.', lw=1, label=found['method'])
        panel.set(title=place, xscale='log', xlabel='interventions', ylabel='deployed success', ylim=(-0.03, 1.03))
        panel.legend(fontsize=6, ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


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


if __name__ == '__main__':
    found = json.loads(RESULTS.read_text(encoding='utf-8'))
    folder = Path(sys.argv[1])
    success_against_interventions(found, folder / 'irreversibility-success.png')
    risk_beside_truth(found, folder / 'irreversibility-risk.png')
