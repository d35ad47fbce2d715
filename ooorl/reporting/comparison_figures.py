"""The figures of a comparison: a learning curve for each task, the performance profile over all of them."""

import numpy as np

from ooorl.reporting import figures, tables


def curves(comparison):
    """A panel for each task: the mean curve of every algorithm over its complete seeds."""
    panels = []
    for task in comparison.tasks:
        shown, axis = [], 'updates'
        for name in comparison.algorithms:
            own = [one for one in comparison.results if (one.algorithm, one.task, one.status) == (name, task, 'complete')]
            points = _common([one.curve.get(comparison.metric) or [] for one in own])
            if points is not None:
                shown.append((name, *points))
                axis = own[0].axis
        if shown:
            panel = figures.overlay(task, shown, comparison.metric, axis)
            panels.append(panel)
    return panels


def _common(found):
    """`(x[K], values[S, K])` at the evaluations that all seeds have, or None."""
    if not found:
        return None
    shared = sorted(set.intersection(*({x for x, _ in points} for points in found)))
    if not shared:
        return None
    tables_of = [dict(map(tuple, points)) for points in found]
    return np.array(shared), np.array([[own[x] for x in shared] for own in tables_of])


def profiles(comparison):
    """The performance profile, a line with a band for each algorithm; none where there are no shared tasks."""
    if not comparison.profiles:
        return []
    drawn, panel = figures.figure(2.6)
    for index, (name, (thresholds, fraction, low, high)) in enumerate(comparison.profiles.items()):
        looks = {'color': figures.COLOURS[index % len(figures.COLOURS)]}
        style = figures.STYLES[index // len(figures.COLOURS) % len(figures.STYLES)]
        panel.step(thresholds, fraction, where='post', lw=1.6, ls=style, label=f' {figures.plain(name)}', **looks)
        panel.fill_between(thresholds, low, high, alpha=0.15, lw=0, step='post', **looks)
    label = tables.LABELS.get(comparison.metric, comparison.metric)
    figures.finish(panel, label, 'share of runs above')
    drawn.legend(frameon=False, fontsize=7.5, loc='outside lower center', ncols=2)
    return [figures.Panel('all shared tasks', f'Share of runs whose {label} is above a threshold, by algorithm.', drawn)]
