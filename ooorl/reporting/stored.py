"""What a run directory holds for a report, read and checked: whatever is damaged is named in one sentence."""

from pathlib import Path

import numpy as np

from ooorl.errors import UsageError
from ooorl.reporting import writers

NUMBER, TEXT = (int, float), (str,)
COUNT = object()  # a number that says how much there was: finite, while a score may be missing
_SCORES = {"*": ([(*NUMBER, None)], None)}
_PHASE = {
    "name": TEXT, "agent": (str, None), "num_updates": (COUNT, None), "num_env_steps": (COUNT, None),
    "online_rows": (COUNT, None), "scores": (_SCORES, None), "wall_seconds": (COUNT, None),
    "times": ({"*": (COUNT,)}, None), "start": (str, None), "diverged": ([(int,)], None),
}  # fmt: skip
_ARM = {"name": TEXT, "description": (str, None), "scores": (_SCORES, None)}
_SUMMARY = {
    "name": TEXT, "environment": TEXT, "seeds": ([(int,)],), "phases": ([(_PHASE,)],), "kind": (str, None),
    "dataset": ({"name": (str, None), "sha256": (str, None), "rows": (int, None)}, None), "arms": ([(_ARM,)], None),
    "env_steps": (COUNT, None), "wall_seconds": (COUNT, None), "times": ({"*": (COUNT,)}, None),
    "versions": ({"*": (*NUMBER, str, None)}, None), "provenance": ({"*": TEXT}, None),
    "config_text": (str, None), "notes": ([TEXT], None),
    "num_episodes": (COUNT, None),
}  # fmt: skip
_PATHS = {"paths_teacher": 4, "paths_student": 4, "paths_data": 3, "paths_at": 2}  # their numbers of axes
_NEEDED = {id(_SUMMARY): ("name", "environment", "seeds", "phases"), id(_PHASE): ("name",), id(_ARM): ("name",)}
_ROW = {"kind": TEXT, "phase": TEXT, "seed": (int,), "updates": (COUNT,), "env_steps": (COUNT,), "*": (*NUMBER, None)}


def load(directory):
    """`(summary, rows, states)` of a run directory; rows may be empty and states None.

    Raises:
      UsageError: naming the file and what is wrong with it.
    """
    directory = Path(directory)
    if not (directory / "summary.json").is_file():
        raise UsageError(
            f"a run directory must hold summary.json; {directory} does not; finish the run or name another."
        )
    summary = writers.read_json(directory / "summary.json")
    check_summary(summary, directory / "summary.json")
    rows = directory / "metrics.jsonl"
    states = directory / "states.npz"
    return summary, read_rows(rows) if rows.exists() else [], read_states(states) if states.exists() else None


def check_summary(summary, path):
    """Refuses a summary in which something that the report reads is missing or of another type."""
    wrong = _wrong(summary, (_SUMMARY,))
    if wrong is None:
        num_seeds = len(summary["seeds"])
        entries = (*summary["phases"], *(summary.get("arms") or ()))
        sizes = {len(own) for entry in entries for own in (entry.get("scores") or {}).values() if own}
        if not num_seeds or not summary["phases"]:
            wrong = "it names no seed or no phase"
        elif sizes - {num_seeds}:
            wrong = f"scores of {max(sizes - {num_seeds})} seeds where there are {num_seeds}"
    if wrong is not None:
        raise UsageError(f"summary.json must be one that a run wrote; in {path} {wrong}; restore it or run again with --resume.")


def read_rows(path):
    """The rows of a `metrics.jsonl`, each checked; a last line cut short by a crash is left out."""
    rows = writers.read_rows(path)
    for number, row in enumerate(rows):
        wrong = _wrong(row, (_ROW,))
        wrong = wrong or next((f"{name} is missing" for name in writers.ROW_COLUMNS if name not in row), None)
        if wrong is not None:
            raise UsageError(f"rows as a run wrote them were needed; in line {number + 1} of {path} {wrong}; restore it.")
    return rows


def read_states(path):
    """The arrays of a `states.npz`."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            states = {name: _states(name, arrays[name]) for name in arrays.files}
    except Exception as error:  # noqa: BLE001 - what reads archives fails in many ways, all of which mean the same
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"the map needs the arrays that a run wrote; {path} is damaged ({first}); restore or delete") from None
    return states


def _states(name, array):
    if name in ("xlabel", "ylabel"):
        return np.array(str(array))
    columns = {"walls": (-1, 2, 2), "goal_radius": ()}.get(name, (-1, 2))
    array = np.asarray(array, float)
    array = array if name.startswith("paths_") else array.reshape(columns)
    if name in _PATHS and (array.ndim != _PATHS[name] or (name != "paths_at" and array.shape[-1] != 2)):
        raise ValueError(f"{name} has the shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return array


def _wrong(value, kinds, where=""):
    """The first thing that does not fit, in words, or None. `kinds` are types, lists, tables and None, one of which must fit."""
    for kind in kinds:
        if kind is None and value is None:
            return None
        if isinstance(kind, list) and isinstance(value, list):
            found = (_wrong(item, kind[0], f"{where}[{number}]") for number, item in enumerate(value))
            return next((text for text in found if text), None)
        if isinstance(kind, dict) and isinstance(value, dict):
            return _wrong_table(value, kind, where)
        if kind is COUNT and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63:
            return None
        if isinstance(kind, type) and isinstance(value, kind) and not isinstance(value, bool) and _sound(value):
            return None
    return f"{where or 'the whole'} is {_shown(value)}"


def _wrong_table(value, kind, where):
    missing = [name for name in _NEEDED.get(id(kind), ()) if name not in value]
    if missing:
        return f"{where + ' lacks ' if where else ''}{missing[0]}{'' if where else ' is missing'}"
    for name, item in value.items():
        wanted = kind.get(name, kind.get("*"))
        wrong = wanted and _wrong(item, wanted, f"{where}.{name}" if where else name)
        if wrong:
            return wrong
    return None


def _sound(value):
    return not isinstance(value, int) or abs(value) < 2**63


def _shown(value):
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    return "nothing" if value is None else repr(value)[:40]
