"""Which checkpoints are whole: the files of each beside what its manifest lists."""

import functools
import hashlib
import json
import sys
from pathlib import Path


def newest(directory: Path) -> Path | None:
    """The newest intact checkpoint, or None; that newer ones are damaged is told on standard error, once."""
    damaged = []
    for path in reversed(numbered(Path(directory))):
        found = problem(path)
        if found is None:
            if damaged:
                _tell(f'warning: {path} is read in the place of what is newer and damaged ({"; ".join(damaged)})')
            return path
        damaged.append(f'{path.name}: {found}')
    return None


@functools.cache
def _tell(text):
    print(text, file=sys.stderr, flush=True)


def numbered(directory: Path) -> list[Path]:
    """All checkpoints of a directory, the oldest first."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if path.name.isascii() and path.name.isdigit())


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of the files of a checkpoint, by name; without `manifest.json`, which lists them."""
    files = sorted(p for p in path.rglob('*') if p.is_file() and p != path / 'manifest.json')
    return {str(p.relative_to(path)): _digest(p) for p in files}


def _digest(path):
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def problem(path: Path) -> str | None:
    """What is wrong with the files of a checkpoint, in words; None if nothing is."""
    try:
        listed, found = json.loads((path / 'manifest.json').read_text()), digests(path)
        if not isinstance(listed, dict) or not {'meta.json', 'arrays/_METADATA'} <= listed.keys():
            return 'manifest.json lists no checkpoint'
        if not isinstance(json.loads((path / 'meta.json').read_text()), dict):
            return 'meta.json holds no table'
    except OSError as error:
        return f'{Path(error.filename or path).name} cannot be read'
    except ValueError:
        return 'manifest.json or meta.json is no JSON'
    wrong = sorted(name for name in listed.keys() | found.keys() if listed.get(name) != found.get(name))
    if not wrong:
        return None
    how = 'is missing' if wrong[0] not in found else 'was added' if wrong[0] not in listed else 'was changed'
    return f'{wrong[0]} {how}' + (f' and {len(wrong) - 1} more' if len(wrong) > 1 else '')
