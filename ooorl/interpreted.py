"""Traced programs run with numpy, operation by operation: where a program runs once or twice, compiling it is all of its cost.

Checks and tests ask many programs a single question each. `interpreted(function)` answers a hundred times sooner than operations
that jax compiles one after another, and with the numbers of the operations as they are written: no compiler fuses or reorders.
Keys draw what they draw in jax, bit for bit; other results are equal up to the rounding of single operations.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.extend import core

CALLS = {
    'jit': 'jaxpr', 'pjit': 'jaxpr', 'checkpoint': 'jaxpr',
    **dict.fromkeys(('closed_call', 'custom_jvp_call', 'custom_vjp_call', 'core_call'), 'call_jaxpr'),
}  # fmt: skip


def interpreted(function: Callable, *, static_argnums: int | None = None) -> Callable:
    """The same function, traced once for each kind of arguments and never compiled.

    Arguments and results are pytrees of arrays, keys and functions among the arguments too, but for those from place
    `static_argnums` on, which are settings; results are numpy's. Operations that are not known here are jax's own, and where keys
    are not those that jax makes unasked (threefry), or inside of other traced functions, the function is called as it is.
    """

    def run(*arguments):
        if static_argnums is not None and len(arguments) > static_argnums:
            return interpreted(_set(function, *arguments[static_argnums:]))(*arguments[:static_argnums])
        leaves, structure = jax.tree.flatten(arguments)
        threefry = jax.config.jax_default_prng_impl == 'threefry2x32' and jax.config.jax_threefry_partitionable
        if not threefry or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return function(*arguments)
        program, shape = _traced(function, structure, leaves)
        with np.errstate(all='ignore'):
            results = _run(program, [_numbers(leaf) for leaf in leaves if not callable(leaf)])
        leaves, structure = jax.tree.flatten(shape)
        return jax.tree.unflatten(structure, [_made(*pair) for pair in zip(results, leaves, strict=True)])

    return run


@functools.lru_cache(maxsize=64)
def _set(function, *settings):
    return lambda *arguments: function(*arguments, *settings)


def _traced(function, structure, leaves):
    programs = _programs(function)
    kind = structure, tuple(leaf if callable(leaf) else jax.typeof(leaf) for leaf in leaves), jax.config.jax_enable_x64

    def flat(*numbers):
        numbers = iter(numbers)
        return function(*jax.tree.unflatten(structure, [leaf if callable(leaf) else next(numbers) for leaf in leaves]))

    if kind not in programs:
        numbers = [leaf for leaf in leaves if not callable(leaf)]
        programs[kind] = jax.make_jaxpr(flat, return_shape=True)(*numbers)
    return programs[kind]


@functools.lru_cache(maxsize=64)
def _programs(function):
    return {}


def _made(numbers, shape):
    return jax.random.wrap_key_data(np.stack(_halves(numbers), axis=-1)) if _is_key(shape) else numbers


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf):
    if hasattr(leaf, 'dtype') and _is_key(leaf):
        return _key(np.asarray(jax.random.key_data(leaf)))
    return np.asarray(leaf, None if hasattr(leaf, 'dtype') else jax.dtypes.result_type(leaf))


def _run(program, arguments):
    jaxpr, consts = (program.jaxpr, program.consts) if isinstance(program, core.ClosedJaxpr) else (program, ())
    known = dict(zip(jaxpr.invars, arguments, strict=True))
    known.update(zip(jaxpr.constvars, map(_numbers, consts), strict=True))
    for equation in jaxpr.eqns:
        made = _step(equation, [_value(atom, known) for atom in equation.invars])
        known.update(zip(equation.outvars, made, strict=True))
    return [_value(atom, known) for atom in jaxpr.outvars]


def _value(atom, known):
    return np.asarray(atom.val, atom.aval.dtype) if isinstance(atom, core.Literal) else known[atom]


def _step(equation, reads):
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        return _run(params[CALLS[name]], reads)
    try:
        made = ELEMENTS[name](*reads) if name in ELEMENTS else OTHERS[name](params, *reads)
    except (KeyError, IndexError):  # unknown; or places outside, which a program may have filled or dropped
        made = _by_jax(equation, reads)
    made = made if isinstance(made, list) else [made]
    return [_typed(one, variable.aval) for one, variable in zip(made, equation.outvars, strict=True)]


def _typed(made, aval):
    assert np.shape(made) == aval.shape, f'an operation made {np.shape(made)} in the place of {aval}'
    return np.asarray(made) if _is_key(aval) else np.asarray(made, aval.dtype)


def _by_jax(equation, reads):
    given = [
        _made(read, atom.aval) if _is_key(atom.aval) else jnp.asarray(read, atom.aval.dtype)
        for atom, read in zip(equation.invars, reads, strict=True)
    ]
    settings = equation.primitive.get_bind_params(equation.params)
    functions, settings = settings if isinstance(settings, tuple) else ((), settings)  # a pair in jax before 0.10.2
    made = equation.primitive.bind(*functions, *given, **settings)
    return [_numbers(one) for one in (made if equation.primitive.multiple_results else [made])]


def _scan(params, *reads):
    fixed, carried, program = params['num_consts'], params['num_carry'], params['jaxpr']
    carry, sliced = list(reads[fixed : fixed + carried]), reads[fixed + carried :]
    made = []
    for aval in (atom.aval for atom in program.jaxpr.outvars[carried:]):
        made.append(np.zeros((params['length'], *aval.shape), np.uint64 if _is_key(aval) else aval.dtype))
    turns = range(params['length'])
    for turn in reversed(turns) if params['reverse'] else turns:
        results = _run(program, [*reads[:fixed], *carry, *(array[turn] for array in sliced)])
        carry = results[:carried]
        for array, result in zip(made, results[carried:], strict=True):
            array[turn] = result
    return carry + made


def _while(params, *reads):
    first, second = params['cond_nconsts'], params['cond_nconsts'] + params['body_nconsts']
    carry = list(reads[second:])
    while _run(params['cond_jaxpr'], [*reads[:first], *carry])[0]:
        carry = _run(params['body_jaxpr'], [*reads[first:second], *carry])
    return carry


def _cond(params, index, *reads):
    branches = params['branches']
    return _run(branches[int(np.clip(index, 0, len(branches) - 1))], reads)


def _key(pair):
    # A key is one number of 64 bits, so that arrays of keys are cut like all others.
    return pair[..., 0].astype(np.uint64) << np.uint64(32) | pair[..., 1]


def _halves(number):
    return (number >> np.uint64(32)).astype(np.uint32), number.astype(np.uint32)


def _threefry(first, second, high, low):
    """Twenty rounds of Threefry-2x32 (Salmon et al., 2011) on pairs of 32 bits."""
    keys = first, second, first ^ second ^ np.uint32(0x1BD11BDA)
    high, low = high + keys[0], low + keys[1]
    for turn in range(5):
        for distance in ((13, 15, 26, 6), (17, 29, 16, 24))[turn % 2]:
            high = high + low
            low = (low << np.uint32(distance) | low >> np.uint32(32 - distance)) ^ high
        high, low = high + keys[(turn + 1) % 3], low + keys[(turn + 2) % 3] + np.uint32(turn + 1)
    return high, low


def _hashed(keys, shape):
    """`(high, low)` of every key for the places of an array of that shape."""
    places = np.arange(int(np.prod(shape)), dtype=np.uint64).reshape(shape)
    return _threefry(*_halves(keys.reshape(keys.shape + (1,) * len(shape))), *_halves(places))


def _bits(params, keys):
    high, low = _hashed(keys, params['shape'])
    if params['bit_width'] == 64:
        return high.astype(np.uint64) << np.uint64(32) | low
    return (high ^ low).astype(f'uint{params["bit_width"]}')


def _broadcast(params, values, *sizes):
    shape, axes = params['shape'], params['broadcast_dimensions']
    middle = [1] * len(shape)
    for axis, size in zip(axes, np.shape(values), strict=True):
        middle[axis] = size
    return np.broadcast_to(np.reshape(values, middle), shape)


def _dot(params, left, right):
    (left_sum, right_sum), (left_batch, right_batch) = params['dimension_numbers']
    letters = iter('abcdefghijklmnopqrstuvwxyz')
    first, second = [next(letters) for _ in left.shape], [''] * right.ndim
    for own, other in zip((*left_sum, *left_batch), (*right_sum, *right_batch), strict=True):
        second[other] = first[own]
    second = [letter or next(letters) for letter in second]
    kept = [first[i] for i in left_batch] + [a for i, a in enumerate(first) if i not in (*left_sum, *left_batch)]
    kept += [a for i, a in enumerate(second) if i not in (*right_sum, *right_batch)]
    return np.einsum(f'{"".join(first)},{"".join(second)}->{"".join(kept)}', left, right)


def _slice(params, values):
    strides = params['strides'] or (1,) * values.ndim
    return values[tuple(map(slice, params['start_indices'], params['limit_indices'], strides))]


def _window(shape, sizes, starts):
    starts = [int(np.clip(start, 0, whole - size)) for start, whole, size in zip(starts, shape, sizes, strict=True)]
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def _dynamic_update_slice(params, values, update, *starts):
    values = np.array(values)
    values[_window(values.shape, update.shape, starts)] = update
    return values


def _places(params, shape, index, sizes, collapsed, own_batch, index_batch, starts):
    # Index arrays, one an axis, of the windows of those sizes that `index[..., starts]` points to; then the windows' axes.
    outer, places, clips = index.shape[:-1], [], params['mode'] == jax.lax.GatherScatterMode.CLIP
    index = index if clips else index.astype(np.uint32)  # what is negative then lies outside
    kept = [axis for axis in range(len(shape)) if axis not in (*collapsed, *own_batch)]
    for axis in range(len(shape)):
        place = np.zeros((1,) * len(outer), int)
        if axis in own_batch:
            at = index_batch[own_batch.index(axis)]
            place = np.arange(outer[at]).reshape([-1 if i == at else 1 for i in range(len(outer))])
        elif axis in starts:
            place = np.clip(index[..., starts.index(axis)], 0, shape[axis] - sizes[axis] if clips else None)
        place = place.reshape(place.shape + (1,) * len(kept))
        if axis in kept:
            place = place + np.arange(sizes[axis]).reshape([-1 if i == kept.index(axis) else 1 for i in range(len(kept))])
        places.append(place)
    return tuple(places), range(len(outer), len(outer) + len(kept))


def _gather(params, values, index):
    numbers = params['dimension_numbers']
    places, windows = _places(
        params, values.shape, index, params['slice_sizes'], numbers.collapsed_slice_dims, numbers.operand_batching_dims,
        numbers.start_indices_batching_dims, numbers.start_index_map,
    )  # fmt: skip
    return np.moveaxis(values[places], windows, numbers.offset_dims)


def _scatter(how):
    """`how(array, places, updates)` changes the array."""

    def run(params, values, index, updates):
        numbers, values = params['dimension_numbers'], np.array(values)
        gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
        sizes = np.ones(values.ndim, int)
        sizes[[axis for axis in range(values.ndim) if axis not in gone]] = [updates.shape[n] for n in numbers.update_window_dims]
        places, windows = _places(
            params, values.shape, index, sizes, numbers.inserted_window_dims, numbers.operand_batching_dims,
            numbers.scatter_indices_batching_dims, numbers.scatter_dims_to_operand_dims,
        )  # fmt: skip
        how(values, places, np.moveaxis(updates, numbers.update_window_dims, windows))
        return values

    return run


def _padded(params, values, filling):
    widths = params['padding_config']
    assert all(low >= 0 and high >= 0 for low, high, _ in widths)
    reach = [size + max(size - 1, 0) * gap for size, (_, _, gap) in zip(values.shape, widths, strict=True)]
    made = np.full([low + inner + high for inner, (low, high, _) in zip(reach, widths, strict=True)], filling)
    made[tuple(slice(low, low + inner, gap + 1) for inner, (low, _, gap) in zip(reach, widths, strict=True))] = values
    return made


def _sorted(params, *columns):
    axis, keys = params['dimension'], columns[: params['num_keys']]
    order = np.argsort(keys[0], axis=axis, kind='stable') if len(keys) == 1 else np.lexsort(keys[::-1], axis=axis)
    return [np.take_along_axis(column, order, axis) for column in columns]


def _top_k(params, values):
    axis = params['axis']
    order = np.argsort(-values, axis=axis, kind='stable').take(range(params['k']), axis)
    return [np.take_along_axis(values, order, axis), order]


def _along(function):
    def run(params, values):
        values = np.flip(values, params['axis']) if params['reverse'] else values
        made = function(values, axis=params['axis'])
        return np.flip(made, params['axis']) if params['reverse'] else made

    return run


def _chosen(which, *cases):
    return np.choose(np.broadcast_to(which, np.shape(cases[0])).astype(int), cases)


ELEMENTS = {
    'add': np.add, 'add_any': np.add, 'sub': np.subtract, 'mul': np.multiply, 'rem': np.fmod, 'max': np.maximum,
    'min': np.minimum, 'pow': np.power, 'neg': np.negative, 'abs': np.abs, 'sign': np.sign, 'exp': np.exp, 'exp2': np.exp2,
    'div': lambda x, y: x / y if x.dtype.kind == 'f' else np.trunc(x / y), 'atan2': np.arctan2, 'nextafter': np.nextafter,
    'log': np.log, 'log1p': np.log1p, 'expm1': np.expm1, 'tanh': np.tanh, 'sin': np.sin, 'cos': np.cos, 'sqrt': np.sqrt,
    'rsqrt': lambda x: 1 / np.sqrt(x), 'square': np.square, 'logistic': scipy.special.expit, 'erf': scipy.special.erf,
    'erf_inv': scipy.special.erfinv, 'erfc': scipy.special.erfc, 'floor': np.floor, 'ceil': np.ceil, 'is_finite': np.isfinite,
    'lt': np.less, 'le': np.less_equal, 'gt': np.greater, 'ge': np.greater_equal, 'eq': np.equal, 'ne': np.not_equal,
    'and': np.bitwise_and, 'or': np.bitwise_or, 'xor': np.bitwise_xor, 'not': np.invert, 'shift_left': np.left_shift,
    'clamp': lambda low, x, high: np.minimum(np.maximum(x, low), high), 'select_n': _chosen,
    'random_seed': lambda seed: seed.astype(np.uint32).astype(np.uint64),
    'random_fold_in': lambda keys, by: _key(np.stack(_threefry(*_halves(keys), np.uint32(0), by.astype(np.uint32)), axis=-1)),
    'random_wrap': _key, 'random_unwrap': lambda key: np.stack(_halves(key), axis=-1),
    'threefry2x32': lambda *four: list(_threefry(*four)), **dict.fromkeys(('stop_gradient', 'copy', 'copy_p'), lambda x: x),
}  # fmt: skip
OTHERS = {
    'scan': _scan, 'while': _while, 'cond': _cond, 'random_bits': _bits,
    'random_split': lambda params, keys: _key(np.stack(_hashed(keys, params['shape']), axis=-1)),
    'integer_pow': lambda params, x: x ** params['y'], 'broadcast_in_dim': _broadcast, 'dot_general': _dot,
    'convert_element_type': lambda params, x: x.astype(params['new_dtype']),
    'bitcast_convert_type': lambda params, x: np.ascontiguousarray(x).view(params['new_dtype']).reshape(x.shape),
    'shift_right_logical': lambda params, x, by: np.where(by < 32, x >> (by % 32), 0),
    'reshape': lambda params, x: np.reshape(x, params['new_sizes']),
    'transpose': lambda params, x: np.transpose(x, params['permutation']),
    'squeeze': lambda params, x: np.squeeze(x, params['dimensions']),
    'concatenate': lambda params, *xs: np.concatenate(xs, params['dimension']),
    'stack': lambda params, *xs: np.stack(xs, params['axis']),
    'unstack': lambda params, x: list(np.moveaxis(x, params['axis'], 0)),
    'split': lambda params, x: np.split(x, np.cumsum(params['sizes'])[:-1], params['axis']),
    'rev': lambda params, x: np.flip(x, params['dimensions']), 'tile': lambda params, x: np.tile(x, params['reps']),
    'iota': lambda params: _broadcast(
        {'shape': params['shape'], 'broadcast_dimensions': (params['dimension'],)},
        np.arange(params['shape'][params['dimension']], dtype=params['dtype']),
    ),
    'iota_2x32_shape': lambda params: list(_halves(np.arange(np.prod(params['shape'], dtype=int), dtype=np.uint64)
                                                   .reshape(params['shape']))),
    'argmax': lambda params, x: np.argmax(x, params['axes'][0]), 'argmin': lambda params, x: np.argmin(x, params['axes'][0]),
    'slice': _slice, 'dynamic_slice': lambda params, x, *starts: x[_window(x.shape, params['slice_sizes'], starts)],
    'dynamic_update_slice': _dynamic_update_slice, 'gather': _gather, 'pad': _padded, 'sort': _sorted, 'top_k': _top_k,
    'scatter': _scatter(lambda array, places, updates: array.__setitem__(places, updates)),
    'scatter-add': _scatter(np.add.at), 'scatter_add': _scatter(np.add.at),
    'cumsum': _along(np.cumsum), 'cumprod': _along(np.cumprod), 'cummax': _along(np.maximum.accumulate),
}  # fmt: skip
for _name, _by in {'sum': np.sum, 'max': np.max, 'min': np.min, 'prod': np.prod, 'and': np.all, 'or': np.any}.items():
    OTHERS[f'reduce_{_name}'] = lambda params, x, by=_by: by(x, tuple(params['axes']))
