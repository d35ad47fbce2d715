"""The online half of WSRL: plain SAC at a high update ratio, from all that Cal-QL or CQL has left, optimisers included.

The state is that of `calql`, so that a phase with this agent continues a phase with `calql`; the dual variable rests. Pretraining
is pessimistic, and then the data are thrown away: `ooorl.training.schemes.wsrl` has the phases.

    one update = `utd` steps of Q on slices of the batch, then one step of the policy and of the temperature (`sac`)

Source: Zhou et al., arXiv:2412.07762; constants of zhouzypaul/wsrl@891ee35. Deviations: target members are drawn without
replacement; the policy and the temperature see the last slice and not the whole batch; the temperature's entropy is that of the
batch's own observations, where theirs is of the successors; antmaze's maximum over 10 next actions is left out online.
"""

from dataclasses import dataclass

import optax

from ooorl.agents.calql import CalQLConfig, CalQLState, calql
from ooorl.agents.sac import SACConfig, SACState, sac
from ooorl.errors import UsageError
from ooorl.policies.gaussian import tanh_gaussian_policy
from ooorl.types import Agent, DensityPolicy, Metrics, Spec, Transition, ValueHead
from ooorl.validation import check_positive


@dataclass(frozen=True, kw_only=True)
class WSRLConfig(CalQLConfig):
    """Settings of `wsrl`: those of `calql`, whose conservative part is for the pretraining, and of the online updates."""

    utd: int = 4  # q steps per update, on slices of the batch
    entropy_backup: bool = False  # whether the next value counts the entropy

    def __post_init__(self):
        super().__post_init__()
        check_positive(utd=self.utd)
        if self.critic_activation != 'relu' or self.critic_unit_features:
            raise UsageError('wsrl goes on with a plain critic; got critic_activation or critic_unit_features set; remove them')


def wsrl(
    spec: Spec,
    config: WSRLConfig = WSRLConfig(),
    *,
    policy: DensityPolicy | None = None,
    head: ValueHead | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Agent:
    """SAC on the state of `calql`.

    Example:
      >>> from ooorl.agents.wsrl import WSRLConfig, wsrl
      >>> from ooorl.types import Spec
      >>> agent = wsrl(Spec(observation_dim=4, action_dim=2), WSRLConfig(num_critics=10, num_target_critics=2, utd=4))
    """
    policy = policy or tanh_gaussian_policy(spec, config.hidden, log_std_affine=(1.0, -1.0), last_init='small')
    pessimist = calql(spec, config, policy=policy, head=head, grad_transform=grad_transform)
    online = sac(spec, online_config(spec, config), policy=policy, head=head, grad_transform=grad_transform)

    def update(state: CalQLState, batch: Transition, key) -> tuple[CalQLState, Metrics]:
        new, metrics = online.update(as_sac(state), batch, key)
        return continued(state, new), metrics

    return Agent(
        init=pessimist.init,
        update=update,
        sample_action=pessimist.sample_action,
        best_action=pessimist.best_action,
        q=pessimist.q,
        weighs=True,
    )


def online_config(spec: Spec, config: WSRLConfig) -> SACConfig:
    """The settings of SAC that go on with what those of Cal-QL have made."""
    shared = ('gamma', 'polyak', 'learning_rate', 'policy_learning_rate', 'utd', 'num_critics', 'num_target_critics', 'aggregate',
              'rho', 'entropy_backup', 'policy_value', 'init_temperature', 'critic_layer_norm', 'schedule', 'schedule_of',
              'schedule_end', 'schedule_warmup')  # fmt: skip
    entropy = -float(spec.action_dim) if config.target_entropy is None else config.target_entropy
    return SACConfig(hidden=config.critic_hidden, target_entropy=entropy, **{name: getattr(config, name) for name in shared})


def as_sac(state: CalQLState) -> SACState:
    """The same parameters and optimisers as the state of `sac`."""
    critic = state.critic
    return SACState(
        policy=state.policy, policy_opt=state.policy_opt, log_temperature=state.log_temperature,
        temperature_opt=state.temperature_opt, q=critic.q, q_opt=critic.q_opt, target_q=critic.target_q,
    )


def continued(state: CalQLState, new: SACState) -> CalQLState:
    """The state of `calql` with what `sac` has made of it."""
    critic = state.critic._replace(q=new.q, q_opt=new.q_opt, target_q=new.target_q)
    return CalQLState(critic, new.policy, new.policy_opt, new.log_temperature, new.temperature_opt)
