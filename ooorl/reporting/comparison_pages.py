"""A comparison as a page, as Markdown, as LaTeX, and as rows for a spreadsheet."""

import csv
import math
from pathlib import Path

from ooorl.errors import UsageError
from ooorl.reporting import page, results, tables, writers
from ooorl.reporting.comparison import AGGREGATES, PROTOCOLS, Comparison
from ooorl.reporting.comparison_figures import curves, profiles

NAMES = {'mean': 'mean', 'iqm': 'IQM', 'median': 'median', 'optimality_gap': 'optimality gap'}
FOOTNOTE = (
    "Cells: mean over seeds [95 % interval, Student's t within the possible range, docs/statistics.md] (n seeds). Below three "
    "seeds there is no interval. † every seed is near an end of the range: exact binomial, or Gaffke's. Over all tasks: "
    "rliable's statistics with a stratified bootstrap over seeds, which with five seeds is too narrow (84 % where 95 % is said)."
)
_CURVES = 'Means over complete seeds; what diverged or failed is not in them. Nothing is smoothed.'


def write(comparison: Comparison, path) -> Path:
    """Writes a comparison to a file, in the format of its ending: html, md, tex, csv, or json, of which tables can be made.

    Raises:
      UsageError: for another ending.
    """
    path = Path(path)
    writer = WRITERS.get(path.suffix.lstrip('.'))
    if writer is None:
        raise UsageError(f'--out needs a file that ends with {", ".join(f".{kind}" for kind in WRITERS)}; got {path}')
    writers.check_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer(comparison, path)
    return path


def score_rows(comparison: Comparison, protocol: str) -> tuple[list[str], list[list[str]]]:
    """`(header, lines)`: algorithms by tasks."""
    header = ['algorithm', *comparison.tasks]
    tasks = comparison.tasks
    return header, [[name, *(cell_text(comparison, name, task, protocol) for task in tasks)] for name in comparison.algorithms]


def cell_text(comparison: Comparison, algorithm: str, task: str, protocol: str) -> str:
    """A cell in words: scores with their interval, and what is not complete; "not run" where nothing was planned."""
    cell = comparison.cells.get((algorithm, task))
    if cell is None:
        return 'not run'
    others = [f'{count} {status}' for status, count in cell.counts.items() if status != 'complete']
    interval, values = cell.intervals[protocol], cell.scores[protocol]
    if interval is None:
        return ', '.join(others)
    text = f'{interval_text(comparison.metric, interval)} ({len(values)})'
    return ', '.join([text, *others])


def interval_text(metric: str, interval) -> str:
    """A point with its interval, or alone where there is none."""
    point = tables.number(metric, interval.point) + (' %' if metric == 'success' else '')
    if math.isnan(interval.low):
        return point
    return f'{point} [{tables.number(metric, interval.low)}, {tables.number(metric, interval.high)}]{tables.mark(interval)}'


def aggregate_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """`(header, lines)` over all shared tasks, both protocols side by side; no lines where there is nothing to say."""
    if not comparison.aggregates:
        return [], []
    columns = [(kind, protocol) for kind in AGGREGATES for protocol in PROTOCOLS]
    header = ['algorithm', *(f'{NAMES[kind]}, {protocol.replace("_", " of ")}' for kind, protocol in columns)]
    own, metric = comparison.aggregates, comparison.metric
    lines = [[interval_text(metric, own[p][name][kind]) for kind, p in columns] for name in comparison.algorithms]
    return header, [[name, *line] for name, line in zip(comparison.algorithms, lines, strict=True)]


def improvement_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """`(header, lines)`: the probability that the algorithm of a line improves on that of a column, of last evaluations."""
    pairs = comparison.improvement.get('last', {})
    if not pairs:
        return [], []
    header = ['P(better than)', *comparison.algorithms]
    return header, [
        [one, *('' if one == other else interval_text('success', pairs[one, other]) for other in comparison.algorithms)]
        for one in comparison.algorithms
    ]


def cost_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """`(header, lines)`: hours and updates a second by algorithm, over the runs that say so."""
    lines = []
    for name in comparison.algorithms:
        runs = {one.run: one.cost for one in comparison.results if one.algorithm == name and one.cost.get('wall_seconds')}
        rates = [cost['updates_per_second'] for cost in runs.values() if cost.get('updates_per_second')]
        devices = sorted({str(cost.get('device')) for cost in runs.values()})
        hours = sum(cost['wall_seconds'] for cost in runs.values()) / 3600
        rate = f'{min(rates):,.0f} to {max(rates):,.0f}' if rates else ''
        lines.append([name, str(len(runs)), f'{hours:.2f}', rate, ', '.join(devices)])
    return ['algorithm', 'runs', 'hours in all', 'updates a second, all seeds', 'device'], lines


def count_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """`(header, lines)`: how many seeds of each algorithm have which status."""
    header = ['algorithm', *results.STATUSES]
    own = {name: [one.status for one in comparison.results if one.algorithm == name] for name in comparison.algorithms}
    return header, [[name, *(str(own[name].count(status)) for status in results.STATUSES)] for name in own]


def sections(comparison: Comparison) -> list[tuple[str, list[str], list[list[str]]]]:
    """`(caption, header, lines)` of every table."""
    label = tables.LABELS.get(comparison.metric, comparison.metric)
    parts = [(f'{label}, {PROTOCOLS[protocol]}', *score_rows(comparison, protocol)) for protocol in PROTOCOLS]
    many = f'{len(comparison.shared)} task{"s" * (len(comparison.shared) != 1)}'
    parts.append((f'over {many}: {label}', *aggregate_rows(comparison)))
    parts.append((f'probability of improvement over {many}, last evaluation', *improvement_rows(comparison)))
    parts.append(('seeds by status', *count_rows(comparison)))
    parts.append(('cost', *cost_rows(comparison)))
    return [part for part in parts if part[2]]


def _html(comparison, path):
    body = [page.notes(comparison.notes)]
    for caption, header, lines in sections(comparison):
        body += [f'<h2>{caption[:1].upper()}{caption[1:]}</h2>', page.table(header, lines, caption)]
    body += ['<h2>Learning curves</h2>', page.panels(curves(comparison), _CURVES)]
    drawn = profiles(comparison)
    if drawn:
        body += ['<h2>Performance profile</h2>', page.panels(drawn, 'Share of runs above each score; bands need three seeds.')]
    wrong = [one for one in comparison.results if one.note]
    if wrong:
        lines = [[one.algorithm, one.task, str(one.seed), one.status, one.note] for one in wrong]
        body += ['<h2>What went wrong</h2>', page.table(['algorithm', 'task', 'seed', 'status', 'what'], lines, 'by seed')]
    body.append(page.notes([FOOTNOTE]))
    lead = f'{len(comparison.algorithms)} algorithms, {len(comparison.tasks)} tasks.'
    page.write(path, 'Results', lead, comparison.notes[0], ''.join(body))


def _markdown(comparison, path):
    parts = []
    for caption, header, lines in sections(comparison):
        rule = ['---'] * len(header)
        rows = [' | '.join(text.replace('|', '\\|') for text in line) for line in (header, rule, *lines)]
        parts.append('\n'.join([f'**{caption}**', '', *(f'| {row} |' for row in rows)]))
    _write(path, '\n\n'.join([*parts, *comparison.notes, FOOTNOTE]) + '\n')


_TEX = str.maketrans({c: f'\\{c}' for c in '&%$#_{}'} | {'†': r'\dag{}', '~': r'\~{}', '^': r'\^{}', '\\': r'\textbackslash{}'})


def _latex(comparison, path):
    parts = ['% Needs \\usepackage{booktabs}']
    for caption, header, lines in sections(comparison):
        rows = [' & '.join(text.translate(_TEX) for text in line) + r' \\' for line in (header, *lines)]
        parts.append('\n'.join([
            r'\begin{table}', rf'\caption{{{caption.translate(_TEX)}}}', rf'\begin{{tabular}}{{l{"r" * (len(header) - 1)}}}',
            r'\toprule', rows[0], r'\midrule', *rows[1:], r'\bottomrule', r'\end{tabular}', r'\end{table}',
        ]))  # fmt: skip
    _write(path, '\n\n'.join([*parts, *(f'% {note}' for note in (*comparison.notes, FOOTNOTE))]) + '\n')


COLUMNS = ('algorithm', 'task', 'seed', 'status', 'metric', 'last', 'mean_last', 'num_last', 'axis', 'end')
MORE = {'cost': ('wall_seconds', 'updates_per_second', 'device'), 'data': ('environment', 'sha256', 'rows', 'num_episodes')}


def _csv(comparison, path):
    with writers.atomically(path) as file:
        rows = csv.writer(file)
        rows.writerow([*COLUMNS, *(name for names in MORE.values() for name in names), 'run', 'note'])
        for one in comparison.results:
            scores = [getattr(one, protocol).get(comparison.metric, '') for protocol in PROTOCOLS]
            points = one.curve.get(comparison.metric) or [['', '']]
            own = [one.algorithm, one.task, one.seed, one.status, comparison.metric, *scores, one.num_last, one.axis]
            more = [getattr(one, part).get(name) for part in MORE for name in MORE[part]]
            rows.writerow([*own, points[-1][0], *more, one.run, one.note])


def _json(comparison, path):
    results.write(path, comparison.results)


def _write(path, text):
    with writers.atomically(path) as file:
        file.write(text)


WRITERS = {'html': _html, 'md': _markdown, 'tex': _latex, 'csv': _csv, 'json': _json}
