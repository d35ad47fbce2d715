"""How many updates a second does IQL make (256 x 256, batch 256, a million transitions), against a bare scan of the same maths?

The bare scan below is all there is to it: parameters as arrays, Adam of optax, one jitted `lax.scan` with a donated state
and no metrics. "At once" is the order in which every loss reads what was there before the update (`IQLConfig.at_once`), so that V
and the slow Q are computed once for all of them. Before anything is timed both make three updates from the same parameters on the
same batches, in both orders, and must agree. The first contender appears twice: the ratio of the two ("control") is what the
machine resolves.

    python benchmarks/iql_updates.py                                           # about 6 minutes on two quiet cores
    python benchmarks/iql_updates.py --rows 2000 --dispatch 5 20 --updates 20 --repeats 2 --dry
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import timing

from ooorl import mapping
from ooorl.agents.iql import IQLConfig, iql
from ooorl.training import learn, replay
from ooorl.training.sampling import Sampling
from ooorl.types import Spec, Transition

SPEC = Spec(observation_dim=17, action_dim=6)
CONFIG = IQLConfig()
BATCH = 256
ADAM = optax.adam(CONFIG.learning_rate)


def synthetic(rows):
    """Noise of the sizes of D4RL's halfcheetah."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    return Transition(
        observation=normal(rows, SPEC.observation_dim),
        action=np.tanh(normal(rows, SPEC.action_dim)),
        reward=normal(rows),
        discount=(rng.random(rows) > 0.001).astype(np.float32),
        next_observation=normal(rows, SPEC.observation_dim),
        extras={'boundary': np.zeros(rows, np.float32)},
    )


def network(layers, x):
    for kernel, bias in layers[:-1]:
        x = jax.nn.relu(x @ kernel + bias)
    kernel, bias = layers[-1]
    return x @ kernel + bias


def value(layers, observation):
    return network(layers, observation)[:, 0]


def lowest_q(members, observation, action):
    inputs = jnp.concatenate([observation, action], axis=-1)
    return jnp.minimum(*(network(layers, inputs)[:, 0] for layers in members))


def descended(loss, params, opt_state):
    updates, opt_state = ADAM.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def bare_update(state, batch, at_once=False):
    """One update of IQL in the official order, V, policy, Q, slow Q, or all of them from the old parameters."""
    before = state
    v, v_opt, policy, policy_opt, q, q_opt, slow = state
    observation, action = batch.observation, batch.action
    target = lowest_q(slow, observation, action)

    def value_loss(params):
        difference = target - value(params, observation)
        return (jnp.where(difference > 0, CONFIG.expectile, 1.0 - CONFIG.expectile) * difference**2).mean()

    v, v_opt = descended(value_loss, v, v_opt)
    read = before[0] if at_once else v
    weight = jnp.exp(jnp.minimum(CONFIG.inverse_temperature * (target - value(read, observation)), jnp.log(CONFIG.max_weight)))

    def policy_loss(params):
        layers, log_std = params
        log_std = jnp.clip(log_std, CONFIG.log_std_min, 2.0)[None]
        noise = (action - jnp.tanh(network(layers, observation))) / jnp.exp(log_std)
        return (weight * (0.5 * noise**2 + log_std + 0.5 * jnp.log(2.0 * jnp.pi)).sum(axis=-1)).mean()

    policy, policy_opt = descended(policy_loss, policy, policy_opt)
    backup = batch.reward + CONFIG.gamma * batch.discount * value(read, batch.next_observation)

    def q_loss(params):
        inputs = jnp.concatenate([observation, action], axis=-1)
        return sum(((network(layers, inputs)[:, 0] - backup) ** 2).mean() for layers in params)

    q, q_opt = descended(q_loss, q, q_opt)
    slow = optax.incremental_update(before[4] if at_once else q, slow, CONFIG.polyak)
    return v, v_opt, policy, policy_opt, q, q_opt, slow


def bare_state(state):
    """The same parameters as an agent's fresh state, as plain arrays."""

    def layers(params):
        table = params['params']
        return [(jnp.copy(table[name]['kernel']), jnp.copy(table[name]['bias'])) for name in sorted(table)]

    v, policy = layers(state.critic.value), (layers(state.policy['mean']), jnp.copy(state.policy['log_std']))
    q, slow = ([layers(member) for member in members] for members in (state.critic.q, state.critic.target_q))
    return v, ADAM.init(v), policy, ADAM.init(policy), q, ADAM.init(q), slow


def bare_learn(num_updates, at_once=False):
    def learn(state, transitions, key):
        def step(state, key):
            rows = jax.random.randint(key, (BATCH,), 0, transitions.reward.shape[0])
            return bare_update(state, jax.tree.map(lambda leaf: leaf[rows], transitions), at_once), None

        return jax.lax.scan(step, state, jax.random.split(key, num_updates))[0]

    return learn


def check_same_maths(agent, transitions, at_once):
    """Largest difference of any parameter after three updates of both on the same batches."""
    ours, update = agent.init(jax.random.key(0)), jax.jit(agent.update)
    bare_step = jax.jit(lambda state, batch: bare_update(state, batch, at_once))
    bare = bare_state(ours)
    for number in range(3):
        batch = jax.tree.map(lambda leaf, n=number: jnp.asarray(leaf[n * BATCH : (n + 1) * BATCH]), transitions)
        ours, _ = update(ours, batch, jax.random.key(number))
        bare = bare_step(bare, batch)
    mine, theirs = bare_state(ours), bare
    difference = max(
        float(jnp.abs(a - b).max())
        for place in (0, 2, 4, 6)
        for a, b in zip(jax.tree.leaves(mine[place]), jax.tree.leaves(theirs[place]), strict=True)
    )
    if difference > 1e-4:
        raise SystemExit(f'the bare scan does other maths: parameters differ by {difference:.2g} after three updates')
    return difference


class Contender:
    """A compiled learning program with its state; a call makes `num_updates` updates and gives updates a second."""

    def __init__(self, function, state, data, num_updates, dispatch, seeds):
        keys = jax.random.split(jax.random.key(1), (num_updates // dispatch, *seeds))
        self._keys, self._state, self._data, self._num_updates = list(keys), state, data, num_updates
        began = time.perf_counter()
        self._program = jax.jit(function, donate_argnums=0).lower(state, data, self._keys[0]).compile()
        self.compile_seconds = time.perf_counter() - began

    def __call__(self):
        began = time.perf_counter()
        for key in self._keys:
            outcome = self._program(self._state, self._data, key)
            self._state = outcome[0] if len(outcome) == 2 else outcome
        jax.block_until_ready(self._state)
        return self._num_updates / (time.perf_counter() - began)


def measure(arguments, agents, transitions, dispatch, difference):
    source, agent = replay.full(transitions), agents[False]
    ours, at_once = (
        learn.make_learn(one, Sampling(batch_size=BATCH), num_updates=dispatch, streams={'dataset': 1})
        for one in (agent, agents[True])
    )
    over_seeds = mapping.map_seeds(lambda state, data, key: ours(state, data, key), (0, None, 0))
    columns = source.storage._replace(extras={})

    def fresh():
        return agent.init(jax.random.key(0))

    num_updates = max(arguments.updates // dispatch, 1) * dispatch
    settled = {'num_updates': num_updates, 'dispatch': dispatch}
    contenders = {
        'make_learn': Contender(ours, fresh(), {'dataset': source}, **settled, seeds=()),
        'make_learn, once more': Contender(ours, fresh(), {'dataset': source}, **settled, seeds=()),
        'make_learn behind map_seeds, one seed': Contender(
            over_seeds, jax.tree.map(lambda leaf: leaf[None], fresh()), {'dataset': source}, **settled, seeds=(1,)
        ),
        'bare scan': Contender(bare_learn(dispatch), bare_state(fresh()), columns, **settled, seeds=()),
        'make_learn, at once': Contender(at_once, fresh(), {'dataset': source}, **settled, seeds=()),
        'bare scan, at once': Contender(bare_learn(dispatch, True), bare_state(fresh()), columns, **settled, seeds=()),
    }
    rates = timing.take_turns(contenders, arguments.repeats)
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(values, rates['bare scan'], strict=True)]
        control = [a / b for a, b in zip(rates['make_learn, once more'], rates['make_learn'], strict=True)]
        settings = {
            'dispatch': dispatch, 'rows': arguments.rows, 'batch': BATCH, 'hidden': list(CONFIG.hidden),
            'ratio_to_bare': round(statistics.median(ratios), 3), 'control': round(statistics.median(control), 3),
            # The second copy of a program comes out of the first one's compilation.
            'compile_seconds': None if name.endswith('once more') else round(contenders[name].compile_seconds, 2),
            'difference_of_maths': difference,
        }  # fmt: skip
        if arguments.dry:
            print(name, timing.summary(values), settings)
        else:
            timing.record(Path(__file__).stem, unit='updates/s', contender=name, values=values, **settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--rows', type=int, default=1_000_000)
    parser.add_argument('--dispatch', type=int, nargs='+', default=[50, 1000], help='updates in one dispatch')
    parser.add_argument('--updates', type=int, default=1000, help='updates in one measurement')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--dry', action='store_true', help='print, and write no results')
    arguments = parser.parse_args()
    jax.config.update('jax_enable_compilation_cache', False)
    agents = {at_once: iql(SPEC, replace(CONFIG, at_once=at_once)) for at_once in (False, True)}
    transitions = synthetic(arguments.rows)
    difference = max(check_same_maths(agent, transitions, at_once) for at_once, agent in agents.items())
    for dispatch in arguments.dispatch:
        measure(arguments, agents, transitions, dispatch, difference)


if __name__ == '__main__':
    main()
