"""What the machine has and what is missing, in sentences."""

import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

OPTIONAL = {
    'gymnasium_robotics': 'Adroit and Kitchen tasks; pip install "ooorl[robotics]"',
    'minari': "Minari's own downloads (its files are read without it); pip install minari",
}
NEEDED = ('jax', 'flax', 'optax', 'gymnasium', 'mujoco', 'h5py', 'orbax.checkpoint', 'tensorboardX', 'rich', 'matplotlib')


def diagnose() -> tuple[list[str], bool]:
    """Lines to print, and whether everything needed is there."""
    from ooorl.mapping import num_cores
    from ooorl.runner.summary import versions

    missing = [name for name in NEEDED if importlib.util.find_spec(name.split('.')[0]) is None]
    lines = [f'{name} {version}' for name, version in versions().items()]
    lines.append(f'system: {platform.platform()}, {num_cores()} of {os.cpu_count()} cores may be used')
    lines += [f'MISSING: {name}; pip install ooorl again' for name in missing]
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        lines.append(f'Python 3.11 to 3.13 is what is tested; this is {platform.python_version()}')
    lines += _device()
    for name, why in OPTIONAL.items():
        lines.append(f'{name}: {"present" if importlib.util.find_spec(name) else "absent, needed for " + why}')
    lines += _places()
    return lines, not missing


def of_run(directory: Path) -> list[str]:
    """What a finished run's rows say of its settings, in sentences.

    Raises:
      UsageError: if the directory holds no finished run.
    """
    from ooorl.reporting.remedies import remedies
    from ooorl.reporting.stored import load

    summary, rows, _ = load(directory)
    found = remedies(summary, rows)
    lines = [f'{one.name} ({len(one.seeds)} of {len(summary["seeds"])} seeds): {one.sentence}' for one in found]
    return lines or [f'nothing that the rows of {directory} show speaks against its settings']


def _device():
    import jax

    lines = [f'jax runs on {jax.default_backend()}: {", ".join(str(device) for device in jax.devices())}']
    if jax.default_backend() == 'cpu' and shutil.which('nvidia-smi'):
        lines.append('an NVIDIA driver is here but jax has no CUDA plugin: pip install "jax[cuda13]"')
    for name in ('XLA_FLAGS', 'XLA_PYTHON_CLIENT_PREALLOCATE', 'XLA_PYTHON_CLIENT_MEM_FRACTION', 'MUJOCO_GL', 'JAX_PLATFORMS'):
        if name in os.environ:
            lines.append(f'{name}={os.environ[name]} (yours, left as it is)')
    return lines


def _places():
    lines = []
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'ooorl'
    folder = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(folder).free / 2**30
    lines.append(f'cache: {cache}, {free:.0f} GiB free' + ('' if os.access(folder, os.W_OK) else ', NOT writable'))
    if os.environ.get('OOORL_OFFLINE') == '1':
        lines.append('OOORL_OFFLINE=1: data sets are not fetched')
    return lines
