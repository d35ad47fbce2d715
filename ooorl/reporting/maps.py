"""Where the data are: a panel for the offline states and one for each set of online states, to one scale."""

import numpy as np

from ooorl.reporting.figures import Panel, figure, finish

MAX_POINTS = 15_000


def state_maps(states):
    """The panels of a map of states; none without states.

    Args:
      states: arrays by name: `offline` and `online` `[n, 2]`, any further `online_<arm>` `[n, 2]`; optional `walls` `[k, 2, 2]`
        line segments, `goal` `[2]` or `[g, 2]`, `goal_radius`, `xlabel`, `ylabel`. Online rows are taken to be in the order they
        were visited.
    """
    names = [name for name in states if name in ('offline', 'online') or name.startswith('online_')]
    names = sorted((name for name in names if len(states[name])), key=lambda name: (name != 'offline', name))
    if not names:
        return []
    points = [np.asarray(states[name], float) for name in names]
    extra = [np.asarray(states[name], float).reshape(-1, 2) for name in ('walls', 'goal') if name in states]
    everything = np.concatenate([*points, *extra])
    low, high = np.nanmin(everything, axis=0), np.nanmax(everything, axis=0)
    low, high = low - 0.04 * (high - low + 1e-9), high + 0.04 * (high - low + 1e-9)
    return [_panel(name, own, states, low, high) for name, own in zip(names, points, strict=True)]


def _panel(name, points, states, low, high):
    is_square = _is_space(high - low, states)
    drawn, panel = figure(3.0 if is_square else 2.4)
    scattered = draw(panel, name, states)
    panel.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect='equal' if is_square else 'auto')
    finish(panel, str(states.get('xlabel', 'x')), str(states.get('ylabel', 'y')), grid=False)
    text = 'the data set' if name == 'offline' else name.removeprefix('online_').replace('_', ' ')
    alt = f'Map of {len(points):,} states of {text}'
    if scattered is not None:
        bar = drawn.colorbar(scattered, ax=panel, shrink=0.6, aspect=22, pad=0.02, ticks=[0, 1])
        bar.ax.set_yticklabels(['first', 'last'], fontsize=8)
        bar.outline.set_visible(False)
        bar.solids.set_alpha(1)
        alt += ', the first ones light and the last ones dark'
    return Panel(f'{text} ({len(points):,} states)', f'{alt}.', drawn)


def draw(panel, name, states):
    """Draws one set of `states` (see `state_maps`) with walls and goal into a `panel`; returns what was scattered, or None."""
    scattered = _scatter(panel, name, np.asarray(states[name], float))
    _scenery(panel, states)
    return scattered


def _is_space(extent, states):
    """Whether both axes are lengths: something with walls or a goal, or of one size."""
    return 'walls' in states or 'goal' in states or 0.4 < extent[1] / max(extent[0], 1e-9) < 2.5


def _scatter(panel, name, points):
    order = np.arange(len(points))
    if len(points) > MAX_POINTS:
        order = np.sort(np.random.default_rng(0).choice(len(points), MAX_POINTS, replace=False))
    # Thousands of points are drawn as one picture inside the figure: as shapes they would be megabytes.
    looks = {'s': float(np.clip(9000 / max(len(order), 1), 0.8, 9)), 'lw': 0, 'rasterized': True}
    if name == 'offline':
        panel.scatter(*points[order].T, color='#555555', alpha=0.5, **looks)
        return None
    late = order / max(len(points) - 1, 1)
    return panel.scatter(*points[order].T, c=late, cmap='viridis_r', vmin=0, vmax=1, alpha=0.75, **looks)


def _scenery(panel, states):
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle

    if 'walls' in states:
        panel.add_collection(LineCollection(np.asarray(states['walls'], float), colors='black', lw=1.4))
    for goal in np.asarray(states.get('goal', np.empty((0, 2))), float).reshape(-1, 2):
        panel.plot(*goal, '*', color='#D55E00', ms=11, mec='white', mew=0.8, zorder=5)
        if 'goal_radius' in states:
            radius = float(states['goal_radius'])
            panel.add_patch(Circle(goal, radius, fill=False, ec='#D55E00', lw=1.3, zorder=4))
