"""Writes docs/config.md and docs/api.md from the dataclasses and docstrings: `python docs/generate.py` (or `make docs`)."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import ooorl
from ooorl import catalogue, policies
from ooorl.agents import ALGORITHMS
from ooorl.envs.d4rl import TABLE
from ooorl.envs.registry import TASKS
from ooorl.runner import settings
from ooorl.runner.describe import settings_of

HERE = Path(__file__).resolve().parent
MADE = 'Made by `python docs/generate.py`; edit the dataclasses and docstrings instead.\n\n'
# Modules that are for the command line alone, or for the processes it starts.
INNER = ('ooorl.runner.', 'ooorl.envs.host_worker', 'ooorl.envs.worker_pool', 'ooorl.reporting.', 'ooorl.envs.d4rl.')
OFFERED = ('ooorl.reporting.stats', 'ooorl.reporting.diagnostics')


def config_page() -> str:
    """Every key that a config file may have."""
    parts = ['# Config files\n\n', MADE, CONFIG_INTRODUCTION]
    used = {key: kind for key, kind in settings.TABLES.items()}
    for name, kind in used.items():
        parts += [f'## `[{name}]`\n\n', f'{_first(kind)}\n\n', _settings_table(kind)]
    parts += ['## Agent tables: `[agent]`, `[explore]`, `[exploit]`\n\n', AGENT_INTRODUCTION, _settings_table(settings.AgentConfig)]
    for name, kind in settings.SUB_TABLES.items():
        parts += [f'### Sub-table `{name}`\n\n', f'{_first(kind)}\n\n', _settings_table(kind)]
    parts += ['### Sub-table `bonus`\n\n', f'{_first(settings.BonusConfig)}\n\n', _settings_table(settings.BonusConfig)]
    for name, kind in settings.SIGNALS.items():
        parts += [f'#### Keys of `bonus` with `signal = "{name}"`\n\n', _settings_table(kind)]
    parts += ['### Sub-table `policy`\n\n', POLICY_INTRODUCTION]
    for name, entry in policies.POLICIES.items():
        parts += [f'#### Keys of `policy` with `kind = "{name}"`\n\n', f'{_first(entry.config)}\n\n', _settings_table(entry.config)]
    parts += ['## Algorithms\n\n', _algorithms()]
    for name, entry in ALGORITHMS.items():
        parts += [f'### Keys of `agent = "{name}"`\n\n', f'{_first(entry.config)}\n\n', _settings_table(entry.config)]
    return ''.join([*parts, '## Environments\n\n', _environments()])


def api_page() -> str:
    """Every public name with its docstring."""
    parts = ['# Python interface\n\n', MADE, API_INTRODUCTION]
    for info in sorted(pkgutil.walk_packages(ooorl.__path__, 'ooorl.'), key=lambda info: info.name):
        if info.name.startswith(INNER) and info.name not in OFFERED:
            continue
        parts.append(_module(importlib.import_module(info.name)))
    return ''.join(parts)


def _module(module):
    names = [node.name for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names = [name for name in names if not name.startswith('_')]
    heading = f'## `{module.__name__}`\n\n{_block(inspect.getdoc(module))}\n\n'
    return heading + ''.join(_member(name, getattr(module, name)) for name in names)


def _member(name, member):
    return f'### `{name}{_signature(member)}`\n\n{_block(inspect.getdoc(member))}\n\n'


def _signature(member):
    if inspect.isclass(member) and (issubclass(member, BaseException) or hasattr(member, '__dataclass_fields__')):
        return ''
    try:
        text = str(inspect.signature(member))
    except (TypeError, ValueError):
        return ''
    text = re.sub(r' at 0x[0-9a-f]+', '', text)
    text = re.sub(r'<function ([\w.]+)[^>]*>', r'\1', text)
    return text.replace('jax._src.basearray.', '').replace('jaxlib._jax.', '')


def _block(docstring):
    return '```text\n' + (docstring or '') + '\n```'


def _first(kind):
    return (inspect.getdoc(kind) or '').split('\n\n')[0].replace('\n', ' ')


def _settings_table(kind):
    rows = [f'| `{s.name}` | {s.type} | {_code(s.default)} | {_cell(s.meaning)} |' for s in settings_of(kind)]
    return '\n'.join(['| key | type | default | meaning |', '|---|---|---|---|', *rows]) + '\n\n' if rows else 'No keys.\n\n'


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
    ours = [f'| `{name}` | MuJoCo | at most {entry.max_episode_steps:,} steps an episode |' for name, entry in TABLE.items()]
    scored = ', '.join(f'`{name}`' for name in catalogue.ENTRIES)
    table = '\n'.join(['| id | kind | what |', '|---|---|---|', *tasks, *ours])
    return f'{table}\n\nAnd every gymnasium id, also `module:Id`.\n\nTasks with data sets and reference scores: {scored}.\n'


CONFIG_INTRODUCTION = """A config is a TOML file; every key is checked, an unknown one is refused with the nearest known one, and
`config.toml` in the run directory holds all of them with their defaults filled in. `--set table.key=value` changes one. A key that is
`absent` by default can be left out, not set to nothing.

A config is code as far as trust goes: `module:Id` of an environment and `module:builder` of an agent are imported. Run only what you
would also run as a program.

"""
AGENT_INTRODUCTION = """Schemes `offline`, `finetune` and `online` use `[agent]`; `ooo` uses `[explore]` and `[exploit]`. An agent table
holds the keys below, those of its algorithm, and sub-tables.

"""
POLICY_INTRODUCTION = """What the agent acts with, instead of its own default: `kind` names it, the other keys are its settings.

"""
API_INTRODUCTION = """Agents, wrappers, signals and phases are plain functions and frozen dataclasses; [design.md](design.md) says how they
fit together, [algorithm.md](algorithm.md) how to write one. Modules of the command line are left out.

"""
PAGES = {'config.md': config_page, 'api.md': api_page}

if __name__ == '__main__':
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), encoding='utf-8')
