"""A policy that draws its noise from a key, as a function of the noise itself.

What leaves jax has no keys. `evaluated` walks a traced function and hands every standard-normal draw in it to a function of the
caller's, who replaces it by an input or writes it down; the rest is computed as it was. What the key still serves, splitting and
the like, is then dead code. Draws of another kind, and draws inside of a loop, stay where they are and are refused later.
"""

from collections.abc import Callable

import jax
from jax.extend import core

from ooorl.errors import UsageError

NORMAL = '_normal'  # what jax calls the program of jax.random.normal
CALLS = {'jit': 'jaxpr', 'pjit': 'jaxpr', **dict.fromkeys(('closed_call', 'custom_jvp_call', 'custom_vjp_call'), 'call_jaxpr')}


def traced(function: Callable, *shapes):
    """The program of a function of arrays, as `jax.extend.core.ClosedJaxpr`."""
    return jax.make_jaxpr(function)(*shapes)


def evaluated(program, arguments, draw: Callable) -> list:
    """Results of a traced program, with `draw(shape, make)` in the place of every standard-normal draw of that shape.

    Args:
      program: of `traced`.
      arguments: arrays, or tracers of another program.
      draw: `make()` gives what the program itself would have drawn.
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
    name = equation.primitive.name
    if name in ('jit', 'pjit') and equation.params['name'] == NORMAL:
        return [draw(equation.outvars[0].aval, lambda: _bound(equation, values)[0])]
    if name in CALLS and _holds_draws(equation.params[CALLS[name]]):
        return evaluated(_closed(equation.params[CALLS[name]]), values, draw)
    return _bound(equation, values)


def _bound(equation, values):
    settings = equation.primitive.get_bind_params(equation.params)
    functions, settings = settings if isinstance(settings, tuple) else ((), settings)  # a pair in jax before 0.10.2
    made = equation.primitive.bind(*functions, *values, **settings)
    return made if equation.primitive.multiple_results else [made]


def _closed(program):
    return program if isinstance(program, core.ClosedJaxpr) else core.ClosedJaxpr(program, ())


def _holds_draws(program):
    for equation in _closed(program).jaxpr.eqns:
        name = equation.primitive.name
        if name in ('jit', 'pjit') and equation.params['name'] == NORMAL:
            return True
        if name in CALLS and _holds_draws(equation.params[CALLS[name]]):
            return True
    return False


def noises(program) -> list:
    """Shapes of the standard-normal draws of a program, in order."""
    found = []

    def note(aval, make):
        found.append(aval)
        return make()

    jax.eval_shape(lambda *arguments: evaluated(program, arguments, note), *(v.aval for v in program.jaxpr.invars))
    return found


def explicit(program) -> Callable:
    """`(arguments, noises) -> results` of a traced program."""

    def function(arguments, given):
        rest = iter(given)
        return evaluated(program, arguments, lambda aval, make: next(rest))

    return function


def recorded(program, arguments) -> tuple[list, list]:
    """`(results, noises)`: what a traced program gives, and what it drew on the way."""
    drawn = []

    def note(aval, make):
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
            f'an exported policy takes its noise as an input, which needs normal noise drawn once for an action; {who} draws '
            'otherwise while it acts; export another phase, or use it from Python with ooorl.load'
        )
