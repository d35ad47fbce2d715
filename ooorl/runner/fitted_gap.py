"""How much better a fitted policy knows the episodes it was fitted to than others of the same data.

    gap = mean_{held-out episodes} loss(s, a) / A - mean_{its own episodes} loss(s, a) / A

For the Gaussian of `agents.bc` the loss is -log pi(a | s): nats for each number of an action. Near 0, more data of the same kind
would hardly help cloning; a large gap says that episodes, not states, decide about actions, or that there are too few of them.
The split is by episode, since neighbouring rows are alike, and a fresh policy is fitted for each split.

Idea: action divergence in Belkhale, Cui and Sadigh, arXiv:2306.02437; this estimator is our own.
"""

from typing import NamedTuple

import jax
import numpy as np

from ooorl.agents.bc import BCConfig, bc
from ooorl.errors import UsageError
from ooorl.policies.gaussian import gaussian_policy
from ooorl.reporting.intervals import interval
from ooorl.training import replay
from ooorl.training.learn import make_learn
from ooorl.training.sampling import Sampling
from ooorl.types import Spec, Transition
from ooorl.validation import check_fraction, check_positive

MOST_ROWS = 5_000  # of either part that a loss is a mean over


class Gap(NamedTuple):
    """Losses by split, in nats for each number of an action, and the mean of their differences with its interval over splits."""

    own: list[float]
    held_out: list[float]
    gap: float
    low: float
    high: float


def fitted_gap(
    transitions: Transition, *, num_updates: int = 3_000, hidden=(64, 64), share: float = 0.2, splits: int = 5, seed: int = 0
) -> Gap:
    """The gap of a Gaussian policy fitted by cloning, Adam at 1e-3 and batches of 128, on observations in units of deviations.

    Args:
      transitions: `[n]`, in the order they were lived, with `boundary` among their extras.
      num_updates: of every policy.
      hidden: widths of the policy.
      share: of the episodes, held out.
      splits: how often episodes are split anew.
      seed: of splits and policies.

    Raises:
      UsageError: where there are too few episodes to hold one out.
    """
    check_positive(num_updates=num_updates, splits=splits)
    check_fraction(share=share)
    boundary = np.asarray(transitions.extras['boundary']) > 0
    episode = np.append(0, np.cumsum(boundary)[:-1])
    num = int(episode[-1]) + 1
    if num < 2:
        raise UsageError(f'a fitted policy is judged on episodes held out, which needs two at least; the data have {num}')
    rng = np.random.default_rng(seed)
    held = [np.isin(episode, rng.permutation(num)[: min(num - 1, max(1, round(share * num)))]) for _ in range(splits)]
    spec = Spec(observation_dim=transitions.observation.shape[1], action_dim=transitions.action.shape[1])
    fit, loss = _programs(spec, hidden, num_updates)
    deviation = transitions.observation.std(axis=0)
    scaled = (transitions.observation - transitions.observation.mean(axis=0)) / np.where(deviation > 1e-6, deviation, 1.0)
    rows = transitions._replace(observation=scaled, next_observation=scaled)  # cloning reads no successor
    size = min(int((~out).sum()) for out in held)  # the same of all splits: one program
    pairs = []
    for number, out in enumerate(held):
        key = jax.random.key(seed + number)
        given = rng.permutation(np.flatnonzero(~out))[:size]
        state = fit(key, replay.full(jax.tree.map(lambda leaf, given=given: leaf[given], rows)))
        parts = (rng.permutation(np.flatnonzero(part)) for part in (~out, out))
        pairs.append([float(loss(state, rows, part[np.arange(MOST_ROWS) % len(part)], key)) for part in parts])
    own, others = np.transpose(pairs)
    ends = interval(others - own)
    return Gap(own.tolist(), others.tolist(), float(np.mean(others - own)), ends.low, ends.high)


def _programs(spec, hidden, num_updates):
    """Fitting to the rows of a store, and the mean loss over rows `index` of some, both compiled once."""
    policy = gaussian_policy(spec, tuple(hidden))
    agent = bc(spec, BCConfig(learning_rate=1e-3), policy=policy)
    learn = make_learn(agent, Sampling(batch_size=128), num_updates=num_updates, streams={'dataset': 1})

    @jax.jit
    def fit(key, store):
        return learn(agent.init(key), {'dataset': store}, key)[0]

    @jax.jit
    def loss(state, rows, index, key):
        return policy.loss(state.policy, rows.observation[index], rows.action[index], key).mean() / spec.action_dim

    return fit, loss


def line(found: Gap) -> str:
    """The finding as a line for people."""
    own, held_out = np.mean(found.own), np.mean(found.held_out)
    return (
        f'fitted policy       {own:.3g} nats an action entry on its own episodes, {held_out:.3g} on others: gap {found.gap:.3g} '
        f'[{found.low:.3g}, {found.high:.3g}] over {len(found.own)} splits'
    )
