"""Flow policy: a velocity field that carries noise to actions along nearly straight lines.

    x_t = (1 - t) x_0 + t a,   x_0 ~ N(0, I),   t ~ U[0, 1]
    loss(s, a)   = sum_A (v(x_t, s, t) - (a - x_0))^2
    decode(s, n) = clip(x_1, -1, 1),   x <- x + v(x, s, i / N) / N from x = n for i = 0 .. N - 1

With sigma = (1 - t) / t, x_t / t is the action with noise of deviation sigma, and x_t + (1 - t) v the guess of the action
(`denoise`). The clip comes once, at the end. `mode` is a draw. FQL's and IFQL's code takes the mean over A where this is a sum.

Source: Lipman et al., "Flow Matching for Generative Modeling", arXiv:2210.02747; constants of seohongpark/fql@719d044 (Park et
al., "Flow Q-Learning", arXiv:2502.02538). Numbers compared with those of that code and of ColinQiyangLi/qam@f93efd2.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.nn.diffusion import euler, flow_loss
from ooorl.nn.networks import ACTIVATIONS, TIME_BODIES, TIME_FEATURES, Network, check_blocks, time_conditioned
from ooorl.policies.averaged import averaged
from ooorl.policies.noise import beside, drawing, over
from ooorl.types import DenoisingPolicy, Policy, Spec
from ooorl.validation import check_choice, check_dropout, check_positive, check_share


@dataclass(frozen=True, kw_only=True)
class TimeNetworkConfig:
    """Settings of the network of a flow or diffusion policy (`nn.networks.time_conditioned`)."""

    network: str = 'mlp'  # 'mlp', 'ln_resnet', 'film' or 'attention' (the observation as a condition, see nn.conditional)
    hidden: tuple[int, ...] = (512, 512, 512, 512)  # widths of the layers of an MLP, or of the blocks (one width, repeated)
    activation: str = 'gelu'  # relu, gelu, tanh, swish, mish or elu
    layer_norm: str | None = None  # in an MLP or FiLM: None, or 'before' / 'after' the activation
    dropout: float = 0.0  # rate, while fitting
    time_features: str = 'plain'  # 'plain', 'sinusoidal' or 'fourier'
    num_time_features: int = 64  # cosines and sines together
    time_hidden: tuple[int, ...] = (128, 128)  # widths of the MLP on these features
    num_heads: int = 4  # of attention
    elements: tuple[tuple[int, ...], ...] = ()  # of attention: groups of columns of the observation; none: each column is one
    ema_rate: float | None = None  # share of new parameters in the slow copy that acts; None: no copy

    def __post_init__(self):
        check_choice(TIME_BODIES, network=self.network)
        check_choice(tuple(ACTIVATIONS), activation=self.activation)
        check_choice((None, 'before', 'after'), layer_norm=self.layer_norm)
        check_choice(TIME_FEATURES, time_features=self.time_features)
        check_dropout(self.dropout)
        check_positive(num_time_features=self.num_time_features)
        check_share(ema_rate=self.ema_rate)
        if self.num_time_features % 2:
            raise UsageError(f'num_time_features must be even, as many sines as cosines; got {self.num_time_features}')
        check_blocks(self.network, self.hidden, self.num_heads)
        if any(not element or min(element) < 0 for element in self.elements):
            raise UsageError(f'elements are groups of columns, counted from 0; got {[list(one) for one in self.elements]}')


def time_network(spec: Spec, config: TimeNetworkConfig) -> Network:
    """`apply(params, x[..., A], observation[..., O], time[...], key=None) -> [..., A]`."""
    if any(max(element) >= spec.observation_dim for element in config.elements):
        raise UsageError(
            f'elements must be of the {spec.observation_dim} columns of an observation, counted from 0; '
            f'got {[list(one) for one in config.elements]}'
        )
    return time_conditioned(
        config.hidden, spec.action_dim, body=config.network, activation=config.activation, layer_norm=config.layer_norm,
        dropout=config.dropout, time_features=config.time_features, num_time_features=config.num_time_features,
        time_hidden=config.time_hidden, num_heads=config.num_heads, elements=config.elements,
    )


def init_time_network(network: Network, spec: Spec):
    """`init` of a `Policy` whose parameters are those of `time_network`."""
    return lambda key: network.init(
        key, jnp.zeros((1, spec.action_dim)), jnp.zeros((1, spec.observation_dim)), jnp.zeros((1,))
    )


@dataclass(frozen=True, kw_only=True)
class FlowConfig(TimeNetworkConfig):
    """Settings of `flow_policy`; the defaults are FQL's."""

    num_steps: int = 10  # N, of Euler's method

    def __post_init__(self):
        super().__post_init__()
        check_positive(num_steps=self.num_steps)


def flow_policy(spec: Spec, config: FlowConfig = FlowConfig()) -> Policy:
    """A policy that moves noise along a learnt velocity field; parameters are those of `time_network(spec, config)`.

    Example:
      >>> from ooorl.agents.iql import IQLConfig, iql
      >>> from ooorl.policies.flow import FlowConfig, flow_policy
      >>> from ooorl.types import Spec
      >>> spec = Spec(observation_dim=4, action_dim=2)
      >>> agent = iql(spec, IQLConfig(inverse_temperature=0.0), policy=flow_policy(spec, FlowConfig(hidden=(256, 256))))
    """
    network = time_network(spec, config)

    def decode(params, observation, noise):
        observation = beside(noise, observation)
        return jnp.clip(euler(lambda x, time: network.apply(params, x, observation, time), noise, config.num_steps), -1.0, 1.0)

    def loss(params, observation, action, key, known=None):
        noise_key, time_key, dropout_key = jax.random.split(key, 3)
        noise = jax.random.normal(noise_key, action.shape)
        time = jax.random.uniform(time_key, action.shape[:-1])
        dropping = dropout_key if config.dropout else None
        return flow_loss(lambda x, t: network.apply(params, x, observation, t, key=dropping), action, noise, time, known)

    def denoise(params, observation, x, sigma):
        time = 1.0 / (1.0 + jnp.asarray(sigma))
        share, observation = over(time, x), beside(x, observation)
        return share * x + (1.0 - share) * network.apply(params, share * x, observation, time)

    policy = DenoisingPolicy(
        init=init_time_network(network, spec), **drawing(decode, spec.action_dim), loss=loss, masks=True, denoise=denoise,
        levels=None, guesses='velocity', settings=config,
    )
    return policy if config.ema_rate is None else averaged(policy, config.ema_rate)
