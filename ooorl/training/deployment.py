"""Which policy to deploy: what a critic says of each candidate, and what a few episodes say. Nothing is picked silently.

    value_c  = E_s[ min_e q_e(s, pi_c(s)) ]      under one critic, on states of the buffer
    trial_c  = mean return of k episodes of pi_c, which are steps in the environment and count as such

A critic prefers the policy that was trained against it; episodes do not, but k of them are few.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ooorl.training.programs import Programs
from ooorl.training.run import evaluate_agent
from ooorl.types import Agent, Array, State

KEY_PURPOSE = 6


class Candidate(NamedTuple):
    """A policy that may be deployed: its name, the agent, and the agent's states `[S]`."""

    name: str
    agent: Agent
    state: State


class Choice(NamedTuple):
    """What is known of candidates by seed `[S]`: `values` under the critic, `returns` and `steps` of the trial, by name.

    `chosen` is the name of the candidate with the best mean return in each seed, the earlier one where several are equal;
    `by_value` the same by the critic.
    """

    values: dict[str, np.ndarray]
    returns: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    chosen: tuple[str, ...]
    by_value: tuple[str, ...]


def values(programs: Programs, candidates: Sequence[Candidate], critic: Candidate, observation: Array) -> dict[str, np.ndarray]:
    """`value_c` `[S]` of each candidate on states `[S, n, O]`, in the critic's reward units; empty where it has no Q."""
    found = {}
    if critic.agent.q is None or critic.agent.chunk > 1:
        return found
    keys = programs.keys(len(programs.setup.phases), 0, KEY_PURPOSE)
    for one in (one for one in candidates if one.agent.chunk == 1):

        def mean(critic_state, state, observation, key, agent=one.agent):
            q = critic.agent.q(critic_state, observation, agent.best_action(state, observation, key))
            return q.min(axis=0).mean()

        mapped = programs.over_seeds(mean, (0, 0, 0, 0))
        name = ('value', critic.agent, one.agent, observation.shape)
        found[one.name] = np.asarray(programs.call(name, mapped, critic.state, one.state, observation, keys, rare=True))
    return found


def trial(programs: Programs, candidates: Sequence[Candidate]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Mean return and number of steps `[S]` of each candidate in the run's evaluation environment, one episode a copy of it.

    All candidates play under the same keys.
    """
    keys, returns, steps = programs.keys(len(programs.setup.phases), 1, KEY_PURPOSE), {}, {}
    for one in candidates:
        scores = evaluate_agent(programs, one.agent, one.state, keys)
        returns[one.name], steps[one.name] = scores['return'].mean(axis=-1), scores['length'].sum(axis=-1)
    return returns, steps


def best(scores: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The name with the largest number in each seed, the earlier one of equals; seeds without a number name the first."""
    names = list(scores)
    if not names:
        return ()
    table = np.stack([np.where(np.isnan(own), -np.inf, own) for own in scores.values()])
    return tuple(names[number] for number in table.argmax(axis=0))


def choose(programs: Programs, candidates: Sequence[Candidate], critic: Candidate, observation: Array) -> Choice:
    """Both answers for all candidates, each seed on its own; `programs` has the evaluation environment of the trial."""
    by_critic = values(programs, candidates, critic, observation)
    returns, steps = trial(programs, candidates)
    return Choice(by_critic, returns, steps, best(returns), best(by_critic))


def states_of(dataset, store, num_seeds: int, num: int = 512) -> np.ndarray:
    """`num` observations `[S, num, O]` of a data set and a store `[S]`, either of which may be None, the same for all seeds."""
    random, parts = np.random.default_rng(0), []  # as are the rows for equal buffers
    if dataset is not None:
        seen = np.asarray(dataset.observation)
        parts.append(np.broadcast_to(seen, (num_seeds, *seen.shape)))
    if store is not None:
        parts.append(np.asarray(jax.device_get(store.storage.observation))[:, : int(np.min(store.size))])
    rows = np.concatenate(parts, axis=1)
    return rows[:, random.integers(0, rows.shape[1], num)]
