"""A traced policy as a list of operations on arrays: what the numpy runner runs and the ONNX file is made from.

An operation is a table: `op`, its name; `in`, what it reads: the number of a value, or the name of a constant; `out`, the numbers
of its results; and what else it needs. A size that grows with the number of rows B is written `[k]`, which is k B. Programs hold
no keys: operations that only served to draw noise are dropped with all others that the action does not depend on.
"""

import re
from typing import NamedTuple

import jax
import numpy as np
from jax.extend import core

from ooorl.errors import UsageError
from ooorl.runner.export.draws import CALLS, refuse_other_draws

# Operations on elements, by the names that jax has for them; the runner knows them by the same.
ELEMENTWISE = (
    'add', 'sub', 'mul', 'div', 'rem', 'max', 'min', 'pow', 'neg', 'abs', 'sign', 'exp', 'exp2', 'log', 'log1p', 'expm1', 'tanh',
    'sin', 'cos', 'sqrt', 'rsqrt', 'square', 'floor', 'ceil', 'logistic', 'lt', 'le', 'gt', 'ge', 'eq', 'ne', 'and', 'or', 'not',
    'is_finite', 'clamp',
)  # fmt: skip
SAME = ('stop_gradient', 'copy', 'copy_p', 'optimization_barrier', 'reduce_precision', 'sharding_constraint', 'pvary')
REDUCTIONS = {'sum': 'sum', 'max': 'amax', 'min': 'amin', 'prod': 'prod', 'and': 'all', 'or': 'any'}


class Program(NamedTuple):
    """Numbers of the inputs, operations in order, and references of the outputs."""

    inputs: list
    ops: list
    outputs: list


def operations_of(traced, who: str) -> tuple[Program, dict]:
    """`(program, constants)` of a traced function without keys among what its result depends on.

    Raises:
      UsageError: where it draws by itself, or does something that the list of operations has no word for.
    """
    constants = {}
    program = without_draws(traced, who, constants)
    names = _names(program)
    unknown = sorted(name[1:] for name in names if name.startswith('?'))
    if unknown:
        raise UsageError(
            f'export to this format knows the operations of networks and samplers; {who} also needs {", ".join(unknown)}; export '
            'it as stablehlo, or use it from Python with ooorl.load'
        )
    used = _references(program)
    return program, {name: value for name, value in constants.items() if name in used}


def without_draws(traced, who: str, constants: dict) -> Program:
    """The program of a traced function whose result depends on no key, with words for what is not known.

    Raises:
      UsageError: where it draws by itself.
    """
    program = _pruned(_lowered(traced, constants), None)
    refuse_other_draws(_names(program), who)
    return program


class _Lowering:
    """Operations of one program while they are collected."""

    def __init__(self, constants):
        self.constants, self.ops, self.names, self.count = constants, [], {}, 0

    def fresh(self):
        self.count += 1
        return self.count - 1

    def constant(self, value):
        name = f'c{len(self.constants)}'
        self.constants[name] = np.asarray(value)
        return name

    def reference(self, atom):
        if isinstance(atom, core.Literal):
            return self.constant(np.asarray(atom.val, atom.aval.dtype))
        return self.names[atom]

    def add(self, op, reads, variables, **settings):
        made = [self.fresh() for _ in variables]
        self.names.update(zip(variables, made, strict=True))
        self.ops.append({'op': op, 'in': reads, 'out': made, **settings})


def _lowered(closed, constants) -> Program:
    lowering = _Lowering(constants)
    for variable, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        # Keys stay behind: nothing that is exported may depend on them.
        is_key = jax.dtypes.issubdtype(variable.aval.dtype, jax.dtypes.prng_key)
        lowering.names[variable] = 'key' if is_key else lowering.constant(value)
    inputs = [lowering.fresh() for _ in closed.jaxpr.invars]
    lowering.names.update(zip(closed.jaxpr.invars, inputs, strict=True))
    _lower(lowering, closed.jaxpr)
    return Program(inputs, lowering.ops, [lowering.reference(atom) for atom in closed.jaxpr.outvars])


def _lower(lowering, jaxpr):
    for equation in jaxpr.eqns:
        reads = [lowering.reference(atom) for atom in equation.invars]
        name = equation.primitive.name
        if name in CALLS:
            _inline(lowering, equation, reads)
        elif name in SAME:
            lowering.names.update(zip(equation.outvars, reads, strict=True))
        elif name in ELEMENTWISE:
            lowering.add(name, reads, equation.outvars)
        else:
            op, settings = _SPECIAL.get(name, _unknown)(equation, lowering)
            lowering.add(op, reads, equation.outvars, **settings)


def _inline(lowering, equation, reads):
    inner = equation.params[CALLS[equation.primitive.name]]
    jaxpr, consts = (inner.jaxpr, inner.consts) if isinstance(inner, core.ClosedJaxpr) else (inner, ())
    outer, lowering.names = lowering.names, dict(zip(jaxpr.invars, reads, strict=True))
    lowering.names.update({variable: lowering.constant(value) for variable, value in zip(jaxpr.constvars, consts, strict=True)})
    _lower(lowering, jaxpr)
    results = [lowering.reference(atom) for atom in jaxpr.outvars]
    lowering.names = outer | dict(zip(equation.outvars, results, strict=True))


def _unknown(equation, lowering):
    del lowering
    name = equation.primitive.name
    return (name if name.startswith(('random_', 'threefry')) else f'?{name}'), {}


def size(value) -> int | list:
    """A size as it is written: a number, or `[k]` for k times the number of rows."""
    if isinstance(value, int | np.integer):
        return int(value)
    factors = re.fullmatch(r'(?:(\d+)\*)?[a-z](?:\*(\d+))?', str(value))
    if factors is None:
        raise UsageError(f'export needs sizes in proportion to the rows; the policy has one of {value}; export it as stablehlo')
    return [int(factors[1] or 1) * int(factors[2] or 1)]


def _sizes(values):
    return [size(value) for value in values]


def _ints(values):
    return [int(value) for value in values]


def _dot(equation, lowering):
    del lowering
    (left, right), (left_batch, right_batch) = equation.params['dimension_numbers']
    letters = iter('abcdefghijklmnopqrstuvwxyz')
    ranks = [len(atom.aval.shape) for atom in equation.invars]
    first, second = [next(letters) for _ in range(ranks[0])], [''] * ranks[1]
    for own, other in zip((*left, *left_batch), (*right, *right_batch), strict=True):
        second[other] = first[own]
    second = [letter or next(letters) for letter in second]
    kept = [first[i] for i in left_batch] + [a for i, a in enumerate(first) if i not in (*left, *left_batch)]
    kept += [a for i, a in enumerate(second) if i not in (*right, *right_batch)]
    settings = {'spec': f'{"".join(first)},{"".join(second)}->{"".join(kept)}'}
    return ('einsum', settings) if left_batch else ('tensordot', {'axes': [_ints(left), _ints(right)], **settings})


def _gather(equation, lowering):
    del lowering
    numbers = equation.params['dimension_numbers']
    return 'gather', {
        'offset': _ints(numbers.offset_dims), 'collapsed': _ints(numbers.collapsed_slice_dims),
        'starts': _ints(numbers.start_index_map),
        'batch': [_ints(numbers.operand_batching_dims), _ints(numbers.start_indices_batching_dims)],
        'sizes': _sizes(equation.params['slice_sizes']), 'of': _sizes(equation.invars[0].aval.shape),
        'outer': _sizes(equation.invars[1].aval.shape[:-1]),
    }  # fmt: skip


def _scatter(op):
    """Scatter and scatter-add: where windows of `sizes` begin, which `updates` hold without the collapsed axes."""

    def settings(equation, lowering):
        if op == 'scatter' and equation.params['update_jaxpr'] is not None:
            return _unknown(equation, lowering)
        numbers = equation.params['dimension_numbers']
        operand, index, updates = (atom.aval.shape for atom in equation.invars)
        own = [*numbers.inserted_window_dims, *numbers.operand_batching_dims]
        window = iter([updates[axis] for axis in numbers.update_window_dims])
        return op, {
            'offset': _ints(numbers.update_window_dims), 'collapsed': _ints(numbers.inserted_window_dims),
            'starts': _ints(numbers.scatter_dims_to_operand_dims),
            'batch': [_ints(numbers.operand_batching_dims), _ints(numbers.scatter_indices_batching_dims)],
            'of': _sizes(operand), 'sizes': _sizes(1 if axis in own else next(window) for axis in range(len(operand))),
            'outer': _sizes(index[:-1]),
        }  # fmt: skip

    return settings


def _dynamic_slice(equation, lowering):
    del lowering
    return 'dynamic_slice', {'of': _sizes(equation.invars[0].aval.shape), 'sizes': _sizes(equation.params['slice_sizes'])}


def _update_slice(equation, lowering):
    del lowering
    of, sizes = (_sizes(atom.aval.shape) for atom in equation.invars[:2])
    return 'dynamic_update_slice', {'of': of, 'sizes': sizes}


def _scan(equation, lowering):
    params = equation.params
    program = _lowered(params['jaxpr'], lowering.constants)
    return 'scan', {
        'program': program._asdict(), 'length': params['length'], 'reverse': params['reverse'],
        'fixed': params['num_consts'], 'carried': params['num_carry'],
    }  # fmt: skip


def _slice(equation, lowering):
    del lowering
    p = equation.params
    strides = p['strides'] or [1] * len(p['start_indices'])
    return 'slice', {'start': _sizes(p['start_indices']), 'stop': _sizes(p['limit_indices']), 'step': [int(s) for s in strides]}


def _select(equation, lowering):
    if len(equation.invars) != 3:
        return _unknown(equation, lowering)
    return 'select', {}


def _sort(equation, lowering):
    if equation.params['num_keys'] != 1:
        return _unknown(equation, lowering)
    axis = int(equation.params['dimension'])
    return 'sort', {'length': size(equation.invars[0].aval.shape[axis]), 'axis': axis}


def _setting(op, **names):
    """An operation whose settings are parameters of the primitive: `ours=(theirs, conversion)`."""
    return lambda equation, lowering: (op, {ours: convert(equation.params[name]) for ours, (name, convert) in names.items()})


def _dtype(value):
    return np.dtype(value).name


_SPECIAL = {
    'add_any': _setting('add'),
    'integer_pow': _setting('integer_pow', exponent=('y', int)),
    'select_n': _select,
    'convert_element_type': _setting('astype', dtype=('new_dtype', _dtype)),
    'broadcast_in_dim': _setting('broadcast', shape=('shape', _sizes), axes=('broadcast_dimensions', _ints)),
    'reshape': _setting('reshape', shape=('new_sizes', _sizes)),
    'transpose': _setting('transpose', axes=('permutation', _ints)),
    'squeeze': _setting('squeeze', axes=('dimensions', _ints)),
    'concatenate': _setting('concatenate', axis=('dimension', int)),
    'stack': _setting('stack', axis=('axis', int)),
    'unstack': _setting('unstack', axis=('axis', int)),
    'split': _setting('split', sizes=('sizes', _sizes), axis=('axis', int)),
    'rev': _setting('flip', axes=('dimensions', _ints)),
    'iota': _setting('iota', shape=('shape', _sizes), axis=('dimension', int), dtype=('dtype', _dtype)),
    'argmax': _setting('argmax', axis=('axes', lambda axes: int(axes[0])), dtype=('index_dtype', _dtype)),
    'argmin': _setting('argmin', axis=('axes', lambda axes: int(axes[0])), dtype=('index_dtype', _dtype)),
    'dynamic_slice': _dynamic_slice,
    'dynamic_update_slice': _update_slice,
    'slice': _slice,
    'sort': _sort,
    'dot_general': _dot,
    'gather': _gather,
    'scatter': _scatter('scatter'),
    'scatter-add': _scatter('scatter_add'),
    'scatter_add': _scatter('scatter_add'),
    'scan': _scan,
}
for _name, _by in REDUCTIONS.items():
    _SPECIAL[f'reduce_{_name}'] = _setting('reduce', by=('axes', lambda axes, by=_by: by), axes=('axes', _ints))


def _pruned(program: Program, wanted) -> Program:
    """The program without operations that its outputs, or those of them that are wanted, do not depend on."""
    outputs = program.outputs if wanted is None else [out for out, want in zip(program.outputs, wanted, strict=True) if want]
    needed, kept = {ref for ref in outputs if isinstance(ref, int)}, []
    for op in reversed(program.ops):
        if not needed.intersection(op['out']):
            continue
        op = _pruned_scan(op, needed) if op['op'] == 'scan' else op
        needed.update(ref for ref in op['in'] if isinstance(ref, int))
        kept.append(op)
    return Program(program.inputs, kept[::-1], outputs)


def _pruned_scan(op, needed):
    """A loop without what it carries and reads for nobody."""
    inner, fixed, carried = Program(**op['program']), op['fixed'], op['carried']
    wanted = [out in needed for out in op['out']]
    while True:
        body = _pruned(inner, wanted)
        used = _references(body)
        carries = [wanted[i] or inner.inputs[fixed + i] in used for i in range(carried)]
        if carries == wanted[:carried]:
            break
        wanted[:carried] = carries
    reads = [number in used for number in inner.inputs]
    reads[fixed : fixed + carried] = carries
    chosen = [number for number, read in zip(inner.inputs, reads, strict=True) if read]
    return {
        **op, 'in': [ref for ref, read in zip(op['in'], reads, strict=True) if read],
        'out': [out for out, want in zip(op['out'], wanted, strict=True) if want],
        'program': body._replace(inputs=chosen)._asdict(), 'fixed': sum(reads[:fixed]), 'carried': sum(carries),
    }  # fmt: skip


def _nested(program):
    return [Program(**op['program']) for op in program.ops if op['op'] == 'scan']


def _names(program):
    return {op['op'] for op in program.ops}.union(*(_names(inner) for inner in _nested(program)))


def _references(program):
    own = {ref for op in program.ops for ref in op['in']} | set(program.outputs)
    # Numbers of values inside of a loop are its own; names of constants are shared.
    return own.union(*({ref for ref in _references(inner) if isinstance(ref, str)} for inner in _nested(program)))
