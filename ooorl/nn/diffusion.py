"""Diffusion and flow: noise levels, what a network is asked for at each of them, and samplers. Arrays and callables only.

Every process is x = alpha x0 + sigma n with n ~ N(0, I). A network F sees `scale * x` and gives a guess of the clean data

    D(x) = skip * x + out * F(scale * x, time)

and is fitted by squared error to the target for which D would be x0:

| | alpha, sigma | time | skip, out, scale | target of F |
|---|---|---|---|---|
| DDPM (`ddpm_levels`) | sqrt(ab), sqrt(1 - ab) | 0 .. T - 1 | 1 / alpha, -sigma / alpha, 1 | n |
| EDM (`edm_levels`) | 1, sigma | ln(sigma) / 4 | s^2 / r^2, sigma s / r, 1 / r | (sigma / (s r)) x0 - (s / r) n |

with ab the running product of 1 - beta, s = `sigma_data`, r^2 = sigma^2 + s^2. With EDM's loss weight r^2 / (sigma s)^2 on
|D - x0|^2 the two losses coincide, because that weight is 1 / out^2.

Source: Ho et al., arXiv:2006.11239; Nichol & Dhariwal, arXiv:2102.09672 (cosine); Song et al., arXiv:2011.13456 (VP),
arXiv:2010.02502 (DDIM); Karras et al., arXiv:2206.00364 (EDM, Heun); Lu et al., arXiv:2211.01095 (DPM-Solver++);
Lipman et al., arXiv:2210.02747 and Liu et al., arXiv:2209.03003 (flow along straight lines); Geng et al.,
arXiv:2505.13447 (mean flow).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.errors import UsageError
from ooorl.nn.losses import summed
from ooorl.types import Array

SCHEDULES = ('vp', 'cosine', 'linear')


class Level(NamedTuple):
    """A noise level, or with leading axes many: see the table above. `from_data` and `from_noise` make the target of F."""

    alpha: Array
    sigma: Array
    time: Array
    skip: Array
    out: Array
    scale: Array
    from_data: Array
    from_noise: Array


def betas(schedule: str, num_levels: int) -> np.ndarray:
    """Variances beta `[T]` of T noising steps of a DDPM, float64.

        vp:      1 - exp(-0.1 / T - 0.5 (10 - 0.1) (2 t - 1) / T^2),  t = 1 .. T: total noise is the same for every T
        cosine:  min(1 - f(t) / f(t - 1), 0.999),  f(t) = cos((t / T + 0.008) / 1.008 * pi / 2)^2
        linear:  evenly from 0.0001 to 0.02; leaves most of the data in place unless T is about 1000
    """
    if schedule == 'linear':
        return np.linspace(1e-4, 2e-2, num_levels)
    if schedule == 'cosine':
        f = np.cos((np.arange(num_levels + 1) / num_levels + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1.0 - f[1:] / f[:-1], 0.999)
    if schedule != 'vp':
        raise UsageError(f'schedule must be one of {", ".join(SCHEDULES)}; got {schedule!r}')
    step = np.arange(1, num_levels + 1)
    return 1.0 - np.exp(-0.1 / num_levels - 0.5 * (10.0 - 0.1) * (2 * step - 1) / num_levels**2)


def ddpm_levels(beta: np.ndarray) -> Level:
    """The T levels of a DDPM, least noisy first; the network guesses the noise."""
    remains = np.cumprod(1.0 - np.asarray(beta, np.float64))
    alpha, sigma = np.sqrt(remains), np.sqrt(1.0 - remains)
    one, zero, time = np.ones_like(alpha), np.zeros_like(alpha), np.arange(len(alpha), dtype=np.float64)
    return Level(alpha, sigma, time, 1.0 / alpha, -sigma / alpha, one, zero, one)


def karras_sigmas(num_levels: int, *, low: float = 0.02, high: float = 80.0, rho: float = 7.0) -> np.ndarray:
    """`num_levels` noise levels from low to high, evenly spaced in sigma^(1 / rho); a single one is high."""
    return np.linspace(high ** (1.0 / rho), low ** (1.0 / rho), num_levels)[::-1] ** rho


def edm_levels(sigma: Array, *, sigma_data: float = 0.5) -> Level:
    """EDM's preconditioning at any noise levels: inputs and targets of the network have variance 1 for data of that deviation."""
    xp = jnp if isinstance(sigma, jax.Array) else np
    radius = xp.sqrt(sigma**2 + sigma_data**2)
    one, out = xp.ones_like(sigma), sigma * sigma_data / radius
    skip, time = sigma_data**2 / radius**2, xp.log(sigma) / 4.0
    return Level(one, sigma, time, skip, out, 1.0 / radius, sigma / (sigma_data * radius), -sigma_data / radius)


def spaced(levels: Level, num: int) -> Level:
    """`num` of the levels, evenly spaced, the first and the last among them (of one: the last)."""
    total = len(levels.alpha)
    index = np.round(np.linspace(total - 1, 0, num)).astype(int)[::-1]
    return Level(*(leaf[index] for leaf in levels))


def noised(level: Level, data: Array, noise: Array) -> Array:
    """alpha x0 + sigma n; the leaves of `level` are `[...]` for data `[..., A]`."""
    return level.alpha[..., None] * data + level.sigma[..., None] * noise


def denoising_loss(
    network: Callable[[Array, Array], Array], level: Level, data: Array, noise: Array, known: Array | None = None
) -> Array:
    """`|F(scale * x, time) - target|^2` summed over the last axis, or what `known` marks of it: `[..., A] -> [...]`."""
    target = level.from_data[..., None] * data + level.from_noise[..., None] * noise
    guess = network(level.scale[..., None] * noised(level, data, noise), level.time)
    return summed((guess - target) ** 2, known)


def denoised(network: Callable[[Array, Array], Array], level: Level, x: Array) -> Array:
    """D(x), the guess of the clean data, at one level for all of x."""
    return level.skip * x + level.out * network(level.scale * x, level.time)


class Steps(NamedTuple):
    """A sampler that is linear in what it has: N steps, noisiest first.

        x <- keep * x + toward * ((1 + back) * D(x) - back * D_before) + noise * z

    with D_before the guess of the step before and z ~ N(0, I). Every leaf but `levels` is `[N]`, those of `levels` too.
    """

    levels: Level
    keep: np.ndarray
    toward: np.ndarray
    back: np.ndarray
    noise: np.ndarray


def _pairs(levels):
    """alpha and sigma of every step's start, noisiest first, and of its end; the last end is clean."""
    down = Level(*(leaf[::-1] for leaf in levels))
    return down, (np.append(down.alpha[1:], 1.0), np.append(down.sigma[1:], 0.0))


def deterministic_steps(levels: Level, *, order: int = 1) -> Steps:
    """DDIM (order 1) or DPM-Solver++(2M) (order 2) over the given levels; both solve the probability-flow ODE.

    Order 2 reaches back to the guess of the step before, in its first and its last step it is of order 1.
    """
    down, (alpha, sigma) = _pairs(levels)
    keep = sigma / down.sigma
    back = np.zeros_like(keep)
    if order == 2 and len(keep) > 2:
        log_ratio = np.log(down.alpha / down.sigma)
        length = np.diff(log_ratio)
        back[1:-1] = length[1:] / (2.0 * length[:-1])
    return Steps(down, keep, alpha - down.alpha * keep, back, np.zeros_like(keep))


def ancestral_steps(levels: Level, *, variance: str = 'posterior') -> Steps:
    """DDPM's reverse chain over the given levels: the mean of q(x' | x, x0 = D(x)), and noise on all steps but the last.

    Args:
      levels: where to stop on the way.
      variance: of that noise: 'posterior', of q(x' | x, x0), or 'beta', that of the noising step, an upper bound for data of unit
        variance (IDQL).
    """
    down, (alpha, sigma) = _pairs(levels)
    ratio = down.alpha / alpha
    added = down.sigma**2 - ratio**2 * sigma**2
    std = np.sqrt(added) if variance == 'beta' else sigma * np.sqrt(added) / down.sigma
    std = np.append(std[:-1], 0.0)
    return Steps(down, ratio * sigma**2 / down.sigma**2, alpha * added / down.sigma**2, np.zeros_like(std), std)


def run_steps(
    denoise: Callable[[Array, Level], Array], steps: Steps, x: Array, noise: Array | None = None, *, clip: bool = False
) -> Array:
    """Runs a sampler from x `[..., A]`.

    Args:
      denoise: `(x, level) -> D(x)`.
      steps: what to do.
      x: where to start, already at the first level.
      noise: `[N - 1, ..., A]`, z of all steps but the last, for samplers that add any.
      clip: whether x is kept in [-1, 1] after every step (IDQL); clipping D instead is a matter of `denoise`.
    """
    table = jax.tree.map(lambda leaf: jnp.asarray(leaf, x.dtype), steps)
    if noise is None:
        rows = jnp.zeros((len(steps.keep), *[1] * x.ndim), x.dtype)
    else:
        rows = jnp.concatenate([noise, jnp.zeros_like(noise[:1])]) if noise.shape[0] else jnp.zeros_like(x)[None]

    def step(carry, inputs):
        x, before = carry
        at, z = inputs
        guess = denoise(x, at.levels)
        x = at.keep * x + at.toward * ((1.0 + at.back) * guess - at.back * before) + at.noise * jnp.broadcast_to(z, x.shape)
        return (jnp.clip(x, -1.0, 1.0) if clip else x, guess), None

    return jax.lax.scan(step, (x, jnp.zeros_like(x)), (table, rows))[0][0]


def heun(denoise: Callable[[Array, Level], Array], levels: Level, x: Array) -> Array:
    """Heun's method on dy / ds = (y - D) / s, with y = x / alpha and s = sigma / alpha, over the given levels.

    Two evaluations a step, one in the last, which is Euler's: 2 N - 1 in all.
    """
    down = jax.tree.map(lambda leaf: jnp.asarray(leaf[::-1], x.dtype), levels)

    def slope(y, level):
        return (y - denoise(level.alpha * y, level)) * (level.alpha / level.sigma)

    def step(y, ends):
        level, following = ends
        length = following.sigma / following.alpha - level.sigma / level.alpha
        first = slope(y, level)
        second = slope(y + length * first, following)
        return y + 0.5 * length * (first + second), None

    starts, ends = (jax.tree.map(lambda leaf, s=s: leaf[s], down) for s in (slice(None, -1), slice(1, None)))
    last = jax.tree.map(lambda leaf: leaf[-1], down)
    y = jax.lax.scan(step, x / down.alpha[0], (starts, ends))[0]
    return denoise(last.alpha * y, last)


def path_step(denoise: Callable[[Array, Array], Array], x: Array, start: Array, end: Array) -> Array:
    """One step of Heun's method on dx / dsigma = (x - D(x, sigma)) / sigma from level `start` to `end`, Euler's where that is 0.

    Args:
      denoise: `(x[..., A], sigma[...]) -> D[..., A]`.
      x: `[..., A]`, at `start`.
      start: `[...]`, above 0.
      end: `[...]`.
    """
    def column(level):
        return jnp.broadcast_to(level[..., None], x.shape)

    length, noisy = column(end - start), jnp.where(end > 0, end, start)
    first = (x - denoise(x, start)) / column(start)
    guess = x + length * first
    second = (guess - denoise(guess, noisy)) / column(noisy)
    return jnp.where(column(end) > 0, x + 0.5 * length * (first + second), guess)


def flow_loss(
    velocity: Callable[[Array, Array], Array], data: Array, noise: Array, time: Array, known: Array | None = None
) -> Array:
    """`|v(x_t, t) - (x1 - x0)|^2` summed over the last axis, x_t = (1 - t) x0 + t x1, from noise x0 to data x1.

    Args:
      velocity: `(x[..., A], time[...]) -> [..., A]`.
      data: `[..., A]`.
      noise: `[..., A]`.
      time: `[...]` in [0, 1].
      known: `[..., A]`, 1 on the dimensions that count, else 0; None: all of them.
    """
    t = time[..., None]
    return summed((velocity((1.0 - t) * noise + t * data, time) - (data - noise)) ** 2, known)


def mean_flow_loss(
    average: Callable[[Array, Array, Array], Array], data: Array, noise: Array, time: Array, until: Array,
    known: Array | None = None,
) -> Array:  # fmt: skip
    """`|u - stop(v + (r - t) (v . d_x u + d_t u))|^2` summed over the last axis, u = average(x_t, t, r), v = x1 - x0.

    u is the average of the velocity on the path from t to r; with r = t this is `flow_loss`. Only the first u is differentiated.

    Args:
      average: `(x[..., A], time[...], until[...]) -> [..., A]`.
      data: `[..., A]`, x1.
      noise: `[..., A]`, x0.
      time: `[...]`, t in [0, 1].
      until: `[...]`, r in [t, 1].
      known: as of `flow_loss`.

    Source: Geng et al., arXiv:2505.13447.
    """
    t = time[..., None]
    velocity = data - noise
    made, target = average_velocity(average, (1.0 - t) * noise + t * data, velocity, time, until)
    return summed((made - jax.lax.stop_gradient(target)) ** 2, known)


def average_velocity(
    average: Callable[[Array, Array, Array], Array], x: Array, velocity: Array, time: Array, until: Array
) -> tuple[Array, Array]:
    """u = average(x, t, r), and v + (r - t) du/dt along the path that leaves x at t with velocity v: equal for the true u."""
    made, change = jax.jvp(lambda x, t: average(x, t, until), (x, time), (velocity, jnp.ones_like(time)))
    return made, velocity + (until - time)[..., None] * change


def euler(velocity: Callable[[Array, Array], Array], noise: Array, num_steps: int) -> Array:
    """Euler's method on dx / dt = v(x, t) from t = 0 to 1 in equal steps: t = 0, 1 / N, ... (N - 1) / N."""

    def step(x, time):
        return x + velocity(x, time) / num_steps, None

    return jax.lax.scan(step, noise, jnp.arange(num_steps, dtype=noise.dtype) / num_steps)[0]
