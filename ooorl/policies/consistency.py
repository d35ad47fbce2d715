"""Consistency policy: a jump along a diffusion's path from any noise level to any lower one, hence one call to act.

    G(x, t, s) = (s / t) x + (1 - s / t) g(x, t, s),     g = skip(t) x + out(t) F(scale(t) x, observation, ln(t) / 4, ln(s) / 4)
    skip = d^2 / ((t - end)^2 + d^2),   out = (t - end) d / sqrt(t^2 + d^2),   scale = 1 / sqrt(t^2 + d^2)

t >= s >= end are noise levels, d is `sigma_data`, `end` is the level that counts as clean, and G(x, t, t) = x. To act, x is
`start_noise` z, z ~ N(0, I), taken for a sample of level `sigma_max`, and

    decode(s, z) = clip(G(start_noise z_0, sigma_max, end), -1, 1)

With `chain` = (c_1, ...) noise of those levels is added again and taken away, one further call each:
a <- G(a + sqrt(c^2 - end^2) z_i, c, end).

On its own (`loss`, cloning) it is fitted without a teacher. With t = sigma_i, u the next level and s any level after it,

    loss(s, a) = sum_A h(G'(G(x_t, t, s), s, end) - G'(G'(x_u, u, s), s, end)) + sum_A w(sigma) h(a^ - a)

where ' marks parameters without gradient (the outer G still passes it on), x_t = a + t n and x_u = a + u n have one noise n, and
w = (sigma^2 + d^2) / (sigma d)^2. `agents.distill` takes x_u from a teacher's path instead, by one step of Heun's method.

The second term denoises: a^ = G(x_sigma, sigma, end) with `denoise = 'end'`, as RACTD has it, or g(x_sigma, sigma, sigma) with
'level', as CTM has it. The first wants the mean of the actions from the very jump that is to end at one of them, and at much
noise wins: where data go several ways, leave the term out and act from `sigma_max` (docs/distillation.md). The second asks
another output of the network. Its levels: for every other row
sigma = (high^(1/7) + xi (low^(1/7) - high^(1/7)))^7 with xi ~ U[0, 0.7], else ln sigma ~ N(-1.2, 1.2^2).

h(e) = e^2, or with `distance = 'huber'` sqrt(e^4 + c^2) - c, c = 0.00054 sqrt(A), as RACTD has it: flat below |e| ~ sqrt(c). It
is not the Huber distance of arXiv:2310.14189, whose root is of e^2 + c^2.

`start_noise` = 1 is what the sources act with: far less noise than level 80 has, so that draws are nearly one plan per
observation; 80 is what the path begins with.

Source: Kim et al., "Consistency Trajectory Models", ICLR 2024, arXiv:2310.02279; Prasad et al., "Consistency Policy",
arXiv:2405.07503; Duan et al., "RACTD", arXiv:2506.07822, constants of Ddduanxt/RACTD. Deviations: networks are those of
`diffusion_policy` instead of a U-Net, and the time's features are of ln(t) / 4, not of 250 ln(t).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.errors import UsageError
from ooorl.nn.diffusion import karras_sigmas
from ooorl.nn.losses import summed
from ooorl.policies.averaged import averaged
from ooorl.policies.flow import TimeNetworkConfig, time_network
from ooorl.policies.noise import beside, drawing, over
from ooorl.types import Array, Key, Params, Policy, Spec
from ooorl.validation import check_choice, check_not_negative, check_positive

DISTANCES = ('square', 'huber')
RHO = 7.0  # spacing of noise levels


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig(TimeNetworkConfig):
    """Settings of `consistency_policy`; the defaults are RACTD's, but for the network."""

    num_levels: int = 80  # noise levels that jumps are fitted between; a teacher of fewer brings its own
    sigma_min: float = 0.02  # least of them
    sigma_max: float = 80.0  # most of them
    sigma_data: float = 0.5  # deviation of the actions
    start_noise: float = 1.0  # deviation of the noise that it acts from; `sigma_max` would be that of the path's beginning
    chain: tuple[float, ...] = ()  # noise levels of further calls, falling
    distance: str = 'huber'  # 'square', or RACTD's 'huber'
    denoising_weight: float = 1.0  # of the second term of the loss
    denoise: str = 'end'  # what that term fits: the jump to the 'end' (RACTD), or the guess at its own 'level' (CTM)
    network: str = 'ln_resnet'
    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = 'mish'
    time_features: str = 'fourier'

    def __post_init__(self):
        super().__post_init__()
        check_choice(DISTANCES, distance=self.distance)
        check_choice(('end', 'level'), denoise=self.denoise)
        check_positive(sigma_min=self.sigma_min, sigma_data=self.sigma_data)
        check_not_negative(start_noise=self.start_noise, denoising_weight=self.denoising_weight)
        if self.num_levels < 2:
            raise UsageError(f'num_levels must be at least 2, a jump has two ends; got {self.num_levels}')
        if not self.sigma_max > self.sigma_min:
            raise UsageError(f'sigma_max must be greater than sigma_min, {self.sigma_min}; got {self.sigma_max}')
        if any(not self.sigma_min < level <= self.sigma_max for level in self.chain):
            raise UsageError(f'chain needs noise levels above {self.sigma_min}, at most {self.sigma_max}; got {list(self.chain)}')
        if list(self.chain) != sorted(self.chain, reverse=True):
            raise UsageError(f'chain takes ever less noise away; got {list(self.chain)}; write the largest level first')


class Jumps(NamedTuple):
    """Noise levels, and what is fitted between them.

    Attributes:
      levels: `[N + 1]`, most first; the last one counts as clean and stands twice where it is not 0.
      jump: `(params, observation[..., O], x[..., A], t[...], s[...], key=None) -> G [..., A]`; the key drives dropout.
      terms: `(params, frozen, observation[B, O], action[B, A], key, before, known=None) -> (consistency[B], denoising[B],
        guess[B, A])`, the two sums of the loss, unweighted, and the second one's guess of the action.
        `before(x[B, A], noise[B, A], t[B], u[B]) -> x_u[B, A]` says where the path from x at t passes u.
    """

    levels: np.ndarray
    jump: Callable[..., Array]
    terms: Callable[..., tuple[Array, Array, Array]]


def noise_levels(config: ConsistencyConfig, known: tuple[float, ...] | None = None) -> np.ndarray:
    """`Jumps.levels`: the config's, or those that a teacher `known`s and 0."""
    if known is None:
        sigma = karras_sigmas(config.num_levels, low=config.sigma_min, high=config.sigma_max, rho=RHO)[::-1]
        return np.append(sigma, sigma[-1])
    if config.chain and config.chain[0] > known[0]:
        raise UsageError(f'chain needs noise levels that the teacher knows, at most {known[0]:.3g}; got {list(config.chain)}')
    return np.append(np.asarray(known, np.float64), 0.0)


def _jump(config, network, end, floor):
    """g and G of the top of this file."""

    def guess(params, observation, x, t, s, key=None):
        scale = 1.0 / jnp.sqrt(t**2 + config.sigma_data**2)
        skip = config.sigma_data**2 / ((t - end) ** 2 + config.sigma_data**2)
        out = (t - end) * config.sigma_data * scale
        # Where the level that counts as clean is 0, it is given to the network as half of the least noisy one.
        times = (jnp.log(jnp.maximum(level, 0.5 * floor)) / 4.0 for level in (t, s))
        made = network.apply(params, over(scale, x) * x, beside(x, observation), *times, key=key)
        return over(skip, x) * x + over(out, x) * made

    def jump(params, observation, x, t, s, key=None):
        t, s = jnp.broadcast_arrays(jnp.asarray(t, x.dtype), jnp.asarray(s, x.dtype))
        kept = over(s / t, x)
        return kept * x + (1.0 - kept) * guess(params, observation, x, t, s, key)

    return guess, jump


def jumps(spec: Spec, config: ConsistencyConfig, known: tuple[float, ...] | None = None) -> Jumps:
    """G and its losses over the noise levels of a config or of a teacher."""
    network, levels = time_network(spec, config), noise_levels(config, known)
    end, floor = float(levels[-1]), float(levels[-2])
    table = jnp.asarray(levels, jnp.float32)

    guess, jump = _jump(config, network, end, floor)

    def distance(error):
        if config.distance == 'square':
            return error**2
        c = 0.00054 * spec.action_dim**0.5
        return jnp.sqrt(error**4 + c**2) - c

    def consistency(params, frozen, observation, action, key, before, known):
        keys = jax.random.split(key, 5)
        rows = action.shape[:-1]
        first = jax.random.randint(keys[0], rows, 0, len(levels) - 1)
        last = first + jax.random.randint(keys[1], rows, 0, len(levels) - first)
        after = jnp.minimum(first + jax.random.randint(keys[2], rows, 0, last - first + 1), first + 1)
        t, u, s = table[first], table[after], table[last]
        noise = jax.random.normal(keys[3], action.shape)
        x = action + over(t, action) * noise
        dropping = keys[4] if config.dropout else None
        clean = jnp.full_like(s, end)

        def finished(x):
            # From the clean level there is nowhere to go.
            return jnp.where(over(s <= end, x), x, jump(frozen, observation, x, jnp.maximum(s, floor), clean))

        def towards(params, x, level, key=None):
            # Where a jump ends as it begins it is the identity.
            made = jump(params, observation, x, jnp.maximum(level, floor), jnp.minimum(s, jnp.maximum(level, floor)), key)
            return jnp.where(over(level <= s, x), x, made)

        made = finished(towards(params, x, t, dropping))
        passed = jnp.where(over(after > first, x), before(x, noise, t, u), x)
        aim = jax.lax.stop_gradient(finished(towards(frozen, passed, u)))
        return summed(distance(made - aim), known)

    def denoising(params, observation, action, key, known):
        keys = jax.random.split(key, 4)
        rows = action.shape[:-1]
        high, low = float(levels[0]) ** (1.0 / RHO), max(end, floor) ** (1.0 / RHO)
        spread = (high + 0.7 * jax.random.uniform(keys[0], rows) * (low - high)) ** RHO
        drawn = jnp.exp(-1.2 + 1.2 * jax.random.normal(keys[1], rows))
        sigma = jnp.where(jnp.arange(rows[-1]) % 2 == 0, spread, jnp.clip(drawn, floor, float(levels[0])))
        x = action + over(sigma, action) * jax.random.normal(keys[2], action.shape)
        dropping = keys[3] if config.dropout else None
        if config.denoise == 'end':
            made = jump(params, observation, x, sigma, jnp.full_like(sigma, end), dropping)
        else:
            made = guess(params, observation, x, sigma, sigma, dropping)
        weight = (sigma**2 + config.sigma_data**2) / (sigma * config.sigma_data) ** 2
        return weight * summed(distance(made - action), known), made

    def terms(params, frozen, observation, action, key, before, known=None):
        jump_key, denoise_key = jax.random.split(key)
        fitted = consistency(params, frozen, observation, action, jump_key, before, known)
        return fitted, *denoising(params, observation, action, denoise_key, known)

    return Jumps(levels, jump, terms)


def consistency_policy(
    spec: Spec, config: ConsistencyConfig = ConsistencyConfig(), *, known: tuple[float, ...] | None = None
) -> Policy:
    """A policy that acts with one call of its network; see the top of this file.

    Args:
      spec: sizes.
      config: settings.
      known: noise levels, most first, of a teacher that knows no others; None: the config's.

    Example:
      >>> from ooorl.agents.bc import bc
      >>> from ooorl.policies.consistency import ConsistencyConfig, consistency_policy
      >>> from ooorl.types import Spec
      >>> spec = Spec(observation_dim=4, action_dim=2)
      >>> agent = bc(spec, policy=consistency_policy(spec, ConsistencyConfig(hidden=(64, 64))))
    """
    own, network = jumps(spec, config, known), time_network(spec, config)
    end = float(own.levels[-1])

    def init(key: Key) -> Params:
        time = jnp.ones((1,))
        return network.init(key, jnp.zeros((1, spec.action_dim)), jnp.zeros((1, spec.observation_dim)), time, time)

    def decode(params, observation, noise):
        parts = jnp.split(noise, 1 + len(config.chain), axis=-1)
        action = own.jump(params, observation, config.start_noise * parts[0], float(own.levels[0]), end)
        for level, part in zip(config.chain, parts[1:], strict=True):
            action = own.jump(params, observation, action + (level**2 - end**2) ** 0.5 * part, level, end)
        return jnp.clip(action, -1.0, 1.0)

    def loss(params, observation, action, key, known=None):
        def before(x, noise, t, u):
            del x, t
            return action + over(u, action) * noise

        fitted, denoised, _ = own.terms(params, jax.lax.stop_gradient(params), observation, action, key, before, known)
        return fitted + config.denoising_weight * denoised

    drawn = drawing(decode, spec.action_dim * (1 + len(config.chain)))
    policy = Policy(init=init, **drawn, loss=loss, masks=True)
    return policy if config.ema_rate is None else averaged(policy, config.ema_rate)
