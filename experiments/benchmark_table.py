"""The README's tables of benchmarks, made from committed results: `python experiments/benchmark_table.py` writes them anew.

`benchmark.json` says what the rows of the first are, where their results lie and what has been published; where nothing ran the
table says so. Results are summaries of runs, or what `ooorl table --out results.json` wrote. The second is the sweep of
`benchmark/`, of which `benchmark/collect.py` keeps what is needed.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ooorl.reporting import results, writers
from ooorl.reporting.intervals import interval

HERE = Path(__file__).resolve().parent
README = HERE.parent / 'README.md'
BEGIN, END = '<!-- made by experiments/benchmark_table.py -->', '<!-- end of what is made -->'
SWEPT, SWEPT_END = '<!-- made by experiments/benchmark_table.py from a sweep -->', '<!-- end of the sweep -->'


def region() -> str:
    """The table with what stands around it, as it belongs into the README."""
    table = json.loads((HERE / 'benchmark.json').read_text(encoding='utf-8'))
    tasks, published = table['tasks'], table['published']
    lines = [f'| algorithm | {" | ".join(tasks.values())} | published |', '|---|' + '---|' * (len(tasks) + 1)]
    for row in table['rows']:
        cells = [cell(row, task) for task in tasks]
        known = published['scores'].get(row.get('published'), {})
        beside = ', '.join(f'{known[task]:.0f}' if task in known else 'none' for task in tasks) if known else ''
        lines.append(f'| {row["name"]} | {" | ".join(cells)} | {beside} |')
    return '\n'.join([BEGIN, *lines, '', f'Published, in the order of the tasks: {published["note"]}', END])


def cell(row: Mapping, task: str) -> str:
    """Mean and seeds of one row on one task; 'not run' where there are no results."""
    if task in row.get('elsewhere', {}):
        return f'{row["elsewhere"][task]:.1f}'
    if task not in row.get('results', {}):
        return 'not run'
    scores = found(HERE / 'results' / row['results'][task], row.get('algorithm'), task)
    shown = ', '.join(f'{score + 0.0:.0f}'.replace('-0', '0') for score in scores)
    return f'{np.mean(scores) + 0.0:.1f}: {shown}'.replace('-0.0:', '0.0:') if scores else 'not run'


def found(path: Path, algorithm: str | None, task: str) -> list[float]:
    """Normalised scores of the last evaluation, one a seed that ended well."""
    held = writers.read_json(path)
    if 'phases' in held:
        lost = set(held['phases'][-1].get('diverged') or ())
        every = zip(held['seeds'], held['phases'][-1]['scores']['normalised'], strict=True)
        return [score for seed, score in every if seed not in lost]
    named = (one for one in results.read(path) if one.algorithm == algorithm and one.task == task and one.status == 'complete')
    return [one.last['normalised'] for one in sorted(named, key=lambda one: one.seed)]


def swept(path: Path | None = None) -> str:
    """The table of the sweep with what stands around it: mean over seeds of the last evaluation with its interval."""
    cells = writers.read_json(path or HERE / 'results' / 'benchmark_sweep.json')['cells']
    tasks, algorithms = (list(dict.fromkeys(cell[key] for cell in cells)) for key in ('task', 'algorithm'))
    lines = [f'| preset | {" | ".join(map(_short, tasks))} |', '|---|' + '---|' * len(tasks)]
    for algorithm in algorithms:
        own = {cell['task']: cell for cell in cells if cell['algorithm'] == algorithm}
        lines.append(f'| {algorithm} | {" | ".join(swept_cell(own.get(task, {})) for task in tasks)} |')
    done = sum(cell.get('status', []).count('complete') for cell in cells)
    hours = sum(cell.get('wall_seconds', 0) for cell in cells) / 3600
    told = f'{done} of {sum(len(cell["seeds"]) for cell in cells)} seeds are complete; {hours:.1f} hours of a shared core.'
    return '\n'.join([SWEPT, *lines, '', told, SWEPT_END])


def swept_cell(cell: Mapping) -> str:
    """Mean and interval of the seeds that ended well, and how many did not."""
    scores = [score for score, status in zip(cell.get('last', ()), cell.get('status', ()), strict=False) if status == 'complete']
    if not scores:
        return 'not run'
    found = interval(np.array(scores))
    ends = f' [{found.low:.0f}, {found.high:.0f}]' if np.isfinite(found.low) else ''
    lost = f', {len(cell["status"]) - len(scores)} diverged' if len(scores) < len(cell['status']) else ''
    return f'{np.mean(scores):.0f}{ends}{lost}'.replace('-0', '0')


def _short(task):
    return task.removesuffix('-singletask-task1-v0').rpartition('-v')[0] or task.removesuffix('-singletask-task1-v0')


def placed(text: str) -> str:
    """A page with the regions in their places."""
    for made, begin, end in ((region, BEGIN, END), (swept, SWEPT, SWEPT_END)):
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = before + made() + after
    return text


if __name__ == '__main__':
    README.write_text(placed(README.read_text(encoding='utf-8')), encoding='utf-8')
