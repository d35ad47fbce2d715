"""Candidates kept for every row of a data set, for policies that are dear to ask: what PA-RL's search begins with.

    candidates[i]      = N draws of policy(s_i)
    next_candidates[i] = N draws of policy(s'_i): those of the next row, where that begins with s'_i

Raw draws are kept, never what a search makes of them: that depends on the critic, which changes with every update. They are those
of the policy as it was. `with_candidates` draws them once, for a policy that is given; `refreshed` keeps them beside an agent and
draws them anew while it learns, U / every states in each update, so that none is older than `every` updates (one epoch in the
source): with `every = 1` all of them are those of the policy as the update finds it, as if nothing were kept.

Source: Mark et al., arXiv:2412.06685, whose code keeps the draws of a large policy by hashes of pictures; here they are columns.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.errors import UsageError
from ooorl.types import Agent, Array, Params, Policy, State, Transition
from ooorl.validation import check_positive
from ooorl.wrap import nested, with_extras

COLUMNS = ('candidates', 'next_candidates')
PLACES = ('place', 'next_place')
MOST_STATES = 2**24  # columns of rows are float32


def with_candidates(
    data: Transition, policy: Policy, params: Params, key: Array, num: int, *, rows_at_once: int = 1024
) -> Transition:
    """The data `[n]`, in the order they were lived, with the columns `candidates` and `next_candidates` `[n, num, A]`.

    The policy draws with the parameters that act, for every state once. n * num * A numbers are held twice.

    Raises:
      UsageError: if there are no candidates.

    Example:
      >>> import jax
      >>> from ooorl.agents.cached import with_candidates
      >>> from ooorl.policies.gaussian import gaussian_policy
      >>> from ooorl.types import Spec, Transition
      >>> policy = gaussian_policy(Spec(observation_dim=3, action_dim=2), (8,))
      >>> rows = jax.random.normal(jax.random.key(0), (5, 3))
      >>> data = Transition(rows, rows[:, :2], rows[:, 0], rows[:, 1], rows + 1.0)
      >>> data = with_candidates(data, policy, policy.init(jax.random.key(1)), jax.random.key(2), 4)
      >>> data.extras['next_candidates'].shape
      (5, 4, 2)
    """
    check_positive(num_candidates=num, rows_at_once=rows_at_once)
    observation, successor = np.asarray(data.observation), np.asarray(data.next_observation)
    follows = _follows(data)
    draw = jax.jit(lambda params, rows, key: policy.sample(policy.deployed(params), rows, key, num))
    keys = iter(jax.random.split(key, 2 * (-(-len(observation) // rows_at_once))))

    def drawn(rows):
        parts = []
        for first in range(0, len(rows), rows_at_once):
            block = rows[first : first + rows_at_once]
            padded = np.concatenate([block, np.repeat(block[:1], min(rows_at_once, len(rows)) - len(block), axis=0)])
            parts.append(np.swapaxes(np.asarray(draw(params, jnp.asarray(padded), next(keys))), 0, 1)[: len(block)])
        return np.concatenate(parts) if parts else np.zeros((0, num, data.action.shape[-1]), np.float32)

    now = drawn(observation)
    following = np.concatenate([now[1:], now[:1]])
    following[~follows] = drawn(successor[~follows])
    return data._replace(extras={**data.extras, 'candidates': now, 'next_candidates': following})


def _follows(data):
    """`[n]`: whether the next row begins where this one has led."""
    return np.append((np.asarray(data.next_observation)[:-1] == np.asarray(data.observation)[1:]).all(axis=-1), False)


def states_of(data: Transition) -> np.ndarray:
    """The states `[U, O]` of the data `[n]`: those of all rows, then the successors that are no next row's."""
    return np.concatenate([np.asarray(data.observation), np.asarray(data.next_observation)[~_follows(data)]])


def with_places(data: Transition) -> Transition:
    """The data `[n]` with the columns `place` and `next_place` `[n]`, where s and s' stand among `states_of` them."""
    follows, rows = _follows(data), np.arange(len(data.observation))
    following = np.where(follows, rows + 1, len(rows) + np.cumsum(~follows) - 1)
    return data._replace(extras={**data.extras, 'place': rows.astype(np.float32), 'next_place': following.astype(np.float32)})


class RefreshedState(NamedTuple):
    """An agent's state beside the draws `[U, N, A]` that it learns from and the state whose turn it is."""

    agent: State
    kept: Array
    turn: Array


def refreshed(agent: Agent, policy: Policy, states: Array, *, every: int, num: int) -> Agent:
    """The agent with draws of its own policy kept for `states`, each of them drawn anew within `every` updates.

    Each update draws for the next ceil(U / every) states, in turn, from the policy as it finds it. The draws are U * num * A
    numbers in the state of each seed, hence in every checkpoint; the states are held once more, U * O numbers for all seeds.

    Args:
      agent: one that reads `candidates` and `next_candidates`, with its policy's parameters as `policy` in its state.
      policy: its policy.
      states: `[U, O]`, as the agent sees them, in the order of `states_of`; its batches have the columns of `with_places`.
      every: updates.
      num: N, draws for each state.

    Raises:
      UsageError: if `every` or `num` is not greater than 0, or there are too many states.
    """
    check_positive(refresh_every=every, num_candidates=num)
    if len(states) > MOST_STATES:
        raise UsageError(f'draws are kept for at most {MOST_STATES:,} states; got {len(states):,}; give fewer rows')
    states = jnp.asarray(states, jnp.float32)
    block = -(-states.shape[0] // every)

    def drawn(params, observation, key):
        return jnp.moveaxis(policy.sample(policy.deployed(params), observation, key, num), 0, -2)

    def init(key):
        agent_key, draw_key = jax.random.split(key)
        own = agent.init(agent_key)
        keys = jax.random.split(draw_key, states.shape[0])
        kept = jax.lax.map(lambda one: drawn(own.policy, *one), (states, keys), batch_size=min(1024, states.shape[0]))
        return RefreshedState(own, kept, jnp.zeros((), jnp.int32))

    def current(state, key):
        rows = (state.turn + jnp.arange(block)) % states.shape[0]
        kept = state.kept.at[rows].set(drawn(state.agent.policy, states[rows], key))
        return kept, (state.turn + block) % states.shape[0]

    def update(state, batch, key):
        draw_key, agent_key = jax.random.split(key)
        kept, turn = current(state, draw_key)
        columns = {name: kept[batch.extras[place].astype(jnp.int32)] for name, place in zip(COLUMNS, PLACES, strict=True)}
        own, metrics = agent.update(state.agent, with_extras(batch, **columns), agent_key)
        return RefreshedState(own, kept, turn), metrics

    reads = tuple(name for name in agent.reads if name not in COLUMNS)
    return nested(agent, init=init, update=update, reads=(*reads, *PLACES))


def beside_kept(agent: Agent, keeper: Agent) -> Agent:
    """The agent, which draws anew for every batch, with the states of `keeper`, its `refreshed` form, whose draws stay.

    So a phase on rows for which nothing is kept goes on with what a phase that kept its draws has learnt.
    """

    def update(state, batch, key):
        own, metrics = agent.update(state.agent, batch, key)
        return state._replace(agent=own), metrics

    return nested(agent, init=keeper.init, update=update)
