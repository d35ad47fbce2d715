"""How long does `ooorl demo` take, from the start of its process to its end: cold, then with its compiled programs at hand?

Each contender is a checkout with a cache of programs of its own: this one, and any others named, by turns. Only ratios within one
run mean much on a shared machine; `load` is that of the end.

    python benchmarks/demo.py                                                     # three runs, 2 minutes on four idle cores
    python benchmarks/demo.py --against ../before --repeats 3
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import timing

HERE = Path(__file__).resolve().parent.parent
OURS = ('JAX_COMPILATION_CACHE_DIR', 'JAX_ENABLE_COMPILATION_CACHE')  # settings that would take the place of the demo's own cache


def demo(checkout, folder):
    """One run of the demo of a checkout; its seconds by activity, and its rows of metrics."""
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    environment |= {'PYTHONPATH': str(checkout), 'XDG_CACHE_HOME': str(folder / 'cache')}
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, '-m', 'ooorl', 'demo', '--out', f'{place}/run']
        subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL, check=True)
        summary = json.loads(Path(place, 'run', 'summary.json').read_text())
        rows = Path(place, 'run', 'metrics.jsonl').read_bytes()
    return {'wall': summary['wall_seconds'], **summary['times']}, rows


def turns(checkouts, repeats):
    """`[turn][checkout]`: seconds of each run, all checkouts cold first, and whether all wrote the same rows."""
    seconds, written = [], set()
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1 + repeats):
            found = {}
            for number in range(len(checkouts)):
                checkout = checkouts[(turn + number) % len(checkouts)]
                found[checkout], rows = demo(checkout, Path(folder) / str(checkouts.index(checkout)))
                written.add(rows)
            seconds.append(found)
    return seconds, len(written) == 1


def main(arguments):
    checkouts = [HERE, *(path.resolve() for path in arguments.against)]
    seconds, same = turns(checkouts, arguments.repeats)
    for label, own in (('cold', seconds[:1]), ('warm', seconds[1:])):
        for checkout in checkouts:
            values = [turn[checkout]['wall'] for turn in own]
            ratios = [turn[checkout]['wall'] / turn[checkouts[-1]]['wall'] for turn in own]
            parts = {name: round(statistics.median(turn[checkout][name] for turn in own), 1) for name in own[0][checkout]}
            name = f'demo, {label}' + ('' if checkout == HERE else f', {checkout.name}')
            settings = {'ratio_to_last': round(statistics.median(ratios), 3), 'same_rows': same, 'seconds': parts}
            timing.record(Path(__file__).stem, unit='s', contender=name, values=values, **settings)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--against', type=Path, nargs='*', default=[], metavar='CHECKOUT', help='the last one is the reference')
    parser.add_argument('--repeats', type=int, default=2, help='warm runs')
    main(parser.parse_args())
