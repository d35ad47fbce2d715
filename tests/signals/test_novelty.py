"""Running moments and signals against numpy in float64 and arithmetic done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import Replay
from small import blank, linear

from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn import moments
from ooorl.signals.novelty import (
    DisagreementConfig,
    RNDConfig,
    ensemble_disagreement,
    rnd,
    state_action_counts,
)
from ooorl.types import Spec, Transition

SPEC = Spec(observation_dim=3, action_dim=2)
SMALL = RNDConfig(hidden=(8,), num_features=6)


def _batch(seed, rows=16, shift=0.0):
    keys = jax.random.split(jax.random.key(seed), 3)
    observation = jax.random.normal(keys[0], (rows, 3)) + shift
    return Transition(
        observation=observation,
        action=jax.random.uniform(keys[1], (rows, 2), minval=-1.0),
        reward=jnp.zeros(rows),
        discount=jnp.ones(rows),
        next_observation=observation + 0.1 * jax.random.normal(keys[2], (rows, 3)),
    )


def test_moments_merge_batches_like_one_pass():
    rng = np.random.default_rng(0)
    data = rng.normal([100.0, -3.0], [0.1, 20.0], (40, 7, 2))
    running = moments.start((2,), count=1e-4)
    for rows in data:
        running = interpreted(moments.absorb)(running, jnp.asarray(rows, jnp.float32))
    flat, count = data.reshape(-1, 2), 280 + 1e-4
    # The 1e-4 virtual rows of mean 0 and variance 1 take part: with a mean of 100 they add 1e-4 * 100^2 / 280.
    mean = flat.sum(axis=0) / count
    variance = (1e-4 * (1 + mean**2) + ((flat - mean) ** 2).sum(axis=0)) / count
    np.testing.assert_allclose(moments.mean(running), mean, rtol=1e-6)
    np.testing.assert_allclose(moments.deviation(running), np.sqrt(variance), rtol=1e-5)


def _after_a_long_run(num, start):
    """Moments that already stand for `num` rows of mean 100 and deviation 1, then 200 000 batches of 4 rows."""
    full = moments.RunningMoments(*(moments.CompensatedSum(jnp.float32(x), jnp.float32(0)) for x in (num, 100.0, num)))

    @jax.jit
    def run(running):
        # Rows 101 +- 2: mean 101, population variance 4.
        rows = jnp.array([99.0, 103.0, 99.0, 103.0])
        return jax.lax.scan(lambda m, _: (moments.absorb(m, rows), None), running, length=start)[0]

    return run(full)


def test_moments_go_on_moving_after_1e8_rows():
    # 8e5 new rows among 1e8: the mean moves by 8e5 / 1.008e8 = 0.0079365 and the variance from 1 to
    # (1e8 * 1 + 8e5 * 4 + 1e8 * 8e5 / 1.008e8 * 1^2) / 1.008e8 = 1.0316831. A step is 4e-8, half an ulp of 100 is 4e-6.
    running = _after_a_long_run(1e8, 200_000)
    assert running.count.total == pytest.approx(1.008e8, rel=1e-6)
    assert moments.mean(running) - 100.0 == pytest.approx(0.0079365, rel=2e-3)
    assert moments.deviation(running) ** 2 == pytest.approx(1.0316831, rel=1e-6)


def test_constant_dimensions_stay_finite():
    running = moments.start((2,))
    rows = jnp.stack([jnp.full(16, 0.7), jnp.linspace(-1.0, 1.0, 16)], axis=-1)
    for _ in range(50):
        running = interpreted(moments.absorb)(running, rows)
    deviation = moments.deviation(running)
    assert deviation[0] == pytest.approx(np.sqrt(1e-4 * 1.49 / 800), rel=0.3)  # what the virtual rows leave
    signal = rnd(Spec(observation_dim=2, action_dim=1), SMALL)
    state = interpreted(signal.init)(jax.random.key(0))
    batch = Transition(rows, jnp.zeros((16, 1)), jnp.zeros(16), jnp.ones(16), rows)
    for step in range(50):
        state, score, metrics = interpreted(signal.update)(state, batch, jax.random.key(step))
    assert np.isfinite(score).all() and np.isfinite(metrics['loss'])


def test_rnd_bonus_falls_with_familiarity():
    signal = rnd(SPEC, RNDConfig(hidden=(32,), num_features=16, learning_rate=1e-2, normaliser='none'))
    state = interpreted(signal.init)(jax.random.key(0))
    known, novel = _batch(0), _batch(1, shift=8.0)

    @jax.jit
    def train(state):
        def body(state, key):
            return interpreted(signal.update)(state, known, key)[0], None

        return jax.lax.scan(body, state, jax.random.split(jax.random.key(1), 500))[0]

    state = train(state)
    assert interpreted(signal.score)(state, known).mean() < 0.05 * interpreted(signal.score)(state, novel).mean()


def _known(mean, deviation):
    """Moments that stand for four rows."""
    mean, deviation = (jnp.asarray(x, jnp.float32) for x in (mean, deviation))
    rows = (jnp.float32(4.0), mean, 4.0 * deviation**2)
    return moments.RunningMoments(*(moments.CompensatedSum(x, jnp.zeros_like(x)) for x in rows))


def _same_moments(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), left, right)


@pytest.mark.parametrize(('normaliser', 'divisor'), [('official', 4.0), ('raw', 4.0), ('none', 1.0)])
def test_an_update_of_rnd_by_hand(normaliser, divisor):
    # f = (2x, x), g = (0, x / 2): errors 4 x^2 and x^2 / 4. x = (s' - 1) / 2 is 1 at 3, and at 21 it is 10, cut to 5.
    config = RNDConfig(hidden=(), num_features=2, learning_rate=1e-12, normaliser=normaliser)
    signal = rnd(Spec(observation_dim=1, action_dim=1), config)
    state = blank(signal.init)._replace(
        predictor=linear([[2.0, 1.0]], [0.0, 0.0]), target=linear([[0.0, 0.5]], [0.0, 0.0]),
        observations=_known([1.0], [2.0]), bonuses=_known(7.0, 4.0),
    )
    seen, successor, column = jnp.array([[8.0], [6.0]]), jnp.array([[3.0], [21.0]]), jnp.ones(2)
    batch = Transition(seen, jnp.zeros((2, 1)), column, column, successor)
    # The first row alone trains the predictor: its draw is below 0.25.
    new, score, metrics = Replay('uniform').run(signal.update, [[0.1, 0.9]], state, batch, jax.random.key(0))
    np.testing.assert_allclose(metrics['loss'], (4.0 + 0.25) / 2, rtol=1e-6)
    np.testing.assert_allclose(metrics['deviation'], 4.0, rtol=1e-6)
    raw = jnp.array([4.0, 100.0])
    np.testing.assert_allclose(score, raw / divisor, rtol=1e-6)
    np.testing.assert_allclose(interpreted(signal.score)(state, batch), raw / divisor, rtol=1e-6)
    _same_moments(new.observations, moments.absorb(state.observations, seen))
    _same_moments(new.bonuses, moments.absorb(state.bonuses, score if normaliser == 'official' else raw))


@pytest.mark.parametrize('order', ['update_first', 'score_first'])
def test_rnd_order(order):
    signal = rnd(SPEC, RNDConfig(hidden=(8,), num_features=6, learning_rate=1e-2, order=order, normaliser='none'))
    old = interpreted(signal.init)(jax.random.key(0))
    new, score, _ = interpreted(signal.update)(old, _batch(0), jax.random.key(1))
    predictor = new.predictor if order == 'update_first' else old.predictor
    np.testing.assert_allclose(score, interpreted(signal.score)(old._replace(predictor=predictor), _batch(0)), rtol=1e-5)
    other = old.predictor if order == 'update_first' else new.predictor
    assert abs(score - interpreted(signal.score)(old._replace(predictor=other), _batch(0))).max() > 1e-4


def test_rnd_official_normaliser_settles_at_the_square_root_of_the_deviation():
    # Feeding back b / v^(1/2): v = Var(b) / v, so v = sd(b) and scores are b / sd(b)^(1/2). The tracker never forgets its
    # early batches, so it comes near only slowly; the raw tracker gives sd(b) at once.
    batch = _batch(0, 256)

    def settled(normaliser):
        config = RNDConfig(hidden=(8,), num_features=6, learning_rate=1e-12, mask_probability=0.0, normaliser=normaliser)
        signal = rnd(SPEC, config)

        def body(state, key):
            return interpreted(signal.update)(state, batch, key)[0], None

        keys = jax.random.split(jax.random.key(1), 3000)
        state, _ = jax.jit(lambda state: jax.lax.scan(body, state, keys))(signal.init(jax.random.key(0)))
        return moments.deviation(state.bonuses)

    assert settled('official') == pytest.approx(np.sqrt(settled('raw')), rel=0.05)


def test_rnd_with_an_empty_mask_moves_by_momentum_only():
    signal, replay = rnd(SPEC, SMALL), Replay('uniform')
    nobody, somebody = np.linspace(0.3, 0.9, 16), np.linspace(0.1, 0.9, 16)
    state = interpreted(signal.init)(jax.random.key(0))

    def step(draw, state, batch):
        return replay.run(signal.update, [draw], state, batch, jax.random.key(1))

    fresh, _, metrics = step(nobody, state, _batch(0))
    assert metrics['loss'] == 0.0
    jax.tree.map(np.testing.assert_array_equal, fresh.predictor, state.predictor)
    state, _, _ = step(somebody, state, _batch(0))
    moved, _, metrics = step(nobody, state, _batch(1))
    assert metrics['loss'] == 0.0
    assert abs(moved.predictor['params']['Dense_0']['kernel'] - state.predictor['params']['Dense_0']['kernel']).max() > 1e-6


def test_rnd_reads_no_reward_action_or_discount():
    signal = rnd(SPEC, SMALL)
    state, update = interpreted(signal.init)(jax.random.key(0)), interpreted(signal.update)
    batch = _batch(0)
    other = batch._replace(reward=batch.reward + 3.0, action=-batch.action, discount=0 * batch.discount)
    results = [update(state, b, jax.random.key(1)) for b in (batch, other)]
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_rnd_never_moves_its_target():
    signal = rnd(SPEC, SMALL)
    state = interpreted(signal.init)(jax.random.key(0))
    new, _, _ = interpreted(signal.update)(state, _batch(0), jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, new.target, state.target)


def _visit(observation, action):
    observation, action = jnp.asarray(observation, jnp.float32), jnp.asarray(action, jnp.float32)
    rows = observation.shape[0]
    return Transition(observation, action, jnp.zeros(rows), jnp.ones(rows), observation)


def test_counts_by_hand():
    # Three points 0, 0.5, 1 in the second observation column and two, -1 and 1, in the action.
    signal = state_action_counts([0.0], [1.0], (3,), (2,), observation_columns=(1,))
    state = interpreted(signal.init)(jax.random.key(0))
    assert state.visits.shape == (6,)
    seen = _visit([[9.0, 0.4], [9.0, 0.6], [0.0, 0.1]], [[0.3], [0.9], [-0.5]])  # cells (0.5, 1) twice, (0, -1) once
    state = interpreted(signal.observe)(state, seen)
    np.testing.assert_array_equal(state.visits, [1, 0, 0, 2, 0, 0])
    asked = _visit([[-5.0, 0.5], [0.0, -7.0], [0.0, 0.9]], [[1.0], [-1.0], [1.0]])  # the second from below the border
    np.testing.assert_allclose(interpreted(signal.score)(state, asked), [1 / np.sqrt(3), 1 / np.sqrt(2), 1.0], rtol=1e-6)


def test_counts_are_made_by_observe_alone():
    signal = state_action_counts([0.0, 0.0], [1.0, 1.0], (4, 4), (3, 3))
    batch = _visit(np.full((5, 2), 0.3), np.zeros((5, 2)))
    state = interpreted(signal.init)(jax.random.key(0))
    new, score, _ = interpreted(signal.update)(state, batch, jax.random.key(1))
    np.testing.assert_array_equal(new.visits, state.visits)
    np.testing.assert_array_equal(score, 1.0)
    assert interpreted(signal.observe)(new, batch).visits.sum() == 5


def test_counts_of_the_point_mass_find_their_grid_points():
    signal = state_action_counts([-0.25, -0.25], [1.25, 1.45], (100, 100), (10, 10))
    rng = np.random.default_rng(0)
    observation, action = rng.uniform([-0.25, -0.25], [1.25, 1.45], (500, 2)), rng.uniform(-1, 1, (500, 2))
    state = interpreted(signal.init)(jax.random.key(0))
    visits = interpreted(signal.observe)(state, _visit(observation, action)).visits.reshape(100, 100, 10, 10)
    grids = [np.linspace(-0.25, 1.25, 100), np.linspace(-0.25, 1.45, 100), np.linspace(-1, 1, 10), np.linspace(-1, 1, 10)]
    expected = np.zeros((100, 100, 10, 10), int)
    for row in np.concatenate([observation, action], axis=-1):
        expected[tuple(abs(grid - x).argmin() for grid, x in zip(grids, row, strict=True))] += 1
    np.testing.assert_array_equal(visits, expected)


@pytest.mark.parametrize(
    'arguments', [([0.0], [1.0], (3, 3), (2,)), ([0.0], [0.0], (3,), (2,)), ([0.0], [1.0], (1,), (2,))]
)
def test_counts_refuse_a_broken_grid(arguments):
    with pytest.raises(UsageError, match='state_action_counts needs'):
        state_action_counts(*arguments)


def test_disagreement_is_larger_away_from_the_data():
    signal = ensemble_disagreement(SPEC, DisagreementConfig(hidden=(32,), learning_rate=3e-3))
    known, novel = _batch(0, 64), _batch(1, 64, shift=4.0)

    @jax.jit
    def train(state):
        def body(state, key):
            return interpreted(signal.update)(state, known, key)[0], None

        return jax.lax.scan(body, state, jax.random.split(jax.random.key(1), 500))[0]

    state = train(interpreted(signal.init)(jax.random.key(0)))
    assert interpreted(signal.score)(state, known).mean() < 0.5 * interpreted(signal.score)(state, novel).mean()


def _disagreeing(**settings):
    """f_0 = (2x + a, 0) and f_1 = (x - a + 1, 1), where x is the first column of the normalised observation."""
    config = DisagreementConfig(**{'hidden': (), 'num_members': 2, 'learning_rate': 1e-12, 'normaliser': 'deviation'} | settings)
    signal = ensemble_disagreement(Spec(observation_dim=2, action_dim=1), config)
    members = (
        linear([[2.0, 0.0], [0.0, 0.0], [1.0, 0.0]], [0.0, 0.0]), linear([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]], [1.0, 1.0])
    )
    observations, changes = _known([1.0, 0.0], [2.0, 1.0]), _known([0.5, 0.0], [0.5, 1.0])
    state = blank(signal.init)._replace(members=members, scores=_known(3.0, 4.0))
    return signal, state._replace(observations=observations, changes=changes)


TWO_ROWS = Transition(
    jnp.array([[3.0, 0.0], [-1.0, 0.0]]), jnp.array([[0.5], [-0.5]]), jnp.zeros(2), jnp.ones(2),
    jnp.array([[4.0, 0.0], [9.0, 0.0]]),
)  # fmt: skip


def test_an_update_of_disagreement_by_hand():
    signal, state = _disagreeing()
    # x = (3 - 1) / 2 = 1 and -1. Changes 1 and 10 are (1 - 0.5) / 0.5 = 1 and 19, cut to 5; the other column is 0.
    # f_0 = 2.5 and -2.5, f_1 = 1.5 and 0.5. Squared errors over both columns: 2.25 / 2 and 56.25 / 2 of f_0, (0.25 + 1) / 2
    # and (20.25 + 1) / 2 of f_1. Member 0 learns from the first row, member 1 from both.
    draws = [[[0.1, 0.9], [0.2, 0.3]]]
    new, score, metrics = Replay('uniform').run(signal.update, draws, state, TWO_ROWS, jax.random.key(0))
    np.testing.assert_allclose(metrics['loss'], 1.125 + (0.625 + 10.625) / 2, rtol=1e-6)
    np.testing.assert_allclose(metrics['deviation'], 4.0, rtol=1e-6)
    # Deviations of two members are half their distances: 0.5 and 1.5, and 0.5 in the other column.
    raw = jnp.array([0.5, 1.0])
    np.testing.assert_allclose(score, raw / 4.0, rtol=1e-6)
    np.testing.assert_allclose(interpreted(signal.score)(state, TWO_ROWS), raw / 4.0, rtol=1e-6)
    undivided, _ = _disagreeing(normaliser='none')
    np.testing.assert_allclose(undivided.score(state, TWO_ROWS), raw, rtol=1e-6)
    _same_moments(new.observations, moments.absorb(state.observations, TWO_ROWS.observation))
    _same_moments(new.changes, moments.absorb(state.changes, TWO_ROWS.next_observation - TWO_ROWS.observation))
    _same_moments(new.scores, moments.absorb(state.scores, raw))


def test_disagreement_scores_with_the_new_members_and_the_old_moments():
    signal, state = _disagreeing(learning_rate=0.1)
    draws = [[[0.1, 0.9], [0.6, 0.7]]]  # nobody teaches member 1, whose loss is 0 and not 0 / 0
    new, score, metrics = Replay('uniform').run(signal.update, draws, state, TWO_ROWS, jax.random.key(0))
    np.testing.assert_allclose(metrics['loss'], 1.125, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, new.members[1], state.members[1])
    # Member 0 is too high in the first row: Adam lowers its bias by the rate.
    np.testing.assert_allclose(new.members[0]['params']['Dense_0']['bias'], [-0.1, 0.0], rtol=1e-4)
    np.testing.assert_allclose(score, interpreted(signal.score)(state._replace(members=new.members), TWO_ROWS), rtol=1e-6)
    assert abs(score - interpreted(signal.score)(state, TWO_ROWS)).max() > 1e-2


def test_identical_members_do_not_disagree():
    signal = ensemble_disagreement(SPEC, DisagreementConfig(hidden=(8,)))
    state = interpreted(signal.init)(jax.random.key(0))
    state = state._replace(members=(state.members[0],) * 5)
    np.testing.assert_allclose(interpreted(signal.score)(state, _batch(0)), 0.0, atol=1e-6)


def test_disagreement_needs_two_members():
    with pytest.raises(UsageError, match='num_members must be at least 2'):
        DisagreementConfig(num_members=1)
