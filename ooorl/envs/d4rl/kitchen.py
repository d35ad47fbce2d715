"""D4RL's kitchen: a Franka arm that changes four things in a kitchen, in any order.

    observation   60 = 9 robot joints, 21 object joints (both with sensor noise), then the goal: the targets
                  of the task's elements among 30 joints, zero elsewhere
    action        9 joint velocities in [-1, 1] (times 2), turned into joint targets from the last noisy
                  reading
    reward        "new": the number of tasks completed for the first time in this step, and the episode ends
                  when all are done (D4RL, 280 steps); "cumulative": the number completed so far, and nothing
                  ends an episode (the variant of OOO, Cal-QL and WSRL, 1000 steps)
    step          40 simulation steps of 0.002 s

A task is complete when the noisy reading of its joints is within 0.3 of its target. Data sets store yet
another reward, the number of tasks satisfied now.

The model and the sensors' noise amplitudes are those that gymnasium-robotics packages; none of its code runs,
so its check that fails on MuJoCo 3.12 and later is not met. Noise is a tenth of the amplitudes, as in D4RL.

Sources: Gupta et al., arXiv:1910.11956; Fu et al., arXiv:2004.07219.
"""

from xml.etree import ElementTree

import mujoco
import numpy as np

from ooorl.envs.d4rl import assets
from ooorl.envs.d4rl.simulated import SimulatedEnv, unbounded, unit_box
from ooorl.errors import UsageError

FRAME_SKIP = 40
NUM_ROBOT_JOINTS, NUM_JOINTS = 9, 30
COMPLETION_DISTANCE = 0.3
NOISE_RATIO = 0.1
ACTION_SCALE = 2.0

# Joints (of all 30) and targets of every element.
ELEMENTS = {
    'bottom burner': ((11, 12), (-0.88, -0.01)),
    'top burner': ((15, 16), (-0.92, -0.01)),
    'light switch': ((17, 18), (-0.69, -0.05)),
    'slide cabinet': ((19,), (0.37,)),
    'hinge cabinet': ((20, 21), (0.0, 1.45)),
    'microwave': ((22,), (-0.75,)),
    'kettle': ((23, 24, 25, 26, 27, 28, 29), (-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06)),
}
TASKS = {
    'complete': ('microwave', 'kettle', 'light switch', 'slide cabinet'),
    'partial': ('microwave', 'kettle', 'light switch', 'slide cabinet'),
    'mixed': ('microwave', 'kettle', 'bottom burner', 'light switch'),
}
# The state that D4RL starts every episode from: 9 robot joints, 14 hinges and slides, the kettle's pose.
_START = (
    (0.148388023, -1.76848573, 1.84390296, -2.4768576, 0.260252026, 0.712533105, 1.59515394),
    (0.0479267505, 0.0371350919),
    (-2.66279850e-04, -5.18043486e-05, 3.12877220e-05, -4.51199853e-05, -3.90842156e-06, -4.22629655e-05),
    (6.28065475e-05, 4.04984708e-05, 4.62730939e-04, -2.26906415e-04, -4.65501369e-04, -6.44129196e-03),
    (-1.77048263e-03, 1.08009684e-03),
    (-0.26939744, 0.350383255, 1.61944683, 1.00618764, 4.06395120e-03, -6.62095997e-03, -2.68278933e-04),
)


def _sensor_table(path: str) -> dict[str, np.ndarray]:
    """Bounds and noise amplitudes of the 30 joints, from the packaged description of the robot."""
    root = ElementTree.parse(path).getroot()
    joints = [root.find(f'qpos{index}') for index in range(NUM_JOINTS)]
    names = ('pos_bound', 'vel_bound', 'pos_noise_amp')
    return {name: np.array([joint.get(name).split() for joint in joints], np.float64) for name in names}


class KitchenEnv(SimulatedEnv):
    """One set of four tasks.

    Args:
      tasks: `complete`, `partial` (the same four, other data) or `mixed`.
      reward: `new` or `cumulative`.
      noise_ratio: sensor noise as a share of the amplitudes.
      render_mode: `rgb_array` or None.

    `info` carries `success` (all four completed), `num_completed` and `completed` (names).
    """

    view = {'lookat': [-0.2, 0.5, 2.0], 'distance': 2.2, 'azimuth': 70.0, 'elevation': -35.0}  # noqa: RUF012

    def __init__(
        self,
        tasks: str = 'complete',
        *,
        reward: str = 'new',
        noise_ratio: float = NOISE_RATIO,
        render_mode: str | None = None,
    ):
        if tasks not in TASKS or reward not in ('new', 'cumulative'):
            raise UsageError(
                f"tasks must be one of {sorted(TASKS)} and reward 'new' or 'cumulative'; got {tasks!r} and {reward!r}"
            )
        path = assets.robotics_asset('kitchen_franka', 'kitchen_assets', 'kitchen_env_model.xml')
        table = _sensor_table(assets.robotics_asset('kitchen_franka', 'franka_assets', 'franka_config.xml'))
        self.elements, self.cumulative = TASKS[tasks], reward == 'cumulative'
        self.use_model(mujoco.MjModel.from_xml_path(path), FRAME_SKIP, render_mode)
        self.observation_space, self.action_space = unbounded(60), unit_box(NUM_ROBOT_JOINTS)
        self._noise = noise_ratio * table['pos_noise_amp'][:, 0]
        self._low, self._high = table['pos_bound'][:NUM_ROBOT_JOINTS].T
        self._slowest, self._fastest = table['vel_bound'][:NUM_ROBOT_JOINTS].T
        self.goal = np.zeros(NUM_JOINTS)
        for element in self.elements:
            joints, target = ELEMENTS[element]
            self.goal[list(joints)] = target
        self._start = np.concatenate(_START)
        self._reading, self._done = self._start.copy(), np.zeros(len(self.elements), bool)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._done[:] = False
        self.reset_simulation()
        self.set_state(self._start, 0.0)
        return self._observe(), self._info()

    def step(self, action):
        velocity = np.clip(ACTION_SCALE * np.clip(action, -1.0, 1.0), self._slowest, self._fastest)
        target = self._reading[:NUM_ROBOT_JOINTS] + velocity * self.dt
        self.simulate(np.clip(target, self._low, self._high))
        observation = self._observe()
        satisfied = self._satisfied()
        new = int(np.sum(satisfied & ~self._done))
        self._done |= satisfied
        reward = int(self._done.sum()) if self.cumulative else new
        terminated = bool(self._done.all()) and not self.cumulative
        return observation, float(reward), terminated, False, self._info()

    def _observe(self):
        noise = self.np_random.uniform(-1.0, 1.0, NUM_JOINTS)
        self._reading = self.data.qpos + self._noise * noise
        return np.concatenate([self._reading, self.goal])

    def _satisfied(self) -> np.ndarray:
        joints = (list(ELEMENTS[element][0]) for element in self.elements)
        distances = [np.linalg.norm(self._reading[j] - self.goal[j]) for j in joints]
        return np.array(distances) < COMPLETION_DISTANCE

    def _info(self):
        completed = tuple(name for name, done in zip(self.elements, self._done, strict=True) if done)
        return {'success': bool(self._done.all()), 'num_completed': len(completed), 'completed': completed}
