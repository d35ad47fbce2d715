"""Which policy to deploy: both answers by hand, and by the command on a finished run."""


import jax.numpy as jnp
import numpy as np
import pytest
from line_world import line_task
from reused import undrawn  # noqa: F401  no figures
from tiny_configs import TINY, changed

from ooorl.envs.batched import batched
from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner.choice import choose_run
from ooorl.runner.prepare import prepare
from ooorl.runner.session import execute
from ooorl.training.deployment import Candidate, best, choose, states_of
from ooorl.training.phases import Setup
from ooorl.training.programs import Programs
from ooorl.types import Agent, Transition

# An agent whose state is the one action that it takes; its Q is 3 - (s + a - 1)^2 and, for a second member, one more.
ACTING = Agent(
    init=lambda key: jnp.zeros(()),
    update=lambda state, batch, key: (state, {}),
    sample_action=None,
    best_action=lambda state, observation, key: jnp.broadcast_to(state, observation.shape),
    q=lambda state, observation, action: jnp.stack([3.0 - (observation + action - 1.0)[..., 0] ** 2 + k for k in (0.0, 1.0)]),
)


def test_a_critic_and_episodes_may_disagree():
    setup = Setup(phases=(), seeds=(0, 1), evaluation=batched(line_task(), 3))
    candidates = [Candidate(name, ACTING, jnp.array(a)) for name, a in (('slow', [0.5, 1.0]), ('fast', [1.0, 0.1]))]
    found = choose(Programs(setup), candidates, candidates[0], np.full((2, 4, 1), 0.5))
    # At s = 0.5 Q is 3 - (a - 0.5)^2: 3 and 2.75, 2.75 and 2.84.
    np.testing.assert_allclose(found.values['slow'], [3.0, 2.75])
    np.testing.assert_allclose(found.values['fast'], [2.75, 2.84], rtol=1e-6)
    # Positions add up until 2 or for five steps: .5 + 1 + 1.5 + 2; 1 + 2; .1 + .2 + .3 + .4 + .5; three episodes of each.
    np.testing.assert_allclose(found.returns['slow'], [5.0, 3.0])
    np.testing.assert_allclose(found.returns['fast'], [3.0, 1.5], rtol=1e-6)
    assert found.steps['slow'].tolist() == [12, 6] and found.steps['fast'].tolist() == [6, 15]
    assert found.chosen == ('slow', 'slow') and found.by_value == ('slow', 'fast')


def test_equals_are_decided_by_order_and_diverged_candidates_lose():
    assert best({'a': np.array([1.0, np.nan]), 'b': np.array([1.0, -5.0])}) == ('a', 'b')
    assert best({}) == ()


def test_states_are_those_of_data_and_store():
    rows = Transition(np.full((3, 2), 7.0), None, None, None, None)
    seen = states_of(rows, None, 2, num=5)
    assert seen.shape == (2, 5, 2) and (seen == 7.0).all()


def test_the_command_on_a_finished_run(tmp_path):
    table = changed(TINY, ooo__retrain_at=[0, 20])
    execute(prepare(table), tmp_path / 'a', quiet=True)
    lines = choose_run(tmp_path / 'a', 2)
    found = writers.read_json(tmp_path / 'a' / 'choice.json')
    assert list(found['returns']) == ['retrain@20', 'retrain@0', 'explore'] == list(found['values'])
    assert found['critic'] == 'retrain@20' and len(found['chosen']) == len(found['by_value']) == 2
    assert all(2 <= steps <= 24 for own in found['steps'].values() for steps in own)
    assert 'which count' in lines[3]
    with pytest.raises(UsageError, match='at least one episode'):
        choose_run(tmp_path / 'a', 0)
