"""What a run amounts to: a table for the terminal, and one HTML file that needs no network and no scripts.

A run directory holds `summary.json`, `metrics.jsonl` (see `ooorl.reporting.writers`) and, where there is a map to draw,
`states.npz` (see `ooorl.reporting.maps.state_maps`). `summary.json` is an object with

* `name`, `kind` ("ooo", "offline", ...), `environment`, `dataset` {`name`, `sha256`, `rows`}, `seeds` [S];
* `phases`: objects with `name`, `agent`, `num_updates`, `num_env_steps`, `online_rows`, `wall_seconds`, `times`,
  `start` (the phase it continues) and `scores`: `return`, `success`, `normalised`, `length`, `reward_max` (an episode's largest
  reward), each one number a seed or null;
* `arms` (optional): other ways to spend the same environment steps, each `name`, `description`, `scores`;
* `env_steps`, `num_episodes`, `wall_seconds`, `times` (what it was spent on, in seconds), `versions`,
  `provenance`, `config_text`, `notes`, all optional.
"""

import math
from html import escape
from pathlib import Path

import numpy as np

from ooorl.errors import UsageError
from ooorl.reporting import arms, assistance, diagnostics, figures, maps, page, paths, remedies, series, tables, writers
from ooorl.reporting.intervals import score_difference
from ooorl.reporting.stored import load
from ooorl.reporting.tables import headline, phase_table, phase_text, primary_metric

__all__ = ["headline", "load", "phase_table", "phase_text", "primary_metric", "report", "write_report"]

_CURVES = (
    "Each training has a panel and begins at 0 updates; all have one scale. Thin lines are seeds, the thick one their mean, the "
    "band its 95 % interval over seeds, wide where all seeds are near 0 or 1: a few such seeds cannot rule out others. Dotted "
    "lines are switches of phase. Nothing is smoothed."
)
_VALUES = (
    "Mean of Q minus the Monte-Carlo return, in the agent's reward units, on the newest online rows (solid) and on rows of the "
    "data set (dashed). Above zero values promise more than was earned; a bonus is part of Q alone."
)


def report(run_dirs, out):
    """Reads run directories and writes one HTML report on them to the file `out`; returns its path."""
    if not run_dirs:
        raise UsageError("a report needs at least one run directory; got none; name one or more.")
    writers.check_file(out)  # drawing takes seconds
    folder = Path(out).parent
    new = not folder.exists()
    loaded = [load(directory) for directory in run_dirs]
    if new:  # one that went meanwhile is not made again
        folder.mkdir(parents=True, exist_ok=True)
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
        result, lead = tables.result(summaries[0], metric), _lead(summaries[0], metric)
        title, body = f"{summaries[0]['name']}: {result}", _run(summaries[0], metrics[0], states[0], metric)
    else:
        labels = _labels(summaries)
        title = f"{len(summaries)} runs"
        result = "; ".join(f"{label}: {tables.result(s, metric, False)}" for label, s in zip(labels, summaries, strict=True))
        lead = f"{len(summaries)} runs side by side, by {tables.LABELS[metric]}."
        body = _overview(summaries, metrics, metric)
        for label, *run in zip(labels, summaries, metrics, states, strict=True):
            inner = f"<p class=lead>{escape(_lead(run[0], metric))}</p>" + _run(*run, metric)
            body += f"<details><summary>{escape(label)}</summary>{inner}</details>"
    return page.write(path, title, result, lead, body)


def _lead(summary, metric):
    """What the first line means: of which score, where, over how many seeds, and what the intervals separate."""
    num = len(summary["seeds"])
    episodes = f" of {summary['num_episodes']} episodes each" if summary.get("num_episodes") else ""
    what = tables.LABELS[metric].capitalize()
    text = f"{what} in {summary['environment']}, mean over {num} seed{'s' * (num > 1)}{episodes}. "
    return text + tables.separation(summary, metric)


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
        page.notes(summary.get("notes") or ()),
        "<h2>Phases and arms</h2>",
        _scores(summary, metric),
        _explanations(summary),
    ]
    drawn = figures.curves(summary, rows, metric)
    if drawn:
        parts += ["<h2>Learning curves</h2>", page.panels(drawn, _CURVES)]
        text = "Means over seeds of all arms against environment steps; a single mark is the result of training without steps."
        parts.append(page.panels(figures.against_steps(summary, rows, metric), text))
    parts += [_online(summary, rows, metric), _settings(summary, rows), _help(summary, rows)]
    states = states or {}
    text = "States in the data set and states visited online."
    text += " Black lines are walls." * ("walls" in states) + " The star is the goal." * ("goal" in states)
    drawn = page.panels(maps.state_maps(states), text)
    parts += ["<h2>Visited states</h2>", drawn] if drawn else []
    drawn = page.panels(*paths.denoising(states))
    parts += ["<h2>From noise to action</h2>", drawn] if drawn else []
    return "\n".join([*parts, _logged(summary, rows), _provenance(summary)])


def _explanations(summary):
    known = [arm for arm in arms.arms(summary).values() if arm.explanation]
    items = "".join(f"<dt>{escape(arms.shown(arm))}</dt><dd>{escape(arm.explanation)}</dd>" for arm in known)
    return f"<h2>What the arms are</h2><dl>{items}</dl>" if items else ""


def _logged(summary, rows):
    """What training logged, one fold a training."""
    labels, parts = arms.arms(summary), []
    for training in series.trainings(summary):
        drawn, left_out = figures.logged(summary, rows, training)
        text = "Each seed thin, the mean thick; a new colour is a new phase."
        text += f" Not shown: {', '.join(left_out)}." if left_out else ""
        name = ", then ".join(labels[phase["name"]].label for phase in training)
        if drawn:
            parts.append(f"<details><summary>{escape(name)}</summary>{page.panels(drawn, text)}</details>")
    return "\n".join(["<h2>Training</h2>", *parts]) if parts else ""


def _facts(summary):
    dataset = summary.get("dataset") or {}
    rows = f" ({dataset['rows']:,} rows)" if dataset.get("rows") else ""
    facts = {
        "run": summary["name"],
        "environment": summary["environment"],
        "data set": f"{dataset['name']}{rows}" if dataset.get("name") else None,
        "seeds" if len(summary["seeds"]) > 1 else "seed": len(summary["seeds"]),
        "environment steps": tables.count(summary.get("env_steps")) or None,
        "time": writers.duration(summary["wall_seconds"])
        if summary.get("wall_seconds") is not None
        else None,
    }
    items = (
        f"<li><b>{escape(str(value))}</b> {name}</li>" for name, value in facts.items() if value is not None
    )
    return f"<ul class=facts>{''.join(items)}</ul>"


def _scores(summary, metric):
    header, lines = tables.score_table(summary, metric)
    entries = [*summary["phases"], *(summary.get("arms") or ())]
    values = [(entry.get("scores") or {}).get(metric) for entry in entries]
    lead = arms.leading(summary)
    reference = next((own for entry, own in zip(entries, values, strict=True) if entry["name"] == lead and own), None)
    num = len(reference or ())
    others = [own and entry["name"] != lead and len(own) == num for entry, own in zip(entries, values, strict=True)]
    note = ""
    if any(others):
        label = arms.arms(summary)[lead].label
        header.insert(2, f"{label} minus this")
        note = f" {label} minus this: mean paired difference, seed by seed."
        for line, own, is_other in zip(lines, values, others, strict=True):
            line.insert(2, _difference(metric, reference, own) if is_other else "")
    caption = f"{tables.LABELS[metric].capitalize()} after each phase"
    return tables.html_table(header, lines, values, metric, caption) + f"<p class=small>{tables.FOOTNOTE}{escape(note)}</p>"


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
    return f"{tables.number(metric, interval.point)}{unit} {ends}{tables.mark(interval)}"


def _online(summary, rows, metric):
    """What going online cost and bought, the likely causes of trouble, and how far values were off; that alone offline."""
    found = diagnostics.diagnose(summary, rows, metric)
    table = _cost_table(diagnostics.costs(summary, rows, metric), metric)
    drawn = page.panels(figures.value_errors(summary, rows), _VALUES)
    if not (found or table or drawn):
        return ""
    if not any(phase.get("num_env_steps") for phase in summary["phases"]):
        return "\n".join(["<h2>Values</h2>", *(_finding(finding, summary) for finding in found), drawn])
    measured = any(row.get("kind") == "diagnostics" for row in rows)
    parts = ["<h2>Offline to online</h2>", table, *(_finding(finding, summary) for finding in found)]
    if measured and not found:
        parts.append("<p>No cause of a dip was found in what was measured.</p>")
    return "\n".join([*parts, drawn, _facts_table(summary, rows)])


def _settings(summary, rows):
    """What the rows say against the settings, with the one to change."""
    found = remedies.remedies(summary, rows)
    lines = [
        f"<p class=note><b>{escape(one.name.capitalize())}</b> ({len(one.seeds)} of {len(summary['seeds'])} seeds). "
        f"{escape(one.sentence)}</p>"
        for one in found
    ]
    return "\n".join(["<h2>Settings to look at</h2>", *lines]) if lines else ""


def _help(summary, rows):
    """What asking for help cost, and how reliable the detector was that asked."""
    table, drawn = assistance.detector(summary, rows)
    parts = [assistance.costs(summary, rows), table, page.panels(drawn, assistance.DETECTOR)]
    return "\n".join(["<h2>Asking for help</h2>", *parts]) if any(parts) else ""


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
    text = f"Mean {tables.LABELS[metric]}{unit} of online phases: before the switch (else the first), the lowest until that "
    text += "was regained, and the last."
    text += " Regret is the mean shortfall from a perfect score." if metric in tables.BEST else ""
    return page.table(names, lines, "What each online phase cost") + f"<p class=small>{text}</p>"


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
    return page.table(names, lines, "What each phase was given") + f"<p class=small>{text}</p>" if lines else ""


def _mean_of(rows, name, form):
    values = [row[name] for row in rows if name in row]
    return form.format(np.mean(values)) if values else ""


def _overview(summaries, metrics, metric):
    """Several runs in one table, with what makes them hard to compare said first."""
    header = ["run or arm", tables.LABELS[metric], "environment", "agent", "seeds", "updates", "env steps"]
    lines, values = [], []
    labels = _labels(summaries)
    for label, summary in zip(labels, summaries, strict=True):
        last = next((phase for phase in summary["phases"] if phase["name"] == arms.leading(summary)), summary["phases"][-1])
        updates = sum(phase.get("num_updates") or 0 for phase in summary["phases"])
        for name, entry in [
            (label, last),
            *((f"{label}: {arm['name']}", arm) for arm in summary.get("arms") or ()),
        ]:
            own = (entry.get("scores") or {}).get(metric)
            total = tables.count(updates) if entry is last else ""
            agent = str(entry.get("agent") or entry.get("description") or "")
            seeds, steps = str(len(summary["seeds"])), tables.count(summary.get("env_steps"))
            lines.append([name, tables.cell(metric, own), summary["environment"], agent, seeds, total, steps])
            values.append(own)
    caption = f"{tables.LABELS[metric].capitalize()} of each run's leading arm"
    parts = [page.notes(_differences(summaries)), tables.html_table(header, lines, values, metric, caption)]
    parts.append(f"<p class=small>{tables.FOOTNOTE}</p>")
    text = "Means over seeds; a single mark is the result of training afterwards, without further steps."
    parts.append(page.panels(figures.comparison(summaries, metrics, metric, labels), text))
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


def _provenance(summary):
    dataset = summary.get("dataset") or {}
    facts = {
        "kind of run": summary.get("kind"),
        "data set SHA-256": dataset.get("sha256"),
        "seeds": ", ".join(map(str, summary["seeds"])),
        **(summary.get("provenance") or {}),
        **(summary.get("versions") or {}),
    }
    for entry in (*summary["phases"], {**summary, "name": "whole run"}):
        if entry.get("wall_seconds") is not None:
            facts[f"time of {entry['name']}"] = writers.times_text(entry["wall_seconds"], entry.get("times") or {})
    config = summary.get("config_text")
    config = f"<h2>Configuration</h2><pre tabindex=0>{escape(config)}</pre>" if config else ""
    return "<h2>Provenance</h2>" + page.facts(facts.items(), "What these numbers were made with") + config
