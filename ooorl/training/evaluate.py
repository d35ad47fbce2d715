"""The one evaluation loop: whole episodes from fresh resets, each copy of the environment playing exactly one."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from ooorl.mapping import of_part
from ooorl.training.chunks import arrays_of, empty_queue, next_action
from ooorl.training.collect import step_keys
from ooorl.training.programs import Job
from ooorl.types import Agent, Array, Environment, Key, State

BY_COMBINATION = ('success_in', 'success_out')  # of episodes in and out of the combinations of training; NaN for the others


class ScoreRange(NamedTuple):
    """What a normalised score speaks of: 100 * (x - low) / (high - low) of one of `evaluate`'s columns."""

    low: float
    high: float
    column: str = 'return'


def evaluate(environment: Environment, act: Callable[[Array, Key], Array], key: Key, chunk: int = 1) -> dict[str, Array]:
    """Plays one episode in each copy, up to the environment's horizon, on the host until the last of them has ended.

    Args:
      environment: its last batch axis is the number of episodes.
      act: `(observation[*batch, O], key) -> action[*batch, A]`, of an agent with chunks `[*batch, chunk * A]`.
      key: consumed.
      chunk: of the agent; all steps of a chunk are carried out before it is asked again.

    Returns:
      `return`, `reward_max` (the largest reward of a step), `length` and `success` (0 or 1: the success test held at any
      step), each `[*batch]` float32; with chunks also `decisions`, of which each covers up to `chunk` of the `length` steps;
      where combinations are held out `success_in` and `success_out`, `success` of one kind of episode and else NaN.
    """
    if environment.turns:
        return _in_turns(environment, act, key, chunk)
    reset_key, loop_key = jax.random.split(key)
    state, observation = environment.reset(reset_key)
    shape = environment.batch_shape
    xp = arrays_of(environment)
    zeros = xp.zeros(shape, xp.float32)
    start = (state, observation, xp.ones(shape, bool), zeros, zeros - xp.inf, zeros, xp.zeros(shape, bool))
    plans = empty_queue(environment, chunk), zeros if chunk > 1 else None

    def step(carry, keys):
        state, observation, alive, total, best, length, success, (queue, decisions) = carry
        act_key, step_key = keys
        action, queue, decided = next_action(act, queue, observation, act_key, xp)
        action = xp.clip(action, -1.0, 1.0)
        state, timestep = environment.step(state, action, step_key)
        total = total + xp.where(alive, timestep.reward, 0.0)
        best = xp.where(alive, xp.maximum(best, timestep.reward), best)
        length = length + alive
        success = success | (alive & timestep.success)
        decisions = None if decided is None else decisions + (alive & decided)
        alive = alive & ~(timestep.terminated | timestep.truncated)
        return (state, timestep.observation, alive, total, best, length, success, (queue, decisions)), None

    # A compiled loop has a fixed length; on the host a step that no episode needs would only cost time.
    early = {} if environment.compiled else {'until': lambda carry: not carry[2].any()}
    carry, _ = environment.scan(step, (*start, plans), step_keys(loop_key, environment.horizon), **early)
    _, _, _, total, best, length, success, (_, decisions) = carry
    counted = {} if decisions is None else {'decisions': decisions}
    success = xp.asarray(success, xp.float32)
    counted |= _by_combination(environment, observation, success, xp)
    return {'return': total, 'reward_max': best, 'length': length, 'success': success, **counted}


def _in_turns(environment, act, key, chunk):
    """The same where a few copies play all episodes, a few at a time: what acts is asked about all places at once, as ever."""
    shape, scores = environment.batch_shape, {}
    for first, few in environment.turns:

        def partly(observation, key, first=first):
            return of_part(lambda every: act(every, key), first, shape)(observation)

        own = evaluate(replace(few, held_out=environment.held_out), partly, key, chunk)
        for name, values in own.items():
            scores.setdefault(name, np.zeros(shape, values.dtype))[..., first : first + values.shape[-1]] = values
    return scores


def _by_combination(environment, first, success, xp):
    if environment.held_out is None:
        return {}
    out = environment.held_out(first)
    return dict(zip(BY_COMBINATION, (xp.where(out, xp.nan, success), xp.where(out, success, xp.nan)), strict=True))


def means(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Per-episode scores `[..., episodes]` as `[...]`; those of one kind of episode over it alone, NaN where it has none."""
    return {name: _mean(np.asarray(own), name in BY_COMBINATION) for name, own in scores.items()}


def _mean(values, partial):
    if not partial:
        return values.mean(axis=-1)
    counted = np.isfinite(values)
    total = np.where(counted, values, 0.0).sum(axis=-1)
    return np.divide(total, counted.sum(axis=-1), out=np.full(total.shape, np.nan), where=counted.any(axis=-1))


def evaluation_job(programs, agent: Agent, agent_state: State, keys) -> Job:
    """`evaluate` of the deployed actions of every seed's agent in the compiled evaluation environment of a run."""
    environment = programs.setup.evaluation

    def one(state, key):
        return evaluate(environment, lambda obs, k: agent.best_action(state, obs, k), key, agent.chunk)

    return Job(('evaluate', agent), programs.over_seeds(one, (0, 0)), (agent_state, keys), rare=True)


def with_normalised(scores: Mapping, score_range: ScoreRange | None) -> dict:
    """The scores, and `normalised` where there is a range; nothing is clipped."""
    if score_range is None:
        return dict(scores)
    low, high, column = score_range
    return {**scores, 'normalised': 100.0 * (scores[column] - low) / (high - low)}
