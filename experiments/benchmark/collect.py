"""What a sweep's directory holds, a line a cell: `python experiments/benchmark/collect.py SWEEP_DIR OUT.json [LAST]`.

Scores by seed (the last evaluation, and the mean of the last few), what they cost and what they were made with; cells that have
not been run, or not to their end, with their status. `experiments/benchmark_table.py` makes the README's table of it.
"""

import json
import sys
from pathlib import Path

from ooorl.reporting.writers import read_json
from ooorl.runner.gathered import results_in
from ooorl.runner.sweep import cells


def collected(directory: Path, num_last: int) -> dict:
    """Versions, and one entry a cell in the order of the sweep."""
    entries, versions = [], {}
    results = results_in(directory, num_last=num_last)
    for cell in cells.listed(directory):
        own = [one for one in results if Path(one.run).parent.name == cell.id]
        entry = {'algorithm': cell.algorithm, 'task': cell.task, 'cell': cell.id, 'seeds': [one.seed for one in own]}
        entry['status'] = [one.status for one in own]
        if set(entry['status']) <= {'complete', 'diverged'}:
            metric = 'normalised' if 'normalised' in own[0].last else 'success'
            summary = read_json(directory / 'cells' / cell.id / 'run' / 'summary.json')
            versions = summary['versions']
            entry |= {
                'metric': metric,
                'last': [_rounded(one.last.get(metric)) for one in own],
                'mean_last': [_rounded(one.mean_last.get(metric)) for one in own],
                'num_last': own[0].num_last,
                'num_episodes': own[0].data['num_episodes'],
                'wall_seconds': _rounded(own[0].cost['wall_seconds']),
                'updates_per_second': _rounded(own[0].cost['updates_per_second']),
                'data_sha256': own[0].data['sha256'],
                'config_sha256': summary['provenance']['config SHA-256'],
                'commit': summary['provenance']['git commit'],
            }
        entries.append(entry)
    return {'num_last': num_last, 'versions': versions, 'cells': entries}


def _rounded(value):
    return None if value is None else round(float(value), 2)


if __name__ == '__main__':
    told = collected(Path(sys.argv[1]), int(sys.argv[3]) if len(sys.argv) > 3 else 4)
    lines = ',\n'.join(json.dumps(entry) for entry in told.pop('cells'))
    Path(sys.argv[2]).write_text(json.dumps(told)[:-1] + ', "cells": [\n' + lines + '\n]}\n', encoding='utf-8')
