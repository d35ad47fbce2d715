"""Recorded numbers in the place of random draws, so that a public `update` can be compared with numbers worked out elsewhere."""

import jax
import jax.numpy as jnp
import optax
import pytest

from ooorl.interpreted import interpreted

NAMES = ('normal', 'uniform', 'choice')


class Replay:
    """Runs a function in which `jax.random` answers with given arrays, and keeps the gradients that optimisers see meanwhile.

    Args:
      *names: which draws the function makes, in their order; their numbers are given to `run`.
      traced: whether the function is traced at its first run (then every run must be of the same function) and run with
        numpy, or goes operation by operation in jax, for functions that look at their numbers.

    Loops of the function are unrolled: each turn takes its own numbers. All numbers must be taken, no more may be drawn, each
    draw must have the shape of its numbers and, if uniform, their interval, as far as they reach into both of its halves; no two
    draws may have the same key.
    """

    def __init__(self, *names: str, traced: bool = True):
        self.names, self.traced = names, traced
        self.gradients, self._seen, self._program, self._intervals = [], [], None, []

    @property
    def grad_transform(self) -> optax.GradientTransformation:
        """For the builder of an agent: after `run`, `gradients` has all that passed here, in their order."""

        def update(gradient, state, params=None):
            self._seen.append(gradient)
            return gradient, state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

    def run(self, function, draws, *arguments):
        """`function(*arguments)`, drawing the arrays `draws`."""
        self._program = self._program or self._staged(function)
        draws = [jnp.asarray(values) for values in draws]
        result, keys, self.gradients = self._program(draws, *arguments)
        for values, interval in zip(draws, self._intervals, strict=True):
            if interval is not None:
                low, high = interval
                assert low <= values.min() < (low + high) / 2 < values.max() < high, f'drawn from [{low}, {high})'
        secrets = [bytes(key) for key in keys]
        assert len(set(secrets)) == len(secrets), 'two draws have one key'
        return result

    def _staged(self, function):
        def program(draws, *arguments):
            waiting, keys = list(zip(self.names, draws, strict=True)), []
            self._intervals, self._seen = [], []
            with pytest.MonkeyPatch.context() as patch:
                for name in NAMES:
                    patch.setattr(jax.random, name, self._answer(name, waiting, keys))
                patch.setattr(jax.lax, 'scan', _loop)
                result = function(*arguments)
            assert not waiting, f'never drawn: {[(name, values.shape) for name, values in waiting]}'
            return result, keys, self._seen

        return interpreted(program) if self.traced else program

    def _answer(self, name, waiting, keys):
        original = getattr(jax.random, name)

        def draw(key, *arguments, minval=0.0, maxval=1.0, replace=None):
            if len(arguments) == 2 and name == 'normal':  # an initialiser, which names its type: networks ask it for shapes
                return original(key, *arguments)
            assert waiting, f'jax.random.{name} {arguments} is drawn beside all that was recorded'
            recorded, values = waiting.pop(0)
            assert (name, tuple(arguments[-1])) == (recorded, values.shape), (name, arguments, recorded, values.shape)
            assert name != 'choice' or replace is False
            self._intervals.append((minval, maxval) if name == 'uniform' else None)
            keys.append(jax.random.key_data(key))
            return values

        return draw


def _loop(step, carry, xs, length=None):
    """`jax.lax.scan` unrolled."""
    outputs = []
    for turn in range(length or jax.tree.leaves(xs)[0].shape[0]):
        carry, output = step(carry, jax.tree.map(lambda leaf, turn=turn: leaf[turn], xs))
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)
