"""Students of a policy that an earlier run has trained: whose weights teach, and what is refused."""

import jax
import numpy as np
import pytest
from reused import one_after_another, undrawn  # noqa: F401  no figures
from tiny_configs import CLONED_FLOW, OFFLINE, changed

import ooorl
from ooorl.errors import UsageError
from ooorl.runner.prepare import prepare

AGENT = CLONED_FLOW['agent']
STUDENT = {name: CLONED_FLOW[name] for name in ('environment', 'evaluation', 'dataset')} | {
    'name': 'student',
    'run': OFFLINE['run'] | {'scheme': 'distil'},
    'distil': {'num_updates': 2},
    'student': AGENT
    | {'agent': 'distil', 'reward_weight': 0.0, 'policy': {'kind': 'consistency', 'hidden': [8], 'num_levels': 4}},
}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """A cloned flow and its student."""
    return one_after_another(tmp_path_factory.mktemp('runs'), CLONED_FLOW, STUDENT, 'distil__teacher')


def test_each_seed_learns_from_the_earlier_runs_same_seed(runs):
    base, out, table = runs
    prepared = prepare(table)
    assert [phase.name for phase in prepared.setup.phases] == ['distil']
    for number, seed in enumerate(prepared.setup.seeds):
        taught, teacher = ooorl.load(out, seed=seed).state, ooorl.load(base, seed=seed).state
        jax.tree.map(np.testing.assert_array_equal, taught.agent.teacher, teacher.agent.policy)
        given = jax.tree.map(lambda leaf, number=number: leaf[number], prepared.setup.given['teacher'])
        jax.tree.map(np.testing.assert_array_equal, given.agent.policy, teacher.agent.policy)
    # What stands in the student's directory is a whole config, with which it goes on.
    kept = prepared.config
    assert kept['teacher']['policy']['kind'] == 'flow' and len(kept['distil']['digest']) == 16
    assert prepare(kept).config == kept


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'dataset__settings': {'num_episodes': 3}}, 'learns from the data of its teacher, scripted .* got scripted'),
        ({'run__seeds': '7'}, 'distil.teacher needs a seed of the run; it has 0; got 7'),
        ({'distil__digest': '0' * 16}, 'needs the policy that this run began with'),
        ({'teacher': {'agent': 'bc', 'policy': AGENT['policy']}}, 'brings the table .teacher. of its run'),
        ({'student__chunk': 2}, 'chunk in .student. must be that of .teacher., 1; got 2'),
        ({'distil__teacher': 'nowhere'}, 'distil.teacher needs the directory of a run'),
    ],
)
def test_teachers_of_other_data_seeds_or_plans_are_refused(runs, changes, words):
    with pytest.raises(UsageError, match=words):
        prepare(changed(runs[2], **changes))


def test_an_earlier_run_needs_the_phase_that_is_named(runs):
    base, _, table = runs
    with pytest.raises(UsageError, match="distil.teacher needs a phase that trained a policy; there are offline; got 'explore'"):
        prepare(changed(table, distil__teacher=f'{base}:explore'))
