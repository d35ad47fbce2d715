"""The report's figures: learning curves, the map of visited states, training diagnostics.

Every function returns a `matplotlib.figure.Figure` and leaves matplotlib's global state alone; save it with
`figure.savefig("name.svg")` or embed it with `png`. Rows are those of `metrics.jsonl`, summaries those of
`summary.json` (see `ooorl.reporting.report`).

Counts of updates and environment steps in rows may run through the whole run or begin again with each phase;
a phase whose counts stay within its own length and below where it started is taken to have begun again.
"""

import io

import numpy as np

from ooorl.reporting.intervals import score_interval

LABELS = {
    "normalised": "normalised score",
    "success": "success rate",
    "return": "return",
    "length": "episode length",
}
AXES = {"updates": "gradient updates", "env_steps": "environment steps"}
_COUNTS = {"updates": "num_updates", "env_steps": "num_env_steps"}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
_NOT_METRICS = ("kind", "phase", "seed", "updates", "env_steps")
_MAX_POINTS = 15_000
_MAX_PANELS = 24


def curves(summary, rows, metric):
    """Mean evaluation score of each phase with its interval and every seed, against updates and env steps."""
    by_updates = phase_curves(summary, rows, metric, "updates")
    online = {phase["name"] for phase in summary["phases"] if phase.get("num_env_steps")}
    axes = ["updates", "env_steps"] if online and by_updates else ["updates"]
    figure = _figure(7.6, 3.3 * len(axes))
    panels = figure.subplots(len(axes), 1, squeeze=False)[:, 0]
    for panel, axis in zip(panels, axes, strict=True):
        found = by_updates if axis == "updates" else phase_curves(summary, rows, metric, axis)
        for index, phase in enumerate(summary["phases"]):
            if phase["name"] not in found:
                continue
            x, values = found[phase["name"]]
            if axis == "env_steps" and phase["name"] not in online:
                # Training between two steps takes no width here: its result is a point.
                x, values = x[-1:], values[:, -1:]
            _band(panel, x, values, metric, _COLOURS[index % len(_COLOURS)], phase["name"])
        if axis == "updates":
            _mark_phases(panel, summary)
        else:
            panel.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        _finish(panel, AXES[axis], LABELS[metric])
        _limit(panel, metric)
    return figure


def comparison(summaries, rows, metric, labels):
    """The runs' mean scores against environment steps (updates where no run has any), one colour a run."""
    axis = (
        "env_steps"
        if any(phase.get("num_env_steps") for s in summaries for phase in s["phases"])
        else "updates"
    )
    figure = _figure(7.6, 3.6)
    panel = figure.subplots()
    for index, (summary, run_rows, label) in enumerate(zip(summaries, rows, labels, strict=True)):
        found = phase_curves(summary, run_rows, metric, axis)
        if axis == "env_steps":
            online = [phase["name"] for phase in summary["phases"] if phase.get("num_env_steps")]
            shown = {name: found[name] for name in online if name in found}
            for name, (x, values) in list(found.items())[-1:]:  # trained afterwards: a point
                shown.setdefault(name, (x[-1:], values[:, -1:]))
            found = shown
        for number, (x, values) in enumerate(found.values()):
            _band(panel, x, values, metric, _COLOURS[index % len(_COLOURS)], label if number == 0 else None)
    _finish(panel, AXES[axis], LABELS[metric])
    _limit(panel, metric)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=min(len(labels), 2))
    return figure


def phase_curves(summary, rows, metric, axis, kind="eval"):
    """Values of one metric by phase: `{phase: (x[K], values[S, K])}`, NaN where a seed has none."""
    seeds = {seed: index for index, seed in enumerate(summary["seeds"])}
    found = {}
    for row in rows:
        if row.get("kind") == kind and row.get("seed") in seeds and row.get(metric) is not None:
            place = found.setdefault(row["phase"], {})
            place[row.get(axis) or 0, seeds[row["seed"]]] = float(row[metric])
    curves_, start = {}, 0
    for phase in summary["phases"]:
        length = phase.get(_COUNTS[axis]) or 0
        if phase["name"] in found:
            points = found[phase["name"]]
            x = np.array(sorted({at for at, _ in points}))
            values = np.full((len(seeds), len(x)), np.nan)
            for (at, seed), value in points.items():
                values[seed, np.searchsorted(x, at)] = value
            restarted = axis == "updates" and x[-1] <= length and x[0] < start  # steps are counted in each store from 0
            curves_[phase["name"]] = (x + start if restarted else x, values)
        start += length
    return curves_


def diagnostics(summary, rows):
    """Small multiples of what training logged, against updates: each seed thin, their mean thick.

    Returns:
      `(figure, left_out)`: the names of the metrics beyond the first 24; the figure is None without rows.
    """
    names = sorted({name for row in rows if row.get("kind") == "train" for name in row} - {*_NOT_METRICS})
    names = [name for name in names if phase_curves(summary, rows, name, "updates", "train")]
    if not names:
        return None, []
    shown, left_out = names[:_MAX_PANELS], names[_MAX_PANELS:]
    num_columns = min(3, len(shown))
    num_rows = -(-len(shown) // num_columns)
    figure = _figure(max(7.6, 2.55 * num_columns), 1.75 * num_rows + 0.3)
    panels = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True)
    for panel in panels.flat[len(shown) :]:
        panel.set_visible(False)
    for index, (panel, name) in enumerate(zip(panels.flat, shown, strict=False)):
        _diagnostic(panel, summary, phase_curves(summary, rows, name, "updates", "train"), name)
        if index + num_columns >= len(shown):
            panel.tick_params(labelbottom=True)
            panel.set_xlabel(AXES["updates"], fontsize=8)
    return figure, left_out


def value_errors(summary, rows):
    """Q minus the Monte-Carlo return against updates, or None where nothing online was measured."""
    sources = {"dataset": "-", "online": "--"}
    found = {name: phase_curves(summary, rows, f"q_minus_return/{name}", "updates", "diagnostics") for name in sources}
    if not found["online"]:
        return None
    figure = _figure(7.6, 2.4)
    panel = figure.subplots()
    for name, style in sources.items():
        for index, phase in enumerate(summary["phases"]):
            x, values = found[name].get(phase["name"], ((), None))
            if len(x):
                colour, marker = _COLOURS[index % len(_COLOURS)], "." if len(x) == 1 else None
                panel.plot(x, values.T, color=colour, alpha=0.3, lw=0.6, ls=style)
                panel.plot(x, values.mean(0), color=colour, lw=1.5, ls=style, marker=marker)
    panel.axhline(0, color="#888888", lw=0.8)
    _mark_phases(panel, summary)
    _finish(panel, AXES["updates"], "Q - return")
    return figure


def state_map(states):
    """Where the data are: a panel for the offline states and one for each set of online states, to one scale.

    Args:
      states: arrays by name: `offline` and `online` `[n, 2]`, any further `online_<arm>` `[n, 2]`; optional
        `walls` `[k, 2, 2]` line segments, `goal` `[2]` or `[g, 2]`, `goal_radius`, `xlabel`, `ylabel`.
        Online rows are taken to be in the order they were visited.
    """
    names = [name for name in states if name in ("offline", "online") or name.startswith("online_")]
    names = sorted((name for name in names if len(states[name])), key=lambda name: (name != "offline", name))
    if not names:
        return None
    points = np.concatenate([np.asarray(states[name], float) for name in names])
    extra = [np.asarray(states[name], float).reshape(-1, 2) for name in ("walls", "goal") if name in states]
    everything = np.concatenate([points, *extra])
    low, high = np.nanmin(everything, axis=0), np.nanmax(everything, axis=0)
    low, high = low - 0.04 * (high - low + 1e-9), high + 0.04 * (high - low + 1e-9)
    square = _is_space(high - low, states)
    columns = min(2, len(names))
    lines = -(-len(names) // columns)
    shape = float(np.clip((high - low)[1] / (high - low)[0], 0.4, 1.4)) if square else 0.8
    figure = _figure(7.6, lines * (3.15 * shape + 0.65))
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for panel in panels.flat[len(names) :]:
        panel.set_visible(False)
    drawn = None
    for panel, name in zip(panels.flat, names, strict=False):
        drawn = _scatter(panel, name, np.asarray(states[name], float)) or drawn
        _scenery(panel, states)
        panel.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal" if square else "auto")
        _finish(panel, str(states.get("xlabel", "x")), str(states.get("ylabel", "y")), grid=False)
        panel.label_outer()
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=panels, shrink=0.7, aspect=30, pad=0.02, ticks=[0, 1])
        bar.ax.set_yticklabels(["first", "last"], fontsize=8)
        bar.set_label("online steps, in order", fontsize=8, labelpad=-12)
        bar.outline.set_visible(False)
        bar.solids.set_alpha(1)
    return figure


def png(figure, dpi=160):
    """The figure as the bytes of a PNG file, the same bytes for the same figure."""
    _as_written(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _as_written(figure):
    """Names may hold dollar signs: only what matplotlib writes itself (`\\mathdefault`) is read as mathematics."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if "$" in text.get_text() and "mathdefault" not in text.get_text():
            text.set_parse_math(False)


def _figure(width, height):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _band(panel, x, values, metric, colour, label):
    """Seeds as thin lines, their mean as a thick one, the interval as a band (none where seeds are equal)."""
    if len(x) == 1:
        panel.plot(np.repeat(x, len(values)), values[:, 0], ".", color=colour, alpha=0.45, ms=5)
        panel.plot(x, values.mean(0), "D", color=colour, ms=6, mec="white", label=label)
        return
    panel.plot(x, values.T, color=colour, alpha=0.3, lw=0.7)
    panel.plot(x, values.mean(0), color=colour, lw=1.9, label=label)
    ends = [score_interval(metric, column) for column in values.T]
    low, high = [end.low for end in ends], [end.high for end in ends]
    panel.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)


def _mark_phases(panel, summary, names=True):
    """A dotted line at each switch of phase and the phase's name above its span."""
    lengths = [phase.get("num_updates") or 0 for phase in summary["phases"]]
    total, start = max(sum(lengths), 1), 0
    for index, (phase, length) in enumerate(zip(summary["phases"], lengths, strict=True)):
        if start:
            panel.axvline(start, color="#888888", lw=0.8, ls=":")
        if names and length:
            tight = length / total < 0.018 * len(phase["name"]) or any(n / total < 0.1 for n in lengths if n)
            panel.annotate(
                phase["name"],
                (start + length / 2, 1.0),
                xytext=(0, 3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                rotation=30 if tight else 0,
                ha="left" if tight else "center",
                rotation_mode="anchor",
                fontsize=8,
                color=_COLOURS[index % len(_COLOURS)],
            )
        start += length


def _finish(panel, xlabel, ylabel, grid=True):
    panel.set_xlabel(xlabel, fontsize=9)
    panel.set_ylabel(ylabel, fontsize=9)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    if grid:
        panel.grid(axis="y", color="#e5e5e5", lw=0.7)
        panel.set_axisbelow(True)
        panel.xaxis.set_major_formatter(lambda value, _: _short(value))


def _limit(panel, metric):
    if metric == "success":
        panel.set_ylim(-0.03, 1.03)
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _short(value):
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _diagnostic(panel, summary, found, name):
    num_bad = 0
    for index, phase in enumerate(summary["phases"]):
        if phase["name"] not in found:
            continue
        x, values = found[phase["name"]]
        num_bad += int((~np.isfinite(values)).sum())
        values = np.where(np.isfinite(values), values, np.nan)
        every = max(1, len(x) // 400)
        x, values = x[::every], values[:, ::every]
        colour = _COLOURS[index % len(_COLOURS)]
        marker = "." if len(x) == 1 else None
        panel.plot(x, values.T, color=colour, alpha=0.35, lw=0.6, marker=marker)
        panel.plot(x, values.mean(0), color=colour, lw=1.4, marker=marker)
        if (values > 0).any() and np.nanmax(values) > 1e4 * np.nanmedian(np.abs(values)):
            panel.set_yscale("symlog")
    _mark_phases(panel, summary, names=False)
    _finish(panel, "", "")
    title = name + (f" ({num_bad} missing or not finite)" if num_bad else "")
    panel.set_title(title, fontsize=8, loc="left", color="#b00020" if num_bad else "black")
    panel.tick_params(labelsize=7)


def _is_space(extent, states):
    """Whether both axes are lengths: something with walls or a goal, or of one size."""
    return "walls" in states or "goal" in states or 0.4 < extent[1] / max(extent[0], 1e-9) < 2.5


def _scatter(panel, name, points):
    order = np.arange(len(points))
    if len(points) > _MAX_POINTS:
        order = np.sort(np.random.default_rng(0).choice(len(points), _MAX_POINTS, replace=False))
    size = float(np.clip(9000 / max(len(order), 1), 0.8, 9))
    count = f"{len(points):,} states"
    panel.set_title(f"{name.removeprefix('online_').replace('_', ' ')} ({count})", fontsize=9, loc="left")
    if name == "offline":
        panel.scatter(*points[order].T, s=size, color="#555555", alpha=0.5, lw=0)
        return None
    late = order / max(len(points) - 1, 1)
    return panel.scatter(*points[order].T, s=size, c=late, cmap="viridis_r", vmin=0, vmax=1, alpha=0.75, lw=0)


def _scenery(panel, states):
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle

    if "walls" in states:
        panel.add_collection(LineCollection(np.asarray(states["walls"], float), colors="black", lw=1.4))
    for goal in np.asarray(states.get("goal", np.empty((0, 2))), float).reshape(-1, 2):
        panel.plot(*goal, "*", color="#D55E00", ms=11, mec="white", mew=0.8, zorder=5)
        if "goal_radius" in states:
            radius = float(states["goal_radius"])
            panel.add_patch(Circle(goal, radius, fill=False, ec="#D55E00", lw=1.3, zorder=4))
