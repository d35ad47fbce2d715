"""A policy that draws its noise from a key, as a function of the noise itself.

What leaves jax has no keys. `evaluated` walks a traced function and hands every draw in it, standard normal or uniform in [0, 1),
to a function of the caller's, who replaces it by an input or writes it down; the rest is computed as it was. Loops that draw are
written out, step by step. What the key still serves, splitting and the like, is then dead code. Draws of another kind, and those
in a loop of unknown length, stay where they are and are refused later.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from ooorl.errors import UsageError

# What jax calls the programs of jax.random.normal and uniform; what is drawn from others (categorical, gumbel) is made of these.
KINDS = {'_normal': 'normal', '_uniform': 'uniform'}
CALLS = {'jit': 'jaxpr', 'pjit': 'jaxpr', **dict.fromkeys(('closed_call', 'custom_jvp_call', 'custom_vjp_call'), 'call_jaxpr')}


class Noise(NamedTuple):
    """An input that takes the place of a draw: 'normal' (standard) or 'uniform' (in [0, 1)), its shape and type."""

    kind: str
    shape: tuple
    dtype: object


def traced(function: Callable, *shapes):
    """The program of a function of arrays, as `jax.extend.core.ClosedJaxpr`."""
    return jax.make_jaxpr(function)(*shapes)


def evaluated(program, arguments, draw: Callable) -> list:
    """Results of a traced program, with `draw(noise, make)` in the place of every draw.

    Args:
      program: of `traced`.
      arguments: arrays, or tracers of another program.
      draw: of a `Noise`; `make()` gives what the program itself would have drawn.
    """
    known = dict(zip(program.jaxpr.invars, arguments, strict=True))
    known |= dict(zip(program.jaxpr.constvars, program.consts, strict=True))

    def value(atom):
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for equation in program.jaxpr.eqns:
        results = _step(equation, [value(atom) for atom in equation.invars], draw)
        known.update(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in program.jaxpr.outvars]


def _step(equation, values, draw):
    name, kind = equation.primitive.name, _drawn(equation)
    if kind is not None:
        aval = equation.outvars[0].aval
        noise = Noise(kind, aval.shape, aval.dtype)
        if kind == 'normal':
            return [draw(noise, lambda: _bound(equation, values)[0])]
        low, high = jnp.minimum(*values[1:]), jnp.maximum(*values[1:])
        return [low + (high - low) * draw(noise, lambda: (_bound(equation, values)[0] - low) / (high - low))]
    if name in CALLS and _holds_draws(equation.params[CALLS[name]]):
        return evaluated(_closed(equation.params[CALLS[name]]), values, draw)
    if name == 'scan' and _holds_draws(equation.params['jaxpr']):
        return _unrolled(equation.params, values, draw)
    return _bound(equation, values)


def _drawn(equation):
    """The kind of noise that an equation draws, or None."""
    return KINDS.get(equation.params['name']) if equation.primitive.name in ('jit', 'pjit') else None


def _unrolled(params, values, draw):
    fixed, sliced = values[: params['num_consts']], values[params['num_consts'] + params['num_carry'] :]
    carried, collected = values[params['num_consts'] :][: params['num_carry']], []
    steps = range(params['length'])
    for step in reversed(steps) if params['reverse'] else steps:
        made = evaluated(params['jaxpr'], [*fixed, *carried, *(array[step] for array in sliced)], draw)
        carried = made[: params['num_carry']]
        collected.append(made[params['num_carry'] :])
    collected = collected[::-1] if params['reverse'] else collected
    return [*carried, *(jnp.stack(column) for column in zip(*collected, strict=True))]


def _bound(equation, values):
    settings = equation.primitive.get_bind_params(equation.params)
    functions, settings = settings if isinstance(settings, tuple) else ((), settings)  # a pair in jax before 0.10.2
    made = equation.primitive.bind(*functions, *values, **settings)
    return made if equation.primitive.multiple_results else [made]


def _closed(program):
    return program if isinstance(program, core.ClosedJaxpr) else core.ClosedJaxpr(program, ())


def _holds_draws(program):
    inside = {**CALLS, 'scan': 'jaxpr'}
    return any(
        _drawn(equation) or (equation.primitive.name in inside and _holds_draws(equation.params[inside[equation.primitive.name]]))
        for equation in _closed(program).jaxpr.eqns
    )


def noises(program) -> list[Noise]:
    """The draws of a program, in order."""
    found = []

    def note(noise, make):
        found.append(noise)
        return make()

    jax.eval_shape(lambda *arguments: evaluated(program, arguments, note), *(v.aval for v in program.jaxpr.invars))
    return found


def explicit(program) -> Callable:
    """`(arguments, noises) -> results` of a traced program."""

    def function(arguments, given):
        rest = iter(given)
        return evaluated(program, arguments, lambda noise, make: next(rest))

    return function


def recorded(program, arguments) -> tuple[list, list]:
    """`(results, noises)`: what a traced program gives, and what it drew on the way."""
    drawn = []

    def note(noise, make):
        drawn.append(make())
        return drawn[-1]

    return evaluated(program, arguments, note), drawn


def refuse_callbacks(program, who: str) -> None:
    """Refuses a program that calls Python while it runs.

    Raises:
      UsageError: naming whose it is.
    """
    if 'callback' in str(program.jaxpr):
        raise UsageError(
            f'an exported policy holds all that it does, and {who} calls a function of yours in Python (kind = "opaque"); export '
            'that function by its own means, or use the policy from Python with ooorl.load'
        )


def refuse_other_draws(names, who: str) -> None:
    """Refuses a program among whose operations there are draws that are no input.

    Raises:
      UsageError: naming who draws.
    """
    if any(name.startswith(('random_', 'threefry')) for name in names):
        raise UsageError(
            f'an exported policy takes its noise as inputs, which needs draws that are normal or uniform; {who} draws otherwise '
            'while it acts; export another phase, or use it from Python with ooorl.load'
        )
