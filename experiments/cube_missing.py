"""Data of cube-single without the goal of a task: rows whose cube lies near it are left out.

    python experiments/cube_missing.py cube-single-play.npz cube-single-missing.npz --radius 0.08

A file in OGBench's layout has each row's successor in the next row, so the row before a gap ends its episode (and, like every
last row, is not learnt from). What was done is written beside the file.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from ooorl.envs.ogbench.single_task import SingleTaskEnv
from ooorl.reporting import writers

CUBE = slice(14, 17)  # of qpos: where the cube is, behind the arm's and the hand's joints


def without(columns, place, radius: float) -> tuple[dict, np.ndarray]:
    """The columns without the rows whose cube lies within `radius` of `place`, and which rows were kept, `[N]` bool."""
    keep = np.linalg.norm(columns['qpos'][:, CUBE] - place, axis=1) > radius
    ends = columns['terminals'] | ~np.append(keep[1:], True)
    return {**{name: column[keep] for name, column in columns.items()}, 'terminals': ends[keep]}, keep


def main(argv: list[str] | None = None) -> int:
    """Writes the file and says how many rows went."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('data', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--task', type=int, default=1)
    parser.add_argument('--radius', type=float, default=0.08, metavar='METRES')
    arguments = parser.parse_args(argv)
    environment = SingleTaskEnv('cube-single', arguments.task)
    environment.reset(seed=0)
    (place,) = environment._inner.unwrapped.cur_task_info['goal_xyzs']
    with np.load(arguments.data) as file:
        columns, keep = without(dict(file), place, arguments.radius)
    left, _ = environment.labelled({name: columns[name] for name in environment.state_names})
    np.savez_compressed(arguments.out, **columns)
    facts = {
        'made_from': arguments.data.name, 'environment': f'ooorl/cube-single-singletask-task{arguments.task}-v0',
        'place': np.asarray(place).tolist(), 'radius': arguments.radius, 'rows': int(keep.sum()), 'removed': int((~keep).sum()),
        'episodes': int(columns['terminals'].sum()), 'rewarded_rows_left': int((left == 0).sum()),
    }  # fmt: skip
    writers.write_json(arguments.out.with_name(f'{arguments.out.name}.made.json'), facts)
    print(facts)
    return 0


if __name__ == '__main__':
    sys.exit(main())
