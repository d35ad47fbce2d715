"""Chunks: carried out whole, forgotten at an episode's end, counted, resumed in their middle, and of one step nothing at all."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from line_world import HORIZON, LineEnv, line_task
from reused import reused_programs  # noqa: F401  programs of a run and of the same one resumed
from small import random_batch, trees_equal

from ooorl import wrap
from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.fql import FQLConfig, fql
from ooorl.agents.iql import IQLConfig, iql
from ooorl.agents.sac import sac
from ooorl.agents.td3 import TD3Config, td3
from ooorl.envs import batched, host
from ooorl.errors import UsageError
from ooorl.interpreted import interpreted
from ooorl.nn import schedules
from ooorl.policies.gaussian import gaussian_policy
from ooorl.signals import RNDConfig, rnd, state_action_counts
from ooorl.testing import check_agent
from ooorl.training import collect as collection
from ooorl.training import phases, replay, rounds
from ooorl.training.chunks import receding
from ooorl.training.evaluate import evaluate
from ooorl.training.learn import make_learn
from ooorl.training.preflight import check
from ooorl.training.run import iterate, run
from ooorl.training.sampling import Sampling
from ooorl.types import Spec, Transition
from ooorl.wrap import chunked, one_decision

SPEC, LINE, CHUNK = Spec(observation_dim=3, action_dim=2), Spec(observation_dim=1, action_dim=1), 3
SMALL = IQLConfig(hidden=(8,))
RND = RNDConfig(hidden=(8,), num_features=4)


def wide(spec, length):
    return Spec(observation_dim=spec.observation_dim, action_dim=length * spec.action_dim)


def stair(observation, key):
    """Plans that tell where they were made and which step is which: 0.5 + x / 64, then 1/8 more, then 1/8 more."""
    del key
    return observation / 64 + jnp.array([[0.5, 0.625, 0.75]])


def expected(num_steps, executed=CHUNK):
    """Positions, actions and decisions of `stair` on the line, by a loop; of a plan the first `executed` steps are taken."""
    position, plan, steps, found = 0.0, [], 0, []
    for _ in range(num_steps):
        decided = not plan
        plan = plan or [level + position / 64 for level in (0.5, 0.625, 0.75)][:executed]
        action, steps = plan.pop(0), steps + 1
        found.append((position, action, decided))
        position += action
        if position >= 2.0 or steps == HORIZON:
            position, plan, steps = 0.0, [], 0
    return np.array(found).T


def collected(environment, calls, num_steps, act=stair, chunk=CHUNK):
    state = collection.undecided(environment, collection.start(environment, jax.random.key(0)), chunk)
    parts, sums = [], []
    for number in range(calls):
        state, rows, finished = collection.collect(environment, act, state, jax.random.key(number), num_steps)
        parts.append(jax.tree.map(np.asarray, rows))
        sums.append({name: float(value) for name, value in finished.items()})
    return state, jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), sums


@pytest.mark.parametrize('make', [lambda: batched(line_task(), 2), lambda: host(LineEnv, 2, horizon=HORIZON)])
def test_chunks_are_carried_out_whole_and_end_with_their_episode(make):
    state, rows, [sums] = collected(make(), 1, 11)
    positions, actions, decided = expected(11)
    for copy in range(2):
        np.testing.assert_allclose(rows.observation[:, copy, 0], positions)
        np.testing.assert_allclose(rows.action[:, copy, 0], actions)
    assert sums['num_decisions'] == 2 * decided.sum() and sums['num_steps'] == 2 * 11
    assert decided[:9].tolist() == [1, 0, 0, 1, 1, 0, 0, 1, 1]  # episodes of 4 steps end in mid-chunk: what is left is given up
    pieces = collected(make(), 11, 1)
    np.testing.assert_array_equal(pieces[1].action, rows.action)  # the queue goes on from call to call
    assert sum(each['num_decisions'] for each in pieces[2]) == sums['num_decisions']
    assert trees_equal(pieces[0].queue, state.queue)


def test_copies_decide_each_for_itself():
    def act(observation, key):
        return jnp.broadcast_to(jax.random.uniform(key, (3, 1)), (3, CHUNK)) + 0 * observation

    def differing(observation, key):
        # The first copy soon reaches the goal and decides anew; the others carry out what they decided on.
        return act(observation, key).at[0].set(1.0)

    _, rows, _ = collected(batched(line_task(), 3), 1, 6, differing)
    action = rows.action[..., 0]
    for copy in (1, 2):
        assert len(set(action[:3, copy])) == 1 and len(set(action[:4, copy])) == 2
    np.testing.assert_array_equal(action[:, 0], np.ones(6))


def test_evaluation_carries_out_whole_chunks_and_counts_decisions():
    compiled, hosted = (
        evaluate(environment, stair, jax.random.key(0), CHUNK)
        for environment in (batched(line_task(), 2), host(LineEnv, 2, horizon=HORIZON))
    )
    positions, actions, decided = expected(HORIZON)
    length = int(np.argmax(positions[1:] == 0)) + 1
    for scores in (compiled, hosted):
        np.testing.assert_array_equal(scores['length'], [length] * 2)
        np.testing.assert_array_equal(scores['decisions'], [decided[:length].sum()] * 2)
        np.testing.assert_allclose(scores['return'], [(positions + actions)[:length].sum()] * 2)
    slow = evaluate(batched(line_task(), 1), lambda observation, key: jnp.full((1, 2), 0.25), jax.random.key(0), 2)
    assert (float(slow['length'][0]), float(slow['decisions'][0])) == (5, 3)  # 2 + 2 + 1 steps
    assert 'decisions' not in evaluate(batched(line_task(), 1), lambda observation, key: observation, jax.random.key(0))


def test_a_chunk_of_one_is_the_plain_agent():
    agent = iql(SPEC, SMALL)
    assert chunked(agent, 1, gamma=0.99) is agent  # and so are its programs
    environment = batched(line_task(), 2)
    start = collection.start(environment, jax.random.key(0))
    assert trees_equal(collection.undecided(environment, start, 1), start)
    assert jax.tree.structure(collection.undecided(environment, start, 1)) == jax.tree.structure(start)


@pytest.mark.parametrize('ends', ['keep', 'drop'])
def test_windows_of_one_row_are_that_row_bit_for_bit(ends):
    batch = random_batch(jax.random.key(0), 12)
    windows = jax.tree.map(lambda leaf: leaf[:, None], batch._replace(extras={'valid': jnp.ones(12)}))
    row = one_decision(windows, 0.99, ends)
    assert trees_equal(row[:5], batch[:5])
    agent = iql(SPEC, SMALL)
    state = schedules.begin(interpreted(agent.init)(jax.random.key(1)), 1)
    # Operation by operation, so that no compiler may fuse the two differently.
    plain, _ = interpreted(agent.update)(state, batch, jax.random.key(2))
    weighed, _ = interpreted(agent.update)(state, row, jax.random.key(2))
    assert trees_equal(plain, weighed)


def test_rows_of_weight_zero_teach_nothing_but_count_in_the_mean():
    agent = iql(SPEC, SMALL)
    state = schedules.begin(interpreted(agent.init)(jax.random.key(1)), 1)
    batch = random_batch(jax.random.key(0), 12, weight=jnp.where(jnp.arange(12) < 6, 1.0, 0.0))
    noise = random_batch(jax.random.key(5), 12, **batch.extras)
    other = jax.tree.map(lambda a, b: a.at[6:].set(b[6:]), batch, noise)
    found = [interpreted(agent.update)(state, rows, jax.random.key(2)) for rows in (batch, other)]
    assert trees_equal(found[0][0], found[1][0])
    half = jax.tree.map(lambda leaf: leaf[:6], batch._replace(extras={}))
    _, metrics = interpreted(agent.update)(state, half, jax.random.key(2))
    for name in ('q/loss', 'value/loss'):
        np.testing.assert_allclose(found[0][1][name], metrics[name] / 2, rtol=1e-5)


def test_backups_of_several_steps_with_plain_actions():
    windows = line_windows([[-1.0, -1.0, -1.0, 0.0]], [[1.0, 1.0, 1.0, 1.0]])
    row = one_decision(windows, 0.9, 'keep', 1)
    np.testing.assert_array_equal(row.action, windows.action[:, 0])
    whole = one_decision(windows, 0.9, 'keep')
    np.testing.assert_array_equal(whole.action, windows.action.reshape(1, -1))
    np.testing.assert_allclose((row.reward + 0.9 * row.discount * 7.0)[0], 1.8827, rtol=1e-6)
    assert trees_equal(row.extras | {'known': 0}, whole.extras | {'known': 0}) and row.extras['known'].shape == (1, 1)
    agent = chunked(iql(LINE, SMALL), 1, gamma=0.9, backup_steps=4)
    assert (agent.chunk, agent.window) == (1, 4)
    state = schedules.begin(interpreted(agent.init)(jax.random.key(1)), 1)
    plain, _ = interpreted(iql(LINE, SMALL).update)(state, row, jax.random.key(2))
    assert trees_equal(interpreted(agent.update)(state, windows, jax.random.key(2))[0], plain)
    # Collection and evaluation know nothing of it: no queue, plain actions.
    learn = make_learn(agent, Sampling(batch_size=6), num_updates=1, streams={'dataset': 1})
    new, metrics = learn(state, {'dataset': replay.full(line_data([6, 6]))}, jax.random.key(0))
    action = interpreted(agent.sample_action)(new, jnp.zeros((2, 1)), jax.random.key(0))
    assert metrics['chunk/steps'] > 1 and action.shape == (2, 1)


def line_windows(reward, discount):
    """Windows on the line whose rows all belong to them."""
    shape = np.shape(reward)
    noise = jax.random.uniform(jax.random.key(3), (3, *shape, 1), minval=-1.0)
    return Transition(noise[0], noise[1], jnp.array(reward), jnp.array(discount), noise[2], {'valid': jnp.ones(shape)})


@pytest.mark.parametrize('make', [
    lambda spec: chunked(iql(spec, SMALL), CHUNK, gamma=0.99),
    lambda spec: wrap.rescaled_reward(wrap.value_bounds(chunked(
        wrap.bonus(fql(spec, FQLConfig(hidden=(8,), num_steps=1)), rnd(spec, RND), scale=1.0), CHUNK, gamma=0.9, ends='drop',
    ), gamma=0.9), scale=2.0, shift=-1.0),
], ids=['iql', 'fql, wrapped'])  # fmt: skip
def test_agents_with_chunks_keep_every_promise(make):
    check_agent(make(wide(SPEC, CHUNK)), SPEC, reads_final_successors=True)


def line_data(lengths, terminal=True):
    """Episodes of so many steps, one behind the other."""
    num = sum(lengths)
    last = np.cumsum(lengths) - 1
    end = np.isin(np.arange(num), last).astype(np.float32)
    noise = np.random.default_rng(0).uniform(-1, 1, (3, num, 1)).astype(np.float32)
    return Transition(noise[0], noise[1], noise[2, :, 0], 1 - end * terminal, noise[0] + noise[1], {'boundary': end})


def setup_of(environment, length=CHUNK, dataset=None, **settings):
    """A run that collects and learns in five cycles of four steps of two copies."""
    agent = chunked(iql(wide(LINE, length), SMALL), length, gamma=0.99)
    random = chunked(bc(wide(LINE, 2), BCConfig(hidden=(8,))), 2, gamma=0.99)
    how = {'num_env_steps': 40, 'num_updates': 5, 'cycle_steps': 4, 'sampling': Sampling(batch_size=4)}
    made = phases.online(agent, random_agent=random, random_steps=6, **how)
    return phases.Setup(phases=made, seeds=(0, 1), environment=environment, dataset=dataset, updates_per_round=1, **settings)


@pytest.mark.parametrize('make', [lambda: batched(line_task(), 2), lambda: host(LineEnv, (2, 2), horizon=HORIZON)])
def test_a_run_resumed_in_mid_chunk_ends_with_the_same_bits(make):
    setup, rows = setup_of(make(), evaluation=batched(line_task(), 3)), []
    for event in iterate(setup):
        state = event.state
        rows += event.rows
        if (state.phase, state.round, state.done) == (1, 2, 0):
            middle = jax.tree.map(np.array, state)  # as a checkpoint holds it
    shapes = rounds.template(setup, 1, True, 0, rounds.shapes_of(middle.sums))[:4]
    held = middle.agent, middle.finished, middle.stores, middle.collectors
    assert jax.tree.map(np.shape, held) == jax.tree.map(np.shape, shapes)
    assert (middle.collectors['online'].queue.left > 0).any()
    ended = run(setup, resume=middle)
    for name in ('finished', 'stores', 'collectors'):
        assert trees_equal(getattr(ended, name), getattr(state, name))
    episodes = [row for row in rows if row['kind'] == 'episodes' and row['phase'] == 'online']
    assert all(row['num_steps'] == 8 for row in episodes)
    assert 80 / CHUNK <= sum(row['num_decisions'] for row in episodes) < 80
    assert all('decisions' in row for row in rows if row['kind'] == 'eval' and row['phase'] == 'online')


def test_batches_of_a_phase_are_windows_of_its_own_streams():
    seen = []
    agent = chunked(bc(wide(LINE, 2), BCConfig(hidden=(8,))), 2, gamma=0.99)
    watching = wrap.edited(agent, lambda windows: seen.append(jax.tree.map(jnp.shape, windows)) or windows)
    source = replay.full(line_data([4, 5]))
    learn = make_learn(watching, Sampling(batch_size=6), num_updates=2, streams={'dataset': 1})
    learn(schedules.begin(interpreted(agent.init)(jax.random.key(0)), 2), {'dataset': source}, jax.random.key(1))
    assert seen[0].observation == (6, 2, 1) and seen[0].extras['valid'] == (6, 2)


@pytest.mark.parametrize(('make', 'sentence'), [
    (lambda: chunked(bc(SPEC), 0, gamma=0.99), 'at least one step; got 0'),
    (lambda: chunked(bc(SPEC), 2.0, gamma=0.99), 'at least one step; got 2.0'),
    (lambda: chunked(bc(SPEC), 3, gamma=0.99, backup_steps=2), 'backup_steps must be at least the chunk, 3; got 2'),
    (lambda: chunked(chunked(bc(SPEC), 1, gamma=0.99, backup_steps=2), 2, gamma=0.99), 'agent of single steps'),
    (lambda: chunked(chunked(bc(SPEC), 2, gamma=0.99), 2, gamma=0.99), 'chunks of 2; wrap it once'),
    (lambda: chunked(replace(sac(SPEC), weighs=False), 2, gamma=0.99), 'weigh their rows'),
    (lambda: chunked(iql(SPEC, policy=replace(gaussian_policy(SPEC), masks=False)), 2, gamma=0.99), 'leaves out what'),
    (lambda: chunked(td3(SPEC, TD3Config(critic_cloning_weight=1.0)), 2, gamma=0.99), 'reads next_action; set critic_cloning'),
    (lambda: chunked(bc(SPEC), 2, gamma=0.99, ends='cut'), 'chunk_ends must be'),
    (lambda: chunked(bc(SPEC), 2, gamma=1.5), 'gamma'),
    (lambda: wrap.bonus(chunked(bc(SPEC), 2, gamma=0.99), rnd(SPEC), scale=1.0), 'inside of chunked'),
    (lambda: chunked(
        wrap.bonus(bc(SPEC), state_action_counts([0.0], [1.0], (2,), (2, 2)), scale=1.0), 2, gamma=0.99,
    ), 'observes what is stored'),
])  # fmt: skip
def test_chunks_that_cannot_be_are_refused_when_built(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()


@pytest.mark.parametrize(('length', 'lengths', 'sentence'), [
    (HORIZON + 1, [9], f'chunk must be at most {HORIZON} in phase .online., the longest episode of'),
    (4, [3, 1, 2], 'chunk must be at most 3 in phase .online., the longest episode of the data set; got 4; lower it'),
    (3, [3, 1, 2], None),
])  # fmt: skip
def test_chunks_longer_than_any_episode_are_refused(length, lengths, sentence):
    setup = setup_of(batched(line_task(), 2), length, line_data(lengths))
    if sentence is None:
        check(setup)
    else:
        with pytest.raises(UsageError, match=sentence):
            check(setup)


@pytest.mark.parametrize('steps', [1, 2])
def test_only_the_first_steps_of_a_plan_are_taken(steps):
    def act(state, observation, key):
        del state
        return stair(observation, key)

    planner = replace(bc(wide(LINE, CHUNK), BCConfig(hidden=(8,))), sample_action=act, best_action=act, chunk=CHUNK, window=CHUNK)
    agent = receding(planner, steps)
    assert (agent.chunk, agent.window, agent.update) == (steps, CHUNK, planner.update)
    _, rows, _ = collected(batched(line_task(), 2), 2, 6, lambda *given: agent.sample_action(None, *given), agent.chunk)
    positions, actions, _ = expected(12, executed=steps)
    np.testing.assert_allclose(rows.observation[:, 0, 0], positions, rtol=1e-6)
    np.testing.assert_allclose(rows.action[:, 1, 0], actions, rtol=1e-6)


def test_all_steps_of_a_plan_are_the_agent_itself():
    single, chunks = bc(SPEC, BCConfig(hidden=(8,))), chunked(bc(wide(SPEC, CHUNK), BCConfig(hidden=(8,))), CHUNK, gamma=0.9)
    assert receding(single, 1) is single and receding(chunks, CHUNK) is chunks
    for steps in (0, CHUNK + 1):
        with pytest.raises(UsageError, match='chunk_executed must lie between 1 and the chunk, 3'):
            receding(chunks, steps)
