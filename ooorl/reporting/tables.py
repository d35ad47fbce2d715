"""Scores as tables, for the terminal and for the report, and the result as one sentence.

Every score is a mean over seeds, and its interval is that of `intervals.score_interval`. The score that leads
is the normalised one where there is one, else the success rate where anything succeeded, else the return.
Summaries are the objects of `summary.json` (see `ooorl.reporting.report`).
"""

import math
from html import escape

import numpy as np

from ooorl.reporting import arms
from ooorl.reporting.intervals import as_array, score_difference, score_interval

LABELS = {
    "normalised": "normalised score",
    "success": "success rate",
    "success_in": "success in combination",
    "success_out": "success out of combination",
    "return": "return",
    "length": "episode length",
    "reward_max": "largest reward",
}
BEST = {"success": 1.0, "normalised": 100.0}
RATES = ("success", "success_in", "success_out")  # shown in per cent
LEFT = ("phase or arm", "agent")  # columns of words
FOOTNOTE = (
    "Mean over seeds [95 % interval]: Student's t, within the possible range. † Every seed is 0 or 1, or close to it: exact "
    "binomial interval, or Gaffke's for such scores. Below three seeds, and where seeds are equal and the range of the score is "
    "unknown, there is no interval."
)


def primary_metric(summaries):
    """The score that leads: "normalised" where all have it, else "success" if any is > 0, else "return"."""
    scores = [entry["scores"] for summary in summaries for entry in _entries(summary)]
    if scores and all(score.get("normalised") for score in scores):
        return "normalised"
    successes = [value for score in scores for value in score.get("success") or ()]
    return "success" if any(value is not None and value > 0 for value in successes) else "return"


def result(summary, metric=None, with_others=True):
    """The result in words: "OOO 75 %, every other arm 0"; or of the leading arm alone."""
    metric = metric or primary_metric([summary])
    scored = _scored(summary, metric)
    if not scored:
        return "Not evaluated yet"
    unit = "" if metric == "success" else f" ({LABELS[metric]})"
    first, *others = (f"{label} {_short(metric, values)}" for label, values in scored)
    others = (_others(metric, scored[1:]) or others) if with_others else ()
    return ", ".join([first, *others]) + unit


def _scored(summary, metric):
    """`[(label, values)]` of the arms with such a score, the leading one first."""
    names, lead = arms.arms(summary), arms.leading(summary)
    found = {entry["name"]: entry["scores"].get(metric) for entry in _entries(summary)}
    order = sorted((name for name, values in found.items() if values), key=lambda name: name != lead)
    return [(names[name].label, found[name]) for name in order]


def _others(metric, scored):
    """What most arms share is said once; of more than four that differ only the best."""
    texts = [_short(metric, values) for _, values in scored]
    common = max(texts, key=texts.count, default=None)
    single = [f"{label} {text}" for (label, _), text in zip(scored, texts, strict=True) if text != common]
    if texts.count(common) > 1 and len(single) <= 3:
        return [*single, f"every other arm {common}"]
    means = [as_array(values).mean() for _, values in scored]
    if len(scored) > 4 and np.isfinite(means).all():
        best = int(np.argmax(means))
        return [f"the best of {len(scored)} other arms, {scored[best][0]}, {texts[best]}"]
    return []


def _short(metric, values):
    values = as_array(values)
    num_missing = int((~np.isfinite(values)).sum())
    if num_missing:
        return f"undefined ({num_missing} of {len(values)} seeds missing)"
    text = number(metric, values.mean())
    text = text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
    return text if metric != "success" or text == "0" else f"{text} %"


def separation(summary, metric=None):
    """Which arms the leading one is ahead of, behind, and not separated from, by intervals of paired differences; or ''."""
    metric = metric or primary_metric([summary])
    (lead, own), *others = _scored(summary, metric) or [(None, ())]
    words = {"ahead of": [], "behind": [], "not separated from": []}
    for label, values in others:
        found = score_difference(metric, own, values) if len(values) == len(own) else None
        if found is not None and not math.isnan(found.low):
            sign = "ahead of" if found.low > 0 else "behind" if found.high < 0 else "not separated from"
            words[sign].append(label)
    parts = [f"{word} {_listed(labels, len(others), word)}" for word, labels in words.items() if labels]
    return f"{lead} is {'; '.join(parts)} (95 % interval of the mean difference, seed by seed)." if parts else ""


def _listed(labels, num_others, word):
    if len(labels) == num_others > 1:
        return "any other arm" if word.startswith("not") else "every other arm"
    return ", ".join(labels[:-1]) + " and " * (len(labels) > 1) + labels[-1]


def headline(summary, metric=None):
    """The result as one line: environment, the arms' scores in words, how many seeds."""
    metric = metric or primary_metric([summary])
    seeds = len(summary["seeds"])
    if not _scored(summary, metric):
        return f"{summary['environment']}: not evaluated yet." if summary["environment"] else "No environment, hence no scores."
    kind = "" if metric != "success" else f"{LABELS[metric]}, "
    return f"{summary['environment']}: {result(summary, metric)}; {kind}mean over {seeds} seed{'s' * (seeds > 1)}."


def phase_table(summary):
    """The phases and arms of a run as a `rich.table.Table`."""
    from rich.table import Table

    header, lines = score_table(summary)
    footnote = FOOTNOTE if _scored(summary, primary_metric([summary])) else None
    table = Table(title=headline(summary), title_justify="left", caption=footnote, caption_justify="left")
    for name in header:
        table.add_column(name, justify="left" if name in LEFT else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def phase_text(summary):
    """The same as plain text, for logs and files."""
    header, lines = score_table(summary)
    widths = [max(len(line[index]) for line in (header, *lines)) for index in range(len(header))]
    padded = [
        "  ".join(
            f"{text:<{width}}" if name in LEFT else f"{text:>{width}}"
            for name, text, width in zip(header, line, widths, strict=True)
        )
        for line in (header, *lines)
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([headline(summary), "", padded[0], rule, *padded[1:], "", FOOTNOTE]) + "\n"


def _entries(summary):
    """Phases and arms that have scores."""
    return [entry for entry in (*summary["phases"], *(summary.get("arms") or ())) if entry.get("scores")]


def shown_metrics(summary, lead=None):
    """The scores to show, the leading one first; success only where something succeeded or where it leads."""
    lead = lead or primary_metric([summary])
    present = {name for entry in _entries(summary) for name, values in entry["scores"].items() if values}
    order = [lead, *(name for name in ("normalised", *RATES, "return", "length") if name != lead)]
    has_success = any(value for entry in _entries(summary) for value in entry["scores"].get("success") or ())
    return [name for name in order if name in present and (name == lead or name != "success" or has_success)]


def score_table(summary, lead=None):
    """`(header, lines)` of the phases and arms, all of it text."""
    first, *rest = shown_metrics(summary, lead) or [None]
    names = arms.arms(summary)
    header = [
        "phase or arm",
        *([LABELS[first]] if first else ()),
        *("agent", "updates", "env steps", "online rows"),
        *(LABELS[metric] for metric in rest),
    ]
    lines = [
        [
            arms.shown(names[entry["name"]]),
            *(cell(metric, (entry.get("scores") or {}).get(metric)) for metric in ([first] if first else ())),
            str(entry.get("agent") or entry.get("description") or ""),
            *(count(entry.get(name)) for name in ("num_updates", "num_env_steps", "online_rows")),
            *(cell(metric, (entry.get("scores") or {}).get(metric)) for metric in rest),
        ]
        for entry in (*summary["phases"], *(summary.get("arms") or ()))
    ]
    return header, lines


def cell(metric, values):
    """Mean and interval in words: "87.3 % [80.1, 93.2]"; why there is no interval where there is none."""
    if not values:
        return ""
    values = as_array(values)
    interval = score_interval(metric, values)
    if interval.method == "missing":
        known = values[np.isfinite(values)]
        others = f", mean of the others {number(metric, known.mean())}" if len(known) else ""
        return f"undefined ({len(values) - len(known)} of {len(values)} seeds missing{others})"
    mean = number(metric, interval.point) + (" %" if metric in RATES else "")
    if interval.method == "too few":
        return f"{mean} ({len(values)} seed{'s' * (len(values) > 1)}, no interval)"
    if interval.method == "all equal":
        return f"{mean} (all seeds equal)"
    return f"{mean} [{number(metric, interval.low)}, {number(metric, interval.high)}]{mark(interval)}"


def mark(interval):
    """A dagger where the footnote says more about how an interval was made."""
    return "†" if interval.method in ("exact binomial", "bounded") else ""


def number(metric, value):
    """The score as text in the metric's units; a success rate in per cent."""
    if metric in RATES:
        return f"{100 * value:.1f}"
    if metric == "normalised" or 10 <= abs(value) < 100_000:
        return f"{value:,.1f}"
    return f"{value:.3g}"


def count(value):
    """A count with its thousands set apart; empty where unknown."""
    return "" if value is None else f"{value:,}"


def html_table(header, lines, values, metric, caption):
    """A table with a strip of per-seed dots beside the leading score, on one scale for all rows."""
    known = [as_array(value) for value in values if value]
    scale = _scale(metric, np.concatenate(known)) if known else (0.0, 1.0)
    place = header.index(LABELS[metric]) + 1 if LABELS[metric] in header else len(header)
    unit = " %" if metric == "success" else ""
    names = [escape(name) for name in header]
    names.insert(place, f"each seed, {number(metric, scale[0])} to {number(metric, scale[1])}{unit}")
    rows = []
    for line, own in zip(lines, values, strict=True):
        cells = [escape(text) for text in line]
        cells.insert(place, _dots(own, scale, metric))
        rows.append(cells)
    return html_rows(names, rows, caption)


def html_rows(names, rows, caption):
    """A table of cells that are HTML already; the first of a row is its heading. Scrolls by itself where it is too wide."""
    head = "".join(f"<th scope=col>{name}</th>" for name in names)
    body = "".join(
        f"<tr><th scope=row>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>" for first, *rest in rows
    )
    label = escape(caption, quote=True)
    table = f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class=wide role=region tabindex=0 aria-label="{label}">{table}</div>'


def _scale(metric, values):
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if metric in BEST:
        return min(0.0, low), max(BEST[metric], high)
    around = max(1.0, abs(low) / 1000)  # below the rounding of a large number an end would be that number
    return (low, high) if high > low else (low - around, high + around)


def _dots(values, scale, metric, width=140, height=26):
    if not values:
        return ""
    values = as_array(values)
    interval = score_interval(metric, values)

    def at(value):
        return 6 + (width - 12) * (value - scale[0]) / (scale[1] - scale[0])

    shapes = [f'<line x1="6" x2="{width - 6}" y1="13" y2="13" stroke="#ddd"/>']
    if math.isfinite(interval.low):
        shapes.append(
            f'<rect x="{at(interval.low):.1f}" y="9" height="8" rx="2" fill="#0072B2" fill-opacity=".25" '
            f'width="{max(at(interval.high) - at(interval.low), 1):.1f}"/>'
        )
    shapes += [
        f'<circle cx="{at(value):.1f}" cy="{10 + 3 * (index % 3)}" r="3" fill="#0072B2" fill-opacity=".6"/>'
        for index, value in enumerate(values)
        if math.isfinite(value)
    ]
    if math.isfinite(interval.point):
        shapes.append(f'<rect x="{at(interval.point) - 1:.1f}" y="3" width="2" height="20" fill="#111"/>')
    text = ", ".join(number(metric, value) for value in values)
    return f'<svg width="{width}" height="{height}" role="img" aria-label="{text}">{"".join(shapes)}</svg>'
