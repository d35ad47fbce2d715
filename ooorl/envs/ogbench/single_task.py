"""One task of OGBench as a gymnasium environment: repeatable, its states settable, its rewards given to recorded states."""

import contextlib
from importlib import metadata

import gymnasium
import numpy as np

from ooorl.catalogue.ogbench import FAMILIES, environment
from ooorl.envs.ogbench import PACKAGE, repeatable
from ooorl.envs.ogbench.shared_model import Copy
from ooorl.errors import UsageError

REWARDS = ('dense', 'sparse')
_HAND = 19  # entries of arm and hand, the contact force last; then of each cube position, quaternion, cos and sin of yaw


class SingleTaskEnv(gymnasium.Env):
    """A single task: rewards, ends and success are those of the state that is acted in, as in ogbench 1.2.0 and later.

    Dense rewards are the number of sub-tasks in place less the number of sub-tasks (in mazes -1, or 0 at the goal); sparse ones
    are -1, or 0 where all of them are. The episode ends with the step behind the state in which all of them are.

    Args:
      family: one of `FAMILIES`.
      task: 1 to 5; 0 for the package's default.
      reward: 'dense' or 'sparse'.
      render_mode: None or 'rgb_array'.
    """

    metadata = {'render_modes': ['rgb_array'], 'render_fps': 20}

    def __init__(self, family: str, task: int = 0, reward: str = 'dense', render_mode: str | None = None):
        if family not in FAMILIES or reward not in REWARDS:
            known = ", ".join(FAMILIES)
            raise UsageError(f'a family of {known} and a reward of {REWARDS} were needed; got {family!r} and {reward!r}')
        self._name = environment(family, task).removeprefix('ooorl/')
        self._sparse, self.render_mode = reward == 'sparse', render_mode
        self._copy, self._draws = Copy(self._name), repeatable.Draws()
        self._inner = self._copy.env
        self._is_maze, self._draws_in_steps = hasattr(self._inner, 'maze_map'), 'teleport' in family
        self.state_names = ('qpos', 'qvel', *(('button_states',) if hasattr(self._inner, '_cur_button_states') else ()))
        self.model = self._inner.model
        size = FAMILIES[family].observation_dim
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.action_space = self._inner.action_space

    @property
    def unsteady_entries(self) -> tuple[int, ...]:
        """Entries of an observation that recorded states do not repeat.

        The yaw of a cube that lies on its side is undefined, and the force between a puzzle's closed fingers depends on where the
        solver started.
        """
        if self._is_maze:
            return ()
        if not hasattr(self._inner, '_num_cubes'):
            return (_HAND - 1,)
        return tuple(_HAND + 9 * cube + entry for cube in range(self._inner._num_cubes) for entry in (7, 8))

    def reset(self, *, seed=None, options=None):
        """Begins an episode; see `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        seed = self._draws.seed(self._inner, [int(self.np_random.integers(2**31))])
        with self._draws.drawn(), self._copy.turn():
            observation, _ = self._inner.reset(seed=seed, options=options)
        return observation, {'success': False}

    def step(self, action):
        """Takes a step; see `gymnasium.Env.step`. It never truncates."""
        with self._copy.turn(), self._draws.drawn() if self._draws_in_steps else contextlib.nullcontext():
            observation, reward, terminated, _, info = self._inner.step(action)
        if self._sparse:
            reward = -float(reward != 0.0)
        return observation, float(reward), bool(terminated), False, {'success': bool(info['success'])}

    def set_env_state(self, state) -> None:
        """Puts the environment into the state `{name: values}` of the names `state_names`."""
        qpos, qvel, *rest = (np.asarray(state[name], np.float64) for name in self.state_names)
        self._check_sizes(qpos, qvel, *rest)
        with self._copy.turn():
            self._put(qpos, qvel, rest)

    def _put(self, qpos, qvel, rest):
        self._inner.set_state(qpos, qvel, *(np.asarray(buttons, np.int64) for buttons in rest))
        if self._is_maze:
            return
        # Whether the task is done is judged at the end of a step; nothing is pressed by looking twice.
        self._inner.pre_step()
        self._inner.post_step()
        if not rest:
            self._place_hand(qpos, qvel)

    def _check_sizes(self, *parts):
        buttons = [len(self._inner._cur_button_states)] if len(self.state_names) > 2 else []
        needed, given = [self.model.nq, self.model.nv, *buttons], [part.shape[-1] for part in parts]
        if needed != given:
            raise UsageError(f'states of sizes {needed} are needed by {self._name}; got {given}; they are of another environment')

    def _place_hand(self, qpos, qvel):
        """Puts the hand where an action finds it after a step: at the start of its last, 2 ms long part.

        Where no button is watched, nothing brings the places of bodies up to date once positions have moved on.
        """
        import mujoco

        before = qpos.copy()
        mujoco.mj_integratePos(self.model, before, qvel, -self.model.opt.timestep)
        self._inner.data.qpos[:] = before
        mujoco.mj_kinematics(self.model, self._inner.data)
        self._inner.data.qpos[:] = qpos

    def labelled(self, states) -> tuple[np.ndarray, np.ndarray]:
        """Rewards `[N]` float32 and ends `[N]` bool of recorded states `{name: [N, ...]}`, by the package's own relabelling.

        Raises:
          UsageError: where the states are those of another environment.
        """
        from ogbench.relabel_utils import relabel_dataset

        labels = {name: np.asarray(states[name]) for name in self.state_names}
        self._check_sizes(*labels.values())
        with self._draws.drawn(), self._copy.turn():
            relabel_dataset(self._name, self._inner, labels)
        rewards = -(labels['rewards'] != 0).astype(np.float32) if self._sparse else labels['rewards']
        return rewards, labels['masks'] == 0

    @property
    def labels_from(self) -> str:
        """Whose rewards `labelled` gives."""
        kind = 'sparse rewards' if self._sparse else 'rewards'
        return f'{kind} and ends of {self._name}, of the state acted in, by {PACKAGE} {metadata.version(PACKAGE)}'

    def render(self):
        """The current view, `[200, 200, 3]` uint8; None unless made with `render_mode="rgb_array"`."""
        with self._copy.turn():
            return self._inner.render() if self.render_mode == 'rgb_array' else None

    def close(self):
        """Closes the package's environment."""
        self._inner.close()
