"""An environment whose actions are noise: what is carried out is what a policy makes of it.

    carried out = decode(observation, bound * action),   action in [-1, 1]^W

Any online agent made for W numbers then steers the policy (DSRL, the form with SAC); what is stored is the noise, so that data of
real actions cannot be mixed in, which `agents.dsrl` can do.

Source: Wagenmaker et al., "Steering Your Diffusion Policy with Latent Space Reinforcement Learning", arXiv:2506.15799.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from ooorl.errors import UsageError
from ooorl.mapping import of_part
from ooorl.types import Array, Environment, Spec, State
from ooorl.validation import check_positive


class SteeredState(NamedTuple):
    """The environment's own state beside the observation that noise is decoded at."""

    environment: State
    observation: Array


def steered(
    environment: Environment, decode: Callable[[Array, Array], Array], *, noise_dim: int, bound: float = 1.5
) -> Environment:
    """The environment with `decode` in front of its actions.

    Args:
      environment: compiled or on the host.
      decode: `(observation[..., O], noise[..., W]) -> action[..., A]`, of a policy with its parameters, which stay as they are.
      noise_dim: W, numbers that one draw takes (`Policy.noise_dim`).
      bound: largest noise in each dimension.

    Raises:
      UsageError: if the bound is not greater than 0, or `decode` gives no actions of the environment.

    Example:
      >>> import jax
      >>> from ooorl import envs
      >>> from ooorl.envs.steered import steered
      >>> from ooorl.policies.flow import FlowConfig, flow_policy
      >>> environment = envs.batched(envs.make_task('ooorl/UMaze-v0'), 2)
      >>> policy = flow_policy(environment.spec, FlowConfig(hidden=(8,)))
      >>> params = policy.init(jax.random.key(0))
      >>> made = steered(environment, lambda observation, noise: policy.decode(params, observation, noise), noise_dim=2)
    """
    check_positive(noise_dim=noise_dim, bound=bound)
    given, shape = environment.spec, environment.batch_shape
    example = (jax.ShapeDtypeStruct((*shape, size), np.float32) for size in (given.observation_dim, noise_dim))
    made = jax.eval_shape(decode, *example).shape
    if made != (*shape, given.action_dim):
        raise UsageError(f'steered needs a decode that gives actions {(*shape, given.action_dim)}; got {made}; mend it')
    spec = Spec(observation_dim=given.observation_dim, action_dim=noise_dim)
    decoded = decode if environment.compiled else jax.jit(decode)
    turns = ((first, _in_front(one, of_part(decoded, first, shape), spec, bound)) for first, one in environment.turns)
    return replace(_in_front(environment, decoded, spec, bound), turns=tuple(turns))


def _in_front(environment, decoded, spec, bound):
    def reset(key):
        state, observation = environment.reset(key)
        return SteeredState(state, observation), observation

    def step(state, action, key):
        carried_out = decoded(state.observation, bound * action)
        carried_out = carried_out if environment.compiled else np.asarray(carried_out)
        inner, timestep = environment.step(state.environment, carried_out, key)
        return SteeredState(inner, timestep.observation), timestep

    return replace(environment, spec=spec, reset=reset, step=step, name=f'{environment.name}, steered')
