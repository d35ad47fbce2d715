"""Everything that the compiled programs of a run are made from, as one name."""

import hashlib
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import jax
import tomli_w

import ooorl
from ooorl.mapping import on_cpu
from ooorl.policies import POLICIES
from ooorl.runner.prepare import Prepared
from ooorl.runner.settings import AGENT_TABLES, TABLES, WHERE_GIVEN
from ooorl.training.shelf import Shelf

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')
PLAIN = (*(name for name in TABLES if name not in WHERE_GIVEN), *AGENT_TABLES)  # tables that say all of what they mean
# Settings that no program knows.
UNSEEN = (('name',), ('report',), *(('run', key) for key in ('seeds', 'checkpoint_seconds', 'memory_limit')))


def fingerprint(prepared: Prepared) -> str | None:
    """A name that is the same for two runs only if their programs are.

    It is made from the config without what no program knows, the data set's digest, the source of this package, versions, jax's
    settings, and the machine. None where code from elsewhere takes part (`module:name`), or people, stores and policies of
    earlier runs do: what these are is not known here.
    """
    config = _seen(prepared.config)
    if prepared.setup.stores or config.keys() - {*PLAIN} or _from_elsewhere(config):
        return None
    parts = [
        tomli_w.dumps(config), prepared.dataset and prepared.dataset.sha256, _source(), _versions(), _settings(), _machine(),
    ]  # fmt: skip
    return hashlib.sha256('\n'.join(map(str, parts)).encode()).hexdigest()


def shelf(prepared: Prepared) -> Shelf | None:
    """Where the programs of this run are kept between processes: in jax's own cache; None where there is none or no name.

    On a CPU and in one process, where it was tried.
    """
    place = jax.config.jax_compilation_cache_dir if jax.config.jax_enable_compilation_cache else None
    tried = place and '://' not in place and on_cpu() and jax.process_count() == 1
    name = fingerprint(prepared) if tried else None
    return None if name is None else Shelf(Path(place) / 'shelf' / name)


def _seen(config):
    tables = {name: dict(value) if isinstance(value, Mapping) else value for name, value in config.items()}
    for table, *key in UNSEEN:
        (tables[table] if key else tables).pop(key[0] if key else table, None)
    return tables


def _from_elsewhere(table):
    """Whether any setting is a name of code, or looks like one, or a policy that is given; of data files only content counts."""
    values = [value for key, value in table.items() if key != 'path']
    given = any(isinstance(value, str) and (':' in value or value in POLICIES and POLICIES[value].given) for value in values)
    return given or any(_from_elsewhere(value) for value in values if isinstance(value, Mapping))


def _source():
    """The digest of this package's own files."""
    folder, digest = Path(ooorl.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob('*.py')):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def _versions():
    return [platform.python_version(), *(f'{name} {metadata.version(name)}' for name in PACKAGES)]


def _settings():
    """jax's settings and the environment variables that change what is compiled; where programs are cached is no part of it."""
    set_here = {name: value for name, value in jax.config.values.items() if 'cache' not in name}
    outside = {name: value for name, value in os.environ.items() if name.startswith(('XLA_', 'LIBTPU_', 'TF_'))}
    return sorted(set_here.items(), key=repr), sorted(outside.items())


def _machine():
    """The devices, and what the processor can do: programs are compiled for it."""
    devices = [(device.platform, device.device_kind) for device in jax.local_devices()]
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    able = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
    return devices, platform.machine(), platform.processor(), able, jax.devices()[0].client.platform_version
