"""The README's picture of the demo: where the data are, what explorers saw with and without the bonus, who reaches the goal.

    ooorl demo --out runs/demo && python experiments/demo_picture.py runs/demo
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ooorl.reporting.intervals import score_interval
from ooorl.reporting.maps import draw

PICTURE = Path(__file__).resolve().parent / 'results' / 'demo.png'
MAPS = {
    'offline': 'the data: no reward, no goal',
    'online_plain': 'seen without bonus, light: first',
    'online': 'seen with bonus, light: first',
}
ARMS = {
    'pretrain': 'pretrained', 'plain-explore': 'explorer, no bonus', 'plain-retrain@40000': 'its retraining',
    'retrain@0': 'data alone', 'explore': 'explorer, bonus', 'retrain@40000': 'OOO: retrained',
}  # fmt: skip


def main():
    """Draws the run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('run', type=Path, help='directory of a finished demo')
    run = parser.parse_args().run
    with np.load(run / 'states.npz') as file:
        states = dict(file)
    phases = {phase['name']: phase for phase in json.loads((run / 'summary.json').read_text())['phases']}
    drawn = Figure(figsize=(9.6, 2.7), layout='constrained', facecolor='white')
    panels = drawn.subplots(1, 4, width_ratios=(1, 1, 1, 1.15))
    for panel, (name, title) in zip(panels, MAPS.items(), strict=False):
        draw(panel, name, states)
        panel.set(aspect='equal', xticks=[], yticks=[])
        panel.set_title(title, fontsize=9)
    _bars(panels[-1], [phases[name]['scores']['success'] for name in ARMS])
    PICTURE.parent.mkdir(exist_ok=True)
    drawn.savefig(PICTURE, dpi=120)
    print(PICTURE.name)


def _bars(panel, scores):
    means = [np.mean(values) for values in scores]
    bounds = [score_interval('success', values) for values in scores]
    errors = np.abs(np.asarray([(one.low, one.high) for one in bounds]).T - means)
    rows = np.arange(len(scores))[::-1]
    panel.barh(rows, means, color=['#7F7F7F'] * (len(scores) - 1) + ['#0072B2'], height=0.6)
    panel.errorbar(means, rows, xerr=errors, fmt='none', ecolor='black', lw=1, capsize=2)
    panel.set_yticks(rows, ARMS.values(), fontsize=8)
    panel.set(xlim=(0, 1), xticks=(0, 0.5, 1))
    panel.tick_params(axis='x', labelsize=8)
    panel.spines[['top', 'right']].set_visible(False)
    panel.set_title(f'success, {len(scores[0])} seeds, 95 %', fontsize=9)


if __name__ == '__main__':
    main()
