"""Copies of one of OGBench's environments around one compiled model, beside whose meshes and textures a state is small.

The package compiles two models for every environment and writes into one of them while it is played: colours, places of marks,
what locks a drawer or a window. These few arrays every copy has for itself; they are in the model while it is the copy's turn.
"""

import contextlib
import copy
import weakref

import mujoco

from ooorl.envs.ogbench import repeatable

WRITTEN = ('geom_rgba', 'mat_rgba', 'site_pos', 'dof_damping')  # arrays of a model that are written after it is compiled

_ORIGINALS = weakref.WeakValueDictionary()  # by name, as long as a copy lives


class _Original:
    """An environment after its first reset, which nobody plays, what was written then, and the copy whose turn it is."""

    def __init__(self, env):
        self.env, self.in_turn = env, None
        self.arrays = [getattr(env.model, name) for name in WRITTEN]
        self.written = [array.copy() for array in self.arrays]


class Copy:
    """The package's environment `name` by `repeatable.made`, to be used inside `turn` alone: there it is as if it were alone.

    Attributes:
      env: the package's environment.
    """

    def __init__(self, name: str):
        self._original = _ORIGINALS.get(name)
        if self._original is None:
            self.env = repeatable.made(name)
            if not hasattr(self.env, '_ik'):  # of mazes, whose models are small
                return
            self._original = _ORIGINALS[name] = _Original(self.env)
        self.env = _copied(self._original.env)
        self._own = [array.copy() for array in self._original.written]

    @contextlib.contextmanager
    def turn(self):
        """Inside, the model holds what this copy has written into it."""
        original = self._original
        if original is not None and original.in_turn is not self:
            if original.in_turn is not None:
                _put(original.in_turn._own, original.arrays)
            _put(original.arrays, self._own)
            original.in_turn = self
        yield


def _put(places, values):
    for place, value in zip(places, values, strict=True):
        place[:] = value


def _copied(env):
    """Another environment in the same state, which shares models and descriptions."""
    shared = [env._model, env._ik._model, *(value for value in vars(env).values() if _describes(value))]
    memo = {id(one): one for one in shared}
    memo |= {id(data): copy.copy(data) for data in (env._data, env._ik._data)}
    memo |= {id(value): value for value in vars(env).values() if isinstance(value, mujoco.MjvOption | mujoco.MjvCamera)}
    own = copy.deepcopy(env, memo)
    return repeatable.with_own_space(own, copy.deepcopy(env.action_space))


def _describes(value):
    """Whether this is an element of a model's description, or a list of such."""
    while isinstance(value, list) and value:
        value = value[0]
    return type(value).__module__.startswith('dm_control.')
