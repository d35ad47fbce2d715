"""What every benchmark needs: timing contenders by turns, and one JSON line for each measurement.

The speed of a shared machine swings by a factor of two within minutes, so contenders take turns inside one process and
only their ratios mean much. Where a program is timed twice under two names, the ratio of the two says how finely the
machine resolves.
"""

import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from ooorl.mapping import num_cores

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'results'
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'gymnasium', 'gymnasium-robotics', 'mujoco', 'h5py')


def take_turns(contenders: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Calls every contender once unmeasured, then `repeats` times by turns, each round starting with another one.

    A contender returns its own measurement, so that it decides what is timed.
    """
    names = list(contenders)
    for name in names:
        contenders[name]()
    measured = {name: [] for name in names}
    for repeat in range(repeats):
        for place in range(len(names)):
            name = names[(repeat + place) % len(names)]
            measured[name].append(contenders[name]())
    return measured


class Process:
    """A contender in a process of its own; a call makes it measure once and gives its number.

    It prints what it has to say in lines that begin with `|`, the first one without being asked, and reads a line for every
    further one.

    Args:
      command: how it begins.
      needs: what to say it needs where it ends before it answers.
      cores: the numbers of the only cores it may use; all that this process may use by default.
    """

    def __init__(self, command, needs, cores=None):
        bound = {'preexec_fn': lambda: os.sched_setaffinity(0, cores)} if cores else {}
        pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, bufsize=1, **pipes, **bound)
        self._needs = needs
        self.greeting = self._answer()

    def ask(self, line='go') -> list[str]:
        """The words of its answer to a line."""
        with contextlib.suppress(BrokenPipeError):  # of one that has ended, which the answer will tell
            self._process.stdin.write(f'{line}\n')
        return self._answer()

    def _answer(self):
        line = ' '
        while line and not line.startswith('|'):
            line = self._process.stdout.readline()
        if not line:
            self.close()
            raise SystemExit(f'{self._needs}; its process ended with {self._process.returncode}')
        return line.split()[1:]

    def close(self) -> None:
        """Ends it."""
        with contextlib.suppress(BrokenPipeError), self._process:  # which closes its pipes, at which it ends, and waits for it
            pass

    def __call__(self) -> float:
        return float(self.ask()[0])


def summary(values) -> dict:
    """Median and range of repeated measurements."""
    return {'median': statistics.median(values), 'min': min(values), 'max': max(values), 'repeats': len(values)}


def record(script: str, *, unit: str, contender: str, values, **settings) -> dict:
    """Appends one measurement to `results/<script>.jsonl` and prints it.

    Args:
      script: name of the results file, `Path(__file__).stem`.
      unit: of the values.
      contender: what was measured.
      values: the repeats.
      **settings: whatever else a reader must know: sizes, ratios, seconds of compilation.
    """
    row = {'contender': contender, 'unit': unit, **summary(values), **settings, **machine()}
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f'{script}.jsonl', 'a', encoding='utf-8') as file:
        file.write(json.dumps(row, default=float) + '\n')
    shown = ', '.join(f'{name} {value}' for name, value in settings.items())
    print(f'{contender}: {row["median"]:,.4g} ({row["min"]:,.4g} to {row["max"]:,.4g}) {unit}; {shown}', flush=True)
    return row


def machine() -> dict:
    """Device, versions, commit, and how busy the machine is."""
    import jax

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    device = jax.devices()[0]
    return {
        'device': {'platform': device.platform, 'kind': device.device_kind, 'count': jax.local_device_count()},
        'processor': _processor(),
        'cores': num_cores(),
        'load': round(os.getloadavg()[0], 2),
        'python': platform.python_version(),
        'versions': versions,
        'commit': _commit(),
        'date': datetime.date.today().isoformat(),
    }


def _processor():
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        return platform.processor()
    return next((line.partition(':')[2].strip() for line in text.splitlines() if line.startswith('model name')), '')


def _commit():
    def git(*arguments):
        return subprocess.run(['git', *arguments], cwd=HERE, capture_output=True, text=True).stdout.strip()

    return git('rev-parse', '--short=12', 'HEAD') + ('+changes' if git('status', '--porcelain', '--', '../ooorl') else '')
