"""Candidates drawn once for every row of a data set, for policies that are dear to ask: what PA-RL's search begins with.

    candidates[i]      = N draws of policy(s_i)
    next_candidates[i] = N draws of policy(s'_i): those of the next row, where that begins with s'_i

Raw draws are kept, never what a search makes of them: that depends on the critic, which changes with every update. They are those
of the policy as it was; whoever fits it draws them again from time to time (one epoch in the source), by calling this again.

Source: Mark et al., arXiv:2412.06685, whose code keeps the draws of a large policy by hashes of pictures; here they are columns.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.types import Array, Params, Policy, Transition
from ooorl.validation import check_positive

COLUMNS = ('candidates', 'next_candidates')


def with_candidates(
    data: Transition, policy: Policy, params: Params, key: Array, num: int, *, rows_at_once: int = 1024
) -> Transition:
    """The data `[n]`, in the order they were lived, with the columns `candidates` and `next_candidates` `[n, num, A]`.

    The policy draws with the parameters that act, for every state once. n * num * A numbers are held twice.

    Raises:
      UsageError: if there are no candidates.

    Example:
      >>> import jax
      >>> from ooorl.agents.cached import with_candidates
      >>> from ooorl.policies.gaussian import gaussian_policy
      >>> from ooorl.types import Spec, Transition
      >>> policy = gaussian_policy(Spec(observation_dim=3, action_dim=2), (8,))
      >>> rows = jax.random.normal(jax.random.key(0), (5, 3))
      >>> data = Transition(rows, rows[:, :2], rows[:, 0], rows[:, 1], rows + 1.0)
      >>> data = with_candidates(data, policy, policy.init(jax.random.key(1)), jax.random.key(2), 4)
      >>> data.extras['next_candidates'].shape
      (5, 4, 2)
    """
    check_positive(num_candidates=num, rows_at_once=rows_at_once)
    observation, successor = np.asarray(data.observation), np.asarray(data.next_observation)
    follows = np.append((successor[:-1] == observation[1:]).all(axis=-1), False)
    draw = jax.jit(lambda params, rows, key: policy.sample(policy.deployed(params), rows, key, num))
    keys = iter(jax.random.split(key, 2 * (-(-len(observation) // rows_at_once))))

    def drawn(rows):
        parts = []
        for first in range(0, len(rows), rows_at_once):
            block = rows[first : first + rows_at_once]
            padded = np.concatenate([block, np.repeat(block[:1], min(rows_at_once, len(rows)) - len(block), axis=0)])
            parts.append(np.swapaxes(np.asarray(draw(params, jnp.asarray(padded), next(keys))), 0, 1)[: len(block)])
        return np.concatenate(parts) if parts else np.zeros((0, num, data.action.shape[-1]), np.float32)

    now = drawn(observation)
    following = np.concatenate([now[1:], now[:1]])
    following[~follows] = drawn(successor[~follows])
    return data._replace(extras={**data.extras, 'candidates': now, 'next_candidates': following})
