"""Autoregressive policy: every action dimension is one of K bins, drawn after and given the dimensions before it.

    log p(a | s) = sum_i log p(bin(a_i) | s, bin(a_1), ..., bin(a_{i - 1})),   loss = -log p

The centres of the bins go evenly from -1 to 1, both included; an action is rounded to the nearest centres, and draws are
centres. `log_prob` is exact: the probabilities of all K^A centres sum to 1 (a density is this minus A log(2 / (K - 1))). `mode`
takes the likeliest bin of each dimension in turn. Draws keep the keys and values of a causal transformer, so that a dimension
costs one token. There is no `decode`: a draw is not differentiable.

Source: the transformer policy of Mark et al., "Policy Agnostic RL", arXiv:2412.06685 (MaxSobolMark/PolicyAgnosticRL@a26a192).
Deviations: a fresh key for each dimension and no dropout in draws, both defects there.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.nn.losses import summed
from ooorl.nn.transformer import causal_transformer
from ooorl.policies.averaged import averaged
from ooorl.types import LikelihoodPolicy, Spec
from ooorl.validation import check_dropout, check_not_negative, check_positive, check_share


@dataclass(frozen=True, kw_only=True)
class AutoregressiveConfig:
    """Settings of `autoregressive_policy`; the defaults are PA-RL's."""

    num_bins: int = 128  # K, of each action dimension
    num_layers: int = 4  # blocks of attention and MLP
    num_heads: int = 8  # of attention; they share the width out
    width: int = 256  # of the tokens
    dropout: float = 0.1  # rate, while fitting
    temperature: float = 1.0  # of draws; 0 for the likeliest bins
    ema_rate: float | None = None  # share of new parameters in the slow copy that acts; None: no copy

    def __post_init__(self):
        check_positive(num_layers=self.num_layers, num_heads=self.num_heads, width=self.width)
        check_dropout(self.dropout)
        check_not_negative(temperature=self.temperature)
        check_share(ema_rate=self.ema_rate)
        if isinstance(self.num_bins, int) and self.num_bins < 2:
            raise UsageError(f'num_bins must be at least 2; got {self.num_bins}')
        if self.width % self.num_heads:
            raise UsageError(f'width must be a multiple of num_heads, {self.num_heads}; got {self.width}')


def tokens_of(action, num_bins: int):
    """Index of the nearest bin centre: `[..., A]` in [-1, 1] to int32 in 0 .. K - 1."""
    return jnp.clip(jnp.round((action + 1.0) * (0.5 * (num_bins - 1))), 0, num_bins - 1).astype(jnp.int32)


def action_of(tokens, num_bins: int):
    """The bin centres: `[..., A]` float32."""
    return tokens.astype(jnp.float32) * (2.0 / (num_bins - 1)) - 1.0


def autoregressive_policy(spec: Spec, config: AutoregressiveConfig = AutoregressiveConfig()) -> LikelihoodPolicy:
    """A policy over binned actions with exact probabilities; its own parameters are those of `nn.transformer`.

    Example:
      >>> from ooorl.agents.bc import BCConfig, bc
      >>> from ooorl.policies.autoregressive import AutoregressiveConfig, autoregressive_policy
      >>> from ooorl.types import Spec
      >>> spec = Spec(observation_dim=4, action_dim=2)
      >>> agent = bc(spec, BCConfig(learning_rate=1e-4), policy=autoregressive_policy(spec, AutoregressiveConfig(width=64)))
    """
    network = causal_transformer(
        spec.action_dim, config.num_bins, num_layers=config.num_layers, num_heads=config.num_heads, width=config.width,
        dropout=config.dropout,
    )

    def log_prob(params, observation, action, key=None, known=None):
        tokens = tokens_of(action, config.num_bins)
        observation = jnp.broadcast_to(observation, (*action.shape[:-1], observation.shape[-1]))
        log_probs = jax.nn.log_softmax(network.apply(params, observation, tokens, key=key), axis=-1)
        return summed(jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0], known)

    def draw(params, observation, key, num, temperature):
        def choose(key, logits):
            greedy = isinstance(temperature, int | float) and temperature == 0
            return logits.argmax(axis=-1) if greedy else jax.random.categorical(key, logits / temperature, axis=-1)

        def following(carry, inputs):
            cache, token = carry
            place, key = inputs
            logits, cache = network.following(params, cache, token, place)
            token = choose(key, logits)
            return (cache, token), token

        keys = jax.random.split(key, spec.action_dim)
        # What all draws share, the observation's token, is computed once.
        logits, cache = network.first(params, observation)
        cache = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:, None], (leaf.shape[0], num, *leaf.shape[1:])), cache)
        token = choose(keys[0], jnp.broadcast_to(logits, (num, *logits.shape)))
        _, rest = jax.lax.scan(following, (cache, token), (jnp.arange(1, spec.action_dim), keys[1:]))
        return action_of(jnp.moveaxis(jnp.concatenate([token[None], rest]), 0, -1), config.num_bins)

    policy = LikelihoodPolicy(
        init=lambda key: network.init(key, jnp.zeros((1, spec.observation_dim)), jnp.zeros((1, spec.action_dim), jnp.int32)),
        sample=lambda params, observation, key, num: draw(params, observation, key, num, config.temperature),
        mode=lambda params, observation, key: draw(params, observation, key, 1, 0)[0],
        loss=lambda params, obs, action, key, known=None: -log_prob(params, obs, action, key if config.dropout else None, known),
        masks=True,
        log_prob=log_prob,
    )
    return policy if config.ema_rate is None else averaged(policy, config.ema_rate)
