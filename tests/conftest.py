"""Settings of the whole test run and the places where reference material lies."""

import atexit
import gc
import importlib
import os
import shutil
import tempfile
from pathlib import Path

# Tests compile far more than they run: without optimisation, fused kernels and shares for several cores they take half the
# time. Set XLA_FLAGS to differ.
FLAGS = '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
os.environ.setdefault('XLA_FLAGS', FLAGS)
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    # What one test file has compiled, another one, another worker or a process that a test starts need not compile again.
    PROGRAMS = tempfile.mkdtemp(prefix='ooorl-tests-')
    atexit.register(shutil.rmtree, PROGRAMS, ignore_errors=True)
    os.environ['JAX_COMPILATION_CACHE_DIR'] = PROGRAMS
    # Writing costs a third of what compiling does: nothing that is made again in no time is kept.
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'
    os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'
# One CPU device, here and in the processes that tests start, so that numbers do not depend on the number of cores.
os.environ['JAX_NUM_CPU_DEVICES'] = '1'

import jax  # noqa: E402
import pytest  # noqa: E402
from lowering import answer_with_numpy, initialise_with_numpy, share_context  # noqa: E402

from ooorl.mapping import num_cores  # noqa: E402

# What has been imported stays, and traces leave little that only the collector finds: looking for it was a tenth of the time.
gc.freeze()
gc.set_threshold(20_000, 50, 100)

answer_with_numpy()
initialise_with_numpy()

# `[B] - [B, 1]` is an error, not a `[B, B]`.
jax.config.update('jax_numpy_rank_promotion', 'raise')

# Seconds that a process started by a test may take: it ends what hangs, and says nothing about how busy a machine may be.
PATIENCE = 3600

# Mappings of memory at which a process of tests forgets its compiled programs, of which each has a few: 1 to 2 GB.
MANY = 6_000

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get('OOORL_SHARED', ROOT.parent / 'shared'))


def mappings():
    """How many mappings of memory this process has; where that cannot be read, always many."""
    try:
        return Path('/proc/self/maps').read_text().count('\n')
    except OSError:
        return MANY


@pytest.fixture(scope='module')
def script():
    """`script('experiments/rivals')`: the module of a script, which finds those beside it."""
    with pytest.MonkeyPatch.context() as patch:

        def imported(path):
            folder, _, name = path.partition('/')
            patch.syspath_prepend(str(ROOT / folder))
            return importlib.import_module(name)

        yield imported


@pytest.fixture(scope='session')
def shared_dir():
    """The folder of reference material, which is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip('the reference material is not here; set OOORL_SHARED to its folder')
    return SHARED


@pytest.fixture(scope='session')
def golden_dir(shared_dir):
    """Numbers recorded from public implementations."""
    if not (shared_dir / 'golden').is_dir():
        pytest.skip('the golden files are not here; set OOORL_SHARED to the folder that has them')
    return shared_dir / 'golden'


@pytest.fixture
def float64():
    """Double precision, for finite differences."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def highest_precision():
    """Matrix products in full float32, as the golden files were recorded."""
    with jax.default_matmul_precision('highest'):
        yield


@pytest.fixture(scope='module', autouse=True)
def forget_programs():
    """Small programs of one file serve the next, too, but gigabytes of them slow a machine down."""
    share_context()
    yield
    if mappings() >= MANY:
        jax.clear_caches()


def pytest_sessionfinish():
    """Nothing is looked for among what is about to go."""
    gc.freeze()


def pytest_xdist_auto_num_workers(config):
    """One worker for each core that this process may use."""
    del config
    return num_cores()
