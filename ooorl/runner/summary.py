"""What a finished run amounts to, as plain data: `summary.json` and the arrays of the map of visited states."""

import importlib.metadata
import platform
from collections.abc import Mapping

import jax
import numpy as np
import tomli_w

from ooorl.runner import deployed
from ooorl.runner.prepare import Prepared
from ooorl.runner.provenance import provenance
from ooorl.training.phases import env_steps, round_sizes
from ooorl.training.rounds import RunState
from ooorl.training.stopwatch import ACTIVITIES, total
from ooorl.types import Transition

PACKAGES = ('ooorl', 'jax', 'jaxlib', 'flax', 'optax', 'gymnasium', 'mujoco', 'numpy', 'h5py', 'orbax-checkpoint', 'ogbench')
SCORES = ('success', 'success_in', 'success_out', 'return', 'reward_max', 'normalised', 'length')


def summarise(prepared: Prepared, rows: list[dict], times: Mapping) -> dict:
    """The content of `summary.json`: scores by phase and seed, counts, versions, and times by phase and activity."""
    setup, dataset = prepared.setup, prepared.dataset
    last = {(row['phase'], row['seed']): row for row in rows if row['kind'] == 'eval'}
    diverged = _diverged(rows)
    phases = []
    for number, phase in enumerate(setup.phases):
        found = [last.get((phase.name, seed)) for seed in setup.seeds]
        names = [n for n in SCORES if any(row and n in row for row in found)]
        sizes = round_sizes(phase, setup)
        _, cycles = sizes.done(len(sizes))
        phases.append({
            'name': phase.name,
            'agent': _agent_name(prepared.config, phase.name),
            'num_updates': phase.num_updates,
            'num_env_steps': phase.num_env_steps,
            'start': phase.start,
            'online_rows': env_steps(setup, number, cycles),
            'scores': {name: [(row or {}).get(name) for row in found] for name in names},  # None: not evaluated
            'diverged': diverged.get(phase.name, []),
            'wall_seconds': total({'': times.get(phase.name, {})}),
            'times': times.get(phase.name, {}),
        })
    return {
        'name': prepared.config['name'],
        'kind': prepared.config['run']['scheme'],
        'environment': prepared.config['environment']['id'],
        'dataset': None if dataset is None else {
            'name': dataset.name, 'sha256': dataset.sha256, 'rows': int(dataset.transitions.reward.shape[0]),
        },
        'seeds': list(setup.seeds),
        'num_episodes': prepared.config['evaluation']['num_episodes'],
        'phases': phases,
        'env_steps': sum(phase.num_env_steps for phase in setup.phases if phase.store == 'online'),
        **whole_times(times),
        deployed.INTERFACE: deployed.of_prepared(prepared),
        'versions': versions(),
        'provenance': provenance(tomli_w.dumps(prepared.config)),
        'config_text': tomli_w.dumps(prepared.config),
        'store': {'name': prepared.config['run']['store'], 'notes': list(prepared.store_notes)} if setup.stores else None,
        'notes': [*prepared.store_notes, *(() if dataset is None else dataset.notes), *map(_lost, diverged, diverged.values())],
    }


def _diverged(rows):
    """Seeds by phase whose rows say that they diverged."""
    found = {}
    for row in rows:
        if row.get('finite') == 0.0 and row['seed'] not in found.setdefault(row['phase'], []):
            found[row['phase']].append(row['seed'])
    return found


def _lost(phase, seeds):
    some = f'seed{"s" * (len(seeds) > 1)} {", ".join(map(str, seeds))}'
    return f'{some} diverged by the end of phase {phase!r}: scores are missing there, and every mean over seeds with them'


def whole_times(times: Mapping) -> dict:
    """What `summary.json` says of the time of a whole run, all its sessions together.

    `wall_seconds` lasts from the start of a process to its end; `times` says what it was spent on, and its parts add up to it.
    """
    spent = {name: total(times, name) for name in ACTIVITIES}
    return {'wall_seconds': sum(spent.values()), 'times': spent, 'times_by_phase': times}


def _agent_name(settings, phase_name):
    if phase_name in ('random', 'plain-random'):
        return 'uniformly random'
    if settings['run']['scheme'] == 'distil':
        return _with_policy(settings[phase_name if phase_name in ('teacher', 'returns') else 'student'])
    if settings['run']['scheme'] != 'ooo':
        return _with_policy(settings['agent'])
    table = settings['exploit' if phase_name.removeprefix('plain-').startswith('retrain') else 'explore']
    listens = 'bonus' in table and not phase_name.startswith('plain-')
    return _with_policy(table) + (f' + {table["bonus"]["signal"]} bonus' if listens else '')


def _with_policy(table):
    best = f', best of {table["reranked"]["num_candidates"]}' if 'reranked' in table else ''
    chunk = f', chunks of {table["chunk"]}' if table.get('chunk', 1) > 1 else ''
    chunk += f', {table["chunk_executed"]} of them taken' if chunk and table.get('chunk_executed') else ''
    return table['agent'] + (f', {table["policy"]["kind"]} policy' if 'policy' in table else '') + chunk + best


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a number can depend on, and the kind of device."""
    found = {'python': platform.python_version(), 'device': jax.devices()[0].device_kind}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def visited(prepared: Prepared, state: RunState, columns) -> dict[str, np.ndarray]:
    """States of the data set and of one seed's online stores, for the report's map."""
    table = prepared.config['report']
    first, second = columns
    arrays = {}
    if prepared.dataset is not None:
        arrays['offline'] = np.asarray(prepared.dataset.transitions.observation)[:, [first, second]]
    given = {name: store.rows for name, store in prepared.setup.stores.items()}
    for name, store in {**given, **({} if state is None else state.stores)}.items():
        rows: Transition = store.storage
        if getattr(rows.reward, 'is_deleted', bool)():  # the round that diverged has consumed it
            continue
        key = 'online' if name == 'online' else f'online_{name}'
        seed = table['map_seed']
        seen = np.asarray(rows.observation[seed])[: int(store.size[seed]), [first, second]]
        arrays[key] = seen[np.isfinite(seen).all(axis=1)]  # a seed that diverged has gone nowhere from then on
    arrays['xlabel'], arrays['ylabel'] = table['axes']
    if table['walls']:
        arrays['walls'] = np.asarray(table['walls'], np.float32).reshape(-1, 2, 2)
    if table['goal']:
        arrays['goal'], arrays['goal_radius'] = np.asarray(table['goal'], np.float32), np.float32(table['goal_radius'])
    return arrays
