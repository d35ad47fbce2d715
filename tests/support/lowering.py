"""What jax does around a program is shared or left out where the numbers stay the same to the last bit.

Between the programs that tests are about, jax is asked for single operations: a sum of two arrays, one row, a cast. Each shape
of each is one more program, compiled in 15 ms to run once. Here numpy answers, where its answer cannot differ. Everything stands
in the place of jax's own functions; where jax has none of that name, nothing changes.
"""

import weakref

import jax
import numpy as np
from jax._src import pjit
from jax._src.interpreters import mlir

from ooorl.interpreted import CALLS, _halves, _key, _run, interpreted
from ooorl.training import programs

# Nothing is rounded.
EXACT = frozenset(
    'neg abs max min lt le gt ge eq ne and or xor not select_n is_finite floor ceil sign clamp copy copy_p stop_gradient '
    'broadcast_in_dim reshape transpose squeeze concatenate stack unstack split rev iota slice dynamic_slice '
    'dynamic_update_slice tile reduce_max reduce_min reduce_and reduce_or shift_left shift_right_logical bitcast_convert_type '
    'convert_element_type random_seed random_wrap random_unwrap random_split random_fold_in random_bits threefry2x32 '
    'iota_2x32_shape'.split()
)
# IEEE 754 says to which number. Only one in a program, since a compiler may make one of two. Quotients are often products with
# the rounded inverse.
ROUNDED = frozenset(('add', 'sub', 'mul', 'sqrt', 'square', 'integer_pow'))
KINDS = ('float32', 'int32', 'uint32', 'bool', 'key<fry>')
MOST = 20  # operations
USES = 40  # of a program: then compiling it pays
MAKE, CALL = getattr(mlir, 'make_ir_context', None), getattr(pjit, '_pjit_call_impl_python', None)
LOWER = programs.Job.lower  # for tests that measure what XLA makes of all programs
_USES = weakref.WeakKeyDictionary()  # how often a program may still be asked for


def share_context():
    """From now on programs are lowered in one new context of jax's intermediate language, instead of one each.

    A context has all dialects, which takes longer than to lower a small program. Contexts are made to be shared; but what
    programs hold as constants stays as long as the context, here until the next test file asks for one.
    """
    if MAKE is not None:
        context = MAKE()
        mlir.make_ir_context = lambda: context


def answer_with_numpy():
    """From now on single operations are numpy's where they are exact."""
    if CALL is not None:
        pjit._pjit_call_impl_python = _call


def initialise_with_numpy():
    """From now on agents of runs are made by numpy: loops that orthogonalise are a third of what a tiny run compiles.

    Their parameters differ from XLA's by rounding. A process whose run must have the bits of another's asks for it, too.
    """
    programs.Job.lower = lambda job: _Init(job) if job.key[0] == 'init' else LOWER(job)


class _Init:
    """In the place of a lowered program."""

    def __init__(self, job):
        self._run = interpreted(job.function)

    def compile(self):
        # A copy of each: what is the same array twice would be donated twice.
        return lambda *arguments: jax.tree.map(lambda leaf: jax.device_put(np.array(leaf)), self._run(*arguments))


def _call(*arguments, jaxpr, **settings):
    if jaxpr not in _USES:
        _USES[jaxpr] = USES if _is_exact(jaxpr) and _is_plain(settings) else 0
    if not _USES[jaxpr] or any(getattr(_data(argument), '_committed', False) for argument in arguments):
        return CALL(*arguments, jaxpr=jaxpr, **settings)
    _USES[jaxpr] -= 1
    with np.errstate(all='ignore'):
        made = _run(jaxpr, [_read(*pair) for pair in zip(arguments, jaxpr.in_avals, strict=True)])
    keys = [type(argument) for argument in arguments if hasattr(argument, '_base_array')]
    return [_array(*pair, keys) for pair in zip(made, jaxpr.out_avals, strict=True)], None, None, []


def _is_plain(settings):
    """Whether nothing is said of devices and of memory."""
    places = (*settings['in_shardings'], *settings['out_shardings'])
    return not any(settings['donated_invars']) and all(type(place).__name__ == 'UnspecifiedValue' for place in places)


def _is_exact(program):
    avals = [*program.in_avals, *program.out_avals]
    known = all(str(aval.dtype) in KINDS for aval in avals) and not any(aval.weak_type for aval in program.out_avals)
    # A key is made of a key: arrays of keys have no constructor of their own.
    known = known and (any(map(_is_key, program.in_avals)) or not any(map(_is_key, program.out_avals)))
    operations = list(_operations(program.jaxpr))
    rounded = [equation for equation in operations if equation.primitive.name in ROUNDED]
    return known and not program.effects and len(operations) <= MOST and len(rounded) <= 1 and all(map(_is_known, operations))


def _operations(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name in CALLS:
            inner = equation.params[CALLS[equation.primitive.name]]
            yield from _operations(getattr(inner, 'jaxpr', inner))
        else:
            yield equation


def _is_known(equation):
    name, kinds = equation.primitive.name, [atom.aval for atom in (*equation.invars, *equation.outvars)]
    if not all(str(aval.dtype) in KINDS for aval in kinds):
        return False
    if name == 'convert_element_type':  # what does not fit an integer is the processor's business
        return kinds[0].dtype.kind != 'f' or kinds[-1].dtype.kind == 'f'
    return name in EXACT or name in ROUNDED and equation.params.get('y', 2) == 2


def _is_key(aval):
    return jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key)


def _data(argument):
    return getattr(argument, '_base_array', argument)


def _read(argument, aval):
    return _key(np.asarray(_data(argument))) if _is_key(aval) else np.asarray(argument, aval.dtype)


def _array(numbers, aval, keys):
    # A copy: it may be a part of an argument, whose memory somebody may hand on.
    if _is_key(aval):
        return keys[0](aval.dtype._impl, jax.device_put(np.stack(_halves(numbers), axis=-1)))
    return jax.device_put(np.array(numbers, aval.dtype))
