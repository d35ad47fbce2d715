"""Rows of a finished run for others: as a store to retrain on, as a data set, and what is refused of them."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from reused import reused_data, reused_programs, undrawn  # noqa: F401  the same run twice, and rows of the same data
from tiny_configs import TINY, changed

from ooorl import data
from ooorl.data.in_sample import Bound
from ooorl.errors import UsageError
from ooorl.runner import earlier_runs, presets
from ooorl.runner.bound import _said, as_plain, bound_run, said
from ooorl.runner.cli import main
from ooorl.runner.prepare import prepare
from ooorl.runner.session import execute
from ooorl.training import run as running
from ooorl.training.phases import Collected
from ooorl.training.replay import ReplayState
from ooorl.types import Transition

COLLECTING = changed(TINY, run__seeds='3,5', evaluation__num_episodes=0)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A finished run, the state that it ended with, and its folder."""
    out = tmp_path_factory.mktemp('runs') / 'a'
    prepared = prepare(COLLECTING)
    execute(prepared, out, quiet=True)
    return out, running.run(prepared.setup)


def test_retraining_on_a_store_reads_its_rows_and_collects_nothing(finished):
    out, state = finished
    setup = prepare(changed(COLLECTING, run__store=str(out), ooo__retrain_at=[0, 8])).setup
    assert [phase.name for phase in setup.phases] == ['retrain@0', 'retrain@8'] and setup.environment is None
    rows = setup.stores['online'].rows
    for name in ('observation', 'action', 'reward', 'discount', 'next_observation'):
        np.testing.assert_array_equal(getattr(rows.storage, name), getattr(state.stores['online'].storage, name))
    again = running.run(setup)
    assert list(again.finished) == ['retrain@0', 'retrain@8'] and not again.stores


def test_a_store_is_enough_to_plan_a_run_on_it(finished):
    out, _ = finished
    prepared = prepare(changed(COLLECTING, run__store=str(out), dataset=None, ooo__retrain_at=[8], ooo__pretrain_updates=0))
    assert prepared.dataset is None and sum(part.bytes for part in prepared.plan) > 0


def test_a_seed_of_a_store_keeps_its_rows(finished):
    out, state = finished
    rows = prepare(changed(COLLECTING, run__store=f'{out}:online', run__seeds='5')).setup.stores['online'].rows
    np.testing.assert_array_equal(rows.storage.action, state.stores['online'].storage.action[1:])


def test_a_run_is_a_data_set_of_all_its_seeds(finished):
    out, state = finished
    table = changed(COLLECTING, dataset={'path': str(out)}, environment__id=None, environment__settings=None)
    prepared = prepare(table)
    assert prepared.config['environment']['id'] == TINY['environment']['id']
    rows, store = prepared.dataset.transitions, state.stores['online'].storage
    # 20 steps of two environments: seed 3's first environment comes first, then its second one.
    np.testing.assert_array_equal(rows.action[:10], store.action[0, 0::2])
    np.testing.assert_array_equal(rows.action[30:], store.action[1, 1::2])
    assert rows.extras['boundary'][9::10].tolist() == [1.0] * 4


def test_a_run_is_data_for_the_commands_on_data_and_for_presets(finished, capsys, tmp_path):
    out, state = finished
    made = tmp_path / 'made.npz'
    assert main(['data', 'convert', f'{out}:online', str(made)]) == 0
    assert '40 rows, 4 episodes, format npz' in capsys.readouterr().out
    np.testing.assert_array_equal(data.load(made).transitions.action[:10], state.stores['online'].storage.action[0, 0::2])
    assert main(['data', 'quality', str(out), '--json', '--neighbours', '2']) == 0
    assert json.loads(capsys.readouterr().out)['rows'] == 40
    assert main(['data', 'check', str(out)]) == 2
    assert f'`ooorl data convert {out} FILE` writes what it collected' in capsys.readouterr().err
    assert presets.task_of(str(out), None, 'maze2d').family == 'maze2d'
    with pytest.raises(UsageError, match='a preset needs the family of its task'):
        presets.task_of(str(out), None)


def test_rows_in_the_order_they_were_lived_by_hand():
    numbers = jnp.arange(6.0)[None]  # steps 0, 1, 2 of two environments
    columns = dict.fromkeys(('observation', 'action', 'next_observation'), numbers[..., None])
    boundary = jnp.array([[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])
    rows = Transition(reward=numbers, discount=jnp.ones((1, 6)), extras={'boundary': boundary}, **columns)
    found = earlier_runs.as_dataset(Collected(ReplayState(rows, jnp.zeros(1), jnp.array([6])), 2, 3), 'x')
    assert found.transitions.reward.tolist() == [0, 2, 4, 1, 3, 5]
    assert found.transitions.extras['boundary'].tolist() == [0, 1, 1, 0, 0, 1]
    assert found.notes == ('2 episodes that were under way end as time-outs',)


@pytest.mark.parametrize(('changes', 'words'), [
    ({'run__store': 'nowhere'}, 'nowhere holds no config.toml'),
    ({'run__store': '{out}:plain'}, "holds stores online; got 'plain'"),
    ({'run__store': '{out}', 'run__seeds': '4'}, 'was run with, 3 to 5; got 4'),
    ({'run__store': '{out}', 'ooo__retrain_at': [21]}, 'a budget of 0 to 20 rows'),
    ({'run__store': '{out}', 'ooo__retrain_at': [-1]}, 'a budget of 0 to 20 rows'),
    ({'run__store': '{out}', 'environment__id': 'ooorl/PointMassWall-v0', 'environment__settings': {},
      'dataset': {'scripted': 'point_mass_wall'}}, 'rows of ooorl/PointMassWall-v0 were needed'),
    ({'dataset': {'path': '{out}', 'action_low': -2.0, 'action_high': 2.0}}, 'remove the keys'),
    ({'run': {'scheme': 'online', 'store': '{out}'}}, "got 'online'"),
])  # fmt: skip
def test_rows_that_do_not_fit_are_refused_in_one_sentence(finished, changes, words):
    def filled(value):
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        return value.format(out=finished[0]) if isinstance(value, str) else value

    with pytest.raises(UsageError, match='.') as refused:
        prepare(changed(COLLECTING, **filled(changes)))
    assert words in str(refused.value) and '\n' not in str(refused.value)


def test_boxes_of_actions_are_compared():
    from ooorl.data.action_box import box, same, shown

    small, unit = box(-0.4, 0.4, 'x'), box([-1.0, -1.0], 1.0, 'y')
    assert same(None, unit) and same(small, box(-0.4, 0.4, 'z')) and not same(small, unit) and not same(None, small)
    assert shown(small) == '[-0.4, 0.4]' and shown(None) == '[-1, 1]'


def test_the_bound_of_a_run_is_told_with_and_without_its_store(finished):
    out, _ = finished
    found = bound_run(str(out), (0, 1), 6)
    lines = said(found)
    assert lines[0].startswith('20 rows a seed') and 'a reward of 1 or more (--success)' in lines[1] and found.starts == 4
    assert all('no row is a success (of' in line for line in lines[2:4])  # twelve steps do not lead to the goal
    plain = as_plain(found)
    assert list(plain['seeds']) == ['3', '5'] and plain['seeds']['5']['steps'] is None and plain['alone']['reached'] == 0.0
    with pytest.raises(UsageError, match='2 or more'):
        bound_run(str(out), (0, 1), 1)
    with pytest.raises(UsageError, match='finite reward; got nan'):
        bound_run(str(out), (0, 1), 6, float('nan'))


def test_seeds_without_a_way_are_told_from_those_with_one():
    base = Bound(value=-2.0, steps=4.0, reached=0.5, cells=3, rows=8, success_rows=2, largest_reward=0.0)
    apart = base._replace(steps=np.inf, reached=0.0)
    none = apart._replace(success_rows=0, largest_reward=-1.0, value=-5.0)
    assert _said({3: base, 4: apart, 5: none, 6: none}) == (
        '4.0 steps to a success, from 50% of the starts, in 1 of 4 seeds; seeds 5, 6: no row is a success (of 8, largest reward '
        '-1): nothing to learn one from; seed 4: no recorded way to a success from any start, though rows are one (at most 2); '
        'best value -3.5'
    )
    assert _said({None: none._replace(value=np.nan)}).endswith('nothing to learn one from; no row begins where the episodes do')


def test_seeds_that_diverged_while_collecting_are_refused():
    lost = {'explore': [3], 'retrain@20': [5], 'plain-explore': [5]}
    online, plain = ([phase for phase in lost if earlier_runs._fills(phase, name)] for name in ('online', 'plain'))
    assert online == ['explore'] and plain == ['plain-explore']
    earlier_runs._refuse_diverged([3], [1], (3, 5), 'runs/a', '--store')
    with pytest.raises(UsageError, match='seed 3 of runs/a diverged'):
        earlier_runs._refuse_diverged([3], [0, 1], (3, 5), 'runs/a', '--store')


def test_a_store_that_was_collected_with_another_time_limit_is_told(finished):
    out, _ = finished
    settings = {'run__store': str(out), 'ooo__retrain_at': [8], 'environment__settings': {'horizon': 13, 'start_noise': 0.0}}
    lines = [line for line in prepare(changed(COLLECTING, **settings)).store_notes if line.startswith('warning')]
    assert len(lines) == 1 and lines[0].endswith('horizon = 12 there and 13 here, start_noise = its default there and 0.0 here')
    same = prepare(changed(COLLECTING, run__store=str(out), ooo__retrain_at=[8]))
    assert not any('warning' in line for line in same.store_notes)
    table = changed(COLLECTING, dataset={'path': str(out)}, environment__settings={'horizon': 13})
    assert any('horizon = 12 there and 13 here' in line for line in prepare(table).dataset.notes)
