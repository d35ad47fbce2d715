"""Fitted Q evaluation: what a policy is worth, estimated from data alone, without a simulator.

    y = r + gamma d mean_e target_Q_e(s', pi(s')),   L = mean_e (Q_e(s, a) - y)^2
    value = mean of Q_e(s, pi(s)) over members and over the first states s of the data's episodes

The policy stays as it is. Observations are normalised by the data's mean and deviation, rewards divided by the deviation of
theirs and values multiplied by it again. The value is discounted and of the data's own first states: it ranks policies trained on
the same data, and is no score. It is an estimate: where a policy leaves the data, nothing tells how wrong; values that no rewards
of the data could add up to are marked.

Source: Le, Voloshin & Yue, "Batch Policy Learning under Constraints", ICML 2019, arXiv:1903.08738.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.agents.sac import SACConfig, sac_critic
from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.reporting.intervals import interval
from ooorl.runner import run_directory
from ooorl.runner.build import gamma_of
from ooorl.runner.deployed import Deployed, load
from ooorl.runner.prepare import prepare
from ooorl.runner.seed_list import parse_seeds
from ooorl.training import replay
from ooorl.training.learn import make_learn_part
from ooorl.training.sampling import Sampling
from ooorl.types import Agent, Spec, Transition
from ooorl.validation import check_positive

STEPS = 1000  # updates of one call of the compiled program, at most
FIRST_ROWS = 1000  # first states that a value is a mean over, at most


class Estimate(NamedTuple):
    """What is said of one run: values by seed, their interval, and what the data's own policy earned from the same states."""

    run: str
    phase: str
    seeds: list[int]
    values: list[float]
    low: float
    high: float
    data_return: float
    believable: bool  # within what the rewards of the data can add up to


class _State(NamedTuple):
    policy: object
    critic: object


def fqe_runs(directories, *, num_updates: int = 20_000, hidden=(256, 256), phase: str | None = None) -> list[Estimate]:
    """Estimates of several runs on the same data, the best value first; each also in `fqe.json` of its directory.

    Raises:
      UsageError: if a run has no data set, or another one than the first, or decides on several steps at once.
    """
    check_positive(num_updates=num_updates)
    found, (runs, dataset) = [], _runs(directories, phase)
    for directory, policies, gamma in runs:
        sizes = {'gamma': gamma, 'num_updates': num_updates}
        with writers.progress(f'fqe of {directory}', num_updates * len(policies), file=sys.stderr) as advance:
            more = {'hidden': hidden, 'run': str(directory), 'advance': advance}
            found.append(of_policies(policies, dataset.transitions, **sizes, **more))
        told = 'an estimate from data alone (fitted Q evaluation): discounted, of the first states of the data'
        writers.write_json(directory / 'fqe.json', {**found[-1]._asdict(), **sizes, 'what': told})
    return sorted(found, key=lambda one: -float(np.mean(one.values)))


def highest(estimates: list[Estimate]) -> tuple[tuple[str, str, int], int]:
    """`((run, phase, seed), number)`: the policy of the highest believable estimate, and of how many; `((), 0)` of none."""
    ranked = [
        (value, (one.run, one.phase, seed))
        for one in estimates if one.believable
        for value, seed in zip(one.values, one.seeds, strict=True)
    ]  # fmt: skip
    return max(ranked)[1] if ranked else (), len(ranked)


def _runs(directories, phase):
    """`[(directory, policies, gamma), ...]` and their data: all is looked at before the first critic is trained."""
    runs, dataset = [], None
    for directory in map(Path, directories):
        settings = run_directory.read_config(directory, 'fqe')
        writers.check_file(directory / 'fqe.json')
        own = prepare(settings).dataset
        if own is None:
            raise UsageError(f'fqe needs a data set; the run in {directory} names none; evaluate it where it was collected')
        if dataset is not None and dataset.sha256 != own.sha256:
            raise UsageError(f'fqe compares policies on the same data; {directory} was trained on others; evaluate it by itself')
        dataset = own
        policies = [load(directory, phase=phase, seed=seed, purpose='fqe') for seed in parse_seeds(settings['run']['seeds'])]
        if policies[0].chunk > 1:
            raise UsageError(f'fqe follows single steps; the policy of {directory} decides on several at once; leave it out')
        runs.append((directory, policies, _gamma(settings)))
    return runs, dataset


def _gamma(settings):
    tables = [settings[name] for name in ('exploit', 'agent', 'explore') if name in settings]
    return next((gamma_of(table) for table in tables if gamma_of(table) is not None), 0.99)


def of_policies(
    policies: list[Deployed],
    data: Transition,
    *,
    gamma: float,
    num_updates: int,
    hidden=(256, 256),
    run: str = '',
    advance: Callable[[int], None] = lambda num: None,
) -> Estimate:
    """The estimate of one policy's seeds, each with a critic of its own from the same program.

    Args:
      policies: seeds of one policy.
      data: transitions `[n]`, raw.
      gamma: discount factor, less than 1.
      num_updates: of every critic, batches of 256.
      hidden: widths of the critics.
      run: what it is called.
      advance: told of updates as they are made.
    """
    scale = float(np.std(data.reward)) or float(np.abs(data.reward).max()) or 1.0
    mean, std = np.mean(data.observation, axis=0), np.std(data.observation, axis=0) + 1e-3
    rows = data._replace(reward=np.asarray(data.reward) / scale)
    evaluator, value = _evaluator(policies[0], mean, std, gamma, hidden)
    first = _first_rows(data)
    states = data.observation[first[:: max(1, len(first) // FIRST_ROWS)]]
    steps = min(STEPS, num_updates)
    batch = min(256, len(data.reward))
    learn = jax.jit(make_learn_part(evaluator, Sampling(batch_size=batch), num_updates=steps, streams={'dataset': 1}))
    store, values = {'dataset': replay.full(rows)}, []
    for policy in policies:
        key = jax.random.key(policy.seed)
        state = _State(policy.state, evaluator.init(key).critic)
        for number, done in enumerate(range(0, num_updates, steps)):
            num = min(steps, num_updates - done)
            state, _ = jax.block_until_ready(learn(state, store, jax.random.fold_in(key, number), 0, num))
            advance(num)
        values.append(scale * float(value(state, states, key)))
    ends = interval(values)
    believable = all(_is_possible(one, data.reward, gamma) for one in values)
    seeds = [policy.seed for policy in policies]
    return Estimate(run, policies[0].phase, seeds, values, ends.low, ends.high, _data_return(data, first, gamma), believable)


def _is_possible(value, rewards, gamma):
    """Whether rewards like those of the data can add up to a value; without a discount any can."""
    low, high = min(0.0, float(rewards.min())), max(0.0, float(rewards.max()))
    slack = 1e-3 * (1.0 - gamma)
    return bool(np.isfinite(value)) and low - slack <= value * (1.0 - gamma) <= high + slack


def _evaluator(policy, mean, std, gamma, hidden):
    """An agent that fits the policy's Q and leaves the policy alone, and the value of states under it."""
    interface = policy.interface
    spec = Spec(observation_dim=interface['observation_dim'], action_dim=interface['action_dim'])
    critic = sac_critic(spec, SACConfig(gamma=gamma, aggregate='mean', hidden=tuple(hidden), critic_layer_norm='before'))

    def seen(observation):
        return (observation - jnp.broadcast_to(mean, observation.shape)) / jnp.broadcast_to(std, observation.shape)

    def act(state, observation, key):
        return jnp.clip(policy.agent.best_action(state.policy, observation, key), -1.0, 1.0)

    def update(state, batch, key):
        def sampler(observation, action_key, num, *more):
            del observation, num, more  # those of the batch, normalised; the policy takes them raw
            return act(state, batch.next_observation, action_key)[None]

        given = batch._replace(observation=seen(batch.observation), next_observation=seen(batch.next_observation))
        fitted, metrics = critic.update(state.critic, given, key, sampler)
        return state._replace(critic=fitted), metrics

    def value(state, observation, key):
        q = critic.q(state.critic, seen(observation), act(state, observation, key))
        return q.mean()

    agent = Agent(init=lambda key: _State((), critic.init(key)), update=update, sample_action=act, best_action=act)
    return agent, jax.jit(value)


def _first_rows(data):
    return np.append(0, np.flatnonzero(np.asarray(data.extras['boundary'])[:-1]) + 1)


def _data_return(data, first, gamma):
    """Mean discounted return of the data's episodes, those cut off included as far as they go."""
    ends = np.append(first[1:], len(data.reward))
    returns = [
        float((np.asarray(data.reward[start:end], np.float64) * gamma ** np.arange(end - start)).sum())
        for start, end in zip(first, ends, strict=True)
    ]
    return float(np.mean(returns))
