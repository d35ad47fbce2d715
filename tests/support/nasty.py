"""Environments that do what environments must not, registered as `nasty:Nasty-v0`.

`Nasty(when, kind)` misbehaves in its constructor, in `reset`, or in the step whose first action is above 0.5, there in the way
that `KINDS` says.
"""

import os
import signal
import sys

import gymnasium
import numpy as np

FINE = (np.zeros(3, np.float32), 1.0, False, False, {})


def _answer(**changed):
    names = ('observation', 'reward', 'terminated', 'truncated', 'info')
    return tuple(changed.get(name, value) for name, value in zip(names, FINE, strict=True))


def _raise():
    raise ArithmeticError('the physics\nexploded')


# kind -> (what a step does, what is said of it)
KINDS = {
    'raises': (_raise, r'raised ArithmeticError: the physics exploded \(nasty.py, line \d+\)'),
    'exits': (lambda: sys.exit(0), r'raised SystemExit: 0 \(nasty.py'),
    'scalar': (lambda: _answer(observation=np.float32(0.5)), r'shape \(3,\) was needed; .* gave float32 of shape \(\)'),
    'short': (lambda: _answer(observation=np.zeros(1)), r'gave float64 of shape \(1,\)'),
    'long': (lambda: _answer(observation=[0.0] * 4), r'gave float64 of shape \(4,\)'),
    'two_rows': (lambda: _answer(observation=np.zeros((1, 3))), r'gave float64 of shape \(1, 3\)'),
    'none': (lambda: _answer(observation=None), r'gave object of shape \(\)'),
    'words': (lambda: _answer(observation=np.array(['1', '2', '3'])), r'gave <U1 of shape \(3,\)'),
    'complex': (lambda: _answer(observation=np.zeros(3, complex)), r'gave complex128 of shape \(3,\)'),
    'nan': (lambda: _answer(observation=np.array([0, np.nan, 0])), r'a finite observation was needed; .* gave nan in column 1'),
    'inf': (lambda: _answer(observation=np.array([0, 0, -np.inf])), r'gave -inf in column 2'),
    'huge': (lambda: _answer(observation=np.array([1e300, 0, 0])), r'gave inf in column 0'),
    'reward_nan': (lambda: _answer(reward=float('nan')), r'a finite reward was needed; .* gave nan'),
    'reward_inf': (lambda: _answer(reward=np.float32('inf')), r'a finite reward was needed; .* gave inf'),
    'reward_huge': (lambda: _answer(reward=1e300), r'gave 1e\+300'),
    'reward_two': (lambda: _answer(reward=np.ones(2)), r'a reward that is one number was needed; .* gave array'),
    'reward_none': (lambda: _answer(reward=None), r'a reward that is one number was needed; .* gave None'),
    'reward_word': (lambda: _answer(reward='1.0'), r"gave '1.0'"),
    'end_word': (lambda: _answer(terminated='False'), r"true or false as terminated was needed; .* gave 'False'"),
    'end_two': (lambda: _answer(truncated=np.zeros(2, bool)), r'true or false as truncated was needed'),
    'four': (lambda: FINE[:4], r'\(observation, reward, terminated, truncated, info\) was needed; .* gave 4 values'),
    'nothing': (lambda: None, r'gave a NoneType alone'),
    'info': (lambda: _answer(info=None), r'an info that is a dict was needed; .* gave None'),
}
STARTS = {
    'raises': (_raise, r'reset runs was needed; .* raised ArithmeticError'),
    'exits': (sys.exit, r'raised SystemExit'),
    'no_info': (lambda: FINE[0], r'\(observation, info\) was needed; .* gave a ndarray alone'),
    'scalar': (lambda: (0.0, {}), r'gave float64 of shape \(\)'),
    'nan': (lambda: (np.full(3, np.nan), {}), r'gave nan in column 0'),
}


class Nasty(gymnasium.Env):
    """`when`: 'constructor', 'reset', 'second reset' or 'step'; `spare`: a process in which it behaves."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, when='step', kind='raises', spare=0):
        self.when, self.kind, self.resets = when, kind, 0
        self.here = os.getpid() != spare
        if when == 'constructor' and self.here:
            KINDS[kind][0]()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets += 1
        if self.here and self.when == ('second reset' if self.resets > 1 else 'reset'):
            return STARTS[self.kind][0]()
        return FINE[0], {}

    def step(self, action):
        if self.here and action[0] > 0.5:
            if self.when == 'second reset':
                return _answer(terminated=True)
            if self.kind == 'killed':
                os.kill(os.getpid(), signal.SIGKILL)
            # The second action chooses where one environment is to do everything in turn.
            kind = list(KINDS)[round((action[1] + 1) / 2 * (len(KINDS) - 1))] if self.kind == 'any' else self.kind
            return KINDS[kind][0]()
        return FINE


gymnasium.register(id='Nasty-v0', entry_point='nasty:Nasty', max_episode_steps=10)
