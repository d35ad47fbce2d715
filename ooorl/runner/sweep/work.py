"""Running one cell in this process: what every engine's workers do."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import tomli_w

from ooorl.runner.sweep import claims


def work(folder: Path, command: Callable[[list[str]], int], *, again: bool = False) -> claims.State | None:
    """Runs a cell, or goes on with it, unless somebody else does; None in that case (`claims.attempt`).

    Args:
      folder: of the cell.
      command: the command line, as `runner.cli.main`.
      again: also if it has failed before.
    """
    return claims.attempt(Path(folder), lambda own: _run(own, command), again=again)


def _run(folder, command):
    cell = json.loads((folder / 'cell.json').read_text(encoding='utf-8'))
    if cell.get('problem'):
        return 'failed', cell['problem']
    (folder / 'config.toml').write_text(tomli_w.dumps(cell['table']), encoding='utf-8')
    out = folder / 'run'
    resume = ['--resume'] if (out / 'config.toml').is_file() else []
    with open(folder / 'log.txt', 'a', encoding='utf-8') as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        status = command(['run', str(folder / 'config.toml'), '--out', str(out), *resume])
    if status in (130, 143):
        return 'interrupted', 'stopped after a checkpoint'
    if status == 0:
        return 'complete', ''
    return ('diverged' if status == 1 else 'failed'), last_line(folder)


def last_line(folder: Path) -> str:
    """The last line of a cell's log, which says what went wrong."""
    with contextlib.suppress(OSError):
        lines = (Path(folder) / 'log.txt').read_text(encoding='utf-8', errors='replace').strip().splitlines()
        return lines[-1].removeprefix('ooorl: ')[:500] if lines else ''
    return ''
