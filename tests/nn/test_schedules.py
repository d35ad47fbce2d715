"""Learning rates over a phase: their values by hand, in every optimiser of every agent, and from phase to phase."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import trees_equal

from ooorl.errors import UsageError
from ooorl.nn.schedules import Scheduled, begin, scheduled_adam


def rates(num_updates, num_steps, part='policy', steps_per_update=1, **settings):
    """The rate of each step: with a constant gradient every step of Adam is minus its rate."""
    optimizer = scheduled_adam(Scheduled(**settings), part, 1.0, steps_per_update=steps_per_update, eps=0.0)
    state, found = begin(optimizer.init(jnp.zeros(())), num_updates), []
    for _ in range(num_steps):
        update, state = optimizer.update(jnp.ones(()), state)
        found.append(-float(update))
    return found


@pytest.mark.parametrize(('settings', 'expected'), [
    ({}, [1, 1, 1, 1, 1, 1]),
    ({'schedule': 'linear'}, [1, 0.75, 0.5, 0.25, 0, 0]),  # four updates; beyond the end the rate stays
    ({'schedule': 'linear', 'schedule_end': 0.2}, [1, 0.8, 0.6, 0.4, 0.2, 0.2]),
    ({'schedule': 'cosine'}, [1, 0.5 + 0.25 * 2**0.5, 0.5, 0.5 - 0.25 * 2**0.5, 0, 0]),
    ({'schedule': 'cosine', 'schedule_end': 0.5}, [1, 0.75 + 0.125 * 2**0.5, 0.75, 0.75 - 0.125 * 2**0.5, 0.5, 0.5]),
    ({'schedule_warmup': 0.5}, [0.5, 1, 1, 1, 1, 1]),
    ({'schedule': 'linear', 'schedule_warmup': 0.5}, [0.5, 1, 1, 0.5, 0, 0]),
    ({'schedule': 'linear', 'schedule_of': 'critic'}, [1, 1, 1, 1, 1, 1]),
    ({'schedule': 'linear', 'schedule_of': 'policy'}, [1, 0.75, 0.5, 0.25, 0, 0]),
])  # fmt: skip
def test_rates_by_hand(settings, expected):
    np.testing.assert_allclose(rates(4, 6, **settings), expected, atol=3e-5)


def test_a_phase_of_any_length_sees_the_same_shares():
    one = rates(4, 4, schedule='cosine', schedule_end=0.1)
    np.testing.assert_allclose(rates(400, 400, schedule='cosine', schedule_end=0.1)[::100], one, atol=3e-5)
    # Two steps an update: the same rates, half a step finer.
    np.testing.assert_allclose(rates(4, 8, steps_per_update=2, schedule='cosine', schedule_end=0.1)[::2], one, atol=3e-5)


def test_a_constant_rate_leaves_no_trace_and_no_schedule_starts_unasked():
    plain, scheduled = (scheduled_adam(Scheduled(schedule=name), 'policy', 1e-3) for name in ('constant', 'linear'))
    assert trees_equal(plain.init(jnp.ones(3)), optax.chain(optax.adam(1e-3)).init(jnp.ones(3)))
    with pytest.raises(UsageError, match='needs to know how many updates the phase has; nobody has said so; train with'):
        scheduled.update(jnp.ones(3), scheduled.init(jnp.ones(3)))


@pytest.mark.parametrize(('settings', 'words'), [
    ({'schedule': 'step'}, "schedule must be one of 'constant', 'cosine', 'linear'; got 'step'"),
    ({'schedule_of': 'value'}, "schedule_of must be one of 'all', 'policy', 'critic'; got 'value'"),
    ({'schedule_end': 1.5}, r'schedule_end must lie in \[0, 1\]; got 1.5'),
    ({'schedule_warmup': 1.0}, 'schedule_warmup must be less than 1, the whole phase; got 1.0'),
])  # fmt: skip
def test_bad_schedules_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        Scheduled(**settings)


def test_a_traced_warmup_is_as_good_as_a_number():
    def second(warmup):
        optimizer = scheduled_adam(Scheduled(schedule='linear', schedule_warmup=warmup), 'policy', 1.0, eps=0.0)
        _, state = optimizer.update(jnp.ones(()), begin(optimizer.init(jnp.zeros(())), 4))
        return optimizer.update(jnp.ones(()), state)[0]

    np.testing.assert_allclose(jax.jit(jax.vmap(second))(jnp.array([0.0, 0.5])), [-0.75, -1.0], atol=3e-5)
