"""A policy whose draws a small learnt policy moves by bounded steps; any policy below, a squashed Gaussian on top.

    a ~ base(s),   e ~ tanh N(mu(s, a), sigma(s, a)),   edited = clip(a + edit_scale * e, -1, 1)

The edit is learnt elsewhere, by climbing Q (`agents.expo`); `loss` fits the base alone. With `edit_scale = 0` it is the base.

Source: "EXPO: Stable Reinforcement Learning with Expressive Policies", arXiv:2507.07986; the form of ColinQiyangLi/qam@f93efd2,
where the policy's own draws are edited, rather than the data's actions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.policies.gaussian import tanh_gaussian_policy
from ooorl.types import Array, Params, Policy, Spec
from ooorl.validation import check_not_negative, check_positive


@dataclass(frozen=True, kw_only=True)
class EditConfig:
    """Settings of `edited_policy`."""

    edit_scale: float = 0.15  # half-width of an edit, of a box of half-width 1; OGBench .1 to .8, most .2 to .3
    num_candidates: int = 8  # N, draws of the base
    num_edited: int | None = None  # of them, so many are edited; None means all
    keep_plain: bool = True  # the draws of the base are candidates, too, beside their edits
    hidden: tuple[int, ...] = (512, 512, 512, 512)  # widths of the edit

    def __post_init__(self):
        check_not_negative(edit_scale=self.edit_scale, num_edited=self.num_edited)
        check_positive(num_candidates=self.num_candidates)
        if self.num_edited is not None and self.num_edited > self.num_candidates:
            raise UsageError(f'num_edited must be at most num_candidates, {self.num_candidates}; got {self.num_edited}')
        if self.num_edited == 0 and not self.keep_plain:
            raise UsageError('there must be a candidate to act with; got num_edited = 0 and keep_plain = false; change one')


class Edited(NamedTuple):
    """Parameters of the base and of the edit."""

    base: Params
    edit: Params


@dataclass(frozen=True, eq=False, kw_only=True)
class EditedPolicy(Policy):
    """A base with a bounded edit; its parameters are `Edited`, its draws are edited.

    Attributes:
      init_edit: `(key) -> Params`, of the edit alone.
      edit: `(params of the edit, observation[..., O], action[..., A], key) -> ([..., A], [...])`, the edited actions, and the
        log-densities of the edits as they are before scaling; reparameterised.
      candidates: `(params, observation[..., O], key) -> [M, ..., A]`, M = N + N_e, or N_e without the plain ones.
    """

    init_edit: Callable[[Array], Params]
    edit: Callable[[Params, Array, Array, Array], tuple[Array, Array]]
    candidates: Callable[[Params, Array, Array], Array]


def edited_policy(spec: Spec, base: Policy, config: EditConfig = EditConfig()) -> EditedPolicy:
    """Any policy with a bounded edit on top.

    Example:
      >>> from ooorl.policies.edited import EditConfig, edited_policy
      >>> from ooorl.policies.flow import flow_policy
      >>> from ooorl.types import Spec
      >>> spec = Spec(observation_dim=4, action_dim=2)
      >>> policy = edited_policy(spec, flow_policy(spec), EditConfig(edit_scale=0.3))
    """
    seen = Spec(observation_dim=spec.observation_dim + spec.action_dim, action_dim=spec.action_dim)
    editor = tanh_gaussian_policy(seen, config.hidden, activation='gelu', kernel_init='xavier_uniform')

    def edit(params, observation, action, key):
        moves, log_prob = editor.sample_and_log_prob(params, jnp.concatenate([observation, action], axis=-1), key, 1)
        return jnp.clip(action + config.edit_scale * moves[0], -1.0, 1.0), log_prob[0]

    def drawn(params, observation, key, num, num_edited):
        base_key, edit_key = jax.random.split(key)
        plain = base.sample(params.base, observation, base_key, num)
        beside = jnp.broadcast_to(observation, (num_edited, *observation.shape))
        return plain, edit(params.edit, beside, plain[:num_edited], edit_key)[0] if num_edited else plain[:0]

    def candidates(params, observation, key):
        num = config.num_candidates
        plain, edited = drawn(params, observation, key, num, num if config.num_edited is None else config.num_edited)
        return jnp.concatenate([plain, edited]) if config.keep_plain else edited

    def sample(params, observation, key, num):
        return drawn(params, observation, key, num, num)[1]

    def init(key):
        base_key, edit_key = jax.random.split(key)
        return Edited(base.init(base_key), editor.init(edit_key))

    return EditedPolicy(
        init=init,
        sample=sample,
        mode=lambda params, observation, key: sample(params, observation, key, 1)[0],
        loss=lambda params, *batch: base.loss(params.base, *batch),
        masks=base.masks,
        after_update=lambda before, after: after._replace(base=base.after_update(before.base, after.base)),
        deployed=lambda params: params._replace(base=base.deployed(params.base)),
        init_edit=editor.init,
        edit=edit,
        candidates=candidates,
    )
