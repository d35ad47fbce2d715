"""What knows how long its phase is: returns as first targets, bonuses that fade."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_configs import TINY, changed

from ooorl.agents.monte_carlo import monte_carlo_start
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn import schedules
from ooorl.runner.prepare import prepare
from ooorl.signals import state_action_counts
from ooorl.signals.fading import fading
from ooorl.training import run as running
from ooorl.types import Agent, Transition

ROWS = Transition(
    jnp.zeros((3, 1)), jnp.zeros((3, 1)), jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 0.0, 1.0]), jnp.zeros((3, 1)),
    {'return_to_go': jnp.array([5.0, 2.0, jnp.nan])},
)  # fmt: skip
# An agent that tells what it was given.
TELLING = Agent(
    init=lambda key: jnp.zeros(()),
    update=lambda state, batch, key: (state, {'reward': batch.reward, 'discount': batch.discount}),
    sample_action=lambda state, observation, key: observation,
    best_action=lambda state, observation, key: observation,
)


def test_returns_are_the_targets_of_the_first_updates():
    agent = monte_carlo_start(TELLING, 0.5)
    assert agent.reads == ('return_to_go',)
    state = schedules.begin(interpreted(agent.init)(jax.random.key(0)), 4)
    seen = []
    for _ in range(3):
        state, metrics = interpreted(agent.update)(state, ROWS, jax.random.key(0))
        seen.append((metrics['reward'].tolist(), metrics['discount'].tolist()))
    # Two of four updates: the return where it is known, nothing after it; then what was stored.
    assert seen[0] == seen[1] == ([5.0, 2.0, 3.0], [0.0, 0.0, 1.0])
    assert seen[2] == ([1.0, 2.0, 3.0], [1.0, 0.0, 1.0])
    state = schedules.begin(state, 2)
    metrics = interpreted(agent.update)(state, ROWS, jax.random.key(0))[1]
    assert metrics['reward'].tolist() == [5.0, 2.0, 3.0]  # each phase begins anew


def test_a_bonus_falls_in_a_line_to_its_end():
    counts = state_action_counts([0.0], [1.0], (2,), (2,))
    signal = fading(counts, 0.2)
    state = interpreted(signal.init)(jax.random.key(0))
    np.testing.assert_allclose(interpreted(signal.score)(state, ROWS), 1.0)  # nobody has begun a phase
    state, found = schedules.begin(state, 4), []
    for _ in range(6):
        state, score, metrics = interpreted(signal.update)(state, ROWS, jax.random.key(0))
        found.append(float(score[0]))
        assert found[-1] == pytest.approx(float(metrics['share']))
    np.testing.assert_allclose(found, [1.0, 0.8, 0.6, 0.4, 0.2, 0.2], rtol=1e-6)
    seen = interpreted(signal.observe)(state, ROWS)
    np.testing.assert_allclose(interpreted(signal.score)(seen, ROWS), 0.2 * counts.score(seen.signal, ROWS), rtol=1e-6)


def test_both_as_settings():
    counts = {'signal': 'counts', 'low': [-1.0, -1.0], 'high': [4.0, 4.0], 'observation_bins': [4, 4], 'action_bins': [2, 2]}
    table = changed(TINY, evaluation__num_episodes=0, exploit__monte_carlo_share=0.5, explore__bonus={**counts, 'scale_end': 0.0})
    rows = []
    running.run(prepare(table).setup, report=lambda event: rows.extend(event.rows))
    shares = [row['bonus/share'] for row in rows if row['kind'] == 'train' and row['phase'] == 'explore' and row['seed'] == 0]
    np.testing.assert_allclose(shares, [0.8, 0.3], rtol=1e-6)  # means over five of ten updates: 1, .9, ... .6 and .5 to .1
    targets = [row['q/target'] for row in rows if row['kind'] == 'train' and row['phase'] == 'retrain@20' and row['seed'] == 0]
    assert len(targets) == 2 and np.isfinite(targets).all()
    with pytest.raises(UsageError, match='learns no values to start'):
        prepare(changed(TINY, exploit={'agent': 'bc', 'monte_carlo_share': 0.1}))
