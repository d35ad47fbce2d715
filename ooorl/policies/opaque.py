"""A policy that is somebody else's function: nothing is known of it but the actions that it answers with.

    sample(s) = clip(2 (function(s * std + mean, num, seed) - low) / (high - low) - 1, -1, 1)

low and high are the box of the function's own actions; mean and std undo the normalisation of observations that the agent around
it may have, so that critic and policy each see the units they were made for.

The function runs in Python, outside of the compiled program, so every call waits for it; it must depend on its arguments alone,
because a call may be left out or made twice. It cannot be fitted: `loss` is 0, and agents that climb Q through the action refuse
it. What it is for: PA-RL with `imitate = "nothing"`, which acts with the best of its actions under a critic learnt offline
(V-GPS), and whatever else only draws.

Source of the idea: Nakamoto et al., "Steering Your Generalists", arXiv:2410.13816; Mark et al., arXiv:2412.06685.
"""

import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.errors import UsageError
from ooorl.types import Policy, Spec


@dataclass(frozen=True, kw_only=True)
class OpaqueConfig:
    """Settings of `opaque_policy`."""

    function: str = ''  # "module:function", called as function(observation[n, O], num, seed) -> [num, n, A]; needed
    action_low: tuple[float, ...] = ()  # box of the function's actions, one number for all dimensions or one each; absent: -1
    action_high: tuple[float, ...] = ()  # likewise; absent: 1


def opaque_policy(
    spec: Spec,
    function: Callable[[np.ndarray, int, int], np.ndarray],
    *,
    action_low: Sequence[float] = (),
    action_high: Sequence[float] = (),
    observation_mean: np.ndarray | None = None,
    observation_std: np.ndarray | None = None,
) -> Policy:
    """The policy that `function(observation[n, O] float32, num, seed) -> [num, n, A]` is.

    It is tried once, here, on the observations that zeros stand for.

    Args:
      spec: sizes.
      function: whose actions it gives.
      action_low: of the box of the function's actions, one number or A; empty: -1. What the environment's box is is the
        environment's business: actions [-1, 1] here are all of it.
      action_high: likewise; empty: 1.
      observation_mean: `[O]` subtracted from observations before they reach the policy, added again for the function.
      observation_std: `[O]` that they were divided by, likewise.

    Raises:
      UsageError: if the box is none, or if the function raises, or answers with another shape, with NaN or with infinity; here,
        or at the call where it does (then wrapped by jax in an error that holds the sentence).
    """

    (low, high), boxed = _box(spec, action_low, action_high), bool(len(action_low) or len(action_high))
    mean = np.float32(0.0 if observation_mean is None else observation_mean)
    std = np.float32(1.0 if observation_std is None else observation_std)

    def answer(observation, seed, num):
        flat = np.asarray(observation, np.float32).reshape(-1, spec.observation_dim) * std + mean
        shape = (num, *np.shape(observation)[:-1], spec.action_dim)
        action = _checked(function, flat, num, int(seed), spec)
        return (2.0 * (action - low) / (high - low) - 1.0 if boxed else action).reshape(shape)

    def sample(params, observation, key, num):
        del params
        seed = jax.random.bits(key, dtype=jnp.uint32)
        shape = jax.ShapeDtypeStruct((num, *observation.shape[:-1], spec.action_dim), jnp.float32)

        def call(observation, seed):
            return answer(observation, seed, num)

        return jnp.clip(jax.pure_callback(call, shape, observation, seed, vmap_method='sequential'), -1.0, 1.0)

    answer(np.zeros((2, spec.observation_dim), np.float32), 0, 3)
    logging.getLogger('jax._src.callback').addFilter(_untold)
    return Policy(
        init=lambda key: {'unused': jnp.zeros(())},
        sample=sample,
        mode=lambda params, observation, key: sample(params, observation, key, 1)[0],
        loss=lambda params, observation, action, key, known=None: 0.0 * (params['unused'] + action.sum(axis=-1)),
        masks=True,
    )


def _untold(record):
    """Whether jax should log an error of a callback: not one that is told in a sentence anyway."""
    return not (record.exc_info and isinstance(record.exc_info[1], UsageError))


def _box(spec, low, high):
    sides = [np.asarray(side if len(side) else [default], np.float32) for side, default in ((low, -1.0), (high, 1.0))]
    if any(side.shape not in ((1,), (spec.action_dim,)) for side in sides) or not (sides[0] < sides[1]).all():
        raise UsageError(
            f'the box of a given policy needs action_low below action_high, one number or {spec.action_dim} each; got '
            f'{list(low)} and {list(high)}'
        )
    return sides


def _checked(function, observation, num, seed, spec):
    wanted = (num, len(observation), spec.action_dim)
    needed = f'a given policy must answer observations {observation.shape} with {num} actions each, {wanted} finite numbers'
    try:
        answer = np.asarray(function(observation, num, seed))
        action = answer.real.astype(np.float32)
    except (Exception, SystemExit) as error:  # it is somebody's function and may raise anything
        raise UsageError(f'{needed}; it raised {error!r}; mend it') from None
    if np.iscomplexobj(answer):
        raise UsageError(f'{needed}; it gave numbers of type {answer.dtype}; mend it')
    if action.shape != wanted:
        raise UsageError(f'{needed}; it gave the shape {action.shape}; mend it')
    if not np.isfinite(action).all():
        raise UsageError(f'{needed}; it gave {action[~np.isfinite(action)][0]}; mend it')
    return action


def named_policy(spec: Spec, config: OpaqueConfig, **units) -> Policy:
    """`opaque_policy` of the function that a config names; `units` are those of observations.

    Raises:
      UsageError: if it cannot be imported, or answers wrongly.
    """
    module, _, name = config.function.partition(':')
    try:
        function = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # importing somebody's module may raise anything
        raise UsageError(
            f'function of a given policy must be "module:function"; got {config.function!r} ({error!r}); install or mend it, '
            'or put its folder on PYTHONPATH'
        ) from None
    return opaque_policy(spec, function, action_low=config.action_low, action_high=config.action_high, **units)
