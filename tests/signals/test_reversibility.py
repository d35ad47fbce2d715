"""Detectors of what cannot be taken back, on a line and with linear networks, where every number can be worked out."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import blank, linear

from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.signals import ClassifierConfig, PrecedenceConfig, ReachabilityConfig, precedence, reset_reachability
from ooorl.signals.familiarity import (
    ConfidenceConfig,
    NeighbourConfig,
    confidence_loss,
    confidence_minimisation,
    nearest_neighbour,
    progress_classes,
    usual_distance,
)
from ooorl.signals.reversibility import fit, reversibility_classifier, verdict, visited, with_later
from ooorl.testing import check_signal
from ooorl.types import Spec, Transition

SPEC, KEY = Spec(observation_dim=1, action_dim=1), jax.random.key(0)
LINEAR = {'hidden': (), 'learning_rate': 0.1}


def _rows(before, after, **extras):
    """Steps from and to these places on a line."""
    before, after = (jnp.array(places, jnp.float32)[:, None] for places in (before, after))
    zeros = jnp.zeros(len(before))
    extras = {name: jnp.array(column, jnp.float32) for name, column in extras.items()}
    return Transition(before, zeros[:, None], zeros, zeros + 1.0, after, extras)


def _updated(signal, batch, times, state=None):
    update = interpreted(signal.update)
    state = interpreted(signal.init)(KEY) if state is None else state
    for _ in range(times):
        state, score, metrics = update(state, batch, KEY)
    return state, score, metrics


def test_the_classifier_balances_classes_and_leaves_unknown_rows_alone():
    signal = reversibility_classifier(SPEC, ClassifierConfig(**LINEAR))
    batch = _rows([0, 0, 0, 0], [1.0, 1.0, -2.0, 50.0], label=[0, 0, 1, -1])
    state, score, metrics = _updated(signal, batch, 1, blank(signal.init))
    # f = 0: either class loses log 2. dL/dw = (0.5 * 1 - 0.5 * -2) / 2 > 0 and dL/db = 0: Adam's first step makes w = -0.1.
    assert metrics['loss'] == pytest.approx(np.log(2)) and metrics['labelled'] == 0.75 and metrics['fitted'] == 1
    assert state.network['params']['Dense_0']['kernel'].item() == pytest.approx(-0.1, rel=1e-3)
    assert state.seen.tolist() == [2, 1]
    np.testing.assert_allclose(score[:3], 1 / (1 + np.exp([0.1, 0.1, -0.2])), rtol=1e-3)
    prior = reversibility_classifier(SPEC, ClassifierConfig(**LINEAR, calibrated=True))
    np.testing.assert_allclose(prior.score(state, batch)[2], 1 / (1 + 2 * np.exp(-0.2)), rtol=1e-3)  # times 1 to 2


@pytest.mark.parametrize('label', [{}, {'label': [0, 0]}, {'label': [-1, np.nan]}])
def test_a_classifier_without_both_classes_is_unknown_and_never_triggers(label):
    signal = reversibility_classifier(SPEC, ClassifierConfig(**LINEAR))
    batch = _rows([0, 0], [1.0, -2.0], **label)
    state, score, _ = _updated(signal, batch, 2)
    assert score.tolist() == [0, 0] and verdict(signal, state, batch, 0.0).tolist() == [-1, -1]
    if 0 not in label.get('label', ()):  # nothing to learn from: nothing moves, momentum included
        jax.tree.map(np.testing.assert_array_equal, state, interpreted(signal.init)(KEY))


def test_fitting_finds_the_edge_from_rare_positives():
    places = jnp.linspace(-1.0, 1.0, 101)[:, None]
    signal = reversibility_classifier(SPEC, ClassifierConfig(hidden=(8,), learning_rate=0.05))
    state = jax.jit(lambda label: fit(signal, visited(places), label, KEY, num_updates=150, batch_size=16))(places[:, 0] > 0.9)
    found = verdict(signal, state, visited(jnp.array([[-1.0], [0.0], [0.7], [1.0]])), 0.5)
    assert found.tolist() == [0, 0, 0, 1]
    unfitted = fit(signal, visited(places), jnp.zeros(101), KEY, num_updates=2, batch_size=4)
    assert (verdict(signal, unfitted, visited(places), 0.5) == -1).all()


def test_precedence_learns_the_one_way_step_only():
    # 0 <-> 1 in both orders, 1 -> 2 in one: log-odds of an order are 0 for the first and unbounded for the other.
    signal = precedence(SPEC, PrecedenceConfig(hidden=(8,), learning_rate=0.05, min_updates=150))
    batch = _rows([0, 1, 1, 1], [1, 0, 2, 2])
    state, score, metrics = _updated(signal, batch, 149)
    assert not score.any() and verdict(signal, state, batch, 0.1).tolist() == [-1] * 4
    state, score, metrics = _updated(signal, batch, 1, state)
    assert score[:2].tolist() == [0, 0] and (score[2:] > 0.9).all() and metrics['fitted'] == 1
    still = interpreted(signal.score)(state, _rows([0.3], [0.3]))
    assert still.item() == 0  # psi(x, x) is one half exactly


def test_precedence_of_a_linear_network_is_that_of_differences():
    signal = precedence(SPEC, PrecedenceConfig(**LINEAR, threshold=0.5, min_updates=0))
    state = blank(signal.init)._replace(network=linear([[1.0], [3.0]], [0.7]))
    # g(x, y) - g(y, x) = (x + 3 y) - (y + 3 x) = 2 (y - x).
    scores = interpreted(signal.score)(state, _rows([0.0, 1.0], [1.0, 0.0]))
    np.testing.assert_allclose(scores, [1 / (1 + np.exp(-2)), 0], rtol=1e-6)


def test_later_observations_stay_in_their_episode():
    rows = _rows(np.arange(6), np.arange(1, 7), boundary=[0, 0, 1, 0, 0, 0])
    assert with_later(rows, 1, KEY).extras['later'][:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    later = np.stack([with_later(rows, 9, jax.random.key(n)).extras['later'][:, 0] for n in range(40)])
    assert (later >= np.arange(1, 7)).all() and later.max(axis=0).tolist() == [3, 3, 3, 6, 6, 6]


def test_reachability_is_the_discounted_distance_to_the_reset():
    # A chain 3 -> 2 -> 1 -> 0 (the reset) and 9 -> 9, from which nobody has come back.
    config = ReachabilityConfig(reset=(0.0,), gamma=0.5, hidden=(16,), learning_rate=0.03, polyak=0.3, min_updates=400)
    signal = reset_reachability(SPEC, config)
    batch = _rows([1, 2, 3, 9], [0, 1, 2, 9])
    state, _, _ = _updated(signal, batch, 399)
    assert verdict(signal, state, batch, 0.1).tolist() == [-1] * 4
    state, _, _ = _updated(signal, batch, 1, state)
    score = interpreted(signal.score)(state, visited(jnp.array([[1.0], [2.0], [3.0], [9.0]])))
    np.testing.assert_allclose(score, [0.0, 0.5, 0.75, 1.0], atol=0.06)
    never = _updated(reset_reachability(SPEC, ReachabilityConfig(reset=(5.0,), hidden=(), min_updates=1)), batch, 2)
    assert not never[1].any()  # no reset was ever reached: nothing is known
    with pytest.raises(UsageError, match='reset must have a number for each of the 1 columns'):
        reset_reachability(SPEC, ReachabilityConfig())


def test_the_nearest_neighbour_halves_at_its_radius_and_forgets_what_is_bad():
    signal = nearest_neighbour(SPEC, NeighbourConfig(radius=0.5, capacity=4))
    state = interpreted(signal.init)(KEY)
    query = visited(jnp.array([[1.0], [1.5], [3.0]]))
    assert verdict(signal, state, query, 0.0).tolist() == [-1] * 3 and not interpreted(signal.score)(state, query).any()
    state = interpreted(signal.observe)(state, _rows([0, 0], [1.0, 3.0], label=[0, 1]))
    assert jnp.isfinite(state.memory).all()  # a state that is not finite counts as diverged
    np.testing.assert_allclose(interpreted(signal.score)(state, query), [0.0, 0.5, 0.8])
    state = interpreted(signal.observe)(state, _rows(np.zeros(9), np.linspace(10, 18, 9)))  # more than fit: evenly spread
    assert sorted(state.memory[:, 0].tolist()) == [10.0, 12.0, 15.0, 18.0]
    assert usual_distance(np.array([[0.0], [1.0], [3.0]]), 1.0) == 2.0


def test_of_batches_the_nearest_neighbour_remembers_what_is_known_to_be_reversible():
    signal = nearest_neighbour(SPEC, NeighbourConfig(radius=0.5, capacity=4, remember='sampled'))
    state, score, _ = interpreted(signal.update)(signal.init(KEY), _rows([0, 0, 0], [1.0, 3.0, 5.0], label=[0, 1, -1]), KEY)
    np.testing.assert_allclose(score, [0.0, 0.8, 8 / 9])  # where one stands, unjudged, is not known for that
    assert int(state.stored) == 1
    state, score, _ = interpreted(signal.update)(state, _rows([0], [3.0]), KEY)  # without labels nothing speaks against it
    assert not score.any() and int(state.stored) == 2


def test_the_order_of_states_is_that_of_the_reset_and_them():
    config = PrecedenceConfig(hidden=(), min_updates=0, threshold=0.5, learning_rate=0.1)
    steps, states = precedence(SPEC, config), precedence(SPEC, replace(config, reset=(0.0,)))
    state, _, _ = _updated(steps, _rows(np.arange(4), np.arange(1, 5)), 100)
    seen = visited(jnp.array([[3.0], [-3.0]]))  # after the reset; before it
    assert not interpreted(steps.score)(state, seen).any()
    assert interpreted(states.score)(state, seen)[0] > 0.9 and interpreted(states.score)(state, seen)[1] == 0
    with pytest.raises(UsageError, match='reset must have a number for each of the 1 columns'):
        precedence(SPEC, replace(config, reset=(0.0, 0.0)))


def test_confidence_losses_and_classes():
    # As worked out: log(e^2 + 3) - 1/2, and log 4.
    assert confidence_loss(jnp.array([2.0, 0, 0, 0])) == pytest.approx(1.84075295)
    assert confidence_loss(jnp.zeros(4)) == pytest.approx(1.38629436)
    rows = _rows(np.arange(6), np.arange(6), boundary=[0, 0, 1, 0, 0, 1])
    assert progress_classes(rows, 3).extras['class'].tolist() == [2, 1, 0, 2, 1, 0]
    signal = confidence_minimisation(SPEC, ConfidenceConfig(hidden=(8,), num_classes=2, learning_rate=0.05, min_updates=200))
    batch = _rows([0] * 4, [0.0, 1.0, 5.0, 6.0], **{'class': [0, 1, -1, -1]})
    state, score, _ = _updated(signal, batch, 199)
    assert not score.any()
    state, score, _ = _updated(signal, batch, 1, state)
    assert (score[:2] < 0.6).all() and (score[2:] > 0.7).all() and verdict(signal, state, batch, 0.65).tolist() == [0, 0, 1, 1]
    assert not _updated(signal, batch._replace(extras={}), 1)[1].any()


def test_a_detector_conforms():
    check_signal(reversibility_classifier(SPEC, ClassifierConfig(hidden=(8,))), SPEC)
