"""A run with a given policy that fails in the middle: one sentence, and what stood is kept and gone on from."""

import fickle
import numpy as np
import pytest
from reused import undrawn  # noqa: F401  no figures
from tiny_configs import OFFLINE, TINY, changed

import ooorl
from ooorl.errors import UsageError
from ooorl.runner.prepare import prepare
from ooorl.runner.session import execute
from ooorl.training import checkpoint
from ooorl.training import run as running

CONFIG = {key: TINY[key] for key in ('environment', 'dataset')} | OFFLINE | {
    'evaluation': {'num_episodes': 1},
    'agent': {
        'agent': 'parl', 'imitate': 'nothing', 'num_candidates': 2, 'num_kept': 2, 'num_steps': 0, 'sampling': {'batch_size': 8},
        'policy': {'kind': 'opaque', 'function': 'fickle:fickle'}, 'critic': {'kind': 'iql', 'hidden': [8]},
    },
}  # fmt: skip


def raising(shape):
    raise RuntimeError('no camera')


def test_a_policy_that_fails_while_it_is_evaluated_leaves_what_was_learnt(tmp_path):
    """IQL's critic asks for no actions, so that the first call in the run is the first step of its evaluation."""
    fickle.begin(3, raising)
    with pytest.raises(UsageError, match=r"it raised RuntimeError\('no camera'\); mend it; the last good checkpoint is .*0001"):
        execute(prepare(CONFIG), tmp_path, quiet=True)
    _, meta = checkpoint.read_arrays(tmp_path / 'checkpoint', lambda place: False)
    assert (meta['phase'], meta['round'], meta['done']) == (0, 1, 5)  # all ten updates, in rounds of five
    fickle.begin(None)
    assert execute(prepare(CONFIG), tmp_path, resume=True, quiet=True)['status'] == 'complete'
    policy = ooorl.load(tmp_path)
    fickle.begin(0, lambda shape: np.full(shape, np.nan))
    with pytest.raises(UsageError, match='finite numbers; it gave nan; mend it'):
        policy(np.zeros((1, 2)))


def test_a_policy_that_fails_while_its_critic_learns_ends_the_run_with_its_sentence():
    critic = {'kind': 'fql', 'hidden': [8], 'num_critics': 2}
    fickle.begin(7, lambda shape: np.zeros(shape[1:]))
    events = running.iterate(prepare(changed(CONFIG, agent__critic=critic, evaluation__num_episodes=0)).setup)
    state = next(events).state
    with pytest.raises(running.Failed, match=r'it gave the shape \(8, 2\); mend it$'):
        list(events)
    assert not running.stands(state)  # its memory went to the round that failed
