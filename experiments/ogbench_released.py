"""Do our updates of edits (EXPO-like) and of IFQL agree with the released ones, number by number, and where do they not?

    python experiments/ogbench_released.py edit CHECKOUT puzzle-3x3-play.npz runs/ogbench_curves/puzzle-3x3-1-edit-small
    python experiments/ogbench_released.py ifql CHECKOUT puzzle-3x3-play.npz runs/ogbench_curves/puzzle-3x3-1-ifql-small

CHECKOUT is one of ColinQiyangLi/qam@f93efd2, whose `agents` and `utils` run as they are; the two distributions that they
take of tensorflow_probability are written out here. Parameters of our finished run are carried over; both codes then learn from
the same rows with the same noise, a third of the batches having rows near goals, under either of our rules for windows. Writes
`results/ogbench_same_updates-METHOD.json`: how windows differ, and how far losses and first moments of the gradients lie apart.
"""

import importlib
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import ogbench_curves

import ooorl
from ooorl.runner.prepare import prepare
from ooorl.windows import one_decision

RESULTS = Path(__file__).resolve().parent / 'results'
LENGTH, GAMMA, BATCH, NUM_UPDATES, NUM_WINDOWS, NEAR_GOALS, NUM_ACTED = 5, 0.99, 128, 100, 60_000, 40, 32


class Normal:
    """A diagonal normal distribution, as far as the released code asks for it."""

    def __init__(self, loc, scale_diag):
        self.loc, self.scale = loc, scale_diag

    def sample(self, seed):
        return self.loc + self.scale * jax.random.normal(seed, self.loc.shape)

    def log_prob(self, x):
        return (-0.5 * ((x - self.loc) / self.scale) ** 2 - jnp.log(self.scale) - 0.5 * jnp.log(2 * jnp.pi)).sum(-1)


class Squashed:
    """Its tanh, which remembers what its draw was the tanh of, as tensorflow_probability does."""

    def __init__(self, distribution, bijector, validate_args=False):
        del bijector, validate_args
        self.distribution = distribution

    def sample(self, seed):
        self.drawn = self.distribution.sample(seed)
        return jnp.tanh(self.drawn)

    def log_prob(self, action):
        del action
        slope = 2.0 * (jnp.log(2.0) - self.drawn - jax.nn.softplus(-2.0 * self.drawn))
        return self.distribution.log_prob(self.drawn) - slope.sum(-1)


class Method(NamedTuple):
    """One agent in both codes.

    `losses` are pairs of names, ours and theirs, with what ours is multiplied by to be theirs; `networks` are theirs, with the
    same factor of gradients. `carried` puts our parameters under their names, `moments` and `fresh` act on optimisers.
    """

    module: str
    released: str
    settings: dict
    losses: tuple[tuple[str, str, float], ...]
    networks: dict[str, float]
    carried: Callable
    moments: Callable
    fresh: Callable
    acted: Callable


def imported(checkout: str, method: 'Method'):
    """The released agent, its settings and its data set."""
    distributions = types.SimpleNamespace(TransformedDistribution=Squashed, MultivariateNormalDiag=Normal, Distribution=Normal)
    substrate = types.SimpleNamespace(distributions=distributions, bijectors=types.SimpleNamespace(Tanh=lambda: None))
    config = type('Config', (dict,), {'__getattr__': dict.__getitem__})
    stand_ins = {
        'tensorflow_probability': {'substrates': types.SimpleNamespace(jax=substrate)},
        'distrax': dict.fromkeys(('Transformed', 'MultivariateNormalDiag', 'Block', 'Tanh'), object),
        'ml_collections': {'ConfigDict': config, 'config_dict': types.SimpleNamespace(placeholder=lambda kind: None)},
        'agents': {'__path__': [str(Path(checkout) / 'agents')]},
    }
    for name, attributes in stand_ins.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(attributes)
    sys.path.insert(0, checkout)
    agent = importlib.import_module(f'agents.{method.module}')
    datasets = importlib.import_module('utils.datasets')
    return getattr(agent, method.released), agent.get_config(), datasets.Dataset


def carried_flow(policy) -> dict:
    """A flow policy's parameters: the action comes first in our input, behind the observation in theirs."""
    flow = policy['params']['body']
    first, num = flow['Dense_0'], flow['Dense_3']['bias'].size
    kernel = jnp.concatenate([first['kernel'][num:-1], first['kernel'][:num], first['kernel'][-1:]])
    return {'mlp': {**flow, 'Dense_0': {**first, 'kernel': kernel}}}


def carried_critics(critic) -> dict:
    """Q and its slow copy."""
    both = {'modules_critic': critic.q, 'modules_target_critic': critic.target_q}
    return {
        name: {'value_net': jax.tree.map(lambda *own: jnp.stack(own), *(one['params'] for one in q))} for name, q in both.items()
    }


def carried_edit(state) -> dict:
    """Our state of edits, parameters or moments in their places, in the released code's names."""
    edit, num = state.edit['network']['params'], state.policy['params']['body']['Dense_3']['bias'].size
    last, heads = edit['Dense_3'], {'OutputDenseMean': slice(None, num), 'OutputDenseLogStd': slice(num, None)}
    heads = {name: {'kernel': last['kernel'][:, part], 'bias': last['bias'][part]} for name, part in heads.items()}
    return {
        'modules_actor_bc_flow': carried_flow(state.policy),
        'modules_edit_actor': {'MLP_0': {name: edit[name] for name in edit if name != 'Dense_3'}, **heads},
        'modules_alpha': {'log_value': state.log_temperature},
        **carried_critics(state.critic),
    }


def carried_ifql(state) -> dict:
    """The same of IFQL."""
    value = {'modules_value': {'value_net': state.critic.value['params']}}
    return {'modules_actor_flow': carried_flow(state.policy), **value, **carried_critics(state.critic)}


def moments_edit(state):
    """The state with first moments of the gradients in the places of parameters."""
    first = {name: getattr(state, f'{name}_opt')[1][0].mu for name in ('policy', 'edit')}
    critic = state.critic._replace(q=state.critic.q_opt[1][0].mu)
    return state._replace(**first, log_temperature=state.temperature_opt[1][0].mu, critic=critic)


def moments_ifql(state):
    """The same of IFQL."""
    first = {name: getattr(state.critic, f'{name}_opt')[1][0].mu for name in ('value', 'q')}
    return state._replace(policy=state.policy_opt[1][0].mu, critic=state.critic._replace(**first))


def windows_at(data, first):
    """Windows of our rows that begin at `first` `[B]`, as of `replay.sample_windows`."""
    rows = np.minimum(first[:, None] + np.arange(LENGTH), len(data.reward) - 1)
    ends = np.cumsum(np.asarray(data.extras['boundary'])[rows] > 0, axis=1)
    valid = np.pad(ends[:, :-1], ((0, 0), (1, 0))) == 0
    rows = np.take_along_axis(rows, np.minimum(np.arange(LENGTH), valid.sum(axis=1, keepdims=True) - 1), axis=1)
    found = jax.tree.map(lambda column: np.asarray(column)[rows], data)
    return found._replace(extras={**found.extras, 'valid': valid.astype(np.float32)})


def theirs_at(dataset, first):
    """The released code's batch of the windows that begin at `first`."""
    drawn, np.random.randint = np.random.randint, lambda *args, **settings: first
    try:
        return dataset.sample_sequence(len(first), sequence_length=LENGTH, discount=GAMMA)
    finally:
        np.random.randint = drawn


def with_noise(function):
    """`(state, batch, normals [5, n], uniform [B])`: the function, compiled, with these in the place of what it draws."""

    def given(state, batch, normals, uniform):
        left, kept = list(normals), (jax.random.normal, jax.random.uniform)
        jax.random.normal = lambda key, shape=(), dtype=None: left.pop(0).reshape(shape)
        jax.random.uniform = lambda key, shape=(), dtype=None: uniform.reshape(shape)
        try:
            return function(state, batch)
        finally:
            jax.random.normal, jax.random.uniform = kept

    return jax.jit(given)


def compared_windows(data, dataset, ends) -> dict:
    """Windows at random rows: how many meet a goal, and of how many a number differs."""
    first = np.random.default_rng(1).integers(0, len(data.reward) - LENGTH + 1, NUM_WINDOWS)
    here, there = one_decision(windows_at(data, first), GAMMA, ends), theirs_at(dataset, first)
    counts = there['valid'][:, -1] > 0
    pairs = {
        'action': (here.action, there['actions'].reshape(NUM_WINDOWS, -1)), 'reward': (here.reward, there['rewards'][:, -1]),
        'discount': (here.discount, GAMMA ** (LENGTH - 1) * there['masks'][:, -1]),
        'next_observation': (here.next_observation, there['next_observations'][:, -1]),
    }  # fmt: skip
    apart = {name: np.abs(np.asarray(a) - b).reshape(NUM_WINDOWS, -1).max(axis=1) > 3e-5 for name, (a, b) in pairs.items()}
    found = {name: int((own & counts).sum()) for name, own in apart.items()}
    weights = int((np.asarray(here.extras['weight']) != there['valid'][:, -1]).sum())
    return {'windows': NUM_WINDOWS, 'with_goal': int((there['masks'][:, -1] == 0).sum()), 'differ': {**found, 'weight': weights}}


def compared_updates(method, agent, state, data, dataset, released, over_ends: bool) -> dict:
    """The largest difference over the updates: of a loss beside its mean size, of a network's first moments beside theirs.

    Windows that run over a recording's end are left out unless `over_ends`; the released code goes on in the next recording.
    """
    jax.clear_caches()  # of the released losses, compiled by themselves: they keep the noise that they were traced with
    released_class, there = type(released), released
    update = with_noise(lambda own, windows: agent.update(own, windows, jax.random.key(0)))
    released_update = with_noise(released_class._update)
    near = (np.flatnonzero(np.asarray(data.discount) == 0)[:, None] - np.arange(LENGTH + 1)).ravel()
    starts = np.arange(len(data.reward) - LENGTH + 1)
    whole = windows_at(data, starts).extras['valid'][:, -1] > 0
    starts, near = (own[whole[own] | over_ends] for own in (starts, near[(near >= 0) & (near < len(starts))]))
    random, losses, far = np.random.default_rng(0), [], {}
    for number in range(NUM_UPDATES):
        first = random.choice(starts, BATCH)
        if number % 3 == 0:
            first[:NEAR_GOALS] = random.choice(near, NEAR_GOALS)
        noise = random.normal(size=(5, BATCH * LENGTH * data.action.shape[-1])).astype(np.float32)
        uniform = random.uniform(size=BATCH).astype(np.float32)
        state, metrics = update(state, windows_at(data, first), noise, uniform)
        there, info = released_update(there, theirs_at(dataset, first), noise, uniform)
        losses.append([(factor * float(metrics[name]), float(info[other])) for name, other, factor in method.losses])
        ours, theirs = method.carried(method.moments(state)), there.network.opt_state[0].mu
        for name, factor in method.networks.items():
            scaled = jax.tree.map(lambda own, factor=factor: factor * own, ours[name])
            far[name] = max(_apart(scaled, theirs[name]), far.get(name, 0.0))
    ours, theirs = np.abs(losses).transpose(2, 1, 0)  # one of them is called Q by us and its negative there
    names = [name for name, _, _ in method.losses]
    far |= dict(zip(names, (np.abs(ours - theirs).max(axis=1) / theirs.mean(axis=1)).tolist(), strict=True))
    return {name: float(f'{value:.2g}') for name, value in far.items()}


def acted_edit(agent, state, observation, released) -> tuple:
    """Actions of both codes from the same noise."""
    noise = np.random.default_rng(2).normal(size=(2, BATCH * released.config['action_dim'] * LENGTH)).astype(np.float32)
    ours = with_noise(lambda own, seen: agent.best_action(own, seen, jax.random.key(0)))(state, observation, noise, None)
    theirs = with_noise(lambda own, seen: own.sample_actions.__wrapped__(own, seen, jax.random.key(0)))
    return ours, theirs(released, observation, noise, None)


def acted_ifql(agent, state, observation, released) -> tuple:
    """The same of IFQL, one observation after another: the best of draws under the least Q."""
    shape = (1, released.config['num_samples'], released.config['action_dim'] * LENGTH)
    random, pairs = np.random.default_rng(2), []
    theirs = with_noise(lambda own, seen: own.sample_actions.__wrapped__(own, seen, jax.random.key(0)))
    for seen in observation[:NUM_ACTED]:
        noise = random.normal(size=shape).astype(np.float32)
        many = np.broadcast_to(seen, (shape[1], len(seen)))
        drawn = agent.decode(state, many, noise[0])
        best = drawn[agent.q(state, many, drawn).min(axis=0).argmax()]
        pairs.append((best, theirs(released, seen, noise, None)))
    return tuple(jnp.stack(own) for own in zip(*pairs, strict=True))


def _apart(ours, theirs):
    square = jax.tree.map(lambda a, b: (((a - b) ** 2).sum(), (b**2).sum()), ours, theirs)
    return float(np.sqrt(np.sum(jax.tree.leaves(square)[::2]) / np.sum(jax.tree.leaves(square)[1::2])))


def fresh_edit(state):
    """The state with optimisers that have not begun."""
    zeros = {name: jax.tree.map(jnp.zeros_like, getattr(state, name)) for name in ('policy_opt', 'edit_opt', 'temperature_opt')}
    return state._replace(**zeros, critic=state.critic._replace(q_opt=jax.tree.map(jnp.zeros_like, state.critic.q_opt)))


def fresh_ifql(state):
    """The same of IFQL."""
    zeros = {name: jax.tree.map(jnp.zeros_like, getattr(state.critic, name)) for name in ('value_opt', 'q_opt')}
    return state._replace(policy_opt=jax.tree.map(jnp.zeros_like, state.policy_opt), critic=state.critic._replace(**zeros))


_EDIT = {'edit_scale': 0.2, 'edit_target_entropy': None}
METHODS = {
    'edit': Method(
        'fedit', 'FEditAgent', _EDIT,
        (('q/loss', 'critic/critic_loss', 1.0), ('policy/loss', 'actor/bc_flow_loss', 1.0), ('edit/q', 'actor/edit_q_loss', 1.0),
         ('edit/entropy', 'actor/edit_entropy', 1.0), ('temperature/loss', 'actor/edit_alpha_loss', 1.0)),
        {'modules_actor_bc_flow': 1.0, 'modules_edit_actor': 1.0, 'modules_critic': 1.0},
        carried_edit, moments_edit, fresh_edit, acted_edit,
    ),
    'ifql': Method(
        'ifql', 'IFQLAgent', {'kappa': 0.95},
        (('q/loss', 'critic/critic_loss', 0.5), ('value/loss', 'value/value_loss', 1.0),
         ('policy/loss', 'actor/actor_loss', 0.04)),
        {'modules_actor_flow': 0.04, 'modules_critic': 0.5, 'modules_value': 1.0},  # sums over 25 numbers and 2 members here
        carried_ifql, moments_ifql, fresh_ifql, acted_ifql,
    ),
}  # fmt: skip


def main(arguments: list[str]) -> None:
    """Compares under both rules."""
    name, checkout, path, run = arguments
    method, cell = METHODS[name], f'puzzle-3x3:1:{name}:small'
    released, config, dataset_class = imported(checkout, method)
    found = {'cell': cell, 'updates': NUM_UPDATES, 'rules': {}}
    state = method.fresh(jax.tree.map(jnp.asarray, ooorl.load(run).state))
    for ends in ('keep', 'drop'):
        overrides = ['evaluation.num_episodes=0', f'agent.chunk_ends="{ends}"']
        settings = ogbench_curves.settings_of(ogbench_curves.parse_cell(cell), path, '0:1', NUM_UPDATES, overrides)
        setup = prepare(settings).setup
        data, agent = setup.dataset, setup.phases[0].agent
        fields = {'rewards': data.reward, 'masks': data.discount, 'terminals': data.extras['boundary'], 'actions': data.action}
        fields |= {'observations': data.observation, 'next_observations': data.next_observation}
        dataset = dataset_class.create(**{column: np.array(values) for column, values in fields.items()})
        sizes = {'actor_hidden_dims': (256,) * 3, 'value_hidden_dims': (256,) * 3, 'num_qs': 2}
        config |= {**sizes, 'horizon_length': LENGTH, 'action_chunking': True, **method.settings}
        there = released.create(0, np.array(data.observation[0]), np.array(data.action[0]), type(config)(config))
        params = method.carried(state)
        there = there.replace(network=there.network.replace(params=params, opt_state=there.network.tx.init(params)))
        ours, theirs = method.acted(agent, state, np.asarray(data.observation[:BATCH]), there)
        found['largest_difference_of_actions'] = float(f'{jnp.abs(ours - theirs).max():.2g}')
        far = [compared_updates(method, agent, state, data, dataset, there, over_ends) for over_ends in (False, True)]
        names = ('largest_relative_difference_within_recordings', 'largest_relative_difference_over_ends_too')
        found['rules'][ends] = {**compared_windows(data, dataset, ends), **dict(zip(names, far, strict=True))}
        print(ends, found, flush=True)
    (RESULTS / f'ogbench_same_updates-{name}.json').write_text(json.dumps(found, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main(sys.argv[1:])
