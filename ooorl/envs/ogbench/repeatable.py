"""OGBench's environments with everything they draw following from a seed.

They draw from numpy's global generator, from generators that nobody seeds, and a reset leaves a solver's warm start that
depends on whether it is the first one. Here episodes are functions of a seed and of the actions.
"""

import contextlib
import warnings

import gymnasium
import numpy as np

from ooorl.envs.ogbench import require_package


def made(name: str, **settings):
    """The package's environment `name` without wrappers, compiled, with one action space instead of a new one at each look."""
    require_package()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of gymnasium, about the precision of bounds
        env = gymnasium.make(name, disable_env_checker=True, **settings).unwrapped
        with_own_space(env, env.action_space)
        env.reset()  # the first reset compiles the model and leaves another warm start than later ones
    return env


def with_own_space(env, space):
    """The environment with one action space for good; one without would make a new, unseeded one at each look."""
    # A class attribute is found before a property of a class above it.
    kind = type(env)
    env.__class__ = type(kind.__name__, (kind,), {'action_space': space})
    return env


class Draws:
    """What is drawn outside of an environment's own generator, from one seed: a state of numpy's global generator."""

    def __init__(self):
        self._state = np.random.RandomState(0).get_state()

    def seed(self, env, words) -> int:
        """Seeds the global generator and the action space by the integers `words`; gives the seed for a reset."""
        first, second, third = (int(word) >> 1 for word in np.random.SeedSequence(words).generate_state(3))
        self._state = np.random.RandomState(first).get_state()
        env.action_space.seed(second)
        return third

    @contextlib.contextmanager
    def drawn(self):
        """Inside, the global generator is this one; outside, nothing has happened to it."""
        outside = np.random.get_state()
        np.random.set_state(self._state)
        try:
            yield
        finally:
            self._state = np.random.get_state()
            np.random.set_state(outside)
