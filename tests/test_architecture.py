"""The shape of the code: what imports what, how long things are, and what an import does."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

from ooorl import catalogue
from ooorl.envs import HOSTS, TASKS

PACKAGE = ROOT / 'ooorl'
FILES = sorted(PACKAGE.rglob('*.py'))
NAMES = {path: path.relative_to(PACKAGE).with_suffix('').as_posix().removesuffix('/__init__') for path in FILES}
TREES = {path: ast.parse(path.read_text(encoding='utf-8')) for path in FILES}

# Which of our modules each kind of module must never import; a folder stands for all of its files.
LEAVES = ('types', 'errors', 'validation')
OUTER = ('build', 'cli', 'cli_data', 'config', 'evaluation', 'prepare', 'report', 'session', 'settings', 'summary')
RUNNING = ('checkpoint', 'collect', 'evaluate', 'learn', 'phases', 'replay', 'rounds', 'run')
HOST_SIDE = ('data', 'envs', 'catalogue', 'writers')
ALGORITHMS = ('agents', 'policies', 'signals', 'wrap')
FORBIDDEN = {
    'networks': (*RUNNING, *HOST_SIDE, *ALGORITHMS, *OUTER),
    'heads': (*RUNNING, *HOST_SIDE, *ALGORITHMS, *OUTER, 'networks'),
    'losses': (*RUNNING, *HOST_SIDE, *ALGORITHMS, *OUTER, 'networks'),
    'distributions': (*RUNNING, *HOST_SIDE, *ALGORITHMS, *OUTER, 'networks'),
    'policies': (*RUNNING, *HOST_SIDE, *OUTER, 'agents', 'signals', 'wrap'),
    'agents': (*RUNNING, *HOST_SIDE, *OUTER, 'signals', 'wrap'),
    'signals': (*RUNNING, *HOST_SIDE, *OUTER, 'agents', 'policies', 'wrap'),
    'wrap': (*RUNNING, *HOST_SIDE, *OUTER, 'agents', 'policies', 'networks'),
    'replay': (*HOST_SIDE, *ALGORITHMS, *OUTER, 'networks', 'learn', 'run', 'rounds', 'phases'),
    'learn': (*HOST_SIDE, *OUTER, 'agents', 'policies', 'signals', 'networks', 'run', 'rounds', 'phases', 'collect'),
    'collect': (*HOST_SIDE, *ALGORITHMS, *OUTER, 'networks', 'learn', 'run', 'rounds', 'phases'),
    'evaluate': (*HOST_SIDE, *ALGORITHMS, *OUTER, 'networks', 'learn', 'run', 'rounds', 'phases'),
    'phases': (*HOST_SIDE, *ALGORITHMS, *OUTER, 'networks', 'run', 'rounds', 'checkpoint'),
    'rounds': (*HOST_SIDE, *ALGORITHMS, *OUTER, 'networks', 'run', 'checkpoint'),
    'run': (*HOST_SIDE, *ALGORITHMS, *OUTER, 'networks', 'checkpoint'),
    'checkpoint': (*HOST_SIDE, *ALGORITHMS, *OUTER, 'networks', 'run', 'rounds', 'phases'),
    'envs': (*RUNNING, *ALGORITHMS, *OUTER, 'data', 'networks'),
    'data': (*RUNNING, *ALGORITHMS, *OUTER, 'networks'),
    'writers': (*RUNNING, *ALGORITHMS, *OUTER, 'networks', 'data', 'envs'),
    'config': ('build', 'prepare', 'session', 'cli', 'envs', 'data', 'run', 'rounds', 'report'),
    'build': ('prepare', 'session', 'cli', 'envs', 'data', 'run', 'rounds', 'report'),
    'prepare': ('session', 'cli', 'run', 'rounds', 'report', 'checkpoint'),
}

# Who may import a package, and who only inside a function.
PACKAGES = {
    'flax': ({'networks'}, set()),
    'orbax': (set(), {'checkpoint'}),
    'h5py': ({'data'}, set()),
    'gymnasium': ({'envs', 'video'}, {'data/make', 'data/audit', 'cli_data'}),
    'mujoco': ({'envs'}, {'data/make', 'data/audit'}),
    'tensorboardX': (set(), {'writers'}),
    'rich': (set(), {'cli', 'cli_data', 'writers', 'tables', 'report'}),
    'matplotlib': (set(), {'figures'}),
    'torch': (set(), set()),
    'tensorflow': (set(), set()),
    'wandb': (set(), set()),
}


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


@pytest.mark.parametrize('path', FILES, ids=ids(FILES))
def test_imports_go_one_way(path):
    name = NAMES[path]
    ours = {module.removeprefix('ooorl.').replace('.', '/') for module, _ in imported(TREES[path]) if module.startswith('ooorl.')}
    for kind, forbidden in FORBIDDEN.items():
        if within(name, (kind,)):
            wrong = sorted(module for module in ours if within(module, forbidden))
            assert not wrong, f'{name} must not import {wrong}'
    if within(name, LEAVES):
        assert not {module for module in ours if not within(module, LEAVES)}
    if name == 'catalogue':
        assert not ours
    assert name in ('cli', '') or not within('cli', ours), 'nothing imports the command line'


@pytest.mark.parametrize('path', FILES, ids=ids(FILES))
def test_packages_stay_where_they_belong(path):
    name = NAMES[path]
    for module, inside in imported(TREES[path]):
        package = module.partition('.')[0]
        anywhere, lazily = PACKAGES.get(package, ({name}, set()))
        assert within(name, anywhere) or (inside and within(name, lazily)), f'{name} imports {package}'


@pytest.mark.parametrize('path', FILES, ids=ids(FILES))
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding='utf-8')
    assert text.count('\n') <= 350
    for function in (node for node in ast.walk(TREES[path]) if isinstance(node, ast.FunctionDef)):
        docstring = function.body[0] if ast.get_docstring(function) else None
        own = function.end_lineno - function.lineno + 1
        own -= docstring.end_lineno - docstring.lineno + 1 if docstring else 0
        # A builder is as long as the functions that it returns: each of these counts for itself.
        own -= sum(n.end_lineno - n.lineno + 1 for n in function.body if isinstance(n, ast.FunctionDef))
        assert own <= 70, f'{function.name} in {NAMES[path]} has {own} lines'


@pytest.mark.parametrize('path', FILES, ids=ids(FILES))
def test_everything_public_says_what_it_is(path):
    assert ast.get_docstring(TREES[path])
    for node in TREES[path].body:
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
            constants = (node.value for node in ast.walk(TREES[path]) if isinstance(node, ast.Constant))
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
    inner = ('types', 'build', 'config', 'run', 'session', 'prepare', 'wrap', 'signals', 'evaluation', 'cli', 'envs', 'data')
    program = QUIET.format(modules=[f'ooorl.{name}' for name in inner])
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_no_jax():
    program = "import sys, ooorl; assert 'jax' not in sys.modules or hasattr(ooorl, 'iql')"
    subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True, timeout=60)
