"""What a run amounts to: a table for the terminal, and one HTML file that needs no network and no scripts.

A run directory holds `summary.json`, `metrics.jsonl` (see `ooorl.reporting.writers`) and, where there is a map to draw,
`states.npz` (see `ooorl.reporting.figures.state_map`). `summary.json` is an object with

* `name`, `kind` ("ooo", "offline", ...), `environment`, `dataset` {`name`, `sha256`, `rows`}, `seeds` [S];
* `phases`: objects with `name`, `agent`, `num_updates`, `num_env_steps`, `online_rows`, `wall_seconds`,
  `compile_seconds` and `scores`: `return`, `success`, `normalised`, `length`, `reward_max` (an episode's largest
  reward), each one number a seed or null;
* `arms` (optional): other ways to spend the same environment steps, each `name`, `description`, `scores`;
* `env_steps`, `wall_seconds`, `compile_seconds`, `versions`, `config_text`, `notes`, all optional.
"""

import base64
import math
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from ooorl.errors import UsageError
from ooorl.reporting import diagnostics, figures, tables, writers
from ooorl.reporting.intervals import score_difference
from ooorl.reporting.stored import load
from ooorl.reporting.tables import headline, phase_table, phase_text, primary_metric

__all__ = ["headline", "load", "phase_table", "phase_text", "primary_metric", "report", "write_report"]

_CURVES = (
    "Thin lines are seeds, the thick one their mean, the band its 95 % interval over seeds (none "
    "where all seeds are equal). Dotted lines are switches of phase; a diamond is the result of training "
    "that takes no environment steps. Nothing is smoothed."
)


def report(run_dirs, out):
    """Reads run directories and writes one HTML report on them to the file `out`; returns its path."""
    if not run_dirs:
        raise UsageError("a report needs at least one run directory; got none; name one or more.")
    writers.check_file(out)  # drawing takes seconds
    loaded = [load(directory) for directory in run_dirs]
    summaries, metrics, states = map(list, zip(*loaded, strict=True))
    return write_report(out, summaries, metrics, states)


def write_report(path, summaries, metrics=None, states=None):
    """Writes the HTML report on one or several runs; returns its path.

    Args:
      path: the HTML file.
      summaries: one `summary.json` object a run.
      metrics: one list of `metrics.jsonl` rows a run; None leaves the curves out.
      states: one dictionary of arrays, or None, a run; None leaves all maps out.
    """
    metrics = metrics or [[] for _ in summaries]
    states = states or [None for _ in summaries]
    metric = tables.primary_metric(summaries)
    if len(summaries) == 1:
        title, lead = summaries[0]["name"], tables.headline(summaries[0], metric)
        body = _run(summaries[0], metrics[0], states[0], metric)
    else:
        title = f"{len(summaries)} runs"
        lead = f"{len(summaries)} runs side by side, by {figures.LABELS[metric]} after the last phase."
        body = _overview(summaries, metrics, metric)
        for label, *run in zip(_labels(summaries), summaries, metrics, states, strict=True):
            inner = f"<p class=lead>{escape(tables.headline(run[0], metric))}</p>" + _run(*run, metric)
            body += f"<details><summary>{escape(label)}</summary>{inner}</details>"
    page = _PAGE.substitute(title=escape(title), lead=escape(lead), body=body)
    with writers.atomically(path) as file:
        file.write(page)
    return Path(path)


def _labels(summaries):
    """One name a run, told apart by the environment and then by a number where names repeat."""
    labels = [summary["name"] for summary in summaries]
    if len(set(labels)) < len(labels):
        labels = [f"{summary['name']}, {summary['environment']}" for summary in summaries]
    return [f"{label} ({i + 1})" if labels.count(label) > 1 else label for i, label in enumerate(labels)]


def _run(summary, rows, states, metric):
    """The sections of one run."""
    parts = [
        _facts(summary),
        _notes(summary.get("notes") or ()),
        "<h2>Phases and arms</h2>",
        _scores(summary, metric),
    ]
    if any(figures.phase_curves(summary, rows, metric, "updates").values()):
        parts += ["<h2>Learning curves</h2>", _figure(figures.curves(summary, rows, metric), _CURVES)]
    parts.append(_online(summary, rows, metric))
    drawn = figures.state_map(states) if states else None
    if drawn is not None:
        text = (
            "States in the data set and states visited online. Black lines are walls, the star is the goal."
        )
        parts += ["<h2>Visited states</h2>", _figure(drawn, text)]
    drawn, left_out = figures.diagnostics(summary, rows)
    if drawn is not None:
        text = "What training logged, each seed thin and the mean thick; colours are phases."
        text += f" Not shown: {', '.join(left_out)}." if left_out else ""
        parts += ["<h2>Training</h2>", _figure(drawn, text)]
    return "\n".join([*parts, _provenance(summary)])


def _facts(summary):
    dataset = summary.get("dataset") or {}
    rows = f" ({dataset['rows']:,} rows)" if dataset.get("rows") else ""
    facts = {
        "environment": summary["environment"],
        "data set": f"{dataset['name']}{rows}" if dataset.get("name") else None,
        "seeds": len(summary["seeds"]),
        "environment steps": tables.count(summary.get("env_steps")) or None,
        "time": writers.duration(summary["wall_seconds"])
        if summary.get("wall_seconds") is not None
        else None,
    }
    items = (
        f"<li><b>{escape(str(value))}</b> {name}</li>" for name, value in facts.items() if value is not None
    )
    return f"<ul class=facts>{''.join(items)}</ul>"


def _notes(notes):
    return "".join(f"<p class=note>{escape(str(note))}</p>" for note in notes)


def _scores(summary, metric):
    header, lines = tables.score_table(summary, metric)
    entries = [*summary["phases"], *(summary.get("arms") or ())]
    values = [(entry.get("scores") or {}).get(metric) for entry in entries]
    arms = summary.get("arms") or ()
    reference = (arms[0].get("scores") or {}).get(metric) if len(arms) > 1 else None
    if reference:
        header.append(f"difference to {arms[0]['name']}")
        num_phases = len(summary["phases"])
        for index, (line, own) in enumerate(zip(lines, values, strict=True)):
            is_other = index > num_phases and own and len(own) == len(reference)
            line.append(_difference(metric, own, reference) if is_other else "")
    note = " Differences pair the seeds of both arms." if reference else ""
    return tables.html_table(header, lines, values, metric) + f"<p class=small>{tables.FOOTNOTE}{note}</p>"


def _difference(metric, x, y):
    """The interval of the paired difference, in points where the score is a rate."""
    unit = " points" if metric == "success" else ""
    interval = score_difference(metric, x, y)
    if math.isnan(interval.low):
        return (
            ""
            if interval.method == "missing"
            else f"{tables.number(metric, interval.point)}{unit} ({interval.method})"
        )
    ends = f"[{tables.number(metric, interval.low)}, {tables.number(metric, interval.high)}]"
    return f"{tables.number(metric, interval.point)}{unit} {ends}"


def _online(summary, rows, metric):
    """What going online cost and bought, the likely causes of trouble, and how far values were off."""
    found = diagnostics.diagnose(summary, rows, metric)
    table = _cost_table(diagnostics.costs(summary, rows, metric), metric)
    drawn = figures.value_errors(summary, rows)
    if not (found or table or drawn):
        return ""
    measured = any(row.get("kind") == "diagnostics" for row in rows)
    parts = ["<h2>Offline to online</h2>", table, *(_finding(finding, summary) for finding in found)]
    if measured and not found:
        parts.append("<p>No cause of a dip was found in what was measured.</p>")
    if drawn is not None:
        text = "Mean of Q minus the Monte-Carlo return, in the agent's reward units, on rows of the data set (solid) and the "
        text += "newest online rows (dashed). Above zero values promise more than was earned; a bonus is part of Q alone."
        parts.append(_figure(drawn, text))
    return "\n".join([*parts, _facts_table(summary, rows)])


def _finding(finding, summary):
    kind = "Found" if finding.certain else "Likely cause"
    seeds = f"{len(finding.seeds)} of {len(summary['seeds'])} seeds"
    return f"<p class=note><b>{kind}: {escape(finding.name)}</b> ({seeds}). {escape(finding.sentence)}</p>"


def _cost_table(costs, metric):
    lines = []
    for cost in costs:
        if not math.isfinite(cost.dip):
            lines.append([cost.phase, "undefined (seeds missing)"])
            continue
        ends = [tables.number(metric, value) for value in (cost.before, cost.lowest, cost.dip, cost.last)]
        steps = "never" if cost.steps_to_regain is None else f"{cost.steps_to_regain:,.0f}"
        lines.append([cost.phase, *ends, steps, *([] if cost.regret is None else [f"{cost.regret:.1%}"])])
    if not lines:
        return ""
    names = ["phase", "before", "lowest", "dip", "last", "steps to regain", *["regret"] * (metric in tables.BEST)]
    unit = " in %" if metric == "success" else ""
    text = f"Mean {figures.LABELS[metric]}{unit} of online phases: before the switch (else the first), the lowest until that "
    text += "was regained, and the last."
    text += " Regret is the mean shortfall from a perfect score." if metric in tables.BEST else ""
    return _plain_table(names, lines) + f"<p class=small>{text}</p>"


def _facts_table(summary, rows):
    """Batches and optimisers at the beginning and the end of each phase, mean over seeds."""
    lines = []
    for phase in summary["phases"]:
        own = [r for r in rows if r.get("kind") == "diagnostics" and r["phase"] == phase["name"]]
        ends = [[r for r in own if r["updates"] == at(r["updates"] for r in own)] for at in (min, max)] if own else []
        if ends:
            shares = [_mean_of(some, "mix/online", "{:.0%}") for some in ends]
            steps = _mean_of(ends[0], "optimizer/steps_at_start", "{:,.0f}")
            lines.append([phase["name"], *shares, steps, _mean_of(ends[0], "online/distance", "{:.2g}")])
    names = ["phase", "online share of a batch, first", "last", "optimiser steps at the start", "online distance, first"]
    text = "Distance is between the means of online and offline observations, in standard deviations of the data."
    return _plain_table(names, lines) + f"<p class=small>{text}</p>" if lines else ""


def _mean_of(rows, name, form):
    values = [row[name] for row in rows if name in row]
    return form.format(np.mean(values)) if values else ""


def _plain_table(names, lines):
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


def _overview(summaries, metrics, metric):
    """Several runs in one table, with what makes them hard to compare said first."""
    header = ["run or arm", "environment", "agent", "seeds", "updates", "env steps", figures.LABELS[metric]]
    lines, values = [], []
    labels = _labels(summaries)
    for label, summary in zip(labels, summaries, strict=True):
        last = next(
            (phase for phase in reversed(summary["phases"]) if phase.get("scores")), summary["phases"][-1]
        )
        updates = sum(phase.get("num_updates") or 0 for phase in summary["phases"])
        for name, entry in [
            (label, last),
            *((f"{label}: {arm['name']}", arm) for arm in summary.get("arms") or ()),
        ]:
            own = (entry.get("scores") or {}).get(metric)
            total = tables.count(updates) if entry is last else ""
            agent = str(entry.get("agent") or entry.get("description") or "")
            seeds, steps = str(len(summary["seeds"])), tables.count(summary.get("env_steps"))
            lines.append([name, summary["environment"], agent, seeds, total, steps, tables.cell(metric, own)])
            values.append(own)
    parts = [_notes(_differences(summaries)), tables.html_table(header, lines, values, metric)]
    parts.append(f"<p class=small>{tables.FOOTNOTE}</p>")
    if any(metrics):
        figure = figures.comparison(summaries, metrics, metric, labels)
        text = "Mean over seeds, its 95 % interval, every seed; a diamond is trained afterwards."
        parts.append(_figure(figure, text))
    return "\n".join(parts)


def _differences(summaries):
    """Why these runs may not be comparable."""
    facts = {
        "environments": [summary["environment"] for summary in summaries],
        "data sets": [(summary.get("dataset") or {}).get("sha256") for summary in summaries],
        "numbers of seeds": [len(summary["seeds"]) for summary in summaries],
        "numbers of environment steps": [summary.get("env_steps") for summary in summaries],
        "software versions": [str(sorted((summary.get("versions") or {}).items())) for summary in summaries],
    }
    return [f"These runs have different {name}." for name, values in facts.items() if len(set(values)) > 1]


def _figure(figure, caption):
    data = base64.b64encode(figures.png(figure)).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _provenance(summary):
    dataset = summary.get("dataset") or {}
    facts = {
        "kind of run": summary.get("kind"),
        "data set SHA-256": dataset.get("sha256"),
        "seeds": ", ".join(map(str, summary["seeds"])),
        **(summary.get("versions") or {}),
    }
    for entry in (*summary["phases"], {"name": "whole run", **summary}):
        if entry.get("wall_seconds") is not None:
            name = "whole run" if "phases" in entry else entry["name"]
            compiling = entry.get("compile_seconds")
            text = f", of which {writers.duration(compiling)} to compile" if compiling is not None else ""
            facts[f"time of {name}"] = writers.duration(entry["wall_seconds"]) + text
    lines = (
        f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in facts.items() if v is not None
    )
    config = summary.get("config_text")
    config = f"<h2>Configuration</h2><pre>{escape(config)}</pre>" if config else ""
    return f"<h2>Provenance</h2><div class=wide><table class=facts>{''.join(lines)}</table></div>{config}"


_PAGE = Template("""<!DOCTYPE html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 68rem; margin: auto;
  padding: 1rem }
h1 { font-size: 1.5rem; margin: .5rem 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
.lead { font-size: 1.1rem; margin: 0 0 1rem } .small, figcaption { font-size: .85rem; color: #555 }
.note { border-left: 4px solid #e69f00; background: #fff8e8; padding: .4rem .8rem; margin: .5rem 0 }
ul.facts { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; color: #555 }
ul.facts b { color: #111 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem }
th { text-align: left; font-weight: 600; vertical-align: bottom }
th, td { padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #ddd }
td { font-variant-numeric: tabular-nums; white-space: nowrap }
table.facts td { overflow-wrap: anywhere; white-space: normal } svg { display: block }
figure { margin: 1rem 0 } img { max-width: 100%; height: auto }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .85rem }
details { border-top: 1px solid #ddd; margin-top: 1.5rem }
summary { font-weight: 600; padding: .6rem 0; cursor: pointer }
</style>
<h1>$title</h1>
<p class=lead>$lead</p>
$body
</html>
""")
