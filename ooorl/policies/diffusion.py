"""Diffusion policy: actions by removing noise step by step.

    x = alpha a + sigma n,   loss(s, a) = sum_A (F(scale * x, s, time) - target)^2   at a random noise level

with the levels and targets of `nn.diffusion`. `decode` runs the sampler from given noise: all of it for `sampler='ddpm'`, where
`noise_dim` is A for the start and A more for each step but the last; A alone for the others, which follow the deterministic
path from noise to action. `mode` is a draw. The last result is clipped to [-1, 1] whatever else is clipped.

| | IDQL | Diffusion-QL | PA-RL | EDM |
|---|---|---|---|---|
| process, num_levels | vp, 5 | vp, 5 | cosine, 5 | edm |
| sampler, num_steps | ddpm, all | ddpm, all | ddpm, all | heun, 10 |
| clip | sample | guess | sample | guess |
| variance | beta | posterior | beta | |
| network, hidden | ln_resnet, 256 x 3 | mlp, 256 x 3 | ln_resnet, 256 x 3 | ln_resnet |
| activation, dropout | mish, 0.1 | mish, 0 | swish, 0.1 | mish, 0 |
| time_features, num, hidden | fourier, 64, (128, 128) | sinusoidal, 16, (32, 16) | fourier, 128, (256, 128) | fourier |
| ema_rate | 0.001 | 0.005 | 0.002 | 0.001 |

The defaults are IDQL's. Few levels need 'vp' or 'cosine': 'linear' leaves most of the data in place at the noisiest level. DDIM,
Heun and DPM-Solver++ over few levels of a DDPM are coarse, since their grid is that of its training.

Draws follow the data, whoever mixed them. `start_noise` = 1 over EDM's levels, far less than the first of them has, makes draws
nearly one action an observation: so Consistency Policy and RACTD sample teachers (Ddduanxt/RACTD), and so their students act.

Source: Hansen-Estruch et al., "IDQL", arXiv:2304.10573, philippe-eecs/IDQL@7582571, with whose numbers this was compared; Wang
et al., "Diffusion-QL", arXiv:2208.06193; Karras et al., arXiv:2206.00364. Deviations: Diffusion-QL takes the mean over A and
moves its slow copy every fifth step; EDM's levels in sampling go from `sigma_max` to `sigma_min` and then to the guess.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.nn import diffusion
from ooorl.nn.diffusion import Level
from ooorl.policies.averaged import averaged
from ooorl.policies.flow import TimeNetworkConfig, init_time_network, time_network
from ooorl.policies.noise import beside, drawing, over
from ooorl.types import DenoisingPolicy, Policy, Spec
from ooorl.validation import check_choice, check_not_negative, check_positive

SAMPLERS = ('ddpm', 'ddim', 'heun', 'dpm_solver')


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(TimeNetworkConfig):
    """Settings of `diffusion_policy`; the defaults are IDQL's."""

    process: str = 'vp'  # 'vp', 'cosine' or 'linear' (a DDPM's levels), or 'edm'
    num_levels: int = 5  # T, levels of a DDPM
    sampler: str = 'ddpm'  # 'ddpm', 'ddim', 'heun' or 'dpm_solver' (DPM-Solver++(2M))
    num_steps: int | None = None  # levels visited in sampling; None: all of a DDPM's, 10 of EDM's
    clip: str = 'sample'  # to the box: the 'sample' after each step, the 'guess' of the action in each step, or only the 'end'
    variance: str = 'beta'  # of the noise that ddpm adds: 'beta' (IDQL) or 'posterior' (Diffusion-QL; EDM)
    repeat_last: int = 0  # further evaluations at the least noisy level
    temperature: float = 1.0  # multiplies the noise that ddpm adds; the starting noise stays
    sigma_min: float = 0.02  # EDM: least noise in sampling
    sigma_max: float = 80.0  # EDM: most noise in sampling, where it starts
    start_noise: float | None = None  # EDM: deviation of what sampling takes for noise of `sigma_max`; None: that level's own
    rho: float = 7.0  # EDM: spacing of its levels
    sigma_data: float = 0.5  # EDM: deviation of the actions
    noise_mean: float = -1.2  # EDM: mean of ln(sigma) in fitting
    noise_std: float = 1.2  # EDM: deviation of ln(sigma) in fitting
    network: str = 'ln_resnet'
    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = 'mish'
    dropout: float = 0.1
    time_features: str = 'fourier'
    ema_rate: float | None = 0.001

    def __post_init__(self):
        super().__post_init__()
        check_choice((*diffusion.SCHEDULES, 'edm'), process=self.process)
        check_choice(SAMPLERS, sampler=self.sampler)
        check_choice(('sample', 'guess', 'end'), clip=self.clip)
        check_choice(('beta', 'posterior'), variance=self.variance)
        check_positive(num_levels=self.num_levels, num_steps=self.num_steps, noise_std=self.noise_std)
        check_positive(sigma_min=self.sigma_min, rho=self.rho, sigma_data=self.sigma_data)
        check_not_negative(repeat_last=self.repeat_last, temperature=self.temperature, start_noise=self.start_noise)
        if not self.sigma_max > self.sigma_min:
            raise UsageError(f'sigma_max must be greater than sigma_min, {self.sigma_min}; got {self.sigma_max}')
        _check_sampler(self)


def _check_sampler(config):
    if config.process == 'edm':
        if config.sampler == 'ddpm' and config.variance == 'beta':
            raise UsageError("ddpm over EDM's levels needs variance 'posterior'; got 'beta'; set it, or take another sampler")
        if config.clip == 'sample':
            raise UsageError("EDM's samples are wider than the box until the end; got clip 'sample'; take 'guess' or 'end'")
    elif config.start_noise is not None:
        raise UsageError(f"start_noise is EDM's; a DDPM starts from noise of deviation 1; got {config.start_noise}; remove it")
    elif config.num_steps is not None and config.num_steps > config.num_levels:
        raise UsageError(f'num_steps must be at most num_levels, {config.num_levels}; got {config.num_steps}')
    if config.sampler == 'heun' and config.clip == 'sample':
        raise UsageError("heun clips no samples between its evaluations; got clip 'sample'; take 'guess' or 'end'")


class Process(NamedTuple):
    """Where sampling passes through, and which level is fitted next."""

    levels: Level  # [steps], least noisy first
    start: float  # deviation of the noisiest
    draw: Callable  # (key, shape) -> Level of that shape
    at: Callable  # sigma / alpha [...] -> Level of that shape, the nearest there is
    known: tuple[float, ...] | None  # sigma / alpha of all levels, most first; None: any


def process(config: DiffusionConfig) -> Process:
    """The noise levels of a config."""
    if config.process == 'edm':
        return _edm(config)
    levels = diffusion.ddpm_levels(diffusion.betas(config.process, config.num_levels))
    table = jax.tree.map(lambda leaf: leaf.astype('float32'), levels)

    def draw(key, shape):
        index = jax.random.randint(key, shape, 0, config.num_levels)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], table)

    ratio = (levels.sigma / levels.alpha).astype('float32')

    def at(sigma):
        apart = jax.vmap(lambda one: jnp.abs(jnp.log(sigma) - one), out_axes=-1)(jnp.log(ratio))
        nearest = apart.argmin(axis=-1)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[nearest], table)

    visited = diffusion.spaced(levels, config.num_steps or config.num_levels)
    return Process(visited, 1.0, draw, at, tuple(map(float, ratio[::-1])))


def _edm(config):
    sigma = diffusion.karras_sigmas(config.num_steps or 10, low=config.sigma_min, high=config.sigma_max, rho=config.rho)

    def draw(key, shape):
        sigma = jnp.exp(config.noise_mean + config.noise_std * jax.random.normal(key, shape))
        return diffusion.edm_levels(sigma, sigma_data=config.sigma_data)

    def at(sigma):
        return diffusion.edm_levels(sigma, sigma_data=config.sigma_data)

    start = config.sigma_max if config.start_noise is None else config.start_noise
    return Process(diffusion.edm_levels(sigma, sigma_data=config.sigma_data), start, draw, at, None)


def _sampler(config, levels):
    """`(denoise, x, noise[..., num_noises * A]) -> action`, and the number of noises beside x."""
    if config.sampler == 'heun':
        return (lambda denoise, x, noise: diffusion.heun(denoise, levels, x)), 0
    clip = config.clip == 'sample'
    if config.sampler != 'ddpm':
        steps = diffusion.deterministic_steps(levels, order=2 if config.sampler == 'dpm_solver' else 1)
        return (lambda denoise, x, noise: diffusion.run_steps(denoise, steps, x, clip=clip)), 0
    steps = diffusion.ancestral_steps(levels, variance=config.variance)
    num_noises = len(steps.keep) - 1

    def sample(denoise, x, noise):
        rows = config.temperature * jnp.moveaxis(noise.reshape(*x.shape[:-1], num_noises, x.shape[-1]), -2, 0)
        return diffusion.run_steps(denoise, steps, x, rows, clip=clip)

    return sample, num_noises


def diffusion_policy(spec: Spec, config: DiffusionConfig = DiffusionConfig()) -> Policy:
    """A policy that takes noise away step by step; its own parameters are those of `time_network(spec, config)`.

    Example:
      >>> from ooorl.agents.iql import IQLConfig, iql
      >>> from ooorl.policies.diffusion import DiffusionConfig, diffusion_policy
      >>> from ooorl.types import Spec
      >>> spec = Spec(observation_dim=4, action_dim=2)
      >>> policy = diffusion_policy(spec, DiffusionConfig(process='edm', sampler='heun', clip='guess'))
      >>> agent = iql(spec, IQLConfig(inverse_temperature=0.0), policy=policy)
    """
    network, noising = time_network(spec, config), process(config)
    sampler, num_noises = _sampler(config, noising.levels)
    least_noisy = jax.tree.map(lambda leaf: leaf[0].astype('float32'), noising.levels)

    def decode(params, observation, noise):
        observation = beside(noise, observation)
        start, rest = jnp.split(noise, [spec.action_dim], axis=-1)

        def denoise(x, level):
            guess = diffusion.denoised(lambda x, time: network.apply(params, x, observation, time), level, x)
            return jnp.clip(guess, -1.0, 1.0) if config.clip == 'guess' else guess

        action = sampler(denoise, noising.start * start, rest)
        for _ in range(config.repeat_last):
            action = denoise(action, least_noisy)
            action = jnp.clip(action, -1.0, 1.0) if config.clip == 'sample' else action
        return jnp.clip(action, -1.0, 1.0)

    def loss(params, observation, action, key, known=None):
        level_key, noise_key, dropout_key = jax.random.split(key, 3)
        level, noise = noising.draw(level_key, action.shape[:-1]), jax.random.normal(noise_key, action.shape)
        dropping = dropout_key if config.dropout else None
        return diffusion.denoising_loss(
            lambda x, time: network.apply(params, x, observation, time, key=dropping), level, action, noise, known
        )

    def denoise(params, observation, x, sigma):
        level, observation = noising.at(jnp.asarray(sigma)), beside(x, observation)
        level = level._replace(**{name: over(getattr(level, name), x) for name in ('alpha', 'skip', 'out', 'scale')})
        return diffusion.denoised(lambda x, time: network.apply(params, x, observation, time), level, level.alpha * x)

    policy = DenoisingPolicy(
        init=init_time_network(network, spec), **drawing(decode, spec.action_dim * (1 + num_noises)), loss=loss, masks=True,
        denoise=denoise, levels=noising.known, guesses='edm' if config.process == 'edm' else 'noise', settings=config,
    )
    return policy if config.ema_rate is None else averaged(policy, config.ema_rate)
