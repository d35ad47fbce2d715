"""The operations of a policy as an ONNX graph, with a free number of rows; loops are written out step by step.

Only the `onnx` package is needed. Operations that networks, samplers and re-ranking are made of are known; others are refused.
"""

from collections.abc import Mapping

import numpy as np

from ooorl.errors import UsageError

OPSET = 18
_SAME_NAME = {
    'add': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div', 'max': 'Max', 'min': 'Min', 'pow': 'Pow', 'neg': 'Neg', 'abs': 'Abs',
    'sign': 'Sign', 'exp': 'Exp', 'log': 'Log', 'tanh': 'Tanh', 'sin': 'Sin', 'cos': 'Cos', 'sqrt': 'Sqrt', 'floor': 'Floor',
    'ceil': 'Ceil', 'logistic': 'Sigmoid', 'lt': 'Less', 'le': 'LessOrEqual', 'gt': 'Greater', 'ge': 'GreaterOrEqual',
    'eq': 'Equal', 'and': 'And', 'or': 'Or', 'not': 'Not',
}  # fmt: skip
_REDUCTIONS = {'sum': 'ReduceSum', 'amax': 'ReduceMax', 'amin': 'ReduceMin', 'prod': 'ReduceProd'}


def model_of(program, constants: Mapping, portable):
    """The ONNX model of a program.

    Args:
      program: `operations.Program`.
      constants: its arrays by name.
      portable: whose it is, for its `about`.

    Raises:
      UsageError: for an operation that is not known here.
    """
    from onnx import TensorProto, checker, helper

    graph = _Graph(constants, portable.who)
    names = ['observation', *(f'noise_{number}' for number in range(len(program.inputs) - 1))]
    outputs = graph.run(program, names)
    graph.node('Identity', [outputs[0]], ['action'])
    sizes = [[[1], portable.about['observation_dim']], *portable.about['noise']]
    action = [[1], *([portable.about['chunk']] if portable.about['chunk'] > 1 else []), portable.about['action_dim']]

    def described(name, sizes):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [_axis(n) for n in sizes])

    given = list(map(described, names, sizes))
    whole = helper.make_graph(graph.nodes, 'policy', given, [described('action', action)], initializer=graph.initializers())
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid('', OPSET)], producer_name='ooorl', ir_version=9)
    helper.set_model_props(model, {name: str(value) for name, value in portable.about.items()})
    checker.check_model(model)
    return model


def _axis(value):
    return value if isinstance(value, int) else ('rows' if value == [1] else f'{value[0]}*rows')


class _Graph:
    """Nodes while they are collected."""

    def __init__(self, constants, who):
        self.constants, self.who, self.nodes, self.count = dict(constants), who, [], 0

    def node(self, kind, reads, makes=None, num=1, **attributes):
        """Adds a node and returns the name of its result, or the names where there are several."""
        from onnx import helper

        makes = makes or [self._fresh() for _ in range(num)]
        self.nodes.append(helper.make_node(kind, reads, makes, **attributes))
        return makes[0] if len(makes) == 1 else makes

    def _fresh(self):
        self.count += 1
        return f'v{self.count}'

    def constant(self, value, dtype=np.int64):
        """The name of a constant array."""
        name = f'k{len(self.constants)}'
        self.constants[name] = np.asarray(value, dtype)
        return name

    def initializers(self):
        """The constants that nodes read."""
        from onnx import numpy_helper

        used = {name for node in self.nodes for name in node.input}
        return [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items() if name in used]

    def sizes(self, sizes):
        """The name of a vector of sizes, some of which follow the number of rows."""
        if all(isinstance(size, int) for size in sizes):
            return self.constant(sizes)
        rows = self.node('Slice', [self.node('Shape', ['observation']), *map(self.constant, ([0], [1]))])
        parts = [
            self.constant([size]) if isinstance(size, int) else self.node('Mul', [rows, self.constant(size)]) for size in sizes
        ]
        return self.node('Concat', parts, axis=0)

    def run(self, program, inputs):
        """Adds a program's nodes and returns the names of its outputs."""
        names = dict(zip(program.inputs, inputs, strict=True))
        for op in program.ops:
            reads = [ref if isinstance(ref, str) else names[ref] for ref in op['in']]
            made = self._add(op, reads)
            names.update(zip(op['out'], made if isinstance(made, list) else [made], strict=True))
        return [ref if isinstance(ref, str) else names[ref] for ref in program.outputs]

    def _add(self, op, reads):
        if op['op'] in _SAME_NAME:
            return self.node(_SAME_NAME[op['op']], reads)
        if op['op'] not in _WRITERS:
            raise UsageError(f'export to onnx has no word for {op["op"]}, which {self.who} needs; export it as npz or stablehlo')
        return _WRITERS[op['op']](self, op, *reads)


def _one(graph):
    return graph.constant(1.0, np.float32)


def _astype(graph, op, x):
    from onnx import helper

    return graph.node('Cast', [x], to=helper.np_dtype_to_tensor_dtype(np.dtype(op['dtype'])))


def _broadcast(graph, op, x):
    missing = [axis for axis in range(len(op['shape'])) if axis not in op['axes']]
    spread = graph.node('Unsqueeze', [x, graph.constant(missing)]) if missing else x
    return graph.node('Expand', [spread, graph.sizes(op['shape'])])


def _slice(graph, op, x):
    axes = graph.constant(range(len(op['start'])))
    return graph.node('Slice', [x, graph.sizes(op['start']), graph.sizes(op['stop']), axes, graph.constant(op['step'])])


def _split(graph, op, x):
    return graph.node('Split', [x, graph.sizes(op['sizes'])], num=len(op['sizes']), axis=op['axis'])


def _stack(graph, op, *xs):
    return graph.node('Concat', [graph.node('Unsqueeze', [x, graph.constant([op['axis']])]) for x in xs], axis=op['axis'])


def _unstack(graph, op, x):
    parts = graph.node('Split', [x], num=len(op['out']), axis=op['axis'], num_outputs=len(op['out']))
    parts = parts if isinstance(parts, list) else [parts]
    return [graph.node('Squeeze', [part, graph.constant([op['axis']])]) for part in parts]


def _flip(graph, op, x):
    low, num = np.iinfo(np.int64).min, len(op['axes'])
    ends = ([-1] * num, [low + 1] * num, op['axes'], [-1] * num)
    return graph.node('Slice', [x, *map(graph.constant, ends)])


def _reduce(graph, op, x):
    if op['by'] in ('all', 'any'):
        number = _astype(graph, {'dtype': 'int32'}, x)
        return _astype(graph, {'dtype': 'bool'}, _reduce(graph, {**op, 'by': 'amin' if op['by'] == 'all' else 'amax'}, number))
    return graph.node(_REDUCTIONS[op['by']], [x, graph.constant(op['axes'])], keepdims=0)


def _extreme(kind):
    return lambda graph, op, x: _astype(graph, op, graph.node(kind, [x], axis=op['axis'], keepdims=0))


def _iota(graph, op):
    length = graph.node('Squeeze', [graph.sizes([op['shape'][op['axis']]]), graph.constant([0])])
    along = _astype(graph, op, graph.node('Range', [graph.constant(0), length, graph.constant(1)]))
    return _broadcast(graph, {**op, 'axes': [op['axis']]}, along)


def _sort(graph, op, first, *others):
    values, order = graph.node('TopK', [first, graph.sizes([op['length']])], num=2, axis=op['axis'], largest=0)
    return [values, *(graph.node('GatherElements', [other, order], axis=op['axis']) for other in others)]


def _gather(graph, op, x, index):
    """A window, or many that take an axis whole or one place of it, which is all that indexing along axes needs."""
    if not op['outer']:
        window = _dynamic_slice(graph, op, x, *_starts(graph, op, index))
        return graph.node('Squeeze', [window, graph.constant(op['collapsed'])]) if op['collapsed'] else window
    own, others = op['batch']
    kept = [axis for axis in range(len(op['of'])) if axis not in op['collapsed'] + own]
    if any(op['sizes'][axis] != op['of'][axis] for axis in kept):
        raise UsageError(f'export to onnx knows indexing by whole axes; {graph.who} takes parts of them; export it as npz')
    chosen = [axis for axis in range(len(op['of'])) if axis not in kept]
    outer, index = op['outer'], graph.node('Cast', [index], to=7)
    columns = []
    for axis in chosen:
        if axis in own:
            at = others[own.index(axis)]
            place = _iota(graph, {'shape': outer, 'axis': at, 'dtype': 'int64'})
            columns.append(graph.node('Unsqueeze', [place, graph.constant([len(outer)])]))
        else:
            column = op['starts'].index(axis)
            columns.append(graph.node('Slice', [index, *map(graph.constant, ([column], [column + 1], [len(outer)]))]))
    turned = graph.node('Transpose', [x], perm=[*chosen, *kept])
    found = graph.node('GatherND', [turned, graph.node('Concat', columns, axis=len(outer))])
    rank = len(outer) + len(kept)
    back = [axis for axis in range(rank) if axis not in op['offset']]
    order = [len(outer) + op['offset'].index(axis) if axis in op['offset'] else back.index(axis) for axis in range(rank)]
    return graph.node('Transpose', [found], perm=order)


def _starts(graph, op, index):
    """Where a single window begins, for each axis, out of the vector that says so for some."""
    found = [graph.constant(0)] * len(op['of'])
    for place, axis in enumerate(op['starts']):
        found[axis] = graph.node('Gather', [index, graph.constant(place)], axis=0)
    return found


def _scatter(graph, op, x, index, updates):
    if op['outer']:
        raise UsageError(f'export to onnx knows writing to one place; {graph.who} writes to many at once; export it as npz')
    starts = _starts(graph, op, index)
    window = graph.node('Unsqueeze', [updates, graph.constant(op['collapsed'])]) if op['collapsed'] else updates
    if op['op'] == 'scatter_add':
        window = graph.node('Add', [_dynamic_slice(graph, op, x, *starts), window])
    return _dynamic_update_slice(graph, op, x, window, *starts)


def _start(graph, op, starts, axis):
    """Where a window along an axis begins and ends, as vectors of one place: held inside, as jax does."""
    start = graph.node('Reshape', [graph.node('Cast', [starts[axis]], to=7), graph.constant([1])])
    last = graph.node('Sub', [graph.sizes([op['of'][axis]]), graph.sizes([op['sizes'][axis]])])
    start = graph.node('Max', [graph.node('Min', [start, last]), graph.constant([0])])
    return start, graph.node('Add', [start, graph.sizes([op['sizes'][axis]])])


def _parts(op):
    """The axes that a window does not take whole."""
    return [axis for axis, (whole, size) in enumerate(zip(op['of'], op['sizes'], strict=True)) if whole != size]


def _dynamic_slice(graph, op, x, *starts):
    for axis in _parts(op):
        x = graph.node('Slice', [x, *_start(graph, op, starts, axis), graph.constant([axis])])
    return x


def _dynamic_update_slice(graph, op, x, update, *starts):
    """What lies before the window, the window, what lies behind it: one axis after another, from the inside."""
    axes = _parts(op)
    if not axes:
        return update
    axis, ends, along = axes[0], _start(graph, op, starts, axes[0]), graph.constant([axes[0]])
    if len(axes) > 1:
        within = graph.node('Slice', [x, *ends, along])
        of = [op['sizes'][axis] if place == axis else size for place, size in enumerate(op['of'])]
        update = _dynamic_update_slice(graph, {**op, 'of': of}, within, update, *starts)
    before = graph.node('Slice', [x, graph.constant([0]), ends[0], along])
    after = graph.node('Slice', [x, ends[1], graph.sizes([op['of'][axis]]), along])
    return graph.node('Concat', [before, update, after], axis=axis)


def _scan(graph, op, *reads):
    from ooorl.runner.export.operations import Program

    program, first = Program(**op['program']), op['fixed'] + op['carried']
    fixed, carried, sliced, collected = reads[: op['fixed']], list(reads[op['fixed'] : first]), reads[first:], []
    for step in reversed(range(op['length'])) if op['reverse'] else range(op['length']):
        rows = [graph.node('Gather', [array, graph.constant(step)], axis=0) for array in sliced]
        made = graph.run(program, [*fixed, *carried, *rows])
        carried = made[: op['carried']]
        collected.append(made[op['carried'] :])
    collected = collected[::-1] if op['reverse'] else collected
    return [*carried, *(_stack(graph, {'axis': 0}, *column) for column in zip(*collected, strict=True))]


_WRITERS = {
    'rsqrt': lambda graph, op, x: graph.node('Reciprocal', [graph.node('Sqrt', [x])]),
    'square': lambda graph, op, x: graph.node('Mul', [x, x]),
    'log1p': lambda graph, op, x: graph.node('Log', [graph.node('Add', [x, _one(graph)])]),
    'expm1': lambda graph, op, x: graph.node('Sub', [graph.node('Exp', [x]), _one(graph)]),
    'ne': lambda graph, op, x, y: graph.node('Not', [graph.node('Equal', [x, y])]),
    'clamp': lambda graph, op, low, x, high: graph.node('Min', [graph.node('Max', [x, low]), high]),
    'select': lambda graph, op, which, first, second: graph.node('Where', [which, second, first]),
    'tensordot': lambda graph, op, x, y: graph.node('Einsum', [x, y], equation=op['spec']),
    'einsum': lambda graph, op, x, y: graph.node('Einsum', [x, y], equation=op['spec']),
    'reshape': lambda graph, op, x: graph.node('Reshape', [x, graph.sizes(op['shape'])]),
    'transpose': lambda graph, op, x: graph.node('Transpose', [x], perm=op['axes']),
    'squeeze': lambda graph, op, x: graph.node('Squeeze', [x, graph.constant(op['axes'])]),
    'concatenate': lambda graph, op, *xs: graph.node('Concat', list(xs), axis=op['axis']),
    'integer_pow': lambda graph, op, x: graph.node('Pow', [x, graph.constant(op['exponent'], np.float32)]),
    'astype': _astype, 'broadcast': _broadcast, 'slice': _slice, 'split': _split, 'stack': _stack,
    'unstack': _unstack, 'flip': _flip, 'reduce': _reduce, 'argmax': _extreme('ArgMax'), 'argmin': _extreme('ArgMin'),
    'iota': _iota, 'sort': _sort, 'gather': _gather, 'scan': _scan,
    'scatter': _scatter, 'scatter_add': _scatter, 'dynamic_slice': _dynamic_slice, 'dynamic_update_slice': _dynamic_update_slice,
}  # fmt: skip
