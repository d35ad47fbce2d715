"""Do our updates of edits (EXPO-like) agree with the released ones, number by number, and where do they not?

    python experiments/ogbench_released.py CHECKOUT puzzle-3x3-play.npz runs/ogbench_curves/puzzle-3x3-1-edit-small

CHECKOUT is one of ColinQiyangLi/qam@f93efd2, whose `agents/fedit.py` and `utils` run as they are; the two distributions that they
take of tensorflow_probability are written out here. Parameters of our finished run are carried over; both codes then learn from
the same rows with the same noise, a third of the batches having rows near goals, under either of our rules for windows. Writes
`results/ogbench_same_updates.json`: how windows differ, and how far losses and first moments of the gradients lie apart.
"""

import json
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import ogbench_curves

import ooorl
from ooorl.runner.prepare import prepare
from ooorl.windows import one_decision

RESULT = Path(__file__).resolve().parent / 'results' / 'ogbench_same_updates.json'
CELL, LENGTH, GAMMA, BATCH, NUM_UPDATES, NUM_WINDOWS, NEAR_GOALS = 'puzzle-3x3:1:edit:small', 5, 0.99, 128, 100, 60_000, 40
LOSSES = {
    'q/loss': 'critic/critic_loss', 'policy/loss': 'actor/bc_flow_loss', 'edit/q': 'actor/edit_q_loss',
    'edit/entropy': 'actor/edit_entropy', 'temperature/loss': 'actor/edit_alpha_loss',
}  # fmt: skip
NETWORKS = ('modules_actor_bc_flow', 'modules_edit_actor', 'modules_critic')


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


def imported(checkout: str):
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
    from agents import fedit
    from utils import datasets

    return fedit.FEditAgent, fedit.get_config(), datasets.Dataset


def carried(state) -> dict:
    """Our state's parameters, or moments in their places, in the released code's names."""
    flow, edit = state.policy['params']['body'], state.edit['network']['params']
    first, last = flow['Dense_0'], edit['Dense_3']
    num = flow['Dense_3']['bias'].size  # the action comes first in our input, behind the observation in theirs
    kernel = jnp.concatenate([first['kernel'][num:-1], first['kernel'][:num], first['kernel'][-1:]])
    heads = {'OutputDenseMean': slice(None, num), 'OutputDenseLogStd': slice(num, None)}
    heads = {name: {'kernel': last['kernel'][:, part], 'bias': last['bias'][part]} for name, part in heads.items()}
    critics = {'critic': state.critic.q, 'target_critic': state.critic.target_q}
    stacked = {name: jax.tree.map(lambda *own: jnp.stack(own), *(one['params'] for one in q)) for name, q in critics.items()}
    return {
        'modules_actor_bc_flow': {'mlp': {**flow, 'Dense_0': {**first, 'kernel': kernel}}},
        'modules_edit_actor': {'MLP_0': {name: edit[name] for name in edit if name != 'Dense_3'}, **heads},
        'modules_alpha': {'log_value': state.log_temperature},
        **{f'modules_{name}': {'value_net': one} for name, one in stacked.items()},
    }


def moments(state):
    """The state with first moments of the gradients in the places of parameters."""
    first = {name: getattr(state, f'{name}_opt')[1][0].mu for name in ('policy', 'edit')}
    critic = state.critic._replace(q=state.critic.q_opt[1][0].mu)
    return state._replace(**first, log_temperature=state.temperature_opt[1][0].mu, critic=critic)


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


def compared_updates(agent, state, data, dataset, released) -> dict:
    """The largest difference over the updates: of a loss beside its mean size, of a network's first moments beside theirs."""
    released_class, there = type(released), released
    update = with_noise(lambda own, windows: agent.update(own, windows, jax.random.key(0)))
    released_update = with_noise(released_class._update)
    near = np.flatnonzero(np.asarray(data.discount) == 0)[:, None] - np.arange(LENGTH + 1)
    random, losses, far = np.random.default_rng(0), [], {}
    for number in range(NUM_UPDATES):
        first = random.integers(0, len(data.reward) - LENGTH + 1, BATCH)
        if number % 3 == 0:
            first[:NEAR_GOALS] = random.choice(near[near >= 0], NEAR_GOALS)
        noise = random.normal(size=(5, BATCH * LENGTH * data.action.shape[-1])).astype(np.float32)
        uniform = random.uniform(size=BATCH).astype(np.float32)
        state, metrics = update(state, windows_at(data, first), noise, uniform)
        there, info = released_update(there, theirs_at(dataset, first), noise, uniform)
        losses.append([(float(metrics[name]), float(info[other])) for name, other in LOSSES.items()])
        ours, theirs = carried(moments(state)), there.network.opt_state[0].mu
        far = {name: max(_apart(ours[name], theirs[name]), far.get(name, 0.0)) for name in NETWORKS}
    ours, theirs = np.abs(losses).transpose(2, 1, 0)  # one of them is called Q by us and its negative there
    far |= dict(zip(LOSSES, (np.abs(ours - theirs).max(axis=1) / theirs.mean(axis=1)).tolist(), strict=True))
    return {name: float(f'{value:.2g}') for name, value in far.items()}


def compared_actions(agent, state, data, released) -> float:
    """The largest difference of an action that both decide on from the same noise."""
    observation = np.asarray(data.observation[:BATCH])
    noise = np.random.default_rng(2).normal(size=(2, BATCH * LENGTH * data.action.shape[-1])).astype(np.float32)
    ours = with_noise(lambda own, seen: agent.best_action(own, seen, jax.random.key(0)))(state, observation, noise, None)
    acted = with_noise(lambda own, seen: own.sample_actions.__wrapped__(own, seen, jax.random.key(0)))
    return float(f'{jnp.abs(ours - acted(released, observation, noise, None)).max():.2g}')


def _apart(ours, theirs):
    square = jax.tree.map(lambda a, b: (((a - b) ** 2).sum(), (b**2).sum()), ours, theirs)
    return float(np.sqrt(np.sum(jax.tree.leaves(square)[::2]) / np.sum(jax.tree.leaves(square)[1::2])))


def fresh(state):
    """The state with optimisers that have not begun."""
    zeros = {name: jax.tree.map(jnp.zeros_like, getattr(state, name)) for name in ('policy_opt', 'edit_opt', 'temperature_opt')}
    return state._replace(**zeros, critic=state.critic._replace(q_opt=jax.tree.map(jnp.zeros_like, state.critic.q_opt)))


def main(arguments: list[str]) -> None:
    """Compares under both rules."""
    checkout, path, run = arguments
    released, config, dataset_class = imported(checkout)
    found = {'cell': CELL, 'updates': NUM_UPDATES, 'rules': {}}
    state = fresh(jax.tree.map(jnp.asarray, ooorl.load(run).state))
    for ends in ('keep', 'drop'):
        overrides = ['evaluation.num_episodes=0', f'agent.chunk_ends="{ends}"']
        settings = ogbench_curves.settings_of(ogbench_curves.parse_cell(CELL), path, '0:1', NUM_UPDATES, overrides)
        setup = prepare(settings).setup
        data = setup.dataset
        fields = {'rewards': data.reward, 'masks': data.discount, 'terminals': data.extras['boundary'], 'actions': data.action}
        fields |= {'observations': data.observation, 'next_observations': data.next_observation}
        dataset = dataset_class.create(**{name: np.array(column) for name, column in fields.items()})
        sizes = {'actor_hidden_dims': (256,) * 3, 'value_hidden_dims': (256,) * 3, 'num_qs': 2, 'edit_scale': 0.2}
        config |= {**sizes, 'horizon_length': LENGTH, 'action_chunking': True, 'edit_target_entropy': None}
        there = released.create(0, np.array(data.observation[0]), np.array(data.action[0]), type(config)(config))
        params = carried(state)
        there = there.replace(network=there.network.replace(params=params, opt_state=there.network.tx.init(params)))
        found['largest_difference_of_actions'] = compared_actions(setup.phases[0].agent, state, data, there)
        found['rules'][ends] = {
            **compared_windows(data, dataset, ends),
            'largest_relative_difference': compared_updates(setup.phases[0].agent, state, data, dataset, there),
        }
        print(ends, found, flush=True)
    RESULT.write_text(json.dumps(found, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main(sys.argv[1:])
