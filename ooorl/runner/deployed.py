"""Policies out of a run directory: from raw observations to actions in the environment's own units, no data needed.

What a policy must know beside its parameters stands in `summary.json` under `interface`: sizes, the box of actions, and mean and
deviation of the observations that it was trained on. Runs without it (killed before their summary, or older) are prepared as for
another session, with their data and environment.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.errors import UsageError, told_by_callback
from ooorl.reporting import arms, writers
from ooorl.runner import build, run_directory, steering
from ooorl.runner.prepare import Prepared, prepare
from ooorl.runner.seed_list import parse_seeds
from ooorl.training import checkpoint
from ooorl.types import Agent, Spec, State, Transition

INTERFACE = 'interface'  # its key in summary.json


class Deployed:
    """A policy of one phase and seed as a function of observations.

    Attributes:
      phase, seed: whose it is.
      interface: sizes, box and statistics, as in `summary.json`.
      chunk: steps that one decision covers; more than 1: actions are `[..., chunk, A]`.
      agent, state: what acts, in [-1, 1].
      best_action: `(observation[..., O], key) -> [..., A]`, traceable: the box inside, the parameters as constants.
    """

    def __init__(self, agent, state, interface: Mapping, *, phase: str, seed: int):
        self.phase, self.seed, self.interface, self.chunk = phase, seed, interface, agent.chunk
        self.agent, self.state = agent, state
        low, high = (jnp.asarray(interface[f'action_{side}'], jnp.float32) for side in ('low', 'high'))

        def best_action(observation, key):
            action = jnp.clip(agent.best_action(state, observation, key), -1.0, 1.0)
            if agent.chunk > 1:
                action = action.reshape(*observation.shape[:-1], agent.chunk, interface['action_dim'])
            return jnp.broadcast_to(low, action.shape) + (action + 1.0) * jnp.broadcast_to((high - low) / 2.0, action.shape)

        self.best_action = best_action
        self._compiled, self._calls = jax.jit(best_action), 0

    def __call__(self, observation, key=None) -> np.ndarray:
        """The action to deploy: `[..., O] -> [..., A]`, raw units in and the environment's out.

        Args:
          observation: as the environment gives it.
          key: for policies that draw; None for a fresh one in every call, the same ones in every process.

        Raises:
          UsageError: for observations of another size, or if the policy is a given function and fails.
        """
        observation = np.asarray(observation, np.float32)
        if observation.ndim < 1 or observation.shape[-1] != self.interface['observation_dim']:
            raise UsageError(
                f'observations need {self.interface["observation_dim"]} numbers each; got shape {observation.shape}; give what '
                'the environment of the run gives'
            )
        if key is None:
            key = jax.random.fold_in(jax.random.key(self.seed), self._calls)
            self._calls += 1
        try:
            return np.asarray(self._compiled(observation, key))
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            if told_by_callback(error) is None:
                raise
            raise UsageError(told_by_callback(error)) from None


def load(run_dir: str | Path, *, phase: str | None = None, seed: int | None = None, purpose: str = 'load') -> Deployed:
    """The policy of a run: `policy(observation) -> action`, with normalisers and the action box inside.

    Args:
      run_dir: what a run wrote.
      phase: whose policy; None for the one that the run is about, the last of an offline run, OOO's retrained one.
      seed: one of the run's; None for its first.
      purpose: who needs it, in messages.

    Raises:
      UsageError: if there is no such run, no such finished phase, no such seed, or the seed diverged.

    Example:
      >>> import ooorl
      >>> policy = ooorl.load('runs/demo')  # doctest: +SKIP
      >>> action = policy(observation)  # doctest: +SKIP
    """
    found = finished(Path(run_dir), phase, purpose)
    seed = found.seeds[0] if seed is None else seed
    state = jax.tree.map(lambda leaf: leaf[0], found.of_seeds((seed,)))
    agent = steering.outward(found.agent, found.steers)
    return Deployed(agent, state, found.interface, phase=found.phase, seed=seed)


class Finished(NamedTuple):
    """A phase that a run has finished: its agent and the final states `[S]` of all of the run's seeds."""

    agent: Agent
    states: State
    seeds: tuple[int, ...]
    phase: str
    interface: Mapping
    steers: 'steering.Frozen | None'
    purpose: str

    def of_seeds(self, seeds: Sequence[int]) -> State:
        """The states `[len(seeds)]` of some of its seeds.

        Raises:
          UsageError: where the run has no such seed, or one that diverged.
        """
        for seed in seeds:
            if seed not in self.seeds:
                held = ', '.join(map(str, self.seeds))
                raise UsageError(f'{self.purpose} needs a seed of the run; it has {held}; got {seed}')
            own = jax.tree.map(lambda leaf, number=self.seeds.index(seed): leaf[number], self.states)
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(own) if np.issubdtype(leaf.dtype, np.floating)):
                raise UsageError(
                    f'{self.purpose} needs finite parameters; those of seed {seed} in phase {self.phase!r} are not; name another'
                )
        rows = np.asarray([self.seeds.index(seed) for seed in seeds])
        return jax.tree.map(lambda leaf: leaf[rows], self.states)


def finished(directory: Path, phase: str | None, purpose: str) -> Finished:
    """The phase of a run directory (None: the one that the run is about), for somebody's `purpose`.

    Raises:
      UsageError: if there is no such run or no such finished phase.
    """
    settings, summary = run_directory.read_config(directory, purpose), _summary(directory)
    interface = _checked(summary[INTERFACE], directory) if INTERFACE in summary else of_prepared(prepare(settings))
    steers = steering.frozen(settings)
    nothing = None if steers else stand_in(interface)
    living = 'lives' in settings
    spec = steers.spec if steers else spec_of(interface)
    phases = build.build_phases(_plain(settings) if living else settings, spec, nothing, irreversible=_nothing_irreversible)
    chosen, seeds = _chosen(phases, phase, summary, purpose), tuple(parse_seeds(settings['run']['seeds']))
    keys = jax.eval_shape(lambda: jax.vmap(jax.random.key)(jnp.zeros(len(seeds), jnp.uint32)))
    shapes = jax.eval_shape(jax.vmap(chosen.agent.init), keys)
    # Of an agent that asks for help the policy forward is deployed, in episodes.
    states = _restored(directory / 'checkpoint', chosen.name, {'forward': shapes} if living else shapes)
    if states is None:
        raise UsageError(
            f'{purpose} needs a finished phase; the checkpoints of {directory} hold no policy of {chosen.name!r}; let the run '
            'get further, or name another phase'
        )
    states = states['forward'] if living else states
    return Finished(chosen.agent, states, seeds, chosen.name, interface, steers, purpose)


def _nothing_irreversible(observation):
    """Stands in for the environment's own test, which labels rows for those that learn."""
    return jnp.zeros(observation.shape[:-1], bool)


def _plain(settings):
    """The config of a run without resets as if its agent knew nothing of what cannot be taken back."""
    return {**settings, 'agent': {key: value for key, value in settings['agent'].items() if key != 'cautious'}}


def _restored(directory, phase, shapes):
    """The finished state of a phase in the newest intact checkpoint, or None where it holds none."""
    leaves, structure = jax.tree_util.tree_flatten_with_path((0, {phase: shapes}))
    wanted = {checkpoint.place_of(path): leaf for path, leaf in leaves[1:]}
    found = checkpoint.read_arrays(directory, wanted.__contains__)
    if found is None or not found[0]:
        return None
    for place, leaf in wanted.items():
        held = found[0].get(place, np.zeros((0,)))
        # Draws kept for the states of the data (agents.cached) are as many as these; nobody acts with them.
        if place.endswith('.kept') and held.ndim == len(leaf.shape):
            continue
        if np.prod(leaf.shape) and (held.shape, held.dtype) != (leaf.shape, leaf.dtype):
            raise UsageError(
                f'load needs a checkpoint of the config that stands beside it; {directory} holds {place} of shape {held.shape}, '
                f'not {leaf.shape}; restore both, or load with the version of ooorl that wrote it'
            )
    filled = [found[0].get(place, np.zeros(leaf.shape, leaf.dtype)) for place, leaf in wanted.items()]
    return jax.tree.unflatten(structure, [0, *filled])[1][phase]


def of_prepared(prepared: Prepared) -> dict:
    """The interface of a prepared run's policies, as it stands in `summary.json`."""
    spec, box, rows = prepared.spec, prepared.box, prepared.setup.dataset
    steers = steering.frozen(prepared.config)
    low, high = ([-1.0], [1.0]) if box is None else (box.low, box.high)
    action_dim = steers.interface['action_dim'] if steers else spec.action_dim
    found = {
        'observation_dim': spec.observation_dim,
        'action_dim': action_dim,
        'action_low': np.broadcast_to(np.asarray(low, float), action_dim).tolist(),
        'action_high': np.broadcast_to(np.asarray(high, float), action_dim).tolist(),
        'action_box_of': 'no box was named: [-1, 1]' if box is None else box.source,
    }
    if rows is not None:
        seen = np.asarray(rows.observation)[:: max(1, len(rows.reward) // 100_000)]
        found |= {'observation_mean': seen.mean(0, float).tolist(), 'observation_std': seen.std(0, float).tolist()}
    return found


def spec_of(interface: Mapping) -> Spec:
    """Its sizes."""
    return Spec(observation_dim=interface['observation_dim'], action_dim=interface['action_dim'])


def _summary(directory):
    path = directory / 'summary.json'
    return writers.read_json(path) if path.is_file() else {}


def _checked(interface, directory):
    sizes = {'action_low': 'action_dim', 'action_high': 'action_dim', 'observation_mean': 'observation_dim'}
    try:
        whole = all(isinstance(interface[name], int) and interface[name] > 0 for name in ('observation_dim', 'action_dim'))
        lists = {name: np.asarray(interface[name], float) for name in sizes if name in interface}
        fits = all(values.shape == (interface[sizes[name]],) and np.isfinite(values).all() for name, values in lists.items())
        if whole and fits and (lists['action_low'] < lists['action_high']).all():
            return interface
    except (LookupError, TypeError, ValueError):
        pass
    path = directory / 'summary.json'
    raise UsageError(f'load needs sizes and boxes as a run wrote them; those of {path} are damaged; restore it')


def stand_in(interface):
    """Two rows with the mean and the deviation of the data, by which a given policy undoes the normalisation around it.

    Whatever else agents are built with data for stands in checkpoints, or is what only learning needs.
    """
    mean, std = (interface.get(f'observation_{name}', np.zeros(interface['observation_dim'])) for name in ('mean', 'std'))
    observation = (np.asarray(mean) + np.outer([-1.0, 1.0], std)).astype(np.float32)
    action, zero = np.zeros((2, interface['action_dim']), np.float32), np.zeros(2, np.float32)
    return Transition(observation, action, zero, zero, observation, {'boundary': zero})


def _chosen(phases, name, summary, purpose):
    by_name = {phase.name: phase for phase in phases if phase.num_updates}
    if name is None:
        lead = arms.leading(summary) if summary.get('phases') else None
        return by_name.get(lead) or list(by_name.values())[-1]
    if name not in by_name:
        raise UsageError(f'{purpose} needs a phase that trained a policy; there are {", ".join(by_name)}; got {name!r}')
    return by_name[name]
