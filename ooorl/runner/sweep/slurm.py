"""The engine of a cluster with Slurm: an array script, one task a cell, that asks to be queued again when it is stopped."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ooorl.reporting import writers

SCRIPT, LIST = 'submit.sh', 'cells.txt'
_SCRIPT = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}{limit}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={logs}/%a.out
#SBATCH --signal=B:TERM@120
# Add what your cluster asks for (partition, account, time, memory) above, or give it to sbatch.
# A task whose cell is done, or runs elsewhere, ends at once: the script may be submitted again at any time.
cell=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {cells})
{python} -m ooorl sweep --cell "$cell" &
worker=$!
trap 'kill -TERM "$worker"' TERM
wait "$worker"
status=$?
if [ "$status" -gt 128 ]; then wait "$worker"; status=$?; fi
if [ "$status" -eq 143 ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$status"
"""


def write(directory: Path, name: str, folders: Sequence[Path], *, jobs: int = 0) -> Path:
    """Writes `submit.sh` and the list of cells beside it; returns the script, which `sbatch` takes.

    Args:
      directory: of the sweep; the nodes must see it under the same path.
      name: of the job.
      folders: of the cells.
      jobs: at most so many at once; 0 for no limit.
    """
    directory = Path(directory).resolve()
    (directory / 'logs').mkdir(exist_ok=True)
    with writers.atomically(directory / LIST) as file:
        file.write(''.join(f'{Path(folder).resolve()}\n' for folder in folders))
    text = _SCRIPT.format(
        name=shlex.quote(name), last=len(folders) - 1, limit=f'%{jobs}' if jobs else '', logs=directory / 'logs',
        cells=shlex.quote(str(directory / LIST)), python=shlex.quote(sys.executable),
    )  # fmt: skip
    with writers.atomically(directory / SCRIPT) as file:
        file.write(text)
    return directory / SCRIPT
