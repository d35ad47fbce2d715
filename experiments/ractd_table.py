"""The tables of `ractd.py`, from its results: scores, differences seed by seed, latencies, ablations; tasks are columns."""

import math

from ooorl.reporting import intervals, tables, writers

METRICS = ('normalised', 'success', 'return')
NAMES = {
    'halfcheetah': 'half-cheetah', 'hopper': 'hopper', 'hopper16': 'hopper, plans of 16', 'maze2d': 'maze2d',
    'pointmaze3': 'pointmaze, plans of 25', 'rooms': 'rooms, plans of 8',
}  # fmt: skip
ACTING = (
    'teacher, Heun', 'teacher, Heun from noise 1', 'teacher, DDIM-15', 'teacher, DDIM-5', 'teacher, DDIM-5 from noise 1',
    'teacher, DDIM-1 from noise 1', 'ractd', 'plain', 'fql', 'fql, from noise 0', 'ofql', 'ofql, from noise 0', 'mean_flow',
    'mean_flow, from noise 0', 'gaussian', 'gaussian, draws',
)  # fmt: skip
VARIANTS = ('ofql_weak', 'ofql_ends', 'mean_flow_ends')
OTHERS = tuple(f'{name}{how}' for name in VARIANTS for how in ('', ', from noise 0'))


def everything(folder):
    """The tables as Markdown, of all results in a folder."""
    found = {task: {'main': {}, 'ablation': {}} for task in NAMES}
    for one in map(writers.read_json, sorted(folder.glob('ractd-*.json'))):
        task = one['cell'].partition(':')[0]
        if task not in NAMES:
            continue
        found[task]['ablation' if 'changes' in one else 'main'].update(one['rows'])
        if one.get('data'):
            found[task]['data'] = one['data']
    path = folder / 'ractd_latency.json'
    taken = writers.read_json(path) if path.exists() else {'milliseconds': {}}
    parts = [scores_table(found, ACTING), gaps_table(found), latency_table(found, taken['milliseconds']), ablation_table(found)]
    parts.append(scores_table({task: found[task] for task in ('halfcheetah', 'hopper')}, OTHERS))
    return '\n\n'.join([*parts, wide_table(taken['untrained'])] if 'untrained' in taken else parts)


def _table(first, columns, rows):
    """Markdown; rows without a cell are left out."""
    kept = [(name, cells) for name, cells in rows if any(cells)]
    lines = [f'| {" | ".join(cells)} |' for cells in ([first, *columns], *([name, *cells] for name, cells in kept))]
    return '\n'.join([lines[0], '|---' * (1 + len(columns)) + '|', *lines[1:]])


def scores_table(found, names):
    """Score of what acts, by task, and how often it asks its network."""
    rows = [(name, [_score(rows['main'].get(name)) for rows in found.values()]) for name in names]
    calls = {name: {own['main'][name]['network_evaluations'] for own in found.values() if name in own['main']} for name in names}
    rows = [(name, [*cells, ', '.join(map(str, sorted(calls[name], reverse=True)))]) for name, cells in rows if any(cells)]
    data = ['{episodes}, {rows}'.format(**rows['data']) if 'data' in rows else '' for rows in found.values()]
    rows.append(('the data: mean of episodes, of rows', [*data, '']))
    return _table('what acts', [*map(NAMES.get, found), 'evaluations'], rows)


def gaps_table(found):
    """RACTD minus what acts, seed by seed."""
    gaps = [(name, [_gap(rows['main'].get('ractd'), rows['main'].get(name)) for rows in found.values()]) for name in ACTING]
    return _table('RACTD minus', list(map(NAMES.get, found)), [row for row in gaps if row[0] != 'ractd'])


def latency_table(found, latency):
    """p50 / p99 on hopper, and how many times quicker than Heun: from the least to the most of all tasks."""
    rows = []
    for name in ACTING:
        own, times = latency.get('hopper', {}).get(name), []
        for taken in latency.values():
            if name in taken and 'teacher, Heun' in taken:
                times.append([taken['teacher, Heun'][n]['p50'] / taken[name][n]['p50'] for n in taken[name]])
        if own:
            spans = [f'{min(one):.0f} to {max(one):.0f}' for one in zip(*times, strict=True)]
            rows.append((name, [*(f'{own[n]["p50"]:.2f} / {own[n]["p99"]:.2f}' for n in own), *spans]))
    return _table('hopper, ms: p50 / p99', ['1 observation', '256', 'times quicker, 1', '256'], rows)


def program_of(name):
    """The row whose latency this one has: rows that differ in weights or in the noise they start from run one program."""
    return name.replace('plain', 'ractd').replace(', from noise', ' from noise').partition(' from noise')[0]


def wide_table(taken):
    """Latencies of wider networks, which nobody trained."""
    title = f'untrained, {" x ".join(map(str, taken["hidden"]))}'
    lines = [f'| {title} | ms, 1 | ms, 256 | times quicker |', '|---|---|---|---|']
    own = taken['milliseconds']
    return '\n'.join([*lines, *(f'| {name} | {" | ".join(_latency(row, own["teacher, Heun"]))} |' for name, row in own.items())])


def ablation_table(found):
    """What changes where one detail of RACTD does: the difference from RACTD, which has the same teacher and seeds."""
    rows = {}
    for task, one in found.items():
        asked = {name: row for name, row in one['main'].items() if name == 'plain' or name.startswith(('ractd,', 'plain,'))}
        for name, row in {**asked, **one['ablation']}.items():
            gap = _gap(row, one['main'].get('ractd'))
            rows.setdefault(name, {})[task] = f'{_score(row)}: {gap}' if gap else ''
    named = [(name, [own.get(task, '') for task in found]) for name, own in rows.items()]
    return _table('RACTD but', list(map(NAMES.get, found)), named)


def _metric(row):
    return next(name for name in METRICS if name in row['scores'])


def _score(row):
    if row is None:
        return ''
    metric = _metric(row)
    return tables.cell(metric, row['scores'][metric]).replace(' (all seeds equal)', '‡')


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
