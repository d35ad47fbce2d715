"""What a run's numbers were made with, besides package versions: commit, config, processor, cores."""

import hashlib
import platform
import subprocess
from pathlib import Path

from ooorl.mapping import num_cores

PACKAGE = Path(__file__).parent.parent


def provenance(config_text: str) -> dict[str, str]:
    """Facts by name, for `summary.json` and the report; the hash is that of the run directory's `config.toml`."""
    facts = {
        'git commit': git_commit(PACKAGE),
        'config SHA-256': hashlib.sha256(config_text.encode()).hexdigest(),
        'processor': processor(),
        'cores': f'{num_cores()} that the process may use',
        'system': f'{platform.system()} {platform.machine()}',
    }
    return {name: fact for name, fact in facts.items() if fact}


def git_commit(package: Path) -> str | None:
    """The commit that the files of a package are from, and whether they have been changed since; None without a clone."""
    try:
        # An installed package may lie in somebody else's repository: only one that holds its files counts.
        _git(package, 'ls-files', '--error-unmatch', '__init__.py')
        changed = _git(package, 'status', '--porcelain', '--untracked-files=no', '--', '.')
        return _git(package, 'rev-parse', 'HEAD') + (', with uncommitted changes' if changed else '')
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder, *arguments):
    done = subprocess.run(['git', '-C', str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def processor() -> str:
    """The processor's name as its maker calls it, where the system tells."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, '') or platform.processor() or platform.machine()
