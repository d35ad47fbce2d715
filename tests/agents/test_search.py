"""Searching for actions: against numbers recorded from PA-RL's code, and where the answer is known."""

import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl.agents.search import SearchConfig, choose, climb, search
from ooorl.errors import UsageError
from ooorl.nn.losses import ensemble_value
from ooorl.nn.networks import ensemble_q

CRITICS = ('bowl', 'mlp')
LOCAL = {'a3e-4_mean': 'mean', 'a0.05_mean': 'mean', 'a0.05_min': 'min', 'a0.4_mean': 'mean', 'a0.05_mean_targetcritic': 'mean'}


def bowl(arrays, which):
    """Q_e(s, a) = c_e - k_e |a - (s A_e + b_e)|^2, `[..., A] -> [E, ...]`."""
    matrix, shift, k, c = (jnp.asarray(arrays[f'critic_bowl/{which}/{name}']) for name in 'Abkc')

    def q(observation, action):
        centre = jnp.einsum('...o,eoa->e...a', observation, matrix) + jnp.expand_dims(shift, tuple(range(1, action.ndim)))
        distance = ((action[None] - centre) ** 2).sum(axis=-1)
        return jnp.expand_dims(c, tuple(range(1, action.ndim))) - jnp.expand_dims(k, tuple(range(1, action.ndim))) * distance

    return q


def networks(arrays, which):
    network = ensemble_q((8, 8), 1, num_members=3, activation='swish')
    params = tuple(golden.dense_tree(arrays, f'critic_mlp/{which}/q{e}') for e in range(3))
    return lambda observation, action: network.apply(params, observation, action)[..., 0]


def reduced(arrays, critic, tag):
    """`action[N, B, A] -> [N, B]` at the recorded observations."""
    which = 'target' if tag.endswith('targetcritic') else 'online'
    q = (bowl if critic == 'bowl' else networks)(arrays, which)

    def value(action):
        observation = jnp.broadcast_to(jnp.asarray(arrays['obs']), (*action.shape[:-1], 5))
        return ensemble_value(q(observation, action), LOCAL.get(tag, 'mean'))

    return value


@pytest.mark.usefixtures('highest_precision')
@pytest.mark.parametrize('critic', CRITICS)
@pytest.mark.parametrize('tag', LOCAL)
def test_climbing(golden_dir, critic, tag):
    arrays = golden.load(golden_dir, 'parl_action_optimization')
    prefix, q = f'{critic}/local/{tag}', reduced(arrays, critic, tag)
    start = jnp.swapaxes(jnp.asarray(arrays['candidates']), 0, 1)
    box = {side: jnp.asarray(arrays[side]) for side in ('low', 'high')}
    for num_steps in (0, 1, 10):
        step_size = golden.decimal(arrays, f'{prefix}/step_size')
        action, value = climb(q, start, num_steps=num_steps, step_size=step_size, **box)
        theirs = jnp.swapaxes(arrays[f'{prefix}/best_iterate'][num_steps], 0, 1)
        np.testing.assert_allclose(value, arrays[f'{prefix}/q_best'][num_steps].T, rtol=1e-4, atol=1e-5)
        if tag != 'a0.4_mean':  # exact ties after convergence
            np.testing.assert_allclose(action, theirs, rtol=1e-3, atol=2e-5)


@pytest.mark.usefixtures('highest_precision')
@pytest.mark.parametrize('critic', CRITICS)
@pytest.mark.parametrize('tag', ['a3e-4', 'a0.05', 'a0.05_dataaction', 'a0.05_mingrad'])
def test_the_whole_operator(golden_dir, monkeypatch, critic, tag):
    arrays = golden.load(golden_dir, 'parl_action_optimization')
    prefix, q = f'{critic}/operator/{tag}', reduced(arrays, critic, tag)
    # The recorded box is not [-1, 1], and candidates that begin outside of it were not clipped.
    box = {side: jnp.asarray(arrays[side]) for side in ('low', 'high')}
    monkeypatch.setattr('ooorl.agents.search.climb', functools.partial(climb, **box))
    monkeypatch.setattr(jnp, 'clip', clip_to_the_box_alone(jnp.clip))
    given = jnp.asarray(arrays['dataset_action']) if tag.endswith('dataaction') else None
    config = SearchConfig(num_candidates=6, num_kept=3, num_steps=10, step_size=golden.decimal(arrays, f'{prefix}/step_size'))
    climbed = reduced(arrays, critic, 'a0.05_min') if tag.endswith('mingrad') else None
    start = jnp.swapaxes(jnp.asarray(arrays['candidates']), 0, 1)
    actions, values = search(q, start, config, data_action=given, climbed=climbed)
    np.testing.assert_allclose(jnp.swapaxes(actions, 0, 1), arrays[f'{prefix}/kept_actions_improved'], rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(jax.nn.softmax(values, axis=0).T, arrays[f'{prefix}/probs'], rtol=1e-3, atol=1e-6)
    best = choose(actions, values, jax.random.key(0), 'best')
    np.testing.assert_allclose(best, arrays[f'{prefix}/argmax_action'], rtol=1e-3, atol=2e-5)


def clip_to_the_box_alone(clip):
    """`jnp.clip` that leaves the first clipping of `search`, to [-1, 1], out."""
    return lambda x, low, high: x if (isinstance(low, float) and (low, high) == (-1.0, 1.0)) else clip(x, low, high)


def quadratic(action):
    """Highest, 0, at (.5, .5)."""
    return -((action - 0.5) ** 2).sum(axis=-1)


def test_without_steps_the_best_candidate_wins_and_what_lies_outside_is_clipped_once():
    candidates = jnp.array([[3.0, 0.5], [0.4, 0.5], [-7.0, 0.5]])[:, None]
    config = SearchConfig(num_candidates=3, num_kept=2, num_steps=0)
    actions, values = search(quadratic, candidates, config)
    np.testing.assert_allclose(actions[:, 0], [[1.0, 0.5], [0.4, 0.5]])
    np.testing.assert_allclose(values[:, 0], [-0.25, -0.01], rtol=1e-6)


def test_a_data_action_replaces_the_worst_and_climbs_too():
    candidates = jnp.array([[0.4, 0.5], [0.3, 0.5], [-1.0, 0.5]])[:, None]
    config = SearchConfig(num_candidates=3, num_kept=3, num_steps=1, step_size=0.25)
    actions, _ = search(quadratic, candidates, config, data_action=jnp.array([[0.5, 0.9]]))
    # Each coordinate goes half of the way: a - .25 * 2 * (a - .5).
    np.testing.assert_allclose(actions[:, 0], [[0.4, 0.5], [0.45, 0.5], [0.5, 0.7]], rtol=1e-6)


def test_values_never_fall_however_large_the_step():
    start = jax.random.uniform(jax.random.key(0), (50, 2), minval=-1.0, maxval=1.0)
    action, value = climb(quadratic, start, num_steps=4, step_size=3.0)
    assert (value >= quadratic(start)).all()
    np.testing.assert_allclose(value, quadratic(action), rtol=1e-6)


def test_the_softmax_draws_in_proportion():
    actions, values = jnp.array([[0.0], [1.0]])[:, None], jnp.log(jnp.array([1.0, 3.0]))[:, None]
    keys = jax.random.split(jax.random.key(0), 4_000)
    drawn = jax.vmap(lambda key: choose(actions, values, key, 'softmax'))(keys)
    assert abs(drawn.mean() - 0.75) < 0.03
    assert choose(actions, values, keys[0], 'best') == 1.0
    cool = jax.vmap(lambda key: choose(actions, values, key, 'softmax', 0.5))(keys)
    assert abs(cool.mean() - 0.9) < 0.03


@pytest.mark.parametrize(
    ('settings', 'message'),
    [({'num_candidates': 0}, 'num_candidates'), ({'num_kept': 33}, 'at most num_candidates'), ({'aggregate': 'max'}, 'aggreg')],
)
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        SearchConfig(**settings)
