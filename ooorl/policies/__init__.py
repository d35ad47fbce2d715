"""Policies: things that draw actions and can be fitted to actions, and the one table of their names.

| | made from noise (`decode`) | exact probability | acts with a slow copy where set |
|---|---|---|---|
| gaussian, deterministic | yes | no | no |
| tanh_gaussian | yes | density of its draws | no |
| flow, mean_flow, diffusion, consistency | yes | no | `ema_rate` |
| autoregressive | no | of its bins | `ema_rate` |
| opaque (a function of yours) | no | no | no |

Any of them may be given a slow copy with `averaged(policy, rate)`. Adding a policy touches its file, one line of `POLICIES` and
one row of the conformance test.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

from ooorl.errors import UsageError
from ooorl.policies.autoregressive import AutoregressiveConfig, autoregressive_policy
from ooorl.policies.consistency import ConsistencyConfig, consistency_policy
from ooorl.policies.diffusion import DiffusionConfig, diffusion_policy
from ooorl.policies.flow import FlowConfig, flow_policy
from ooorl.policies.gaussian import (
    DeterministicConfig,
    GaussianConfig,
    TanhGaussianConfig,
    deterministic_policy,
    gaussian_policy,
    tanh_gaussian_policy,
)
from ooorl.policies.mean_flow import MeanFlowConfig, mean_flow_policy
from ooorl.policies.opaque import OpaqueConfig, named_policy
from ooorl.types import Policy


class PolicyKind(NamedTuple):
    """A frozen config dataclass, every field with a default, and the builder `(spec, config) -> Policy`.

    `given` policies know observations in their own units alone, and their builder takes `observation_mean` and `observation_std`.
    """

    config: type
    builder: Callable[..., Policy]
    given: bool = False


def _gaussian(spec, config):
    settings = asdict(config)
    bounds = (settings.pop('log_std_min'), settings.pop('log_std_max'))
    return gaussian_policy(spec, log_std_bounds=bounds, **settings)


POLICIES = {
    'gaussian': PolicyKind(GaussianConfig, _gaussian),
    'tanh_gaussian': PolicyKind(TanhGaussianConfig, lambda spec, config: tanh_gaussian_policy(spec, **asdict(config))),
    'deterministic': PolicyKind(DeterministicConfig, lambda spec, config: deterministic_policy(spec, **asdict(config))),
    'flow': PolicyKind(FlowConfig, flow_policy),
    'mean_flow': PolicyKind(MeanFlowConfig, mean_flow_policy),
    'diffusion': PolicyKind(DiffusionConfig, diffusion_policy),
    'consistency': PolicyKind(ConsistencyConfig, consistency_policy),
    'autoregressive': PolicyKind(AutoregressiveConfig, autoregressive_policy),
    'opaque': PolicyKind(OpaqueConfig, named_policy, given=True),
}


def policy_kind(name: str) -> PolicyKind:
    """The policy of that name.

    Raises:
      UsageError: if there is none.
    """
    if name not in POLICIES:
        raise UsageError(f'kind of a policy must be one of {", ".join(POLICIES)}; got {name!r}')
    return POLICIES[name]


def refuse_to_fit(kind: str, agent: str, imitate: str) -> None:
    """Raises `UsageError` where an agent would fit a policy that is given, which learns nothing and would be called trained.

    Args:
      kind: of the policy.
      agent: its name, for the sentence.
      imitate: what the agent fits its policy to; 'nothing' leaves it as it is.
    """
    if policy_kind(kind).given and imitate != 'nothing':
        raise UsageError(
            f'{agent} fits its policy, which one that is given (kind = "{kind}") cannot be; use parl or expo with '
            'imitate = "nothing"'
        )
