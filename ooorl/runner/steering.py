"""The `[steered]` table: a run whose actions are noise, of which a policy that an earlier run has trained makes actions.

That is DSRL's form with SAC: any online agent, in an environment with a frozen policy in front of it (`ooorl.envs.steered`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np

from ooorl.envs.steered import steered
from ooorl.errors import UsageError
from ooorl.types import Agent, Environment, Spec, State
from ooorl.validation import check_positive

SCHEMES = ('online', 'ooo')


@dataclass(frozen=True, kw_only=True)
class SteeredConfig:
    """The `[steered]` table: actions are noise of which an earlier run's policy makes actions; schemes online and ooo, no data.

    An agent of any kind learns which noise to give (DSRL's form with SAC). The policy's own actions, observations in their own
    units and its box of actions are those of this run's environment; rows collected hold noise, divided by `bound`.
    """

    run: str  # RUN_DIR of the policy, which stays as it is
    phase: str = ''  # whose policy; empty: the one that the run is about
    seed: int | None = None  # whose; absent: the run's first. All seeds of this run steer the same policy
    bound: float = 1.5  # largest noise in each dimension
    digest: str = ''  # of the policy's parameters, filled in, so that a resumed run finds the same one

    def __post_init__(self):
        check_positive(bound=self.bound)


class Frozen(NamedTuple):
    """A policy whose noise is chosen: `decode(observation[..., O], noise[..., noise_dim]) -> [..., A]`."""

    decode: object
    noise_dim: int
    bound: float
    interface: Mapping
    digest: str

    @property
    def spec(self) -> Spec:
        """Sizes for whoever steers it."""
        return Spec(observation_dim=self.interface['observation_dim'], action_dim=self.noise_dim)


def refuse_elsewhere(settings: Mapping) -> None:
    """Refuses a `[steered]` table where it means nothing.

    Raises:
      UsageError: naming what is needed.
    """
    if 'steered' not in settings:
        return
    scheme, data = settings['run']['scheme'], settings['dataset']
    if scheme not in SCHEMES:
        raise UsageError(f"[steered] needs scheme 'online' or 'ooo', which need no data; got {scheme!r}; agent dsrl takes data")
    if any(data[key] for key in ('path', 'task', 'scripted')) or settings['run']['store']:
        raise UsageError('[steered] takes no data, whose actions are no noise; got a data set or a store; agent dsrl takes them')
    if 'lives' in settings:
        raise UsageError('[steered] takes episodes with resets; got the table [lives]; remove one')


def frozen(settings: Mapping) -> Frozen | None:
    """The policy that a resolved config steers, or None.

    Raises:
      UsageError: where there is none that makes its actions from noise, or it is another than the one that the run began with.
    """
    if 'steered' not in settings:
        return None
    from ooorl.runner import deployed  # which asks here in turn, of runs that were steered

    table = settings['steered']
    policy = deployed.load(table['run'], phase=table.get('phase') or None, seed=table.get('seed'), purpose='steered.run')
    agent, state = policy.agent, policy.state
    if agent.decode is None:
        raise UsageError(
            f'[steered] needs a policy that makes its actions from noise (decode); that of {table["run"]}, phase '
            f'{policy.phase!r}, does not; train a Gaussian, flow or diffusion policy with bc or iql'
        )
    if agent.chunk > 1:
        raise UsageError(f'[steered] needs a policy of single steps; that of {table["run"]} decides on {agent.chunk}; use dsrl')
    digest = digest_of(state)
    if table['digest'] not in ('', digest):
        raise UsageError(f'[steered] needs the policy that this run began with; {table["run"]} has another now; restore it')
    return Frozen(
        lambda observation, noise: agent.decode(state, observation, noise), agent.noise_dim, table['bound'],
        policy.interface, digest,
    )


def digest_of(state: State) -> str:
    """The beginning of the SHA-256 of a state's arrays."""
    leaves = (np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(state))
    return hashlib.sha256(b''.join(leaf.tobytes() for leaf in leaves)).hexdigest()[:16]


def noise_environment(policy: Frozen, environment: Environment | None, box) -> Environment | None:
    """The environment with the policy in front of its actions; `box` is that of these, or None.

    Raises:
      UsageError: where the policy was made for another environment.
    """
    if environment is None:
        return None
    interface, spec = policy.interface, environment.spec
    sizes = Spec(observation_dim=interface['observation_dim'], action_dim=interface['action_dim'])
    sides = ((-1.0, 1.0) if box is None else (box.low, box.high)), (interface['action_low'], interface['action_high'])
    if sizes != spec or not all(np.allclose(own, given) for own, given in zip(*sides, strict=True)):
        raise UsageError(
            f'[steered] needs a policy of {environment.name}, with its sizes and its box of actions; got one of '
            f'{sizes.observation_dim} observations and {sizes.action_dim} actions from {interface["action_low"]} to '
            f'{interface["action_high"]}; name another run'
        )
    return steered(environment, policy.decode, noise_dim=policy.noise_dim, bound=policy.bound)


def outward(agent: Agent, policy: Frozen | None) -> Agent:
    """The agent with the actions that its noise becomes, for whoever plays it outside of the run's own environments."""
    if policy is None:
        return agent

    def decoded(act):
        return lambda state, observation, key: policy.decode(observation, policy.bound * act(state, observation, key))

    return replace(
        agent, sample_action=decoded(agent.sample_action), best_action=decoded(agent.best_action), q=None, decode=None,
        noise_dim=None,
    )
