"""Lives on a line whose far end cannot be left, worked out by hand; and a run without resets that is killed and resumed."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import trees_equal

from ooorl.agents.iql import IQLConfig, iql
from ooorl.agents.steps import imitation
from ooorl.agents.td3 import TD3Config, td3
from ooorl.errors import UsageError
from ooorl.signals import (
    ClassifierConfig,
    NeighbourConfig,
    nearest_neighbour,
    reversibility_classifier,
    state_action_counts,
)
from ooorl.training import interventions
from ooorl.training.interventions import InterveningState, intervening, labels, matching, returning, wandering, when_detected
from ooorl.training.lives import COLUMNS, WIDTH, Rules, as_lives, column, endless
from ooorl.training.phases import Setup, online
from ooorl.training.run import iterate, run
from ooorl.types import Agent, Spec, Task, Transition
from ooorl.wrap import bonus, penalised

SPEC = Spec(observation_dim=1, action_dim=1)
KEY = jax.random.key(0)


def line(goal=-2.0):
    """A point on a line, moved by its action; from 2 on it stays where it is; success at the goal or below ends the task."""

    def step(state, action, key):
        del key
        state = jnp.where(state >= 2.0, state, state + action)
        success = state[0] <= goal
        return state, state, success.astype(jnp.float32), success, success

    def reset(key):
        del key
        return jnp.zeros(1), jnp.zeros(1)

    return Task(spec=SPEC, horizon=5, reset=reset, step=step, irreversible=lambda observation: observation[..., 0] >= 2.0)


def played(environment, actions):
    """The time steps of one copy's actions, each [move, wish], and the last state."""
    state, observation = environment.reset(KEY)
    step, steps = jax.jit(environment.step), []
    for action in actions:
        state, timestep = step(state, jnp.array([action], jnp.float32), KEY)
        steps.append(jax.tree.map(lambda leaf: np.asarray(leaf)[0], timestep))
    return steps, {name: int(value) for name, value in environment.counts(state).items()}


def shown(timestep, name):
    return float(column(timestep.observation, name))


def test_a_life_that_asks_is_labelled_and_told_to_the_next():
    environment = endless(line(), Rules(horizon=10, patience=2))
    # Falls with the third step (number 2), wants help with the fourth, gets it two steps later: 6 steps, of which 4 are lost.
    steps, counts = played(environment, [[1, -1], [0.5, -1], [1, -1], [0, 1], [0, -1], [0, -1], [0, -1]])
    assert [float(s.next_observation[0]) for s in steps[:6]] == [1, 1.5, 2.5, 2.5, 2.5, 2.5]
    assert [bool(s.truncated) for s in steps] == [False] * 5 + [True, False]
    assert steps[5].observation[0] == 0 and (shown(steps[5], 'life'), shown(steps[5], 'age')) == (1, 0)
    assert shown(steps[5], 'told') == 2 and shown(steps[6], 'told') == 2 and shown(steps[6], 'elapsed') == 7
    assert counts == {
        'help': 1, 'horizon': 0, 'false_alarms': 0, 'label_queries': 3, 'irreversible_steps': 4, 'lost_lives': 1, 'successes': 0,
        'interventions': 1, 'most_over_bound': 0,
    }  # asked about 5, 2 and 1  # fmt: skip


def test_false_alarms_horizons_and_budgets_are_counted_apart():
    environment = endless(line(), Rules(horizon=3, budget=1))
    steps, counts = played(environment, [[0, 1], [0, 1], [0, -1], [0, -1], [1, -1]])
    assert [shown(s, 'left') for s in steps] == [0, 0, 0, 0, 0]
    assert [bool(s.truncated) for s in steps] == [True, False, False, True, False]  # the second wish is not granted
    assert (counts['help'], counts['horizon'], counts['false_alarms'], counts['interventions']) == (1, 1, 1, 2)
    assert counts['label_queries'] == 2 and counts['lost_lives'] == 0  # one question a life: its last state
    none = played(endless(line(), Rules(horizon=3, budget=0)), [[0, 1]] * 4)[1]
    assert (none['help'], none['horizon']) == (0, 1)


def test_success_ends_values_and_not_lives_unless_episodes_are_wanted():
    environment = endless(line(goal=-1.0), Rules(horizon=9))
    steps, counts = played(environment, [[-1, -1], [0.5, -1]])
    assert bool(steps[0].terminated) and steps[1].next_observation[0] == -0.5 and counts['interventions'] == 0
    steps, counts = played(endless(line(goal=-1.0), Rules(horizon=9, end_at_success=True)), [[-1, -1], [0.5, -1]])
    assert steps[0].observation[0] == 0 and counts['horizon'] == 1 and counts['successes'] == 1


def test_policies_take_turns_and_a_wish_suspends_them():
    environment = endless(line(goal=-1.0), Rules(horizon=20, switch_every=2, patience=3))
    steps, _ = played(environment, [[0, -1], [0, -1], [0, -1], [0, -1], [-1, -1], [0, 1], [0, -1], [0, -1], [0, -1]])
    assert [shown(s, 'mode') for s in steps] == [0, 1, 1, 0, 1, 1, 1, 1, 0]  # the last after a reset
    assert shown(steps[-1], 'life') == 1


def test_leave_no_trace_returns_or_asks():
    rules = Rules(horizon=30, switch_every=3, wish='switch')
    environment = endless(line(), rules, returned=lambda observation: jnp.abs(observation[..., 0]) < 0.1)
    # Wishes to return at 1: the backward turn begins, comes home and ends; the next turn falls and cannot come home.
    actions = [[1, 1], [-1, -1], [1, -1], [1, 1], [0, -1], [0, -1], [0, -1]]
    steps, counts = played(environment, actions)
    assert [shown(s, 'mode') for s in steps] == [1, 0, 0, 1, 1, 1, 0]
    assert shown(steps[-1], 'life') == 1 and counts['help'] == 1 and counts['false_alarms'] == 0


def test_a_new_goal_comes_with_a_forward_turn():
    environment = endless(line(goal=-1.0), Rules(horizon=9), new_goal=lambda state, key: (state + 0.25, state + 0.25))
    steps, _ = played(environment, [[0.5, -1], [-1.5, -1]])
    assert steps[0].observation[0] == 0.5 and steps[1].observation[0] == -0.75 and steps[1].next_observation[0] == -1.0


def test_bad_rules_are_refused():
    for task in (dataclasses.replace(line(), irreversible=None), dataclasses.replace(line(), absorbing=False)):
        with pytest.raises(UsageError, match='endless needs a task that knows what is irreversible'):
            endless(task, Rules(horizon=5))
    with pytest.raises(UsageError, match="wish = 'switch' needs a backward policy"):
        Rules(horizon=5, wish='switch')
    with pytest.raises(UsageError, match='budget must be 0 or more'):
        Rules(horizon=5, budget=-1)


def _rows(**columns):
    """Rows of lives with these columns, on a task of one number."""
    marks = np.zeros((len(columns['life']), WIDTH), np.float32)
    for name, values in columns.items():
        marks[:, COLUMNS.index(name)] = values
    observation = jnp.concatenate([jnp.zeros((len(marks), 1)), jnp.asarray(marks)], axis=-1)
    zeros = jnp.zeros(len(marks))
    return Transition(observation, jnp.zeros((len(marks), 2)), zeros, zeros + 1, observation, {})


def test_rows_are_labelled_by_life_and_age_once_their_life_is_judged():
    agent = intervening(iql(SPEC, IQLConfig(hidden=())), copies=2, lives=3)
    state = agent.observe(agent.init(KEY), _rows(copy=[0, 1, 1, 0], life=[0, 1, 3, -1], age=[5, 0, 0, 0], told=[9, 4, 0, 7]))
    assert state.told.tolist() == [[-1, -1, -1], [4, -1, 0]]
    batch = _rows(copy=[1, 1, 1, 1, 0, 1], life=[0, 0, 1, 2, 0, -1], age=[3, 4, 9, 0, 9, 9])
    assert labels(state.told, batch).tolist() == [0, 1, -1, 1, -1, -1]
    demonstrations = batch._replace(extras={'label': jnp.zeros(6)})
    assert labels(state.told, demonstrations).tolist() == [0, 1, -1, 1, -1, 0]


def test_what_is_collected_is_told_to_every_member_in_the_tasks_own_columns():
    counts = state_action_counts([-1.0], [1.0], (2,), (2,))
    detector = nearest_neighbour(SPEC, NeighbourConfig(capacity=4))
    agent = intervening(bonus(iql(SPEC, IQLConfig(hidden=())), counts, scale=1.0), detector=detector, lives=3)
    # The last life fell with its first step, and the row that says so is one of the next.
    state = agent.observe(agent.init(KEY), _rows(copy=[0, 0, 0], life=[0, 1, 1], age=[0, 0, 1], told=[0, 0, 0]))
    assert int(state.forward.signal.visits.sum()) == 3
    assert int(state.detector.stored) == 2 and state.detector.memory.shape == (4, 1)


def test_backward_rewards():
    batch = Transition(jnp.zeros((2, 1)), jnp.zeros((2, 1)), jnp.ones(2), jnp.ones(2), jnp.array([[0.0], [1.0]]), {})
    home = returning(lambda observation: observation[..., 0] < 0.5)(batch, None)
    assert home.reward.tolist() == [1, 0] and home.discount.tolist() == [0, 1]
    classifier = reversibility_classifier(SPEC, ClassifierConfig(hidden=()))
    state = InterveningState((), (), (), classifier.init(KEY), ())
    assert matching(classifier)(batch._replace(discount=jnp.zeros(2)), state).reward.tolist() == [0, 0]  # not fitted: no reward
    seen = state._replace(discriminator=state.discriminator._replace(seen=jnp.ones(2)))
    found = matching(classifier)(batch, seen)
    np.testing.assert_allclose(found.reward, -np.log(np.asarray(classifier.score(seen.discriminator, batch)) + 1e-6), rtol=1e-5)
    assert found.discount.tolist() == [1, 1]


def test_triggers():
    agent = td3(SPEC, TD3Config(hidden=(4,)))
    state = InterveningState(agent.init(KEY), (), (), (), ())
    observation, columns = jnp.array([[0.0], [3.0]]), jnp.zeros((2, WIDTH))
    value = interventions.value_of(agent, state.forward, observation, KEY)
    asks = interventions.when_worthless(agent, float(value.mean()))(state, observation, columns, KEY)
    assert asks.tolist() == (value < value.mean()).tolist() and asks.any()
    drop = interventions.when_value_drops(agent, [0.0], 0.1)(state, observation, columns, KEY)
    assert drop.tolist() == [False, bool(value[0] - value[1] > 0.1)]
    assert interventions.when_true(line().irreversible)(state, observation, columns, KEY).tolist() == [False, True]
    unfitted = reversibility_classifier(SPEC, ClassifierConfig(hidden=()))
    asked = state._replace(detector=unfitted.init(KEY))
    assert not when_detected(unfitted, 0.0)(asked, observation, columns, KEY).any()
    assert not interventions.never(state, observation, columns, KEY).any()


def _setup(**backward):
    detector = reversibility_classifier(SPEC, ClassifierConfig(hidden=(4,)))
    plain = iql(SPEC, IQLConfig(hidden=(4,)))
    agent = intervening(
        plain, trigger=when_detected(detector), detector=detector, floor=-10.0, copies=2, lives=64, **backward
    )
    environment = endless(line(), Rules(horizon=9, patience=1, seed_steps=8), num_envs=2)
    demonstrations = Transition(
        np.zeros((8, 1)), np.zeros((8, 1)), np.zeros(8), np.ones(8), np.zeros((8, 1)),
        {'boundary': np.zeros(8), 'label': np.zeros(8)},
    )
    return Setup(
        phases=online(agent, num_env_steps=128, num_updates=64, random_agent=wandering(environment.spec), random_steps=32),
        seeds=(0,), dataset=as_lives(demonstrations), environment=environment, updates_per_round=16,
    )


def test_a_run_without_resets_counts_what_it_costs_and_goes_on_bit_for_bit():
    setup, rows, kept = _setup(), [], None
    for event in iterate(setup):
        rows += event.rows
        if event.phase.name == 'online' and kept is None and event.updates >= 32:
            kept = jax.tree.map(np.array, event.state)
    final = event.state
    found = [row for row in rows if row['kind'] == 'counts' and row['seed'] == 0]
    assert [row['phase'] for row in found] == ['random'] * (len(found) - 4) + ['online'] * 4
    for name in ('interventions', 'label_queries', 'irreversible_steps', 'false_alarms'):
        totals = [row[name] for row in found]
        assert totals == sorted(totals)
    assert found[-1]['interventions'] > 10 and found[-1]['lost_lives'] > 0 and found[-1]['most_over_bound'] <= 0
    resumed = run(setup, resume=kept)
    assert trees_equal(jax.tree.map(np.asarray, resumed), jax.tree.map(np.asarray, final))
    learnt = [row for row in rows if row['kind'] == 'train'][-1]
    assert learnt['labelled'] > 0 and learnt['irreversible'] > 0 and learnt['detector/fitted'] > 0


def test_policies_imitate_their_own_demonstrations_only():
    def update(state, batch, key):
        return state, {'shown': batch.extras.get('imitated')}

    agent = Agent(init=lambda key: (), update=update, sample_action=None, best_action=None)
    batch = _rows(copy=[0] * 4, life=[-1, -1, 0, 0], age=[0] * 4, mode=[0, 1, 0, 1])
    ways = {'backward': agent, 'backward_reward': returning(lambda o: o[..., 0] > 9.0)}
    careful = intervening(agent, imitate='demonstrations', **ways)
    _, metrics = careful.update(careful.init(KEY), batch, KEY)
    assert metrics['shown'].tolist() == [1, 0, 0, 0] and metrics['backward/shown'].tolist() == [0, 1, 0, 0]
    plain = intervening(agent, **ways)
    assert plain.update(plain.init(KEY), batch, KEY)[1]['shown'] is None
    rows = Transition(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1), np.ones(1), np.zeros((1, 1)))
    assert [float(column(as_lives(rows, backward=b).observation, 'mode')[0]) for b in (False, True)] == [0, 1]
    policy = SimpleNamespace(masks=False, loss=lambda params, observation, action, key: jnp.arange(2.0))
    assert imitation(policy, None, rows._replace(extras={'imitated': jnp.array([1.0, 0.0])}), KEY).tolist() == [0, 0]
    assert imitation(policy, None, rows, KEY).tolist() == [0, 1]


def test_a_backward_agent_learns_from_the_same_rows_with_a_reward_of_its_own():
    plain = iql(SPEC, IQLConfig(hidden=()))
    agent = intervening(plain, backward=plain, backward_reward=returning(lambda o: o[..., 0] > 9.0), floor=-9.0)
    batch = _rows(copy=[0, 0], life=[0, 0], age=[0, 1], mode=[0, 1])
    state = agent.init(KEY)
    after, metrics = agent.update(state, batch, KEY)
    rows = interventions.own_columns(batch)._replace(extras={'label': -jnp.ones(2)})
    keys = jax.random.split(KEY, 4)
    careful = penalised(rows, jnp.zeros(2), -9.0)
    assert trees_equal(after.forward, plain.update(state.forward, careful, keys[2])[0])
    assert trees_equal(after.backward, plain.update(state.backward, careful._replace(reward=jnp.zeros(2)), keys[3])[0])
    acts = agent.sample_action(after, batch.observation, KEY)
    assert acts.shape == (2, 2) and acts[:, 1].tolist() == [-1, -1]
    keys = jax.random.split(KEY, 3)
    states = after.forward, after.backward
    ahead, back = (plain.sample_action(s, jnp.zeros((2, 1)), k) for s, k in zip(states, keys[:2], strict=True))
    np.testing.assert_array_equal(acts[:, 0], [ahead[0, 0], back[1, 0]])  # by whose turn it is
    assert 'backward/q/loss' in metrics
