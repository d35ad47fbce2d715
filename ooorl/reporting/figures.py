"""The report's figures: learning curves, what training logged, how far values are off. One panel a training.

Every function returns panels: small `matplotlib.figure.Figure`s of one width, which a page puts side by side or below each other,
with a title and a description in words. Titles stand outside of the drawing, so that they can be read, searched and wrapped.
matplotlib's global state is left alone. Rows are those of `metrics.jsonl`, summaries those of `summary.json` (see
`ooorl.reporting.report`). Names from outside pass through `plain`: no name is read as a formula.
"""

import io
from typing import Any, NamedTuple

import numpy as np

from ooorl.reporting import arms, series, tables
from ooorl.reporting.intervals import RANGES, score_interval

AXES = {'updates': 'gradient updates', 'env_steps': 'environment steps'}
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#7F7F7F', '#000000')
STYLES = ('-', '--', '-.', ':')
MARKERS = 'osD^vPX*'
_NOT_METRICS = ('kind', 'phase', 'seed', 'updates', 'env_steps')
_MAX_PANELS = 24
WIDTH = 3.6  # inches
HUGE = 1e100  # beyond it an axis overflows


class Panel(NamedTuple):
    """A figure, or the text of its SVG file, with its title and what is seen in it, for those who do not see it."""

    title: str
    alt: str
    figure: Any


def curves(summary, rows, metric):
    """The evaluation score of each training against its updates: mean, interval and every seed, all to one scale."""
    found = [(own, series.training_curves(summary, own, rows, metric)) for own in series.trainings(summary)]
    found = [(own, lines) for own, lines in found if lines]
    limits = _limits(metric, [values for _, lines in found for _, values in lines.values()])
    return [_training(summary, own, lines, metric, limits) for own, lines in found]


def _training(summary, training, lines, metric, limits):
    names = arms.arms(summary)
    drawn, panel = figure()
    for name, (x, values) in lines.items():
        _band(panel, x, values, metric, _colour(training, name))
    _mark_phases(panel, training)
    finish(panel, AXES['updates'], tables.LABELS.get(metric, metric))
    _scale(panel, metric, limits)
    labels = [names[phase['name']].label for phase in training if phase['name'] in lines]
    last = tables.cell(metric, list(lines.values())[-1][1][:, -1].tolist())
    alt = f'{tables.LABELS.get(metric, metric)} of {labels[-1]} against gradient updates; at the end {last}.'
    return Panel(', then '.join(labels), alt, drawn)


def against_steps(summary, rows, metric):
    """What environment steps bought: online phases as lines, training without steps as a point behind what it was given."""
    found = series.phase_curves(summary, rows, metric, 'env_steps')
    online = {phase['name'] for phase in summary['phases'] if phase.get('num_env_steps')}
    if not online & found.keys():
        return []
    names, shown = arms.arms(summary), []
    for phase in summary['phases']:
        if phase['name'] in found:
            x, values = found[phase['name']]
            shown.append((names[phase['name']].label, *((x, values) if phase['name'] in online else (x[-1:], values[:, -1:]))))
    return [overlay('all arms', shown, metric, 'env_steps')]


def comparison(summaries, rows, metric, labels):
    """The runs' mean scores against environment steps (updates where no run has any), one colour and marker a run."""
    has_steps = any(phase.get('num_env_steps') for s in summaries for phase in s['phases'])
    axis, shown = 'env_steps' if has_steps else 'updates', []
    for summary, own, label in zip(summaries, rows, labels, strict=True):
        found = series.phase_curves(summary, own, metric, axis)
        online = [phase['name'] for phase in summary['phases'] if phase.get('num_env_steps')]
        lines = [found[name] for name in online if name in found] if has_steps else list(found.values())
        for x, values in list(found.values())[-1:] if has_steps else ():  # trained afterwards: a point
            lines.append((x[-1:], values[:, -1:]))
        shown += [(label, x, values) for x, values in lines]
    return [overlay('all runs', shown, metric, axis)] if shown else []


def overlay(title, shown, metric, axis):
    """Mean lines and points of several things over each other, told apart by colour, dashes and marker."""
    labels = list(dict.fromkeys(label for label, *_ in shown))
    drawn, panel = figure(2.5 + 0.17 * -(-len(labels) // 2))
    named = {}
    for label, x, values in shown:
        index = labels.index(label)
        looks = {'color': COLOURS[index % len(COLOURS)], 'marker': MARKERS[index % len(MARKERS)]}
        style = STYLES[index // 2 % len(STYLES)] if len(x) > 1 else ''
        drawn_line = panel.plot(x, values.mean(0), ls=style, lw=1.6, ms=6.5, mec='white', mew=0.6, **looks)[0]
        named.setdefault(label, drawn_line)
    finish(panel, AXES[axis], tables.LABELS.get(metric, metric))
    _scale(panel, metric, _limits(metric, [values for *_, values in shown]))
    texts = [f' {plain(label)}' for label in named]  # the blank keeps names that begin with an underscore
    drawn.legend(named.values(), texts, frameon=False, fontsize=7.5, loc='outside lower center', ncols=2)
    ends = {label: tables.cell(metric, values[:, -1].tolist()) for label, _, values in shown}
    text = '; '.join(f'{label} {end}' for label, end in ends.items())
    return Panel(title, f'Mean {tables.LABELS.get(metric, metric)} against {AXES[axis]}; at the end {text}.', drawn)


def logged(summary, rows, training):
    """What a training logged, a panel a metric: each seed thin, their mean thick.

    Returns:
      `(panels, left_out)`: the names of the metrics beyond the first 24.
    """
    own = {phase['name'] for phase in training}
    kept = [row for row in rows if row.get('kind') == 'train' and row.get('phase') in own]
    names = sorted({name for row in kept for name, value in row.items() if _is_number(value)} - {*_NOT_METRICS})
    names = [name for name in names if series.training_curves(summary, training, kept, name, 'train')]
    # One figure, drawn anew for each metric: to make its axes and ticks takes longer than all lines in it.
    drawn, panel = figure(1.7, margins=(0.55, 0.42, 0.1, 0.1))
    finish(panel, AXES['updates'], '')
    return [_logged(summary, training, kept, name, drawn, panel) for name in names[:_MAX_PANELS]], names[_MAX_PANELS:]


def _colour(training, name):
    return COLOURS[[phase['name'] for phase in training].index(name) % len(COLOURS)]


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _logged(summary, training, rows, name, drawn, panel):
    _wipe(panel)
    num_bad, last = 0, np.nan
    for phase, (x, values) in series.training_curves(summary, training, rows, name, 'train').items():
        is_good = np.abs(values) < HUGE  # False for what is not finite
        num_bad += int((~is_good).sum())
        values = np.where(is_good, values, np.nan)
        every = max(1, len(x) // 400)
        x, values, last = x[::every], values[:, ::every], values[:, -1].mean()
        looks = {'color': _colour(training, phase), 'marker': '.' if len(x) == 1 else None}
        panel.plot(x, values.T, alpha=0.35, lw=0.6, **looks)
        panel.plot(x, values.mean(0), lw=1.4, **looks)
        if (values > 0).any() and np.nanmax(values) > 1e4 * np.nanmedian(np.abs(values)):
            panel.set_yscale('symlog')
    _mark_phases(panel, training, names=False)
    bad = f' ({num_bad} missing or not finite)' if num_bad else ''
    return Panel(f'{name}{bad}', f'{name} against gradient updates, mean over seeds {last:.3g} at the end{bad}.', svg(drawn))


def _wipe(panel):
    for line in list(panel.lines):
        line.remove()
    if panel.get_yscale() != 'linear':
        panel.set_yscale('linear')
    panel.relim()
    panel.autoscale()


def value_errors(summary, rows):
    """Q minus the Monte-Carlo return of each training against its updates; none where nothing online was measured."""
    sources = {'dataset': '--', 'online': '-'}
    if not series.phase_curves(summary, rows, 'q_minus_return/online', 'updates', 'diagnostics'):
        return []
    panels = []
    for training in series.trainings(summary):
        names = {source: f'q_minus_return/{source}' for source in sources}
        found = {s: series.training_curves(summary, training, rows, name, 'diagnostics') for s, name in names.items()}
        if any(found.values()):
            panels.append(_value_error(summary, training, found, sources))
    return panels


def _value_error(summary, training, found, sources):
    drawn, panel = figure(1.9)
    ends = []
    for source, style in sources.items():
        for phase, (x, values) in found[source].items():
            looks = {'color': _colour(training, phase), 'ls': style, 'marker': '.' if len(x) == 1 else None}
            panel.plot(x, values.T, alpha=0.3, lw=0.6, **looks)
            panel.plot(x, values.mean(0), lw=1.5, **looks)
        if found[source]:
            ends.append(f'{list(found[source].values())[-1][1][:, -1].mean():.3g} on {source} rows')
    panel.axhline(0, color='#888888', lw=0.8)
    _mark_phases(panel, training)
    finish(panel, AXES['updates'], 'Q - return')
    names = arms.arms(summary)
    labels = [names[phase['name']].label for phase in training]
    return Panel(', then '.join(labels), f'Q minus return of {labels[-1]}, at the end {" and ".join(ends)}.', drawn)


def svg(drawn):
    """The figure as the text of an SVG file, the same for the same figure; letters stay letters. Such a text is left as it is."""
    if isinstance(drawn, str):
        return drawn
    import logging

    import matplotlib

    buffer, log = io.BytesIO(), logging.getLogger('matplotlib')
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        # Fonts of the reader's machine draw the letters: glyphs that matplotlib lacks are no loss.
        with matplotlib.rc_context({'svg.hashsalt': 'ooorl', 'svg.fonttype': 'none'}), _no_warnings():
            drawn.savefig(buffer, format='svg', dpi=150, metadata={'Date': None, 'Creator': None})
    finally:
        log.setLevel(level)
    return buffer.getvalue().decode()


def _no_warnings():
    import warnings

    return warnings.catch_warnings(action='ignore')


def plain(text):
    """A name as text to draw: no formulas (`$`), no line breaks, nothing that cannot stand in a file."""
    text = ''.join(letter if letter.isprintable() else ' ' for letter in str(text))
    return text.replace('$', r'\$')


def figure(height=2.2, margins=None):
    """`(figure, panel)` of the width that all panels share, in inches.

    `margins` (left, bottom, right, top) spare the search for the best ones, which is most of the time of a small drawing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(WIDTH, height), layout=None if margins else 'constrained', facecolor='white')
    FigureCanvasAgg(drawn)
    if margins:
        left, bottom, right, top = margins
        drawn.subplots_adjust(left / WIDTH, bottom / height, 1 - right / WIDTH, 1 - top / height)
    return drawn, drawn.subplots()


def finish(panel, xlabel, ylabel, grid=True):
    """Labels, sizes and lines that all panels share."""
    panel.set_xlabel(plain(xlabel), fontsize=8.5)
    panel.set_ylabel(plain(ylabel), fontsize=8.5)
    panel.tick_params(labelsize=8)
    panel.spines[['top', 'right']].set_visible(False)
    if grid:
        panel.grid(axis='y', color='#e5e5e5', lw=0.7)
        panel.set_axisbelow(True)
        panel.xaxis.set_major_formatter(lambda value, _: _short(value))


def _band(panel, x, values, metric, colour):
    """Seeds as thin lines, their mean as a thick one, the interval as a band (none where there is no interval)."""
    if len(x) == 1:
        panel.plot(np.repeat(x, len(values)), values[:, 0], '.', color=colour, alpha=0.45, ms=5)
        panel.plot(x, values.mean(0), 'D', color=colour, ms=6, mec='white')
        return
    panel.plot(x, values.T, color=colour, alpha=0.35, lw=0.7)
    panel.plot(x, values.mean(0), color=colour, lw=1.9)
    ends = [score_interval(metric, column) for column in values.T]
    panel.fill_between(x, [end.low for end in ends], [end.high for end in ends], color=colour, alpha=0.18, lw=0)


def _mark_phases(panel, training, names=True):
    """A dotted line at each switch of phase, and the phases' names where there are several."""
    start, lengths = 0, [phase.get('num_updates') or 0 for phase in training]
    for phase, length in zip(training, lengths, strict=True):
        if start:
            panel.axvline(start, color='#888888', lw=0.8, ls=':')
        if names and length and len(training) > 1:
            text = plain(_cut(phase['name'], int(50 * length / sum(lengths))))
            panel.annotate(
                text, (start / sum(lengths), 1.0), xytext=(2, 3), xycoords='axes fraction', textcoords='offset points',
                fontsize=7.5, color=_colour(training, phase['name']),
            )
        start += length
    if sum(lengths):
        panel.set_xlim(0, sum(lengths) * 1.02)


def _cut(name, most):
    return name if len(name) <= max(most, 3) else f'{name[: max(most, 3) - 1]}…'


def _limits(metric, values):
    if metric in RANGES:
        low, high = RANGES[metric]
    else:
        known = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.empty(0)
        low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    margin = 0.03 * ((high - low) or max(1.0, abs(high) / 1000))
    return low - margin, high + margin


def _scale(panel, metric, limits):
    panel.set_ylim(*limits)
    if metric == 'success':
        panel.yaxis.set_major_formatter(lambda value, _: f'{value:.0%}')


def _short(value):
    for size, letter in ((1e6, 'M'), (1e3, 'k')):
        if abs(value) >= size:
            return f'{value / size:g}{letter}'
    return f'{value:g}'
