"""Takes anew what README and documents quote, one script after another, and says how long each took.

Fewer repeats than each script makes by itself, so that all of them fit into about 15 minutes on four idle cores. Results are
added to `results/`, load beside them. Peers: see expressive_speed.py, online_sac.py and offline_iql.py.

    python benchmarks/every.py --fql CHECKOUT --sbx E/bin/python --d3rlpy E2/bin/python
    python benchmarks/every.py --only seeds host_rows --dry
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = {
    'demo': [],
    'seeds': ['--repeats', '4'],
    'host_rows': [],
    'online_sac': ['--steps', '500', '--repeats', '4'],
    'offline_iql': ['--updates', '300', '--repeats', '4'],
    'finetuning': ['--repeats', '3'],
    'expressive_policies': ['--repeats', '2', '--calls', '100'],
    'expressive_speed': ['--repeats', '2', '--calls', '100'],
}
ALWAYS_RECORD = ('demo',)  # scripts without --dry
PEERS = {'online_sac': 'sbx', 'offline_iql': 'd3rlpy', 'expressive_speed': 'fql'}


def command(name, arguments):
    """The command line of a script."""
    peer = getattr(arguments, PEERS.get(name, ''), None)
    dry = ['--dry'] if arguments.dry and name not in ALWAYS_RECORD else []
    return [sys.executable, str(HERE / f'{name}.py'), *SCRIPTS[name], *(['--peer', peer] if peer else []), *dry]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--only', nargs='+', choices=tuple(SCRIPTS), default=tuple(SCRIPTS))
    parser.add_argument('--fql', metavar='CHECKOUT', help='of github.com/seohongpark/fql')
    parser.add_argument('--sbx', metavar='PYTHON', help='that has sbx-rl and gymnasium[mujoco]')
    parser.add_argument('--d3rlpy', metavar='PYTHON', help='that has d3rlpy')
    parser.add_argument('--dry', action='store_true', help='print, and write no results (demo always does)')
    arguments = parser.parse_args()
    failed = []
    for name in arguments.only:
        began = time.monotonic()
        print(f'== {name}, load {os.getloadavg()[0]:.1f}', flush=True)
        if subprocess.run(command(name, arguments)).returncode:
            failed.append(name)
        print(f'== {name}: {time.monotonic() - began:.0f} s', flush=True)
    return f'failed: {", ".join(failed)}' if failed else 0


if __name__ == '__main__':
    sys.exit(main())
