"""Mean-flow policy: the average velocity of a flow between any two times, hence one call to act.

    x_t = (1 - t) n + t a,   n ~ N(0, I),   v = a - n
    u(x_t, s, t, r) = mean of the flow's velocity on its path from time t to time r >= t,   x_r = x_t + (r - t) u
    loss(s, a)   = sum_A (u - stop(v + (r - t) (v . d_x u + d_t u)))^2
    decode(s, n) = clip(n + u(n, s, 0, 1), -1, 1)

The loss is (r - t) u = integral of the velocity from t to r, differentiated by t along the path: one forward derivative
(`nn.diffusion.mean_flow_loss`). With probability `flow_share` r = t, where u is the velocity and the loss that of `flow`; else
1 - t and 1 - r are the greater and the smaller of two draws of sigmoid(N(`time_mean`, `time_std`^2)). More `num_steps` walk the
same map in equal steps. `denoise` reads u at r = t, so that a mean-flow policy may also be a teacher.

As the policy of `td3` with imitation this is OFQL (configs/ofql): one call to act and for the target; Q is climbed through it.
Two in a million of OFQL's times lie within .05 of the call that acts, t = 0 and r = 1: imitation holds it by smoothness alone,
and a Q of too much weight takes it away from the data (experiments/mean_flow_bandit.py). With `time_mean = 0`,
`time_std = 3` 3 % of them do.

Source: Geng et al., "Mean Flows for One-step Generative Modeling", arXiv:2505.13447; its use for offline RL, "OFQL",
arXiv:2508.13904, with its constants. There time runs from data, 0, to noise, 1; here as in `flow`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ooorl.nn.diffusion import mean_flow_loss
from ooorl.policies.averaged import averaged
from ooorl.policies.flow import TimeNetworkConfig, time_network
from ooorl.policies.noise import beside, drawing, over
from ooorl.types import DenoisingPolicy, Policy, Spec
from ooorl.validation import check_positive, check_unit


@dataclass(frozen=True, kw_only=True)
class MeanFlowConfig(TimeNetworkConfig):
    """Settings of `mean_flow_policy`; times are OFQL's, the network is FQL's."""

    num_steps: int = 1  # calls that an action takes
    flow_share: float = 0.5  # share of rows that are fitted at r = t, as a flow
    time_mean: float = -0.4  # of the normal numbers whose sigmoid is 1 - t and 1 - r
    time_std: float = 1.0  # their deviation

    def __post_init__(self):
        super().__post_init__()
        check_positive(num_steps=self.num_steps, time_std=self.time_std)
        check_unit(flow_share=self.flow_share)


def mean_flow_policy(spec: Spec, config: MeanFlowConfig = MeanFlowConfig()) -> Policy:
    """A policy that acts with one call of its network; parameters are those of `time_network(spec, config)` with two times.

    Example:
      >>> from ooorl.agents.td3 import TD3Config, td3
      >>> from ooorl.policies.mean_flow import MeanFlowConfig, mean_flow_policy
      >>> from ooorl.types import Spec
      >>> spec = Spec(observation_dim=4, action_dim=2)
      >>> policy = mean_flow_policy(spec, MeanFlowConfig(hidden=(256, 256)))
      >>> agent = td3(spec, TD3Config(cloning_weight=1.0, q_normalisation=1.0), policy=policy)
    """
    network = time_network(spec, config)

    def init(key):
        time = jnp.zeros((1,))
        return network.init(key, jnp.zeros((1, spec.action_dim)), jnp.zeros((1, spec.observation_dim)), time, time)

    def decode(params, observation, noise):
        observation, x = beside(noise, observation), noise
        for step in range(config.num_steps):
            time, until = jnp.asarray(step / config.num_steps), jnp.asarray((step + 1) / config.num_steps)
            x = x + network.apply(params, x, observation, time, until) / config.num_steps
        return jnp.clip(x, -1.0, 1.0)

    def loss(params, observation, action, key, known=None):
        noise_key, time_key, flow_key, dropout_key = jax.random.split(key, 4)
        rows = action.shape[:-1]
        drawn = jax.nn.sigmoid(config.time_mean + config.time_std * jax.random.normal(time_key, (2, *rows)))
        time, until = 1.0 - drawn.max(axis=0), 1.0 - drawn.min(axis=0)
        until = jnp.where(jax.random.uniform(flow_key, rows) < config.flow_share, time, until)
        dropping = dropout_key if config.dropout else None
        return mean_flow_loss(
            lambda x, t, r: network.apply(params, x, observation, t, r, key=dropping), action,
            jax.random.normal(noise_key, action.shape), time, until, known,
        )

    def denoise(params, observation, x, sigma):
        time = 1.0 / (1.0 + jnp.asarray(sigma))
        share, observation = over(time, x), beside(x, observation)
        return share * x + (1.0 - share) * network.apply(params, share * x, observation, time, time)

    policy = DenoisingPolicy(
        init=init, **drawing(decode, spec.action_dim), loss=loss, masks=True, denoise=denoise, levels=None,
        guesses='velocity', settings=config,
    )
    return policy if config.ema_rate is None else averaged(policy, config.ema_rate)
