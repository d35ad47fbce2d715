"""The shape of the code: what imports what, how long things are, and what an import does."""

import ast
import functools
import subprocess
import sys

import pytest
from conftest import PATIENCE, ROOT

from ooorl import catalogue
from ooorl.envs import HOSTS, TASKS

PACKAGE = ROOT / 'ooorl'
FILES = sorted(PACKAGE.rglob('*.py'))
NAMES = {path: path.relative_to(PACKAGE).with_suffix('').as_posix().removesuffix('/__init__') for path in FILES}

# What each room may import, besides itself and the ground. The order is that of the floors: nothing imports upwards.
GROUND = ('types', 'errors', 'validation', 'mapping', 'catalogue', 'interpreted')
ROOMS = {
    'types': (),
    'errors': (),
    'catalogue': (),
    'interpreted': (),
    'mapping': ('errors',),
    'validation': ('errors',),
    'nn': GROUND,
    'policies': (*GROUND, 'nn'),
    'signals': (*GROUND, 'nn'),
    'windows': ('types',),
    'wrap': (*GROUND, 'windows'),
    'agents': (*GROUND, 'nn', 'policies', 'wrap'),
    'testing': (*GROUND, 'nn'),
    'envs': GROUND,
    'data': (*GROUND, 'envs'),
    'training': (*GROUND, 'nn', 'wrap', 'signals'),
    'reporting': GROUND,
    '__main__': ('runner',),
    'runner': (*GROUND, 'nn', 'policies', 'signals', 'agents', 'wrap', 'envs', 'data', 'training', 'reporting'),
}
# Inside the training room: which of its modules each must not import.
STAIRS = {
    'training/replay': ('learn', 'run', 'rounds', 'phases', 'collect', 'evaluate', 'measure', 'checkpoint'),
    'training/known': ('learn', 'batch_parts', 'run', 'rounds', 'phases', 'collect', 'evaluate', 'measure', 'checkpoint'),
    'training/batch_parts': ('learn', 'run', 'rounds', 'phases', 'collect', 'evaluate', 'measure', 'checkpoint'),
    'training/learn': ('run', 'rounds', 'phases', 'collect', 'evaluate', 'measure', 'checkpoint'),
    'training/collect': ('learn', 'run', 'rounds', 'phases', 'measure', 'checkpoint'),
    'training/evaluate': ('learn', 'run', 'rounds', 'phases', 'measure', 'checkpoint'),
    'training/phases': ('run', 'rounds', 'measure', 'checkpoint'),
    'training/preflight': ('run', 'rounds', 'measure', 'checkpoint'),
    'training/schemes': ('run', 'rounds', 'measure', 'checkpoint'),
    'training/cycles': ('run', 'rounds', 'measure', 'checkpoint'),
    'training/rounds': ('run', 'measure', 'checkpoint'),
    'training/run': ('checkpoint',),
    'training/checkpoint': ('run', 'rounds', 'phases', 'learn', 'collect', 'evaluate', 'measure'),
}

# Who may import a package, and who only inside a function.
PACKAGES = {
    'flax': ({'nn/networks', 'nn/conditional', 'nn/transformer'}, set()),
    'orbax': (set(), {'training/checkpoint'}),
    'h5py': ({'data'}, set()),
    'gymnasium': ({'envs', 'runner/video'}, {'data/make', 'data/audit', 'runner/cli_data'}),
    'mujoco': ({'envs'}, {'data/make', 'data/audit'}),
    'ogbench': (set(), {'envs/ogbench'}),
    'tensorboardX': (set(), {'reporting/events'}),
    'filelock': (set(), {'runner/run_directory', 'runner/sweep/claims'}),
    'ray': (set(), {'runner/sweep/cluster'}),
    'pyarrow': (set(), {'data/tabular', 'data/lerobot'}),
    'bottle': (set(), {'runner/browser'}),
    'onnx': (set(), {'runner/export'}),
    'onnxruntime': (set(), {'runner/export'}),
    'flatbuffers': (set(), {'runner/export'}),
    'rich': (
        set(),
        {'runner/cli', 'runner/cli_data', 'runner/cli_header', 'reporting/writers', 'reporting/tables', 'reporting/report'},
    ),
    'matplotlib': (set(), {'reporting/figures', 'reporting/maps'}),
    'torch': (set(), set()),
    'tensorflow': (set(), set()),
    'wandb': (set(), set()),
}


@functools.cache
def tree_of(path):
    """Parsed when asked for: every worker reads this file, one runs it."""
    return ast.parse(path.read_text(encoding='utf-8'))


def imported(tree):
    """(module, whether inside a function) of every import."""
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, 'imports name their module in full'
            yield node.module, id(node) in inside
            yield from ((f'{node.module}.{alias.name}', id(node) in inside) for alias in node.names)


def within(name, places):
    return any(name == place or name.startswith(f'{place}/') for place in places)


def ids(paths):
    return [NAMES[path] or 'ooorl' for path in paths]


@pytest.mark.parametrize('path', [path for path in FILES if NAMES[path]], ids=lambda path: NAMES[path])
def test_imports_go_one_way(path):
    name = NAMES[path]
    room = name.partition('/')[0]
    modules = (module for module, _ in imported(tree_of(path)) if module.startswith('ooorl.'))
    ours = {module.removeprefix('ooorl.').replace('.', '/') for module in modules}
    wrong = sorted(module for module in ours if not within(module, (room, *ROOMS[room])))
    assert not wrong, f'{name} must not import {wrong}'
    forbidden = [f'training/{below}' for below in STAIRS.get(name, ())]
    wrong = sorted(module for module in ours if within(module, forbidden))
    assert not wrong, f'{name} must not import {wrong}'
    last = name in ('runner/cli', '__main__')
    assert last or not any(within(module, ('runner/cli',)) for module in ours), 'nothing imports the command line'


def test_no_two_files_differ_by_an_ending_only():
    stems = sorted({path.stem.rstrip('s') for path in FILES if path.stem != '__init__'})
    endings = ('s', 'd', 'r', 'ing', 'ation', 'ion', 'er', 'ed', 'e')
    for one in stems:
        alike = [other for other in stems if other != one and any(one.rstrip('e') + ending == other for ending in endings)]
        assert not alike, f'{one} and {alike} are told apart by an ending only'


@pytest.mark.parametrize('path', FILES, ids=ids(FILES))
def test_packages_stay_where_they_belong(path):
    name = NAMES[path]
    for module, inside in imported(tree_of(path)):
        package = module.partition('.')[0]
        anywhere, lazily = PACKAGES.get(package, ({name}, set()))
        assert within(name, anywhere) or (inside and within(name, lazily)), f'{name} imports {package}'


@pytest.mark.parametrize('path', FILES, ids=ids(FILES))
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding='utf-8')
    assert text.count('\n') <= 350
    for function in (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)):
        docstring = function.body[0] if ast.get_docstring(function) else None
        own = function.end_lineno - function.lineno + 1
        own -= docstring.end_lineno - docstring.lineno + 1 if docstring else 0
        # A builder is as long as the functions that it returns: each of these counts for itself.
        own -= sum(n.end_lineno - n.lineno + 1 for n in function.body if isinstance(n, ast.FunctionDef))
        assert own <= 70, f'{function.name} in {NAMES[path]} has {own} lines'


@pytest.mark.parametrize('path', FILES, ids=ids(FILES))
def test_everything_public_says_what_it_is(path):
    assert ast.get_docstring(tree_of(path))
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith('_'):
            assert ast.get_docstring(node), f'{node.name} in {NAMES[path]} has no docstring'
            # What a base class declares is said there.
            for method in node.body if isinstance(node, ast.ClassDef) and not node.bases else ():
                if isinstance(method, ast.FunctionDef) and not method.name.startswith('_'):
                    assert ast.get_docstring(method), f'{node.name}.{method.name} in {NAMES[path]} has no docstring'


def test_no_environment_is_named_outside_its_place():
    known = {*catalogue.ENTRIES, *TASKS, *HOSTS}
    for path in FILES:
        if not within(NAMES[path], ('envs', 'catalogue')):
            constants = (node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant))
            strings = {value for value in constants if isinstance(value, str)}
            assert not strings & known, f'{NAMES[path]} names {strings & known}'


def test_no_catch_all_modules():
    banned = {'utils', 'util', 'common', 'helpers', 'misc', 'manager', 'base'}
    assert not {part for name in NAMES.values() for part in name.split('/')} & banned


QUIET = """
import os, sys
sys.argv = ['x', '--no-such-option']
before = dict(os.environ)
import ooorl
for name in {modules!r}:
    __import__(name)
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), 'a backend was started'
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
loaded = {{'torch', 'tensorflow', 'wandb', 'orbax', 'matplotlib', 'tensorboardX'}} & set(sys.modules)
assert not loaded, loaded
assert sys.argv == ['x', '--no-such-option']
"""


def test_importing_does_nothing_else():
    rooms = ('types', 'wrap', 'signals', 'envs', 'data', 'agents', 'training.run')
    inner = (*rooms, 'runner.build', 'runner.session', 'runner.evaluate_run', 'runner.cli')
    program = QUIET.format(modules=[f'ooorl.{name}' for name in inner])
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_no_jax_and_rooms_when_asked_for():
    program = "import sys, ooorl; assert 'jax' not in sys.modules; ooorl.agents.iql; assert 'jax' in sys.modules"
    subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True, timeout=PATIENCE)


def test_cores_are_counted_in_one_place():
    counting = {NAMES[path] for path in FILES if 'cpu_count' in path.read_text(encoding='utf-8')}
    assert counting == {'mapping', 'runner/doctor'}, 'os.cpu_count counts cores that the process may not use: mapping.num_cores'
