"""Rows of `metrics.jsonl` as curves: by phase, and by training.

Counts of updates and environment steps in rows may run through the whole run or begin again with each phase; a phase whose counts
stay within its own length and begin no later than where it started is taken to have begun again.
"""

import numpy as np

COUNTS = {'updates': 'num_updates', 'env_steps': 'num_env_steps'}


def phase_curves(summary, rows, metric, axis, kind='eval'):
    """Values of one metric by phase: `{phase: (x[K], values[S, K])}`, NaN where a seed has none."""
    seeds = {seed: index for index, seed in enumerate(summary['seeds'])}
    found = {}
    for row in rows:
        if row.get('kind') == kind and row.get('seed') in seeds and row.get(metric) is not None:
            place = found.setdefault(row['phase'], {})
            place[row.get(axis) or 0, seeds[row['seed']]] = float(row[metric])
    curves, start = {}, 0
    for phase in summary['phases']:
        length = phase.get(COUNTS[axis]) or 0
        if phase['name'] in found:
            points = found[phase['name']]
            x = np.array(sorted({at for at, _ in points}))
            values = np.full((len(seeds), len(x)), np.nan)
            for (at, seed), value in points.items():
                values[seed, np.searchsorted(x, at)] = value
            restarted = axis == 'updates' and x[-1] <= length and x[0] <= start  # steps are counted in each store from 0
            curves[phase['name']] = (x + start if restarted else x, values)
        start += length
    return curves


def trainings(summary):
    """The phases that train one agent without a break, in order: `[[phase, ...], ...]`, each begun anew."""
    found = []
    for phase in summary['phases']:
        continued = next((own for own in found if own[-1]['name'] == phase.get('start')), None)
        if continued is None:
            found.append([phase])
        else:
            continued.append(phase)
    return found


def training_curves(summary, training, rows, metric, kind='eval'):
    """`phase_curves` of one training against its own updates, which begin at 0."""
    curves, start, own = phase_curves(summary, rows, metric, 'updates', kind), 0, {}
    starts = {}
    for phase in summary['phases']:
        starts[phase['name']] = start
        start += phase.get('num_updates') or 0
    start = 0
    for phase in training:
        if phase['name'] in curves:
            x, values = curves[phase['name']]
            own[phase['name']] = (x - starts[phase['name']] + start, values)
        start += phase.get('num_updates') or 0
    return own
