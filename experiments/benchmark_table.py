"""The README's table of benchmarks, made from committed results: `python experiments/benchmark_table.py` writes it anew.

`benchmark.json` says what the rows are, where their results lie and what has been published; where nothing ran the table says so.
Results are summaries of runs, or what `ooorl table --out results.json` wrote.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ooorl.reporting import results, writers

HERE = Path(__file__).resolve().parent
README = HERE.parent / 'README.md'
BEGIN, END = '<!-- made by experiments/benchmark_table.py -->', '<!-- end of what is made -->'


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


def placed(text: str) -> str:
    """A page with the region in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + region() + after


if __name__ == '__main__':
    README.write_text(placed(README.read_text(encoding='utf-8')), encoding='utf-8')
