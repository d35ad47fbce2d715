"""The tables of `ractd.py`, from its results: scores, evaluations and latencies; each ablation beside RACTD, seed by seed."""

import math

from ooorl.reporting import intervals, tables, writers

METRICS = ('normalised', 'success', 'return')


def everything(folder):
    """The tables as Markdown, of all results in a folder."""
    results = [writers.read_json(path) for path in sorted(folder.glob('ractd-*.json'))]
    path = folder / 'ractd_latency.json'
    taken = writers.read_json(path) if path.exists() else {'milliseconds': {}}
    found = {}
    for one in results:
        task, _, part = one['cell'].partition(':')
        rows = found.setdefault(task, {'main': {}, 'ablation': {}})
        rows['ablation' if 'changes' in one else 'main'].update(one['rows'])
        if one.get('data'):
            rows['data'] = one['data']
    parts = [main_table(found, taken['milliseconds']), ablation_table(found)]
    return '\n\n'.join([*parts, wide_table(taken['untrained'])] if 'untrained' in taken else parts)


def program_of(name):
    """The row whose latency this one has: rows that differ in weights or in the noise they start from run one program."""
    return name.replace('plain', 'ractd').replace(', from noise', ' from noise').partition(' from noise')[0]


def wide_table(taken):
    """Latencies of wider networks, which nobody trained."""
    title = f'untrained, {" x ".join(map(str, taken["hidden"]))}'
    lines = [f'| {title} | ms, 1 | ms, 256 | times quicker |', '|---|---|---|---|']
    own = taken['milliseconds']
    return '\n'.join([*lines, *(f'| {name} | {" | ".join(_latency(row, own["teacher, Heun"]))} |' for name, row in own.items())])


def main_table(found, latency):
    """Scores, evaluations of the network, latencies (p50 / p99), how many times quicker than Heun, and RACTD minus this."""
    names = ('task', 'what acts', 'score', 'RACTD minus this', 'evaluations', 'ms, 1', 'ms, 256', 'times quicker')
    lines = [f'| {" | ".join(names)} |', '|---' * len(names) + '|']
    for task, rows in found.items():
        taken = latency.get(task, {})
        for name, row in rows['main'].items():
            if name.startswith(('ractd,', 'plain,')):
                continue  # in the other table
            gap = '' if name == 'ractd' else _gap(rows['main'].get('ractd'), row)
            times = _latency(taken.get(program_of(name)), taken.get('teacher, Heun'))
            lines.append(f'| {" | ".join([task, name, _score(row), gap, str(row["network_evaluations"]), *times])} |')
        if 'data' in rows:
            means = f'{rows["data"]["episodes"]}, {rows["data"]["rows"]}'
            lines.append(f'| {task} | the data: mean of episodes, of rows | {means} |  |  |  |  |  |')
    return '\n'.join(lines)


def ablation_table(found):
    """What changes where one detail of RACTD does: score, and the difference from RACTD, which has the same teacher and seeds."""
    names = ('task', 'RACTD but', 'score', 'minus RACTD')
    lines = [f'| {" | ".join(names)} |', '|---' * len(names) + '|']
    for task, rows in found.items():
        base = rows['main'].get('ractd')  # the same seeds and keys
        same = {name: row for name, row in rows['main'].items() if name == 'plain' or name.startswith(('ractd', 'plain,'))}
        for name, row in {**same, **rows['ablation']}.items():
            lines.append(f'| {task} | {name} | {_score(row)} | {"" if name == "ractd" else _gap(row, base)} |')
    return '\n'.join(lines)


def _metric(row):
    return next(name for name in METRICS if name in row['scores'])


def _score(row):
    metric = _metric(row)
    return tables.cell(metric, row['scores'][metric])


def _gap(first, second):
    if first is None or second is None:
        return ''
    metric = _metric(first)
    share = 100.0 if metric == 'success' else 1.0
    apart = intervals.score_difference(metric, first['scores'][metric], second['scores'][metric])
    if not math.isfinite(apart.low):
        return f'{share * apart.point:+.1f}'
    return f'{share * apart.point:+.1f} [{share * apart.low:+.1f}, {share * apart.high:+.1f}]{tables.mark(apart)}'


def _latency(own, slowest):
    if own is None:
        return '', '', ''
    cells = [f'{own[rows]["p50"]:.2f} / {own[rows]["p99"]:.2f}' for rows in own]
    return *cells, '' if slowest is None else ' / '.join(f'{slowest[rows]["p50"] / own[rows]["p50"]:.0f}' for rows in own)
