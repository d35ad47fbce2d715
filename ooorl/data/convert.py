"""From one file format to another, losing nothing that `load` reads."""

import os
import shutil
import tempfile

from ooorl.data import FORMATS, Dataset, arrays, d4rl, from_arrays, load, minari, tabular
from ooorl.errors import UsageError

_ENDINGS = {".hdf5": "d4rl", ".h5": "d4rl", ".npz": "npz", "": "minari"}


def convert(source, target, *, format=None, clip_actions=False, table=None, **reading):
    """Reads a data set and writes it in another format; the target appears whole or not at all.

    Args:
      source: anything `ooorl.data.load` reads, a `Dataset`, or with `table` a CSV or Parquet file.
      target: where to write: `.hdf5` gives D4RL's layout, `.npz` arrays, a name without ending a Minari
        directory.
      format: 'd4rl', 'npz' or 'minari' where the name should not decide.
      clip_actions: as in `load`.
      table: what the columns of a log are, keyword arguments of `tabular.read`.
      **reading: `action_low`, `action_high` and `observation_keys`, as in `load`.

    Returns:
      what to print: one sentence, and a line for each note on how the source was read.

    Raises:
      UsageError: where the source cannot be read, or the target exists or has no known ending.
    """
    target = os.fspath(target).rstrip("/")
    chosen = format or _ENDINGS.get(os.path.splitext(target)[1])
    if chosen not in FORMATS:
        raise UsageError(
            f"A target in a known format is needed; got {target}; end it in .hdf5 or .npz, or give no ending"
            " for Minari."
        )
    if os.path.exists(target):
        raise UsageError(
            f"A new target is needed; {target} exists already; remove it or choose another name."
        )
    dataset = _read(source, clip_actions, table, reading)
    folder = os.path.dirname(target) or "."
    if not os.path.isdir(folder):
        raise UsageError(f"A folder to write to is needed; {folder} does not exist; create it first.")
    draft_folder = tempfile.mkdtemp(prefix=".convert-", dir=folder)
    try:
        draft = os.path.join(draft_folder, os.path.basename(target))
        {"d4rl": d4rl, "npz": arrays, "minari": minari}[chosen].write(dataset, draft)
        os.replace(draft, target)
    finally:
        shutil.rmtree(draft_folder)
    wrote = f"wrote {target}: {dataset.num_rows} rows, {dataset.num_episodes} episodes, format {chosen}"
    return "\n  ".join((wrote, *dataset.notes))


def _read(source, clip_actions, table, reading):
    if isinstance(source, Dataset):
        return source
    if not tabular.is_table(source):
        if table:
            raise UsageError(f"Names of columns are for CSV and Parquet files; {source} is neither; leave them out.")
        return load(source, clip_actions=clip_actions, **reading)
    missing = [f"--{name}" for name in ("observations", "actions", "reward") if not (table or {}).get(name)]
    if missing:
        raise UsageError(f"The columns of a log are needed; {', '.join(missing)} of {source} were not named; name them.")
    box = {name: reading.get(name) for name in ("action_low", "action_high")}
    return from_arrays(tabular.read(source, **table), name=os.path.basename(source), clip_actions=clip_actions, **box)
