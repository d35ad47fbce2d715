"""Distillation of a policy of many steps into one of a single step, drawn towards high returns where a model of these is given.

    L = E[ l_consistency + denoising_weight * l_denoising ] / A - reward_weight * E[ mean_e R_e(s, a^) ]

with the two sums of `policies.consistency`, in which x_u is what the teacher makes of x_t by one step of Heun's method. a^ is
the denoising term's guess of the data's action, made from a noisy version of it (`reward_on = 'denoised'`, as the released code
has it), or what the student makes of pure noise (`'one_step'`, as the paper says). R is the `q` of any agent: of `agents.returns`
for RACTD. Without one, or with `reward_weight = 0`, this is consistency trajectory distillation.

Parameters in the place of G' are the student's own (`target_rate = 1`, no gradient), or a slow copy of them. The teacher is any
flow or diffusion policy; where it was fitted at a few noise levels only (a DDPM), the student knows these. From a teacher of
EDM's form with the same network the student begins as that teacher: the weights that read the second level are 0.

The teacher and R come from earlier phases (`Phase.sources`, `schemes.distil`) and stay as they are.

Source: Duan et al., "Accelerating Diffusion Planners in Offline RL via Reward-Aware Consistency Trajectory Distillation",
arXiv:2506.07822, and Ddduanxt/RACTD, whose disputed details are settings here; Kim et al., arXiv:2310.02279. `reward_weight`
there: hopper 0.5 to 1, walker2d 0.2 to 0.5, half-cheetah 0 to 1; it falls off a cliff above 1.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ooorl.agents.steps import acting, descend_policy, learner
from ooorl.errors import UsageError
from ooorl.nn.diffusion import path_step
from ooorl.nn.losses import weighted
from ooorl.nn.optimizers import slow_copy
from ooorl.nn.schedules import Scheduled, scheduled_adam
from ooorl.policies.averaged import fitted_of, with_fitted
from ooorl.policies.consistency import ConsistencyConfig, consistency_policy, jumps
from ooorl.types import Agent, DenoisingPolicy, Params, Policy, Spec, State
from ooorl.validation import check_choice, check_not_negative, check_positive, check_unit

REWARD_ON = ('denoised', 'one_step')
BEGINNINGS = ('teacher', 'fresh')
WEIGHTS = ('fitted', 'deployed')
# Settings that make two networks with weights of the same shapes two functions.
FORM = (
    'network', 'hidden', 'activation', 'layer_norm', 'time_features', 'num_time_features', 'time_hidden', 'num_heads', 'elements',
    'sigma_data',
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DistilConfig(Scheduled):
    """Settings of `distil`."""

    learning_rate: float = 3e-4  # Adam
    reward_weight: float = 0.5  # of the model of returns; 0: plain distillation
    reward_on: str = 'denoised'  # which action of the student it judges: 'denoised' or 'one_step'
    target_rate: float = 1.0  # share of new parameters in the copy that makes the targets; 1: no copy
    begin: str = 'teacher'  # 'teacher': from its weights where they fit, or 'fresh'
    teacher_weights: str = 'fitted'  # of a teacher with a slow copy: 'fitted', as published, or 'deployed'

    def __post_init__(self):
        super().__post_init__()
        check_positive(learning_rate=self.learning_rate)
        check_not_negative(reward_weight=self.reward_weight)
        check_unit(target_rate=self.target_rate)
        check_choice(REWARD_ON, reward_on=self.reward_on)
        check_choice(BEGINNINGS, begin=self.begin)
        check_choice(WEIGHTS, teacher_weights=self.teacher_weights)


class DistilState(NamedTuple):
    """The student, what makes its targets (nothing where the student does), and what it learns from."""

    policy: Params
    policy_opt: optax.OptState
    slow: Params
    teacher: Params
    returns: State


def distil(
    spec: Spec,
    config: DistilConfig = DistilConfig(),
    *,
    teacher: Policy,
    student: ConsistencyConfig = ConsistencyConfig(),
    returns: Agent | None = None,
    return_dim: int | None = None,
) -> Agent:
    """A consistency policy that learns from a teacher.

    Args:
      spec: sizes; of chunks, the action is that of all their steps.
      config: settings.
      teacher: the policy that the first of the phase's sources has fitted, made for the same spec.
      student: settings of the consistency policy.
      returns: an agent with a `q`, which the second source has trained; None for plain distillation.
      return_dim: how many of an action's first numbers its `q` takes; None: all. RACTD judges the first step of a plan.

    Raises:
      UsageError: if the teacher is no flow or diffusion policy or lacks noise levels of the student's, if the student is to begin
        as a teacher of another form, or if the model of returns has no `q`.
    """
    _check_teacher(teacher, returns, return_dim, spec)
    _check_form(config, teacher, student)
    policy = consistency_policy(spec, student, known=teacher.levels)
    own = jumps(spec, student, teacher.levels)
    optimizer = scheduled_adam(config, 'policy', config.learning_rate)

    def init(key):
        keys = jax.random.split(key, 3)
        fields = learner('policy', policy.init(keys[0]), optimizer)
        slow = () if config.target_rate == 1 else jax.tree.map(jnp.copy, fitted_of(fields['policy']))
        return DistilState(**fields, slow=slow, teacher=teacher.init(keys[1]), returns=returns.init(keys[2]) if returns else ())

    def update(state, batch, key):
        keys = jax.random.split(key, 3)
        observation, action = batch.observation, batch.action
        target = fitted_of(state.policy) if config.target_rate == 1 else state.slow
        frozen = jax.lax.stop_gradient(target)

        def before(x, noise, t, u):
            del noise
            return _stepped(teacher, state.teacher, observation, x, t, u)

        def judged(params, guess):
            if config.reward_on == 'one_step':
                noise = student.start_noise * jax.random.normal(keys[1], action.shape)
                guess = own.jump(params, observation, noise, float(own.levels[0]), float(own.levels[-1]))
            return returns.q(state.returns, observation, guess[..., :return_dim]).mean(axis=0)

        def loss_fn(params):
            params = fitted_of(params)
            fitted, denoised, guess = own.terms(
                params, frozen, observation, action, keys[0], before, batch.extras.get('known')
            )
            imitation = weighted(batch, fitted + student.denoising_weight * denoised).mean() / spec.action_dim
            metrics = {'student/consistency': fitted.mean(), 'student/denoising': denoised.mean()}
            if returns is None:
                return imitation, metrics
            value = weighted(batch, judged(params, guess)).mean()
            return imitation - config.reward_weight * value, metrics | {'student/return': value}

        state, loss, metrics = descend_policy(state, policy, loss_fn, optimizer)
        if config.target_rate != 1:
            state = state._replace(slow=slow_copy(fitted_of(state.policy), state.slow, config.target_rate))
        return state, {'student/loss': loss} | metrics

    inherit = _inheriting(config, teacher, policy, returns)
    return Agent(init=init, update=update, **acting(policy), inherit=inherit, weighs=True)


def _stepped(teacher, params, observation, x, t, u):
    """What the teacher makes of x at noise t by one step of Heun's method to noise u."""
    return jax.lax.stop_gradient(path_step(lambda x, sigma: teacher.denoise(params, observation, x, sigma), x, t, u))


def _inheriting(config, teacher, policy, returns):
    """`Agent.inherit`: the teacher's weights and the model of returns as their phases left them, and where the student begins."""

    def inherit(state, sources):
        taught, *judged = map(_innermost, sources)
        if len(judged) != (returns is not None):
            wanted = 'a teacher' if returns is None else 'a teacher and a model of returns'
            raise UsageError(f'distil takes from {wanted}, in that order; got {len(sources)} sources; change Phase.sources')
        params = teacher.deployed(taught.policy) if config.teacher_weights == 'deployed' else taught.policy
        begun = state.policy
        if config.begin == 'teacher' and teacher.guesses == 'edm':
            begun = with_fitted(begun, _widened(fitted_of(params), fitted_of(begun)))
            begun = policy.after_update(begun, begun)
        slow = () if config.target_rate == 1 else fitted_of(begun)
        return state._replace(policy=begun, slow=slow, teacher=params, returns=judged[0] if judged else ())

    return inherit


def _check_teacher(teacher, returns, return_dim, spec):
    if not isinstance(teacher, DenoisingPolicy):
        raise UsageError('distil needs a teacher that takes noise away from actions; got another; use a flow or diffusion policy')
    if returns is not None and returns.q is None:
        raise UsageError('distil needs a model of returns with a q; got an agent without; use ooorl.agents.returns')
    if return_dim is not None and not 0 < return_dim <= spec.action_dim:
        raise UsageError(f'return_dim must lie between 1 and the {spec.action_dim} numbers of an action; got {return_dim}')


def _check_form(config, teacher, student):
    """A teacher of EDM's form answers between its own least and most noise; who begins as it is the same function."""
    own = teacher.settings
    if own is None or teacher.guesses != 'edm':
        return
    if student.sigma_min < own.sigma_min or student.sigma_max > own.sigma_max:
        raise UsageError(
            f'a student that takes noise of {student.sigma_min:g} to {student.sigma_max:g} away needs a teacher that knows it; '
            f'got one of {own.sigma_min:g} to {own.sigma_max:g}; give both the same sigma_min and sigma_max'
        )
    other = [name for name in FORM if getattr(own, name) != getattr(student, name)]
    if config.begin == 'teacher' and other:
        values = f'{getattr(own, other[0])!r}; got {getattr(student, other[0])!r}'
        raise UsageError(
            f'a student that begins as its teacher needs its {other[0]}, {values}; give [student.policy] the settings of '
            '[teacher.policy], or set begin = "fresh"'
        )


def _innermost(state: Any) -> Any:
    """An agent's own state, out of what wrappers keep beside it."""
    while hasattr(state, 'agent'):
        state = state.agent
    return state


def _widened(narrow: Params, wide: Params) -> Params:
    """The teacher's weights, with zeros for what only the student's first layer reads.

    Raises:
      UsageError: if the networks differ in more than that.
    """
    fits = jax.tree.structure(narrow) == jax.tree.structure(wide)
    pairs = [(a.shape, b.shape) for a, b in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=False)]
    wider = [a != b for a, b in pairs]
    if not fits or sum(wider) > 1 or any(len(a) != 2 or a[1:] != b[1:] or a[0] > b[0] for a, b in pairs if a != b):
        raise UsageError(
            'a student begins as its teacher where their networks are the same; these differ; give [student.policy] the network '
            'settings of [teacher.policy], or set begin = "fresh"'
        )

    def grown(small, large):
        return jnp.zeros_like(large).at[: small.shape[0]].set(small) if small.shape != large.shape else jnp.array(small)

    return jax.tree.map(grown, narrow, wide)
