"""Distillation and the model of returns."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import linear, random_batch, trees_equal

from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.distill import DistilConfig, distil
from ooorl.agents.returns import ReturnsConfig, returns
from ooorl.agents.slow_policy import slow_policy
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn import schedules
from ooorl.nn.diffusion import path_step
from ooorl.policies.averaged import fitted_of
from ooorl.policies.consistency import ConsistencyConfig, jumps
from ooorl.policies.diffusion import DiffusionConfig, diffusion_policy
from ooorl.policies.gaussian import gaussian_policy
from ooorl.testing import check_agent
from ooorl.training.phases import Phase, Setup
from ooorl.training.preflight import check
from ooorl.training.run import run
from ooorl.training.schemes import distil as distil_phases
from ooorl.types import DenoisingPolicy, Spec
from ooorl.wrap import normalised_observation

SPEC = Spec(observation_dim=3, action_dim=2)
NET = {'network': 'mlp', 'hidden': (8,), 'time_features': 'plain'}
STUDENT = ConsistencyConfig(**NET)
EDM = diffusion_policy(SPEC, DiffusionConfig(process='edm', sampler='heun', clip='end', dropout=0.0, **NET))
BATCH = random_batch(jax.random.key(0), 6)
KEY = jax.random.key(1)


def judge(kernel):
    """A model of returns that is linear in the action."""
    made = returns(SPEC, ReturnsConfig(hidden=()))
    state = interpreted(made.init)(KEY)
    return made, state._replace(r=linear([[0.0]] * 3 + [[value] for value in kernel], [0.0]))


def test_a_student_satisfies_what_agents_do():
    model, _ = judge((1.0, 0.0))
    agent = distil(SPEC, DistilConfig(reward_on='one_step', target_rate=0.5), teacher=EDM, student=STUDENT, returns=model)
    check_agent(normalised_observation(agent, np.zeros(3), np.ones(3)), SPEC)


def test_a_model_of_returns_satisfies_what_agents_do():
    check_agent(returns(SPEC, ReturnsConfig(hidden=(8,))), SPEC, batch=BATCH._replace(extras={'return_to_go': BATCH.reward}))


def test_returns_are_fitted_in_the_range_seen_and_unknown_ones_left_out():
    agent, state = judge((0.0, 0.0))
    column = jnp.array([4.0, 0.0, 3.0, jnp.nan, 2.0, 1.0])
    new, metrics = interpreted(agent.update)(state, BATCH._replace(extras={'return_to_go': column}), KEY)
    # R = 0 everywhere; targets are 1, -1, 1/2, none, 0, -1/2.
    np.testing.assert_allclose(metrics['returns/loss'], (1 + 1 + 0.25 + 0 + 0.25) / 6, rtol=1e-6)
    assert (new.low, new.high) == (0.0, 4.0) and metrics['returns/known'] == pytest.approx(5 / 6)
    wider, _ = interpreted(agent.update)(new, BATCH._replace(extras={'return_to_go': jnp.full(6, 8.0)}), KEY)
    assert (wider.low, wider.high) == (0.0, 8.0)
    unknown, _ = interpreted(agent.update)(state, BATCH._replace(extras={'return_to_go': jnp.full(6, jnp.nan)}), KEY)
    assert trees_equal(unknown.r, state.r)


def inherited(agent, *others):
    taught = interpreted(bc(SPEC, BCConfig(), policy=EDM).init)(jax.random.key(7))
    return agent.inherit(interpreted(agent.init)(KEY), (taught, *others)), taught.policy


def test_a_student_begins_as_its_teacher():
    state, teacher = inherited(distil(SPEC, teacher=EDM, student=STUDENT))
    x, t = 80.0 * BATCH.action, jnp.full(6, 80.0)
    for s in (0.02, 1.0):
        made = jumps(SPEC, STUDENT).jump(fitted_of(state.policy), BATCH.observation, x, t, s)
        guess = interpreted(EDM.denoise)(teacher, BATCH.observation, x, t)
        np.testing.assert_allclose(made, s / 80 * x + (1 - s / 80) * guess, atol=2e-3)
    fresh, _ = inherited(distil(SPEC, DistilConfig(begin='fresh'), teacher=EDM, student=STUDENT))
    assert not trees_equal(fresh.policy, state.policy)


def test_the_slow_or_the_fitted_weights_of_a_teacher_are_used_as_asked():
    taught = interpreted(bc(SPEC, BCConfig(), policy=EDM).init)(KEY)
    moved = taught._replace(policy=taught.policy._replace(slow=jax.tree.map(lambda leaf: leaf + 1.0, taught.policy.slow)))
    for name, right in (('fitted', moved.policy.fitted), ('deployed', moved.policy.slow)):
        agent = distil(SPEC, DistilConfig(teacher_weights=name), teacher=EDM, student=STUDENT)
        assert trees_equal(fitted_of(agent.inherit(interpreted(agent.init)(KEY), (moved,)).teacher), right)


def test_without_weight_returns_change_nothing_and_with_it_they_pull():
    model, judged = judge((1.0, -1.0))
    with_none = distil(SPEC, teacher=EDM, student=STUDENT)
    plain, _ = interpreted(with_none.update)(inherited(with_none)[0], BATCH, KEY)
    values = {}
    for on in ('denoised', 'one_step'):
        for weight in (0.0, 100.0):
            agent = distil(SPEC, DistilConfig(reward_weight=weight, reward_on=on), teacher=EDM, student=STUDENT, returns=model)
            state, _ = inherited(agent, judged)
            new, metrics = interpreted(agent.update)(state, BATCH, KEY)
            assert weight or trees_equal(new.policy, plain.policy)
            values[on, weight] = interpreted(agent.update)(new, BATCH, KEY)[1]['student/return'], metrics['student/return']
    for on in ('denoised', 'one_step'):
        assert values[on, 100.0][0] > values[on, 0.0][0] and values[on, 100.0][1] == values[on, 0.0][1]


def test_an_averaged_student_begins_as_its_teacher_too():
    plain = distil(SPEC, teacher=EDM, student=STUDENT)
    state, teacher = inherited(plain)
    slow, _ = inherited(slow_policy(plain, 0.1))
    assert trees_equal(slow.agent, state) and trees_equal(slow.slow, state.policy) and trees_equal(slow.agent.teacher, teacher)


def test_sources_are_those_that_it_learns_from():
    model, judged = judge((1.0, 0.0))
    both, alone = distil(SPEC, teacher=EDM, student=STUDENT, returns=model), distil(SPEC, teacher=EDM, student=STUDENT)
    for agent, others in ((both, ()), (alone, (judged,))):
        with pytest.raises(UsageError, match='in that order'):
            inherited(agent, *others)


def test_only_the_first_step_of_a_plan_may_be_judged():
    _, state = judge((1.0, 1.0))
    narrow = returns(Spec(observation_dim=3, action_dim=1), ReturnsConfig(hidden=()))
    first = narrow.init(KEY)._replace(r=linear([[0.0]] * 3 + [[1.0]], [0.0]))
    one = distil(SPEC, teacher=EDM, student=STUDENT, returns=narrow, return_dim=1)
    _, metrics = interpreted(one.update)(inherited(one, first)[0], BATCH, KEY)
    both, judged = judge((1.0, 0.0))
    all_of_it = distil(SPEC, teacher=EDM, student=STUDENT, returns=both)
    _, expected = all_of_it.update(inherited(all_of_it, judged)[0], BATCH, KEY)
    np.testing.assert_allclose(metrics['student/return'], expected['student/return'], rtol=1e-6)


def test_targets_come_from_the_slow_copy():
    agent = distil(SPEC, DistilConfig(target_rate=0.25), teacher=EDM, student=STUDENT)
    state, _ = inherited(agent)
    new, _ = interpreted(agent.update)(state, BATCH, KEY)
    expected = jax.tree.map(lambda old, made: 0.75 * old + 0.25 * made, state.slow, fitted_of(new.policy))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), new.slow, expected)
    other = state._replace(slow=jax.tree.map(lambda leaf: leaf + 0.3, state.slow))
    losses = [interpreted(agent.update)(one, BATCH, KEY)[1]['student/consistency'] for one in (state, other)]
    assert losses[0] != losses[1]


def test_a_student_ends_where_its_teachers_steps_end():
    # Actions N(m, d^2): the best guess is known, and so is where its path ends, step by step from one level to the next.
    mean, d = 0.2, 0.3
    spec = Spec(observation_dim=1, action_dim=1)

    def denoise(params, observation, x, sigma):
        del params, observation
        share = d**2 / (d**2 + sigma**2)
        return mean + share[..., None] * (x - mean)

    exact = DenoisingPolicy(**vars(gaussian_policy(spec, (4,))), denoise=denoise, levels=None, guesses='noise')
    net = {'network': 'mlp', 'hidden': (32, 32), 'activation': 'tanh', 'time_features': 'plain'}
    student = ConsistencyConfig(**net, num_levels=8, distance='square', denoising_weight=0.0)
    agent = distil(spec, DistilConfig(learning_rate=3e-3, schedule='cosine'), teacher=exact, student=student)
    batch = random_batch(KEY, 128, observation_dim=1, action_dim=1)._replace(observation=jnp.zeros((128, 1)))

    def step(state, key):
        return interpreted(agent.update)(state, batch._replace(action=mean + d * jax.random.normal(key, (128, 1))), key)[0], None

    keys = jax.random.split(KEY, 1500)
    state = jax.jit(lambda state: jax.lax.scan(step, state, keys)[0])(schedules.begin(agent.init(KEY), 1500))
    own, x = jumps(spec, student), 80.0 * jnp.linspace(-1.0, 1.0, 7)[:, None]
    made = own.jump(fitted_of(state.policy), jnp.zeros((7, 1)), x, 80.0, 0.02)
    for start, end in zip(own.levels[:-2], own.levels[1:-1], strict=True):
        x = path_step(lambda x, sigma: denoise(None, None, x, sigma), x, jnp.full(7, start), jnp.full(7, end))
    assert x[-1, 0] - x[0, 0] > 0.6
    np.testing.assert_allclose(made, x, atol=0.1)


def test_phases_hand_the_teacher_on(tmp_path):
    del tmp_path
    rows = random_batch(jax.random.key(9), 12)._replace(extras={'boundary': jnp.arange(12) % 6 == 5})
    rows = rows._replace(extras={'boundary': rows.extras['boundary'].astype(jnp.float32)})
    model, _ = judge((1.0, 0.0))
    student = distil(SPEC, teacher=EDM, student=STUDENT, returns=model)
    phases = distil_phases(
        bc(SPEC, BCConfig(), policy=EDM), student, returns=model, teacher_updates=2, return_updates=2, num_updates=2
    )
    phases = tuple(replace(phase, sampling=replace(phase.sampling, batch_size=4)) for phase in phases)
    state = run(Setup(phases=phases, seeds=(0, 1), dataset=rows))
    final = state.finished['distil']
    assert trees_equal(final.teacher, state.finished['teacher'].policy)
    assert trees_equal(final.returns, state.finished['returns'])
    with pytest.raises(UsageError, match='not an earlier phase'):
        check(Setup(phases=(phases[2],), seeds=(0,), dataset=rows))
    with pytest.raises(UsageError, match='sources'):
        check(Setup(phases=(phases[0], replace(phases[2], sources=())), seeds=(0,), dataset=rows))


def test_what_cannot_teach_is_refused():
    with pytest.raises(UsageError, match='flow or diffusion'):
        distil(SPEC, teacher=gaussian_policy(SPEC, (8,)))
    with pytest.raises(UsageError, match='without; use'):
        distil(SPEC, teacher=EDM, returns=bc(SPEC))
    with pytest.raises(UsageError, match='return_dim'):
        distil(SPEC, teacher=EDM, return_dim=3)
    with pytest.raises(UsageError, match='fresh'):
        inherited(distil(SPEC, teacher=EDM, student=ConsistencyConfig(**{**NET, 'hidden': (9,)})))


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'sigma_max': 81.0}, 'sigma_max'),
        ({'sigma_min': 0.01}, 'sigma_min'),
        ({'sigma_data': 1.0}, 'sigma_data'),
        ({'activation': 'relu'}, 'activation'),
        ({'hidden': (16,)}, 'hidden'),
        ({'time_features': 'sinusoidal'}, 'time_features'),
    ],
)
def test_a_teacher_that_lacks_the_students_schedule_or_form_is_refused_when_built(changes, named):
    student = replace(STUDENT, **changes)
    with pytest.raises(UsageError, match=named):
        distil(SPEC, teacher=EDM, student=student)
    if not named.startswith('sigma_m'):
        distil(SPEC, DistilConfig(begin='fresh'), teacher=EDM, student=student)


def test_a_chain_stays_within_what_a_ddpm_knows():
    teacher = diffusion_policy(SPEC, DiffusionConfig(dropout=0.0, **NET))
    with pytest.raises(UsageError, match='at most 12.5'):
        distil(SPEC, teacher=teacher, student=replace(STUDENT, chain=(50.0,)))


@pytest.mark.parametrize(('boundary', 'named'), [(np.ones(6), '6 of 6 rows'), (np.zeros(6), 'have none')])
def test_a_model_of_returns_refuses_data_without_whole_episodes(boundary, named):
    cut = BATCH._replace(discount=np.ones(6, np.float32), extras={'boundary': boundary.astype(np.float32)})
    phase = Phase(name='returns', agent=returns(SPEC, ReturnsConfig(hidden=(8,))), num_updates=1)
    with pytest.raises(UsageError, match=named):
        check(Setup(phases=(phase,), seeds=(0,), dataset=cut))


def test_sampling_starts_from_the_noise_asked_for():
    quiet = DiffusionConfig(process='edm', sampler='heun', clip='end', dropout=0.0, start_noise=0.5, **NET)
    loud, params = DiffusionConfig(**{**vars(quiet), 'start_noise': None}), interpreted(EDM.init)(KEY)
    noise = np.asarray(BATCH.action)
    made = interpreted(diffusion_policy(SPEC, quiet).decode)(params, BATCH.observation, 160.0 * noise)
    assert trees_equal(made, interpreted(diffusion_policy(SPEC, loud).decode)(params, BATCH.observation, noise))
    with pytest.raises(UsageError, match="start_noise is EDM's"):
        DiffusionConfig(start_noise=1.0)
