"""Replays: what is told apart by the share of wrong rows, by rewards, by ends, and what cannot be told."""

import re
from types import SimpleNamespace

import gymnasium
import jax
import numpy as np
import pytest

from ooorl import data
from ooorl.data.audit import audit, replayed
from ooorl.data.recorded_states import simulator
from ooorl.envs import make_task
from ooorl.envs.scripted import point_mass_wall_offline, u_maze_offline
from ooorl.errors import UsageError

LENGTH, ROWS = 50, 1000


class Ball(gymnasium.Env):
    """A position pushed by the action; the observation clips the velocity, the reward may hang on a goal that a reset draws."""

    def __init__(self, clip=10.0, goal=False, wall=np.inf, wind=False, box=1.0, late=0.0):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
        self.action_space = gymnasium.spaces.Box(-box, box, (1,))
        self.model, self.data = SimpleNamespace(nq=1, nv=1), SimpleNamespace(qpos=np.zeros(1), qvel=np.zeros(1))
        self.clip, self.draws, self.wall, self.wind, self.late, self.gusts = clip, goal, wall, wind, late, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = self.np_random.uniform(-1.0, 1.0) if self.draws else None
        self.set_state(self.np_random.uniform(-1.0, 1.0, 1), np.zeros(1))
        return self.look(), {}

    def set_state(self, position, velocity):
        self.data.qpos, self.data.qvel, self.before = np.array(position), np.array(velocity), 0.0

    def look(self):
        return np.concatenate([self.data.qpos, np.clip(self.data.qvel, -self.clip, self.clip)])

    def step(self, action):
        self.gusts += 1
        self.data.qvel = self.data.qvel + np.asarray(action) + (self.gusts % 7 if self.wind else 0)
        self.data.qpos = self.data.qpos + 0.1 * self.data.qvel
        if self.data.qpos[0] > self.wall:
            self.data.qpos, self.data.qvel = np.array([self.wall]), np.zeros(1)
        x = self.data.qpos[0]
        reward = x if self.goal is None else float(abs(x - self.goal) < 0.5)
        reward, self.before = reward + self.late * self.before, x
        return self.look(), reward, bool(x < -3.0), False, {}


def recorded(env, seed=0, own_successors=False):
    """Columns of random actions that lean back to the middle."""
    rng, rows, length = np.random.default_rng(seed), [], 0
    seen, _ = env.reset(seed=seed)
    while len(rows) < ROWS:
        action = np.clip(rng.uniform(-1.0, 1.0, 1) - 0.3 * seen[0] - 0.2 * seen[1], -1.0, 1.0) * env.action_space.high
        following, reward, terminal, *_ = env.step(action)
        length += 1
        late = length == LENGTH and not terminal
        rows.append((seen, action, reward, terminal, late, following))
        if terminal or late:
            following, length = env.reset()[0], 0
        seen = following
    names = ('observations', 'actions', 'rewards', 'terminals', 'timeouts', 'next_observations')
    columns = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    return columns if own_successors else {name: columns[name] for name in names[:-1]}


def judged(tmp_path, columns, env, **reading):
    np.savez(tmp_path / 'a.npz', **columns)
    return audit(tmp_path / 'a.npz', lambda: env, **reading)


def test_a_recording_replays_in_its_own_environment(tmp_path):
    found = judged(tmp_path, recorded(Ball()), Ball())
    assert (found.kind, found.bad_rows, found.findings, found.wrong) == ('same', 0, (), False)
    assert 'it is data of this environment' in found.verdict and found.max_error < 1e-6


DAMAGE = {
    'negated rewards': ({'rewards': lambda r: -r}, "rewards are not those of this environment on 99.8 .*: they are -1 times the"),
    'shifted rewards': ({'rewards': lambda r: r - 1}, "they are the environment's - 1"),
    'scaled rewards': ({'rewards': lambda r: 0.1 * r + 3}, "they are 0.1 times the environment's \\+ 3"),
    'late rewards': ({'rewards': lambda r: np.roll(r, 1)}, 'they are those of the row before'),
    'early rewards': ({'rewards': lambda r: np.roll(r, -1)}, 'they are those of the row behind'),
    'rewards backwards': ({'rewards': lambda r: r[::-1]}, 'rewards are not those of this environment'),
    'late time-outs': ({'timeouts': lambda r: np.roll(r, 1)}, 'rows beside the ends of episodes lead elsewhere'),
    'early time-outs': ({'timeouts': lambda r: np.roll(r, -1)}, 'rows beside the ends of episodes lead elsewhere'),
    'few time-outs': ({'timeouts': lambda r: r & (np.arange(len(r)) > 500)}, 'rows with the largest steps lead elsewhere'),
}


@pytest.mark.parametrize('case', DAMAGE)
def test_damaged_rewards_and_ends_are_found(tmp_path, case):
    changes, words = DAMAGE[case]
    columns = recorded(Ball())
    columns |= {name: change(columns[name]) for name, change in changes.items()}
    found = judged(tmp_path, columns, Ball())
    assert found.kind == 'same' and found.wrong and re.search(words, found.findings[0]), found.findings


def test_terminal_rows_that_are_none(tmp_path):
    columns = recorded(Ball(), own_successors=True)
    columns['terminals'] = columns['timeouts'].copy()
    found = judged(tmp_path, columns, Ball())
    assert '20 of 20 terminal rows do not end the episode in this environment' in found.findings[0]


@pytest.mark.parametrize('change', [
    {'actions': lambda a: -a}, {'actions': lambda a: a / 2}, {'actions': lambda a: np.roll(a, 1, 0)},
    dict.fromkeys(('observations', 'actions', 'rewards', 'terminals', 'timeouts'), lambda column: column[::-1]),
    {'observations': lambda o: o + np.random.default_rng(0).normal(0, 0.2, o.shape)},
], ids=['negated actions', 'halved actions', 'late actions', 'backwards', 'noise'])  # fmt: skip
def test_rows_that_lead_elsewhere(tmp_path, change):
    columns = recorded(Ball())
    found = judged(tmp_path, columns | {name: f(columns[name]) for name, f in change.items()}, Ball())
    assert found.kind == 'other' and found.wrong and 'does not replay' in found.verdict


def test_a_tenth_of_wrong_rows_decides_where_the_median_is_zero(tmp_path):
    found = judged(tmp_path, recorded(Ball()), Ball(wall=0.75))
    assert found.median_error < 1e-6 and 0.02 < found.bad_rows / found.rows < 0.3
    assert found.kind == 'other' and 'whatever its name says' in found.verdict


def test_rows_with_clipped_velocities_are_left_out_and_counted(tmp_path):
    columns = recorded(Ball(clip=1.0))
    clipped = int((np.abs(columns['observations'][:, 1]) == 1.0).sum())
    found = judged(tmp_path, columns, Ball(clip=1.0))
    assert found.kind == 'same' and not found.wrong and 100 < found.lost_rows <= clipped
    assert f'{found.lost_rows} of 980 rows left out: their velocity is clipped' in found.findings[0]


def test_rewards_that_hang_on_what_a_reset_draws_are_not_blamed(tmp_path):
    columns = recorded(Ball(goal=True))
    assert judged(tmp_path, columns, Ball(goal=True)).findings == ()
    columns['rewards'] = -columns['rewards']
    assert 'rewards are not those' in judged(tmp_path, columns, Ball(goal=True)).findings[0]


def test_rewards_that_a_simulator_does_not_repeat_itself_are_given_room(tmp_path):
    """A part of the reward speaks of the step before, which no state tells."""
    columns = recorded(Ball(late=0.1))
    assert judged(tmp_path, columns, Ball(late=0.1)).findings == ()
    columns['rewards'] = columns['rewards'] - 2.0
    assert "they are the environment's - 1.99" in judged(tmp_path, columns, Ball(late=0.1)).findings[0]


def test_actions_reach_the_environment_in_its_own_units(tmp_path):
    columns = recorded(Ball(box=2.0))
    assert columns['actions'].max() > 1.0
    assert judged(tmp_path, columns, Ball(box=2.0)).kind == 'same'
    halved = columns | {'actions': columns['actions'] / 2}
    assert judged(tmp_path, halved, Ball(box=2.0), action_low=-1.0, action_high=1.0).kind == 'same'


def test_environments_that_tell_nothing(tmp_path):
    with pytest.raises(UsageError, match='does not repeat its own steps'):
        judged(tmp_path, recorded(Ball()), Ball(wind=True))
    unsettable = Ball()
    del unsettable.model
    with pytest.raises(UsageError, match='only sizes can be compared'):
        judged(tmp_path, recorded(Ball()), unsettable)


def test_compiled_tasks_are_put_into_recorded_states():
    made = {'u_maze': u_maze_offline, 'wall': point_mass_wall_offline}
    rows = {name: maker(jax.random.key(0), num_episodes=4) for name, maker in made.items()}
    for name, task, kind in (
        ('u_maze', 'ooorl/UMaze-v0', 'same'),
        ('u_maze', 'ooorl/PointMassWall-v0', 'other'),
        ('u_maze', 'ooorl/IrreversibleMaze-v0', 'other'),
        ('wall', 'ooorl/PointMassWall-v0', 'same'),
        ('wall', 'ooorl/UMaze-v0', 'other'),
    ):
        dataset = data.Dataset(transitions=jax.tree.map(np.asarray, rows[name]), name=name)
        assert replayed(simulator(make_task(task), dataset, name), dataset, name, 100).kind == kind, (name, task)
