"""What only whole episodes know: returns, horizons and the best reward, from rows in their order.

Every function takes time-major streams `[T]`, or `[T, N]` for N environments side by side, with `boundary` of
the same shape: 1 on the last row of an episode, however it ended. Nothing flows across a boundary. The rows
behind the last boundary of a stream belong to an episode that is not finished; what they return is not known
yet, so it is NaN.
"""

import jax
import jax.numpy as jnp


def returns_to_go(reward, discount, boundary, gamma):
    """The discounted return from each row to the end of its episode.

        R_t = r_t + gamma * d_t * R_{t+1} inside an episode;  R_t = r_t on its last row

    A time-out cuts the sum where it stands: what would have followed is not estimated. A row of discount 0
    has R_t = r_t also where its episode goes on (recordings that continue after the goal).

    Args:
      reward: `[T]` or `[T, N]`.
      discount: the same shape, 0 where the MDP ended.
      boundary: the same shape, 1 on the last row of an episode.
      gamma: the discount factor.

    Returns:
      float32 of the same shape; NaN from the first row on that no later row of its stream brings to an end.
    """
    reward = jnp.asarray(reward, jnp.float32)
    ended = (jnp.asarray(boundary) > 0) | (jnp.asarray(discount) == 0)
    carry = jnp.where(ended, 0.0, gamma * jnp.asarray(discount, jnp.float32))

    def compose(later, earlier):
        # Each element is the map R -> total + carry * R; composing two neighbours stays in that family.
        later_carry, later_total = later
        earlier_carry, earlier_total = earlier
        return earlier_carry * later_carry, earlier_total + earlier_carry * later_total

    _, total = jax.lax.associative_scan(compose, (carry, reward), reverse=True, axis=0)
    known = jax.lax.cummax(ended.astype(jnp.int32), axis=0, reverse=True) > 0
    return jnp.where(known, total, jnp.nan)


def discounted_horizon(discount, boundary, gamma):
    """The return a reward of 1 on every row would have: how a shifted reward moves a return.

    With r' = scale * r + shift on every row, R' = scale * R + shift * H, where H is what this returns.

    Args:
      discount: `[T]` or `[T, N]`, 0 where the MDP ended.
      boundary: the same shape, 1 on the last row of an episode.
      gamma: the discount factor.

    Returns:
      float32 of the same shape; NaN where `returns_to_go` is NaN.
    """
    discount = jnp.asarray(discount, jnp.float32)
    return returns_to_go(jnp.ones_like(discount), discount, boundary, gamma)


def episode_max(reward, boundary):
    """The largest reward of the episode that each row belongs to.

    Args:
      reward: `[T]` or `[T, N]`.
      boundary: the same shape, 1 on the last row of an episode.

    Returns:
      float32 of the same shape; the unfinished episode at the end of a stream gives its largest reward so
      far.
    """

    def one_stream(reward, episode):
        best = jax.ops.segment_max(reward, episode, reward.shape[0], indices_are_sorted=True)
        return best[episode]

    reward = jnp.asarray(reward, jnp.float32)
    return _each_stream(one_stream, reward, _episode_index(boundary))


def episode_sum(reward, boundary):
    """The sum of the rewards of the episode that each row belongs to, not discounted.

    Args:
      reward: `[T]` or `[T, N]`.
      boundary: the same shape, 1 on the last row of an episode.

    Returns:
      float32 of the same shape; the unfinished episode at the end of a stream gives its sum so far.
    """

    def one_stream(reward, episode):
        return jax.ops.segment_sum(reward, episode, reward.shape[0], indices_are_sorted=True)[episode]

    return _each_stream(one_stream, jnp.asarray(reward, jnp.float32), _episode_index(boundary))


def sparse_returns_to_go(reward, discount, boundary, gamma, success):
    """Returns and horizons for sparse rewards, where an episode without success counts as going on for ever.

    An episode whose largest reward is below `success` never reached the goal; its time-out is an accident of
    the recording, and the return it bounds is that of failing for ever:

        R_t = r_last / (1 - gamma),  H_t = 1 / (1 - gamma)  on all its rows, r_last being its last reward

    Args:
      reward: `[T]` or `[T, N]`, raw.
      discount: the same shape, 0 where the MDP ended.
      boundary: the same shape, 1 on the last row of an episode.
      gamma: the discount factor, below 1.
      success: the raw reward that means success.

    Returns:
      `(return_to_go, discounted_horizon)`, float32 of the same shape; the unfinished episode at the end of a
      stream has NaN where `returns_to_go` has, and on all its rows while it has no success.

    Source: the return rule of Cal-QL's sparse tasks (Nakamoto et al., NeurIPS 2023, arXiv:2303.05479).
    """

    def last_reward(reward, episode):
        rows = jnp.arange(reward.shape[0])
        last = jax.ops.segment_max(rows, episode, reward.shape[0], indices_are_sorted=True)
        return reward[last[episode]]

    reward = jnp.asarray(reward, jnp.float32)
    failed = episode_max(reward, boundary) < success
    finished = jax.lax.cummax((jnp.asarray(boundary) > 0).astype(jnp.int32), axis=0, reverse=True) > 0
    endless = jnp.where(finished, 1.0 / (1.0 - gamma), jnp.nan)
    last = _each_stream(last_reward, reward, _episode_index(boundary))
    returns = jnp.where(failed, last * endless, returns_to_go(reward, discount, boundary, gamma))
    horizon = jnp.where(failed, endless, discounted_horizon(discount, boundary, gamma))
    return returns, horizon


def _episode_index(boundary):
    """Counts episodes along each stream from 0; the row behind a boundary opens the next one."""
    ended = (jnp.asarray(boundary) > 0).astype(jnp.int32)
    return jnp.cumsum(ended, axis=0) - ended


def _each_stream(function, reward, episode):
    if reward.ndim == 1:
        return function(reward, episode)
    return jax.vmap(function, in_axes=1, out_axes=1)(reward, episode)
