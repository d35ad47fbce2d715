"""Gymnasium environments on the host: contract, workers, and going on bit for bit after an interruption."""

import functools
import os
import subprocess
import sys

import gymnasium
import jax
import numpy as np
import pytest
from conftest import PATIENCE

from ooorl.envs import host, make
from ooorl.envs.gymnasium_adapter import HostState
from ooorl.envs.worker_pool import WorkerGroup
from ooorl.errors import UsageError

LOW, HIGH = np.array([-1.0, 0.0], np.float32), np.array([3.0, 10.0], np.float32)


class Counter(gymnasium.Env):
    """Observation: (steps since reset, random number of this reset, last action); one buffer for all of them."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    action_space = gymnasium.spaces.Box(LOW, HIGH)

    def __init__(self, terminate_at=None, truncate_at=None, info_name='is_success', info_value=None):
        self.terminate_at, self.truncate_at, self.info_name, self.info_value = terminate_at, truncate_at, info_name, info_value
        self.buffer = np.zeros(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.buffer[:] = [0, self.np_random.uniform(), 0, 0]
        return self.buffer, {}

    def step(self, action):
        self.buffer[0] += 1
        self.buffer[1] += 0.01 * self.np_random.normal()
        self.buffer[2:] = action
        count = self.buffer[0]
        terminated = self.terminate_at is not None and count >= self.terminate_at
        truncated = self.truncate_at is not None and count >= self.truncate_at
        return self.buffer, count, terminated, truncated, {self.info_name: self.info_value or np.bool_(terminated)}


class ElsewhereOnly(Counter):
    """Does as it is told in the process it was made for, and in a worker something else."""

    def __init__(self, home, instead):
        super().__init__()
        self.home, self.instead = home, instead

    def step(self, action):
        if os.getpid() != self.home:
            self.instead(self)
        return super().step(action)


def _fail(env):
    if env.buffer[0] == 2:
        raise ArithmeticError('the environment gave up')


def _die(env):
    os._exit(3)


def _counter(**settings):
    return functools.partial(Counter, **settings)


def _roll(environment, num_steps, state=None, seed=0):
    if state is None:
        state, _ = environment.reset(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    shape = (*environment.batch_shape, environment.spec.action_dim)
    actions = rng.uniform(-1, 1, (num_steps, *shape)).astype(np.float32)
    return environment.scan(lambda state, action: environment.step(state, action, None), state, actions)


def _counted(state):
    """A copy of the state without the actions that do not count."""
    counts = np.arange(state.actions.shape[-2]) < state.elapsed[..., None]
    return state._replace(actions=np.where(counts[..., None], state.actions, 0.0))


def test_an_episode_has_no_phantom_steps_and_shows_its_true_last_observation():
    environment = host(_counter(terminate_at=3), (2,), horizon=10)
    _, steps = _roll(environment, 9)
    np.testing.assert_array_equal(steps.next_observation[..., 0], np.tile([1, 2, 3], 3)[:, None].repeat(2, 1))
    np.testing.assert_array_equal(steps.observation[..., 0], np.tile([1, 2, 0], 3)[:, None].repeat(2, 1))
    np.testing.assert_array_equal(steps.reward, steps.next_observation[..., 0])
    np.testing.assert_array_equal(steps.terminated, steps.next_observation[..., 0] == 3)
    np.testing.assert_array_equal(steps.success, steps.terminated)
    assert not steps.truncated.any()
    assert steps.observation.dtype == steps.reward.dtype == np.float32
    # Six resets, six different seeds.
    assert len(np.unique(steps.observation[2::3, :, 1])) == 6


def test_a_time_out_keeps_the_discount():
    for environment in (
        host(_counter(), (1,), horizon=3),
        host(_counter(truncate_at=3), (1,), horizon=10),
        host(lambda: gymnasium.wrappers.TimeLimit(Counter(), 3)),
    ):
        _, steps = _roll(environment, 6)
        np.testing.assert_array_equal(steps.truncated[:, 0], [False, False, True] * 2)
        assert not steps.terminated.any()


def test_termination_wins_over_a_time_out_in_the_same_step():
    for settings in ({'truncate_at': 3}, {}):
        _, steps = _roll(host(_counter(terminate_at=3, **settings), (1,), horizon=3), 3)
        np.testing.assert_array_equal(steps.terminated[:, 0], [False, False, True])
        assert not steps.truncated.any()


def test_actions_are_clipped_and_mapped_onto_the_bounds():
    environment = host(_counter(), (1,), horizon=10)
    state, _ = environment.reset(jax.random.key(0))
    for action, expected in (([-1, -1], LOW), ([1, 1], HIGH), ([0, 0.5], [1, 7.5]), ([-9, 9], [-1, 10])):
        state, step = environment.step(state, np.array([action], np.float32), None)
        np.testing.assert_allclose(step.next_observation[0, 2:], expected, rtol=1e-6)


@pytest.mark.parametrize('name', ['success', 'is_success', 'goal_achieved', 'something_else'])
def test_success_is_read_from_info(name):
    _, steps = _roll(host(_counter(terminate_at=2, info_name=name), (1,), horizon=5), 2)
    assert steps.success[-1, 0] == (name != 'something_else')


def test_a_success_that_is_no_truth_value_is_told():
    environment = host(_counter(info_value='yes'), (1,), horizon=5)
    with pytest.raises(UsageError, match="true or false as 'is_success' of its info was needed; .* gave 'yes' in step 1"):
        environment.step(environment.reset(jax.random.key(0))[0], np.zeros((1, 2), np.float32), None)


class _WithSpaces(Counter):
    def __init__(self, observation_space=None, action_space=None):
        super().__init__()
        self.observation_space = observation_space or self.observation_space
        self.action_space = action_space or self.action_space


def test_unusable_environments_are_refused():
    boxes = gymnasium.spaces
    vector = boxes.Box(-1, 1, (2,))
    for settings, message in (
        ({'observation_space': boxes.Dict({'a': vector})}, 'FlattenObservation'),
        ({'observation_space': boxes.Box(0, 255, (4, 4, 3), np.uint8)}, 'FlattenObservation'),
        ({'action_space': boxes.Discrete(3)}, 'Discrete'),
        ({'action_space': boxes.Box(-np.inf, np.inf, (2,))}, 'finite'),
        ({'action_space': boxes.Box(-1, 1, (0,))}, 'must have entries; they have 4 and 0'),
    ):
        with pytest.raises(UsageError, match=message):
            host(functools.partial(_WithSpaces, **settings), (1,), horizon=5)
    with pytest.raises(UsageError, match='horizon'):
        host(_counter(), (1,))
    with pytest.raises(UsageError, match='NoSuchEnvironment'):
        host('NoSuchEnvironment-v0', (1,))


def test_seeds_do_not_depend_on_each_other():
    rows = host(_counter(terminate_at=4), (2, 3), horizon=10)
    keys = jax.random.split(jax.random.key(0), 2)
    state, observation = rows.reset(keys)
    alone_state, alone = host(_counter(terminate_at=4), (3,), horizon=10).reset(keys[1])
    np.testing.assert_array_equal(observation[1], alone)
    np.testing.assert_array_equal(state.episode_seed[1], alone_state.episode_seed)
    assert len(np.unique(observation[..., 1])) == 6
    _, observation = rows.reset(jax.random.key(0))
    assert observation.shape == (2, 3, 4) and len(np.unique(observation[..., 1])) == 6


def test_an_old_state_can_be_stepped_again():
    environment = host(_counter(terminate_at=5), (2,), horizon=10)
    middle, _ = _roll(environment, 7)
    _, first = _roll(environment, 8, middle, seed=1)
    copied = jax.tree.map(np.copy, middle)
    for again in (middle, copied, jax.tree.map(jax.numpy.asarray, middle)):
        _, second = _roll(environment, 8, again, seed=1)
        jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize('workers', [1, 2, 9])
def test_workers_change_nothing(workers):
    _, alone = _roll(host(_counter(terminate_at=5), (3,), horizon=10), 20)
    environment = host(_counter(terminate_at=5), (3,), workers=workers, horizon=10)
    state, shared = _roll(environment, 20)
    jax.tree.map(np.testing.assert_array_equal, alone, shared)
    # An old state is rebuilt in the workers too.
    again_state, again = _roll(environment, 20)
    jax.tree.map(np.testing.assert_array_equal, (alone, _counted(state)), (again, _counted(again_state)))


def test_a_failing_worker_reports_its_error_and_serves_on():
    environment = host(functools.partial(ElsewhereOnly, os.getpid(), _fail), (2,), workers=1, horizon=10)
    for _ in range(2):
        state, _ = _roll(environment, 2)
        for _ in range(2):
            with pytest.raises(UsageError, match='copy 0 of 2, raised ArithmeticError: the environment gave up .* step 3'):
                _roll(environment, 1, state)


def test_an_environment_that_fails_here_leaves_no_stale_answers():
    class Failing(Counter):
        def step(self, action):
            if os.getpid() == home and self.buffer[0] == 2:
                raise ArithmeticError('the environment gave up')
            return super().step(action)

    home = os.getpid()
    environment = host(Failing, (2,), workers=1, horizon=10)
    first = _roll(environment, 2)
    with pytest.raises(UsageError, match='copy 1 of 2, raised ArithmeticError: the environment gave up'):
        _roll(environment, 1, first[0])
    jax.tree.map(np.testing.assert_array_equal, first[1], _roll(environment, 2)[1])


def test_an_interrupted_step_leaves_no_stale_answers(monkeypatch):
    environment = host(_counter(), (2,), workers=1, horizon=10)
    state, first = _roll(environment, 3)

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkerGroup, 'receive', interrupted)
        with pytest.raises(KeyboardInterrupt):
            _roll(environment, 1, state)
    jax.tree.map(np.testing.assert_array_equal, first, _roll(environment, 3)[1])


def test_a_worker_that_dies_is_an_error_each_time():
    environment = host(functools.partial(ElsewhereOnly, os.getpid(), _die), (2,), workers=1, horizon=10)
    state, _ = environment.reset(jax.random.key(0))
    for _ in range(2):
        with pytest.raises(UsageError, match='ElsewhereOnly ended its worker with exit status 3'):
            _roll(environment, 1, state)


def test_stepping_copies_no_record_and_an_episodes_end_spares_earlier_ones():
    environment = host(_counter(terminate_at=4), (2,), horizon=10)
    early, _ = _roll(environment, 2)
    late, _ = _roll(environment, 1, early)
    assert np.shares_memory(early.actions, late.actions)
    with pytest.raises(ValueError, match='read-only'):
        late.elapsed[0] = 0
    kept = np.copy(late.actions[:, :3])
    following, _ = _roll(environment, 3, late)
    assert not np.shares_memory(late.actions, following.actions)
    np.testing.assert_array_equal(late.actions[:, :3], kept)
    assert not following.actions[:, 2:].any()


def test_workers_know_the_environments_of_this_project():
    pytest.importorskip('mujoco')
    observations = [
        environment.step(environment.reset(jax.random.key(0))[0], np.ones((2, 2)), None)[1].observation
        for environment in (host('ooorl/Maze2dUmaze-v0', (2,), workers=workers) for workers in (0, 2))
    ]
    np.testing.assert_array_equal(*observations)


def test_an_id_may_name_the_module_that_registers_it(tmp_path, monkeypatch):
    (tmp_path / 'elsewhere.py').write_text(
        'import gymnasium\n'
        'from gymnasium.envs.classic_control import PendulumEnv\n'
        'class Mine(PendulumEnv):\n'
        '    pass\n'
        'gymnasium.register("Mine-v0", "elsewhere:Mine", max_episode_steps=7)\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        rewards = [_roll(make('elsewhere:Mine-v0', (2,), workers=workers), 9)[1].reward for workers in (0, 2)]
        np.testing.assert_array_equal(*rewards)
        assert make('elsewhere:Mine-v0').horizon == 7
        with pytest.raises(UsageError, match="got 'elsewhere:Mime-v0'; did you mean"):
            make('elsewhere:Mime-v0')
        with pytest.raises(UsageError, match="got 'elsewhere:Xyzzy'; call gymnasium.register there"):
            make('elsewhere:Xyzzy')
    finally:
        gymnasium.registry.pop('Mine-v0', None)
    with pytest.raises(UsageError, match="before the colon of 'nowhere_at_all:Mine-v0'.*PYTHONPATH"):
        make('nowhere_at_all:Mine-v0')


def test_workers_end_with_a_script_that_has_no_main_guard(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        'import gymnasium, jax, numpy as np\n'
        'from ooorl.envs import host\n'
        'make = lambda: gymnasium.make("Pendulum-v1")\n'
        'environment = host(make, (2,), workers=2)\n'
        'state, _ = environment.reset(jax.random.key(0))\n'
        'state, step = environment.step(state, np.zeros((2, 1)), None)\n'
        'print(step.reward.shape)\n'
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={'PYTHONPATH': ':'.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0 and done.stdout.strip() == '(2,)', done.stderr


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_halfcheetah_is_identical_with_workers_and_after_a_resume(tmp_path, monkeypatch):
    # MuJoCo writes its warnings to a file in the working directory.
    monkeypatch.chdir(tmp_path)
    pytest.importorskip('mujoco', reason='mujoco is not installed')
    pytest.importorskip('imageio', reason='gymnasium imports its MuJoCo tasks only with imageio')
    make = functools.partial(host, 'HalfCheetah-v4', (3,), horizon=40)
    alone = make()
    middle, first = _roll(alone, 60)
    _, rest = _roll(alone, 60, middle, seed=1)
    shared_middle, shared_first = _roll(make(workers=2), 60)
    jax.tree.map(np.testing.assert_array_equal, (_counted(middle), first), (_counted(shared_middle), shared_first))
    # Through a file into environments that have stepped something else, with another number of workers.
    np.savez(tmp_path / 'state.npz', **middle._asdict())
    restored = HostState(**np.load(tmp_path / 'state.npz'))
    for other in (make(), make(workers=1)):
        _roll(other, 5, seed=7)
        _, again = _roll(other, 60, restored, seed=1)
        jax.tree.map(np.testing.assert_array_equal, rest, again)
