"""Writes docs/config.md and docs/api.md from the dataclasses and docstrings: `python docs/generate.py` (or `make docs`)."""

import ast
import inspect
from pathlib import Path

import ooorl
from ooorl import catalogue
from ooorl.agents import ALGORITHMS
from ooorl.data.splits import Combinations, Factor
from ooorl.envs import one_way
from ooorl.envs.d4rl import TABLE
from ooorl.envs.registry import TASKS
from ooorl.runner import settings
from ooorl.runner.describe import settings_of

HERE = Path(__file__).resolve().parent
MADE = 'Made by `python docs/generate.py`; edit the dataclasses and docstrings instead.\n\n'
# Modules that are for the command line alone, or for the processes it starts.
INNER = ('ooorl.runner', 'ooorl.reporting', 'ooorl.envs.host_worker', 'ooorl.envs.worker_pool', 'ooorl.envs.d4rl.')
OFFERED = ('ooorl.reporting.intervals', 'ooorl.reporting.stats', 'ooorl.reporting.diagnostics')


def config_page() -> str:
    """Every key that a config file may have."""
    parts = ['# Config files\n\n', MADE, CONFIG_INTRODUCTION]
    parts += [_table(f'## `[{name}]`', kind) for name, kind in settings.TABLES.items()]
    parts += [_table('### `[dataset.combinations]`', Combinations), _table('### `[[dataset.combinations.factors]]`', Factor)]
    parts += [_table('## Agent tables: `[agent]`, `[explore]`, `[exploit]`', settings.AgentConfig)]
    parts += [_table(f'### Sub-table `{name}`', kind) for name, kind in settings.SUB_TABLES.items()]
    for table, (own, key, kinds) in settings.CHOSEN.items():
        parts += [_table(f'### Sub-table `{table}`', own)]
        # What an algorithm's own table lists is not listed once more for its critic.
        listed = {name: kind for name, kind in kinds.items() if kind not in {entry.config for entry in ALGORITHMS.values()}}
        parts += [_table(f'#### Keys of `{table}` with `{key} = "{name}"`', kind) for name, kind in listed.items()]
    parts += ['## Algorithms\n\n', _algorithms()]
    parts += [_table(f'### Keys of `agent = "{name}"`', entry.config) for name, entry in ALGORITHMS.items()]
    return ''.join([*parts, '## Environments\n\n', _environments()])


def api_page() -> str:
    """Every public name with its docstring, read from the source without importing it."""
    root = Path(ooorl.__file__).parent
    names = {path: '.'.join(('ooorl', *path.relative_to(root).with_suffix('').parts)) for path in root.rglob('*.py')}
    names = {path: name.removesuffix('.__init__') for path, name in names.items()}
    offered = {path: name for path, name in names.items() if name in OFFERED or not name.startswith(INNER)}
    modules = [_module(path, offered[path]) for path in sorted(offered)]
    return ''.join(['# Python interface\n\n', MADE, API_INTRODUCTION, *modules])


def _module(path, name):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith('_')]
    return f'## `{name}`\n\n{_block(ast.get_docstring(tree))}' + ''.join(map(_member, public))


def _member(node):
    """A function's signature, or a class's fields, above the docstring."""
    if isinstance(node, ast.FunctionDef):
        arguments = ast.unparse(node.args)
        returns = f' -> {ast.unparse(node.returns)}' if node.returns else ''
        shown = f'{node.name}({arguments}){returns}'
    else:
        fields = [ast.unparse(field) for field in node.body if isinstance(field, ast.AnnAssign)]
        shown = '\n    '.join([f'class {node.name}', *fields])
    return f'### `{node.name}`\n\n```python\n{shown}\n```\n\n{_block(ast.get_docstring(node))}'


def _block(docstring):
    return f'```text\n{docstring}\n```\n\n' if docstring else ''


def _first(kind):
    return (inspect.getdoc(kind) or '').split('\n\n')[0].replace('\n', ' ')


def _table(heading, kind):
    rows = [f'| `{s.name}` | {s.type} | {_code(s.default)} | {_cell(s.meaning)} |' for s in settings_of(kind)]
    table = '\n'.join(['| key | type | default | meaning |', '|---|---|---|---|', *rows]) if rows else 'No keys.'
    return f'{heading}\n\n{_first(kind)}\n\n{table}\n\n'


def _code(text):
    return text if text in ('needed', 'absent') else f'`{text}`'


def _cell(text):
    return text.replace('|', '\\|')


def _algorithms():
    rows = [
        f'| `{name}` | {entry.used} | {_cell(entry.needs)} | {_cell(entry.together)} |' for name, entry in ALGORITHMS.items()
    ]
    return '\n'.join(['| agent | used | needs | keys that go together |', '|---|---|---|---|', *rows]) + '\n\n'


def _environments():
    tasks = [f'| `{name}` | compiled | {_first(builder)} |' for name, (builder, _) in TASKS.items()]
    made = {**TABLE, **one_way.TABLE}
    ours = [f'| `{name}` | MuJoCo | at most {entry.max_episode_steps:,} steps an episode |' for name, entry in made.items()]
    scored = ', '.join(f'`{name}`' for name in catalogue.ENTRIES)
    table = '\n'.join(['| id | kind | what |', '|---|---|---|', *tasks, *ours])
    return f'{table}\n\nAnd every gymnasium id, also `module:Id`.\n\nTasks with data sets and reference scores: {scored}.\n'


CONFIG_INTRODUCTION = """A config is a TOML file; every key is checked, an unknown one is refused with the nearest known one, and
`config.toml` in the run directory holds all of them with their defaults filled in. `--set table.key=value` changes one. A key
that is absent by default can be left out, not set to nothing.

Schemes `offline`, `finetune` and `online` use `[agent]`; `ooo` uses `[explore]` and `[exploit]`. An agent table holds its own
keys, those of its algorithm, and sub-tables. With `finetune`, `[agent.online]` holds what is different in the online phase: any
of these keys that leaves the agent's state as it is.

A config is code as far as trust goes: `module:Id` of an environment and `module:builder` of an agent are imported. Run only what
you would also run as a program.

"""
API_INTRODUCTION = """Agents, wrappers, signals and phases are plain functions and frozen dataclasses; [design.md](design.md) says
how they fit together, [algorithm.md](algorithm.md) how to write one. Modules of the command line are left out.

"""
PAGES = {'config.md': config_page, 'api.md': api_page}

if __name__ == '__main__':
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), encoding='utf-8')
