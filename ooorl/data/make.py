"""Makes data sets locally, in the layout of their benchmark (D4RL's HDF5, OGBench's npz), with a manifest that says how.

    make("maze2d-large", "large.hdf5", rows=1_000_000, seed=0)
    make("scene-play", "scene-play-v0.npz", rows=1_001_000, seed=0)
    make("antmaze-umaze", "ant.hdf5", rows=100_100, seed=0, policies=["ant.npz"])
    make("hopper-medium-expert", "hopper.hdf5", rows=100_000, seed=0, policies=["medium.npz", "expert.npz"])
    drop_region("large.hdf5", "large-missing.hdf5", discs=[(7.0, 9.0, 1.0)])

The manifest lies beside the data under the name `<data>.json`. A data set is a function of its arguments, the
policies and the versions in the manifest. The names of the recipes are in `RECIPES`.

Differs from D4RL: rows carry their true `next_observations` and a `boundary` on the last row of each episode, the last
row of a file is a time-out (but of an unfinished ant episode), and the policies are the caller's.

OGBench's data are made episode by episode, by several processes. An interrupted make leaves its episodes in a folder beside
the file, and the same call goes on from there. Differs from OGBench: every episode has a seed of its own, so that these are
other draws of the same distribution; the validation file is another call, with another seed.
"""

import difflib
import functools
import hashlib
import json
import platform
import re
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import h5py
import numpy as np

from ooorl import catalogue
from ooorl.data import regions, shards
from ooorl.data.policies_npz import ArrayPolicy, load_policy
from ooorl.envs.d4rl import generators
from ooorl.envs.d4rl import recipes as d4rl_recipes
from ooorl.envs.d4rl.recipes import Recipe
from ooorl.envs.ogbench import recipes as ogbench_recipes
from ooorl.envs.ogbench import require_package
from ooorl.errors import UsageError
from ooorl.validation import check_copies, check_not_negative

__all__ = ['RECIPES', 'drop_region', 'make', 'named', 'num_rows', 'suffix']

RECIPES: dict[str, Recipe] = {**d4rl_recipes.RECIPES, **ogbench_recipes.RECIPES}
_PACKAGES = ('mujoco', 'gymnasium', 'numpy', 'h5py')


def make(
    recipe: str,
    out: str | Path,
    *,
    rows: int | None = None,
    episodes: int | None = None,
    seed: int = 0,
    policies: Sequence[str | Path] = (),
    num_threads: int | None = None,
    advance: Callable[[int], None] | None = None,
    parts: str | Path | None = None,
    **options,
) -> dict:
    """Makes a data set and its manifest.

    Args:
      recipe: one of `RECIPES`, or an id that `named` knows.
      out: the file to write, HDF5 or, for OGBench's data, npz.
      rows: how many rows.
      episodes: how many whole episodes instead, of recipes that make episodes of one length.
      seed: of everything that is drawn.
      policies: npz files of the behaviour policies, in the order of the recipe's levels (`medium-replay`: any
        number, from the least to the most trained; each gives an equal share of the rows).
      num_threads: threads of the maze generators, processes of OGBench's; None for one per core. The data do not depend on it.
      advance: called with the rows of each episode as it is done, where episodes are made one by one.
      parts: the folder for finished episodes until the file is written; None for one beside `out`.
      **options: the generator's own arguments: `noise` (standard deviation on actions) for mazes;
        `start_anywhere`, `goal_anywhere` for ants; `greedy` (act with the mode) for policies; `episode_rows`, `noise`,
        `noise_smoothing`, `min_norm`, `p_random_action` for OGBench's, where its published commands set them.

    Returns:
      the manifest.

    Raises:
      UsageError: unknown recipe or option, wrong number or size of policies, no rows.
    """
    recipe = named(recipe)
    entry = RECIPES[recipe]
    check_not_negative(seed=seed)
    check_copies(processes=num_threads)
    unknown = set(options) - set(entry.options)
    if unknown:
        raise UsageError(f'{recipe} knows the options {sorted(entry.options)}; got {sorted(unknown)}')
    rows = num_rows(recipe, rows=rows, episodes=episodes, **options)
    options = {**entry.options, **options}
    loaded = _load_policies(recipe, entry, policies)
    described = {
        'recipe': recipe,
        'environment': entry.environment,
        'rows': rows,
        'seed': seed,
        'options': options,
    }
    if entry.kind == 'oracle':
        folder = Path(parts or Path(out).with_name(f'.{Path(out).name}.parts'))
        return _make_episodes(Path(out), folder, entry, described, num_threads, advance)
    columns, behaviours = _generate(entry, rows, seed, loaded, num_threads, options)
    # Ants walk on behind a terminal row.
    boundary = columns['timeouts'] | (columns['terminals'] & (entry.kind != 'ant'))
    if not boundary.any():
        raise UsageError(f'rows must reach the end of an episode; none of the {rows} of {recipe} does; make more')
    columns['boundary'] = boundary
    _score(entry, behaviours)
    return _write(out, columns, {**described, 'behaviours': behaviours})


def suffix(recipe: str) -> str:
    """The ending of a recipe's files: '.npz' or '.hdf5'."""
    return '.npz' if _entry(recipe).kind == 'oracle' else '.hdf5'


def num_rows(recipe: str, *, rows: int | None = None, episodes: int | None = None, **options) -> int:
    """How many rows `make` makes with these arguments.

    Raises:
      UsageError: where both counts are given, one is too small, or the recipe has no episodes of one length.
    """
    length = {**_entry(recipe).options, **options}.get('episode_rows')
    for name, count in (('rows', rows), ('episode_rows', length)):
        if count is not None and count < 2:
            raise UsageError(f'{name} must be at least 2; got {count}')
    if episodes is None:
        return 100_000 if rows is None else rows
    if rows is not None or length is None:
        why = 'rows were given as well' if rows is not None else f'{recipe} has episodes of no fixed length'
        raise UsageError(f'episodes need a recipe with episodes of one length, and no rows; {why}; give only rows')
    if episodes < 1:
        raise UsageError(f'episodes must be at least 1; got {episodes}')
    return episodes * length


def named(recipe: str) -> str:
    """The recipe of this name, or of data whose id names a single task or a version: 'scene-play-singletask-task2-v0'.

    Raises:
      UsageError: where there is none, with those of the most similar names.
    """
    short = re.sub(r'(-singletask(-task[1-5])?)?-v[0-9]+$', '', recipe)
    if short in ogbench_recipes.TRAINED:
        raise UsageError(
            f'{recipe} needs trained controllers, which OGBench does not hold; fetch its file: '
            f'ooorl data pull {short}-singletask-v0'
        )
    if short not in RECIPES:
        near = ', '.join(difflib.get_close_matches(short, RECIPES, n=6, cutoff=0.0))
        raise UsageError(f'recipe must be one of {near}, or another of the {len(RECIPES)} in docs/data.md; got {recipe!r}')
    return short


def _entry(recipe):
    return RECIPES[named(recipe)]


def _make_episodes(out, folder, entry, described, processes, advance):
    """The episodes of an `oracle`, the last one cut short where the rows end."""
    if out.suffix != '.npz':
        raise UsageError(f"a file name that ends in .npz, OGBench's layout, was needed for {described['recipe']}; got {out.name}")
    versions = {'ogbench': metadata.version(require_package().__name__), **_versions()}
    options = dict(described['options'])
    length = options.pop('episode_rows')
    make_one = functools.partial(_one_episode, entry.family, entry.data, length, described['rows'], described['seed'], options)
    num, plan = -(-described['rows'] // length), {**described, 'versions': versions}
    columns, facts = shards.made_in_parts(make_one, num, folder, plan, processes=processes, advance=advance)
    totals = {name: sum(fact[name] for fact in facts) for name in facts[0]}
    manifest = _write(out, columns, {**described, 'behaviours': [{'name': 'scripted', 'episodes': num, **totals}]}, versions)
    shards.forget(folder)
    return manifest


def _one_episode(family, kind, length, rows, seed, options, number):
    from ooorl.envs.ogbench.oracles import episode

    return episode(family, kind, min(length, rows - number * length), (seed, number), options)


def drop_region(
    path: str | Path,
    out: str | Path,
    *,
    discs: Sequence[tuple[float, float, float]] = (),
    boxes: Sequence[tuple[float, float, float, float]] = (),
) -> dict:
    """Copies a data set without the rows whose first two observation entries lie in given regions.

    The row before a gap is marked as a time-out, because its follower in the file is not its successor; its
    successor stays known where the file has `next_observations`. In files without `boundary` (D4RL's own) that
    episodes of ants go on after terminal rows can then no longer be told from the distances of time-outs: load the
    result with `terminal_ends_episode=False`.

    Args:
      path: an HDF5 file in D4RL's layout.
      out: the file to write.
      discs: `(x, y, radius)`, the edge included.
      boxes: `(low x, low y, high x, high y)`, the edges included.

    Returns:
      the manifest, with `removed_rows`.

    Raises:
      UsageError: no region, or nothing left.
    """
    if not discs and not boxes:
        raise UsageError('drop_region needs discs=[(x, y, radius)] or boxes=[(low x, low y, high x, high y)]; got none')
    columns = _read(path)
    inside = regions.inside(columns['observations'], discs, boxes)
    if inside.all():
        raise UsageError(f'every row of {Path(path).name} lies in the regions; give smaller ones')
    ends = columns.get('timeouts', np.zeros(len(inside), bool)).astype(bool)
    ends[:-1] |= inside[1:]
    columns['timeouts'] = ends
    if 'boundary' in columns:
        columns['boundary'][:-1] |= inside[1:]
    kept = {name: column[~inside] for name, column in columns.items()}
    beside = _manifest_path(path)
    source = json.loads(beside.read_text()) if beside.is_file() else None
    left_out = {'discs': [list(disc) for disc in discs], 'boxes': [list(box) for box in boxes]}
    counts = {'rows': int((~inside).sum()), 'removed_rows': int(inside.sum())}
    made_from = {'file': Path(path).name, 'sha256': _sha256(path), 'manifest': source}
    return _write(out, kept, {'recipe': 'drop_region', **counts, **left_out, 'made_from': made_from})


def _load_policies(recipe: str, entry: Recipe, paths) -> list[ArrayPolicy]:
    any_number = entry.levels == ('...',)
    if (any_number and not paths) or (not any_number and len(paths) != len(entry.levels)):
        if not entry.levels:
            raise UsageError(f'{recipe} needs no policies; got {len(paths)}; leave them out')
        count = len(entry.levels)
        wanted = f'{count} {"policy" if count == 1 else "policies"} ({", ".join(entry.levels)})'
        if any_number:
            wanted = 'one or more policies, from the least to the most trained'
        raise UsageError(f'{recipe} needs {wanted}; got {len(paths)}; give their npz files (--policy, one each)')
    return [load_policy(path) for path in paths]


def _generate(entry: Recipe, rows, seed, policies, num_threads, options):
    random = np.random.default_rng(seed)
    if entry.kind == 'point':
        return generators.point_rows(entry.maze, rows, random, num_threads=num_threads, **options)
    if entry.kind == 'ant':
        return generators.ant_rows(entry.maze, rows, random, policies, num_threads=num_threads, **options)
    return generators.policy_rows(entry.environment, rows, seed, random, policies, **options)


def _score(entry: Recipe, behaviours):
    """Adds D4RL's normalised score to every policy that finished an episode."""
    if entry.task is None:
        return
    task = catalogue.lookup(entry.task)
    for behaviour in behaviours:
        if behaviour['mean_return'] is not None:
            share = (behaviour['mean_return'] - task.reference_min) / (task.reference_max - task.reference_min)
            behaviour['normalised_score'] = 100.0 * share


def _read(path) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise UsageError(f"no file {path}: give a data set in D4RL's HDF5 layout")
    columns = {}
    with h5py.File(path, 'r') as file:
        num_rows = len(file['observations'])

        def collect(name, item):
            if isinstance(item, h5py.Dataset) and item.shape[:1] == (num_rows,):
                columns[name] = item[()]

        file.visititems(collect)
    return columns


def _write(out, columns, described, versions=None) -> dict:
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == '.npz':
        with open(out, 'wb') as file:
            np.savez_compressed(file, **columns)
    else:
        with h5py.File(out, 'w') as file:
            for name, column in columns.items():
                file.create_dataset(name, data=column, compression='gzip', compression_opts=1, shuffle=True)
    manifest = {**described, 'file': out.name, 'sha256': _sha256(out), 'versions': versions or _versions()}
    _manifest_path(out).write_text(json.dumps(manifest, indent=2) + '\n')
    return manifest


def _versions():
    return {'python': platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}


def _manifest_path(path) -> Path:
    return Path(f'{path}.json')


def _sha256(path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
