"""Seeds of a run: alone, in groups, and gone on with from what was stored, they give the same numbers."""

import jax
import numpy as np
import pytest
from reused import reused_programs  # noqa: F401  the same run, gone on with
from small import trees_equal

from ooorl.agents.iql import IQLConfig, iql
from ooorl.envs import make
from ooorl.envs.scripted import u_maze_offline
from ooorl.training import run as running
from ooorl.training.phases import Setup, finetune
from ooorl.training.sampling import Sampling
from ooorl.types import Spec


def collect_events(setup, resume=None):
    events = []
    running.run(setup, resume=resume, report=events.append)
    return events


MAZE = {'hidden': (16,), 'learning_rate': 1e-3}


def maze_setup(seeds, **settings):
    """A small run of IQL in the U-maze, offline and then online."""
    agent = iql(Spec(observation_dim=2, action_dim=2), IQLConfig(**MAZE))
    phases = finetune(agent, offline_updates=20, num_env_steps=80, num_updates=20, sampling=Sampling(batch_size=16))
    return Setup(phases=phases, seeds=seeds, dataset=u_maze_offline(jax.random.key(0), num_episodes=8),
                 environment=make('ooorl/UMaze-v0', (4,)), evaluation=make('ooorl/UMaze-v0', (5,)),
                 updates_per_round=10, **settings)  # fmt: skip


@pytest.fixture(scope='module')
def maze():
    # States are stored as a checkpoint stores them: on the host, before the next round donates them.
    events = []
    running.run(maze_setup((3, 5, 8)), report=lambda e: events.append(e._replace(state=jax.device_get(e.state))))
    return events


def final(events):
    return jax.device_get((events[-1].state.finished, events[-1].state.stores))


def seed_of(tree, number):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[number : number + 1], tree)


def test_a_seed_alone_gives_the_numbers_it_gives_among_others(maze):
    alone = collect_events(maze_setup((5,)))
    # The program for one seed is another program: sums may be taken in another order, actions differ by rounding.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), final(alone), seed_of(final(maze), 1))
    rows = [row for event in maze for row in event.rows if row['seed'] == 5 and row['kind'] == 'eval']
    for ours, theirs in zip([row for event in alone for row in event.rows if row['kind'] == 'eval'], rows, strict=True):
        assert {k: ours[k] for k in ('phase', 'updates', 'success', 'length')} == {
            k: theirs[k] for k in ('phase', 'updates', 'success', 'length')
        }


def test_groups_of_seeds_give_the_same_numbers(maze):
    grouped = collect_events(maze_setup((3, 5, 8), seed_group=4))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), final(grouped), final(maze))


def test_going_on_from_any_stored_state_repeats_the_run_bit_for_bit(maze):
    middle = next(number for number, event in enumerate(maze) if event.phase.name == 'finetune')
    assert not maze[middle].phase_done
    events = collect_events(maze_setup((3, 5, 8)), resume=maze[middle].state)
    assert [event.rows for event in events] == [event.rows for event in maze[middle + 1 :]]
    assert trees_equal(final(events), final(maze))
