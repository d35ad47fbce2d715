"""What asking for help cost, and how far the detector that asked can be believed: two sections of a report."""

import numpy as np

from ooorl.reporting import page
from ooorl.reporting.figures import COLOURS, Panel, figure, finish
from ooorl.reporting.remedies import settings_of

SHOWN = {
    'help': 'resets asked for', 'horizon': 'not asked for', 'false_alarms': 'false alarms', 'label_queries': 'label queries',
    'most_over_bound': 'most over the bound', 'contradictions': 'contradictions', 'unlabelled_lives': 'lives unlabelled',
    'lost_lives': 'lives lost', 'irreversible_steps': 'irreversible steps',
}  # fmt: skip
COSTS = (
    "Running totals, mean over seeds. False alarms were asked for where everything could have been taken back; a life of T steps "
    "may take 1 + ceil(log2 T) label queries; answers that contradict one another label nothing."
)
DETECTOR = (
    "Over the rows of the last round's batches whose label is known, the demonstrations' among them. Reliability: share of "
    "irreversible rows among those of a score; on the dashed line scores are probabilities. Thin lines are seeds."
)


def _last(rows, kind, phase):
    """The last row of each seed."""
    found = {row['seed']: row for row in rows if row.get('kind') == kind and row['phase'] == phase}
    return list(found.values())


def costs(summary, rows):
    """The table of what each phase had cost at its end; '' where nobody counted."""
    found = [(phase['name'], _last(rows, 'counts', phase['name'])) for phase in summary['phases']]
    names = [name for name in SHOWN if any(name in row for _, own in found for row in own)]
    lines = [[name, *(f'{np.mean([row[key] for row in own]):,.1f}' for key in names)] for name, own in found if own]
    if not lines:
        return ''
    return page.table(['phase', *map(SHOWN.get, names)], lines, 'What help cost') + f'<p class=small>{COSTS}</p>'


def judged(good, bad, threshold):
    """(AUROC, mean calibration error, share of reversible rows above the threshold, share of irreversible ones).

    Args:
      good, bad: shares `[bins]` of reversible and irreversible rows by bin of the score; rows of a bin tie.
      threshold: rounded to the nearest end of a bin.
    """
    bins, rows = len(good), good + bad
    first = round(threshold * bins)
    with np.errstate(invalid='ignore', divide='ignore'):
        above = np.cumsum(bad[::-1])[::-1]
        area = (good * (above - bad / 2)).sum() / (good.sum() * bad.sum())
        error = np.nansum(np.abs(bad - rows * (np.arange(bins) + 0.5) / bins)) / rows.sum()
        return area, error, good[first:].sum() / good.sum(), bad[first:].sum() / bad.sum()


def detector(summary, rows):
    """`(table, panels)` of the last phase whose detector saw labels; both empty where there is none."""
    for phase in reversed(summary['phases']):
        last = _last(rows, 'train', phase['name'])
        for prefix in ('detector', 'cautious'):
            if last and all(f'{prefix}/reversible_in_0' in row for row in last):
                return _detector(phase['name'], last, prefix, _threshold(summary))
    return '', []


def _threshold(summary):
    return settings_of(summary).get('lives', {}).get('threshold', 0.5)


def _detector(phase, last, prefix, threshold):
    bins = sum(name.startswith(f'{prefix}/reversible_in_') for name in last[0])
    sides = [[[row[f'{prefix}/{side}_in_{k}'] for k in range(bins)] for row in last] for side in ('reversible', 'irreversible')]
    good, bad = np.array(sides, float)
    with np.errstate(invalid='ignore'):
        found = np.array([judged(*own, threshold) for own in zip(good, bad, strict=True)])
        numbers = ['none' if np.isnan(column).all() else f'{np.nanmean(column):.2f}' for column in found.T]
    names = ['phase', 'AUROC', 'calibration error', f'false alarms above {threshold:g}', f'detected above {threshold:g}']
    text = page.table(names, [[phase, *numbers]], 'The detector, mean over seeds')
    return text, [_curve(good, bad, numbers)]


def _curve(good, bad, numbers):
    drawn, panel = figure(2.6)
    ticks, rows = (np.arange(good.shape[1]) + 0.5) / good.shape[1], good + bad
    panel.plot([0, 1], [0, 1], '--', color='#888888', lw=0.8)
    for own, all_ in zip(bad, rows, strict=True):
        seen = all_ > 0
        panel.plot(ticks[seen], own[seen] / all_[seen], '.-', color=COLOURS[0], lw=0.7, alpha=0.5)
    panel.set(xlim=(0, 1), ylim=(-0.03, 1.03))
    finish(panel, 'score', 'share irreversible')
    return Panel('Reliability', f'Reliability of the detector; its AUROC is {numbers[0]}.', drawn)
