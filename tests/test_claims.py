"""The experiment on OOO's claims: what its arms are made of and what its table says."""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ooorl import signals, wrap
from ooorl.errors import UsageError
from ooorl.runner import config
from ooorl.runner.prepare import prepare
from ooorl.training.preflight import check
from ooorl.types import Spec, Transition

FOLDER = Path(__file__).parent.parent / 'experiments'
SPEC = Spec(observation_dim=2, action_dim=2)


@pytest.fixture(scope='module')
def claims():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module('ooo_claims')


@pytest.fixture(scope='module')
def tables(claims):
    return sys.modules[claims.table.__module__]


def batch(num=16):
    values = jax.random.normal(jax.random.key(3), (num, 2))
    zero, one = jnp.zeros(num), jnp.ones(num)
    columns = {'boundary': zero, 'reward_low': zero, 'reward_high': one}
    return Transition(values, jnp.tanh(values), zero, one, values + 0.1, columns)


def test_frozen_signal_scores_and_stays(claims):
    signal = signals.rnd(SPEC, signals.RNDConfig(hidden=(8,), num_features=4))
    state = signal.init(jax.random.key(0))
    state, _, _ = signal.update(state, batch(), jax.random.key(1))
    kept, score, _ = claims.frozen(signal).update(state, batch(), jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    np.testing.assert_array_equal(score, signal.score(state, batch()))
    assert claims.frozen(signals.state_action_counts([0], [1], [2], [2])).observe is claims.ignore_data


def test_every_config_resolves_and_has_a_cell(claims):
    cells = claims.all_cells()
    assert len(set(cells)) == len(cells) >= 12
    for cell in cells:
        settings = config.resolve(config.read(claims.config_of(cell)))
        assert settings['name'] == claims.config_of(cell).stem
        assert cell.signal in ('none', settings['explore']['bonus']['signal'])


@pytest.mark.parametrize('text', ['umaze:iql:counts', 'umaze:calql:rnd', 'umaze:rlpd:disagreement', 'umaze:iql:none'])
def test_phases_make_a_run(claims, tables, text):
    cell = claims.parse_cell(text)
    prepared = prepare(config.read(claims.config_of(cell)))
    phases = claims.phases_of(cell, prepared)
    check(claims.replace(prepared.setup, phases=phases))
    scored = {phase.name for phase in phases} & set(tables.ARMS)
    assert scored == (set(tables.SHARED) if cell.signal == 'none' else set(tables.ARMS) - set(tables.SHARED))
    assert {phase.num_env_steps for phase in phases} == {0, 40000}


def test_frozen_exploiter_differs_from_the_exploiter_by_the_bonus_alone(claims):
    prepared = prepare(config.read(claims.config_of(claims.parse_cell('umaze:iql:counts'))))
    agent = claims.frozen_bonus_exploiter(prepared.config, prepared)
    plain = {phase.name: phase for phase in prepared.setup.phases}['retrain@40000'].agent
    state = agent.init(jax.random.key(0))
    assert isinstance(state, wrap.RelabelledState)
    seen, expected = agent.sees(state, batch()), plain.sees(state.agent, batch())
    bonus = seen.extras.pop('bonus')
    assert (bonus > 0).all()
    jax.tree.map(np.testing.assert_array_equal, seen, expected)


def test_unknown_cell_is_refused(claims):
    with pytest.raises(UsageError, match="got 'umaze:sarsa:counts'"):
        claims.parse_cell('umaze:sarsa:counts')


def arm(values):
    return {'success': values, 'return': [-25.0] * len(values), 'length': values, 'env_steps': 1, 'updates': 1, 'metrics': {}}


def test_table_says_what_held(tables, tmp_path):
    seeds = list(range(8))
    ones, zeros, mixed = [1.0] * 8, [0.0] * 8, [0.0, 1.0] * 4
    own = {'explore': arm(zeros), 'retrain': arm(ones), 'frozen': arm(mixed), 'td3': arm(ones)}
    buffer = {'online': {'success_rows': seeds}, 'plain': {'success_rows': zeros}}
    results = {
        'none': {'offline': arm(zeros), 'plain-explore': arm(zeros), 'plain-retrain': arm(zeros)},
        'counts': own,
    }
    for signal, arms in results.items():
        result = {'cell': f'umaze:iql:{signal}', 'seeds': seeds, 'arms': arms, 'buffer': buffer}
        tables.writers.write_json(tables.Cell('umaze', 'iql', signal).path(tmp_path), result)
    text = tables.table(tables.read_results(tmp_path))
    assert '| umaze:iql:counts | 0.00 [0.00, 0.37]† |' in text
    assert 'held: +1.00 [+0.26, +1.00]†' in text  # 2 * .025^(1/8) - 1
    assert 'not separated: +0.00 [-0.37, +0.37]†' in text
    assert 'held: +0.50 [+0.05, +0.95]' in text  # t(7, .975) sqrt(2 / 7 / 8) = .447


def test_wall_is_scored_by_steps(tables):
    np.testing.assert_allclose(tables.score(tables.Cell('wall', 'iql', 'counts'), arm([1.0, 1.0])), 0.5)


def test_a_recipe_keeps_what_belongs_to_the_problem(claims):
    recipe = claims.recipes.read(FOLDER / 'recipe.toml')
    cells = {name: config.read(claims.config_of(claims.parse_cell(name))) for name in ('umaze:iql:counts', 'umaze:rlpd:counts')}
    own = claims.recipes.applied(cells['umaze:iql:counts'], recipe)
    assert own['ooo']['retrain_updates'] == 2 * cells['umaze:iql:counts']['ooo']['retrain_updates']
    assert own['exploit']['inverse_temperature'] == 3.0 and own['exploit']['schedule'] == 'cosine'
    assert own['exploit']['sampling'] == {'mix': {'dataset': 0.5, 'online': 0.5}, 'batch_size': 64, 'success_rows': 8}
    other = claims.recipes.applied(cells['umaze:rlpd:counts'], recipe)['exploit']
    assert other['agent'] == 'iql' and other['expectile'] == 0.9 and 'num_critics' not in other and other['gamma'] == 0.97
    climbing = claims.recipes.applied(cells['umaze:iql:counts'], recipe, 'climb')
    assert climbing['exploit']['agent'] == 'td3' and 'expectile' not in climbing['exploit'] and 'bounds' in climbing['exploit']
    for table in (own, climbing):
        config.resolve(table)
    far = {**cells['umaze:iql:counts'], 'exploit': {'agent': 'iql', 'backup_steps': 10}}
    assert all(claims.recipes.applied(far, recipe, name)['exploit']['backup_steps'] == 10 for name in ('exploit', 'climb'))
    table = {**cells['umaze:iql:counts'], 'exploit': {'agent': 'iql', 'sampling': {'mix': 'union'}}}
    kept = claims.recipes.applied(table, recipe)
    assert kept['exploit']['sampling'] == {'mix': 'union'}


def test_old_and_new_side_by_side(tables, tmp_path):
    seeds, ones, zeros = list(range(8)), [1.0] * 8, [0.0] * 8
    own = {'explore': arm(zeros), 'retrain': arm(zeros), 'frozen': arm(zeros), 'td3': arm(ones)}
    new = {**own, 'landed': arm(zeros), 'climb': arm(ones), 'data': arm(zeros), 'chosen': arm(ones)}
    shared = {'offline': arm(zeros), 'plain-explore': arm(zeros), 'plain-retrain': arm(zeros)}
    for prefix, arms in ((tables.PREFIX, own), (tables.RECIPE_PREFIX, new)):
        for signal, held in (('none', shared), ('counts', arms)):
            result = {'cell': f'umaze:iql:{signal}', 'seeds': seeds, 'arms': held, 'buffer': {}}
            tables.writers.write_json(tables.Cell('umaze', 'iql', signal).path(tmp_path, prefix), result)
    old, new = (tables.read_results(tmp_path, prefix) for prefix in (tables.PREFIX, tables.RECIPE_PREFIX))
    last = tables.side_by_side(old, new).splitlines()[-1].split(' | ')
    assert last[1].startswith('not separated: +0.00') and last[2].startswith('reversed: -1.00')
    assert all(entry.startswith('held: +1.00') for entry in last[3:5])
    assert last[5].startswith('not separated: +0.00') and '(retrained, TD3)' in last[5]
    words = tables.brief(old, new).splitlines()[-1].split(' | ')
    assert words[3].startswith('reversed: -1.00') and words[5].startswith('**1.00') and words[6].startswith('held: +1.00')
    assert tables.brief(old, {}).count('not run') == 4
    assert tables.counted(old) == (
        '1 cells: OOO above its base method beyond the interval in 0, below in 0; above its best other arm in 0, below in 1'
    )
    assert 'base method beyond the interval in 1' in tables.counted(new)


@pytest.fixture(scope='module')
def ablation(claims):
    return importlib.import_module('ablation')


def test_each_line_of_the_ablation_takes_out_one_part(claims, ablation):
    recipe = claims.recipes.read(FOLDER / 'recipe.toml')
    assert ablation.without(recipe, ablation.WHOLE) == recipe
    assert 'schedule' not in ablation.without(recipe, 'schedule')['climb'] and 'schedule' in recipe['climb']
    assert 'mix' not in ablation.without(recipe, 'mix')['exploit'].get('sampling', {})
    assert ablation.without(recipe, 'updates')['ooo']['updates'] == 1
    assert ablation.candidates_of('climb') == ('retrain/whole', 'data/whole', 'explore')
    assert ablation.candidates_of('average') == ('retrain/average', 'climb/average', 'data/average', 'explore')
    assert ablation.candidates_of('unit') == ('retrain/whole', 'climb/unit', 'data/whole', 'explore')
    assert ablation.candidates_of('choice') == ('retrain/whole',)


def test_an_ablation_is_scored_by_what_each_line_deploys(claims, tables, ablation):
    names = {name for part in ablation.PARTS for name in ablation.candidates_of(part)}
    scores = {name: arm([0.0] * 8) for name in names} | {'climb/whole': arm([1.0] * 8)}
    chosen = {part: [max(ablation.candidates_of(part), key=lambda n: n == 'climb/whole')] * 8 for part in ablation.PARTS}
    text = ablation.table({tables.Cell('umaze', 'iql', 'rnd'): {'scores': scores, 'chosen': chosen}})
    lines = {line.split(' | ')[1].split(':')[0]: line for line in text.splitlines()[2:]}
    assert 'not separated: +0.00' in lines['data'] and 'held: +1.00' in lines['climb'] and 'held: +1.00' in lines['choice']
    assert ' | - | ' in lines['climb']
