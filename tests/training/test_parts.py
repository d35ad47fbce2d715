"""Rounds are done in parts: wherever they are cut, stopped and stored, every number is that of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from line_world import HORIZON, LineEnv, line_task
from reused import Reused, reused_programs  # noqa: F401  programs of many sessions of one run
from small import trees_equal

from ooorl.envs import batched, host
from ooorl.training import checkpoint, rounds
from ooorl.training import run as running
from ooorl.training.phases import Setup, finetune
from ooorl.training.programs import PART_SECONDS, Pace, Programs, Stopped
from ooorl.training.sampling import Sampling
from ooorl.training.stopwatch import ACTIVITIES, Stopwatch, added, total
from ooorl.types import Agent, Transition


def learner():
    """An agent all of whose numbers depend on what its batches say of returns, rewards and actions."""

    def update(state, batch, key):
        target = jnp.nan_to_num(batch.extras['return_to_go']).mean() + 0.1 * batch.extras['reward_high'].mean()
        state = state + 0.1 * (target + batch.action.mean() + jax.random.normal(key) - state)
        return state, {'state': state, 'target': target}

    return Agent(
        init=jax.random.uniform,
        update=update,
        sample_action=lambda state, obs, key: jnp.tanh(state + jax.random.normal(key, obs.shape)),
        best_action=lambda state, obs, key: jnp.full(obs.shape, 0.5),
        reads=('return_to_go', 'reward_high'),
    )


def setup_of(kind):
    n = np.arange(20, dtype=np.float32)
    data = Transition(
        observation=n[:, None], action=np.zeros((20, 1), np.float32), reward=np.sin(n), discount=np.ones(20, np.float32),
        next_observation=n[:, None] + 1, extras={'boundary': (n % 5 == 4).astype(np.float32)},
    )  # fmt: skip
    sampling = Sampling(batch_size=8, success_rows=2, success_reward=0.5)
    phases = finetune(learner(), offline_updates=7, num_env_steps=36, num_updates=18, sampling=sampling)
    if kind == 'compiled':
        environments = {'environment': batched(line_task(), 2), 'evaluation': batched(line_task(), 2)}
    else:
        environments = {name: host(LineEnv, (2, 2), horizon=HORIZON) for name in ('environment', 'evaluation')}
    return Setup(phases=phases, seeds=(0, 1), dataset=data, updates_per_round=5, seed_group=2, **environments)


def in_parts(monkeypatch, setup, lengths, resume=None):
    """All events of a run whose parts have the given lengths, over and over."""
    left = [*lengths]

    def count(self, phase, most):
        left.append(left.pop(0))
        return min(most, left[-1])

    monkeypatch.setattr(Pace, 'count', count)
    return running.iterate(setup, resume=resume)


def through_disk(setup, state, directory):
    """The state as another process would find it."""
    place = {'phase_number': state.phase, 'under_way': state.agent is not None, 'done': state.done}
    place['sums'] = rounds.shapes_of(state.sums)
    checkpoint.save(directory, 1, (*state[2:6], state.known, state.sums), place)
    (*held, known, sums), _ = checkpoint.restore(directory, lambda meta: rounds.template(setup, **meta))
    return rounds.RunState(state.phase, state.round, *held, {}, state.done, known, sums)


@pytest.mark.parametrize('kind', ['compiled', 'host'])
def test_parts_of_any_length_give_the_same_bits_also_through_a_checkpoint(monkeypatch, tmp_path, kind):
    setup = setup_of(kind)
    whole = list(in_parts(monkeypatch, setup, [99]))
    assert all(event.round_done for event in whole) and [event.steps for event in whole] == [5, 2, 5, 5, 5, 3]
    cut = list(in_parts(monkeypatch, setup, [2, 1]))
    assert len(cut) > 2 * len(whole) and sum(event.steps for event in cut) == 25
    rows = [row for event in whole for row in event.rows]
    assert [row for event in cut for row in event.rows] == rows
    assert trees_equal(cut[-1].state[2:6], whole[-1].state[2:6])
    # Stopped in the middle of the second round of collection, stored, and gone on with in parts of other lengths.
    seen = []
    for event in in_parts(monkeypatch, setup, [2]):
        seen += event.rows
        if (event.state.phase, event.state.round, event.state.done) == (1, 1, 2):
            break
    state = through_disk(setup, event.state, tmp_path / 'checkpoint')
    assert state.known is not None and state.sums['train']['target'].dtype == np.float64
    rest = list(in_parts(monkeypatch, setup, [1, 2], resume=state))
    assert seen + [row for event in rest for row in event.rows] == rows
    assert trees_equal(rest[-1].state[2:6], whole[-1].state[2:6])


@pytest.mark.parametrize('kind', ['compiled', 'host'])
def test_whoever_asks_while_it_compiles_or_evaluates_gets_a_state_that_goes_on(monkeypatch, kind):
    setup = setup_of(kind)
    monkeypatch.setattr(Pace, 'count', lambda self, phase, left: left)
    Reused.kept.clear()  # what was given up while it compiled is compiled by a later session
    rows, state, stops = [], None, 0
    for patience in range(40):  # every session is stopped after a few more questions than the one before
        asked = iter(range(1 + 3 * patience))
        for event in running.iterate(setup, resume=state, stopped=lambda asked=asked: next(asked, None) is None):
            state, rows = event.state, rows + event.rows
        if state.phase == 2:
            break
        stops += 1
    assert stops > 2 and state.phase == 2
    events = list(running.iterate(setup))
    assert rows == [row for event in events for row in event.rows]
    assert trees_equal(state.finished, events[-1].state.finished)


def test_a_stop_is_heard_before_a_program_compiles():
    programs = Programs(setup_of('compiled'), stopped=lambda: True)
    with pytest.raises(Stopped):
        programs.call('name', lambda x: x, jnp.zeros(()))


def test_a_part_is_as_long_as_the_ones_before_say():
    phase, pace = setup_of('compiled').phases[0], Pace()
    assert pace.count(phase, 1000) == 1  # nothing is known yet
    pace.took(phase, 1, PART_SECONDS / 50)
    assert pace.count(phase, 1000) == 50 and pace.count(phase, 20) == 20
    pace.took(phase, 50, 100 * PART_SECONDS)  # two parts' time a step
    assert pace.count(phase, 1000) == 1
    pace.took(phase, 1, 2 * PART_SECONDS)
    assert pace.count(phase, 1000) == 1  # and two steps are not tried again and again


def test_what_a_part_costs_however_short_it_is_does_not_make_it_short():
    phase, pace, counts = setup_of('compiled').phases[0], Pace(), []
    for _ in range(10):  # 3 parts' time before the first step, a hundredth of one for each
        counts.append(pace.count(phase, 1000))
        pace.took(phase, counts[-1], (3.0 + 0.01 * counts[-1]) * PART_SECONDS)
    assert counts[:7] == [1, 2, 4, 8, 16, 32, 64] and all(99 <= count <= 100 for count in counts[7:])


def test_a_stopwatch_counts_every_second_once():
    now = iter([0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0])
    watch = Stopwatch(clock=lambda: next(now))  # at 0
    watch.enter('explore')  # 1 s of nothing in particular
    with watch.on('train'):  # at 3, after 2 s
        with watch.on('compile'):  # at 7, after 4 s of training
            pass  # ends at 15, after 8 s
        # ends at 31, after 16 s more
    spent = watch.lap()  # at 63
    assert spent == {'': {'other': 1.0}, 'explore': {'other': 2.0 + 32.0, 'train': 4.0 + 16.0, 'compile': 8.0}}
    assert total(spent) == 63.0 and total(spent, 'train') == 20.0
    twice = added(spent, {'explore': {'train': 1.0, 'report': 0.5}})
    assert total(twice) == 64.5 and twice['explore']['report'] == 0.5
    assert {name for own in twice.values() for name in own} <= set(ACTIVITIES)
