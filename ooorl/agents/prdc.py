"""PRDC: TD3+BC that imitates not the action beside it in the data, but the one nearest to what the policy would do.

    nearest(s, a) = the data's action a_i with the smallest |(beta * s, a) - (beta * s_i, a_i)|
    policy  L_pi  = -l * E[ Q(s, pi(s)) ] + E[ mean_dims (pi(s) - nearest(s, pi(s)))^2 ],   l = alpha / E|Q(s, pi(s))|

Everything else is TD3 (see `td3`); the neighbour carries no gradient. The policy may then combine states and actions that
the data do not pair, as long as a similar pair exists. The search is exact: one matrix product of the batch with the
data for each policy step, in chunks, at a cost of about 2 * batch_size * rows * (O + A) operations; with a million rows
that is many times the rest of an update on a CPU, so `max_rows` thins the data. The data are constants of the compiled
program, shared by all seeds and not part of the state; rows collected online are learnt from and are nobody's neighbours.

alpha is `q_normalisation`: halfcheetah 40, hopper and walker2d 2.5, antmaze 7.5. beta is 2, antmaze 7.5. The observations
given here must be normalised the way the agent sees them (wrap with `normalised_observation`).

Source: Ran et al., "Policy Regularization with Dataset Constraint for Offline RL", ICML 2023, arXiv:2306.06569. The official
code searches a k-d tree in float64 on the host; here float32 distances are compared, which may choose another row among
near-ties. Not compared with recorded numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from ooorl.agents.td3 import TD3Config, td3
from ooorl.errors import UsageError
from ooorl.types import Agent, Array, Policy, Spec, ValueHead
from ooorl.validation import check_positive


@dataclass(frozen=True, kw_only=True)
class PRDCConfig(TD3Config):
    """Settings of `prdc`: those of `td3` with other defaults, and two of its own."""

    q_normalisation: float | None = 2.5  # alpha; halfcheetah 40, antmaze 7.5
    cloning_weight: float = 1.0
    cloning_reduce: str = 'mean'
    beta: float = 2.0  # weight of the observation in the distance; antmaze 7.5
    max_rows: int | None = None  # at most so many rows, evenly spaced over the data, are searched; None means all

    def __post_init__(self):
        super().__post_init__()
        check_positive(beta=self.beta, max_rows=self.max_rows)


def nearest_action(
    observation: Array, action: Array, *, beta: float, chunk: int = 16384
) -> Callable[[Array, Array, Array], Array]:
    """A `cloning_target` of `td3`: for each pair (s, policy action) the action of the nearest pair of the data.

    Args:
      observation: `[rows, O]` of the data, as the agent sees them.
      action: `[rows, A]`.
      beta: weight of the observation in the distance.
      chunk: rows compared at once.
    """
    rows = action.shape[0]
    chunk = min(chunk, rows)
    points = jnp.concatenate([beta * jnp.asarray(observation), jnp.asarray(action)], axis=-1)
    padding = -rows % chunk
    # Padding repeats row 0, which can only tie with itself.
    points = jnp.concatenate([points, jnp.broadcast_to(points[:1], (padding, points.shape[-1]))])
    chunks = points.reshape(-1, chunk, points.shape[-1])

    def target(observation, data_action, policy_action):
        del data_action
        query = jnp.concatenate([beta * observation, policy_action], axis=-1)

        def closer(best, block):
            # |q - p|^2 without |q|^2, which is the same for every p.
            distance = (block**2).sum(axis=-1)[None] - 2.0 * query @ block.T  # [B, chunk]
            index = distance.argmin(axis=-1)
            least = jnp.take_along_axis(distance, index[:, None], axis=-1)[:, 0]
            nearer = least < best[0]
            return (jnp.where(nearer, least, best[0]), jnp.where(nearer[:, None], block[index], best[1])), None

        start = (jnp.full(query.shape[:1], jnp.inf), query)
        (_, found), _ = jax.lax.scan(closer, start, chunks)
        return found[:, observation.shape[-1] :]

    return target


def prdc(
    spec: Spec,
    config: PRDCConfig = PRDCConfig(),
    *,
    observation: Array,
    action: Array,
    policy: Policy | None = None,
    head: ValueHead | None = None,
    grad_transform: optax.GradientTransformation = optax.identity(),
) -> Agent:
    """TD3+BC whose imitation target is the nearest action of the data.

    Args:
      spec: sizes.
      config: settings.
      observation: `[rows, O]` of the data, as the agent sees them.
      action: `[rows, A]` of the data.
      policy: as in `td3`.
      head: as in `td3`.
      grad_transform: as in `td3`.

    Raises:
      UsageError: if there are no data or they do not fit together.

    Example:
      >>> import jax
      >>> from ooorl.agents.prdc import PRDCConfig, prdc
      >>> from ooorl.types import Spec
      >>> data = jax.random.uniform(jax.random.key(0), (100, 6))
      >>> agent = prdc(Spec(observation_dim=4, action_dim=2), PRDCConfig(beta=7.5), observation=data[:, :4], action=data[:, 4:])
    """
    given = (observation.shape, action.shape)
    rows = len(action)
    if given != ((rows, spec.observation_dim), (rows, spec.action_dim)) or rows == 0:
        raise UsageError(
            f'prdc needs observations [rows, {spec.observation_dim}] and actions [rows, {spec.action_dim}] of a data set; '
            f'got {given[0]} and {given[1]}'
        )
    stride = 1 if config.max_rows is None else -(-rows // config.max_rows)
    target = nearest_action(observation[::stride], action[::stride], beta=config.beta)
    return td3(spec, config, policy=policy, head=head, cloning_target=target, grad_transform=grad_transform)
