"""A policy exported by ooorl, run with numpy alone: `python policy.py policy.npz`, or

    import policy
    act = policy.load('policy.npz')
    action = act(observation)              # [O] or [B, O], raw units -> [A] or [B, A], the environment's units

A policy that draws its actions takes its noise from a generator, `load(path, seed=0)`, or as given: `act(observation, noise)`,
one array for each of `act.noise_shapes(B)`, of the kinds `act.about['noise_kinds']`. The file holds the network as a list of
operations; this page knows each of them.
"""

import json
import sys

import numpy as np

ELEMENTWISE = {
    'add': np.add, 'sub': np.subtract, 'mul': np.multiply, 'div': np.divide, 'rem': np.fmod, 'max': np.maximum, 'min': np.minimum,
    'pow': np.power, 'neg': np.negative, 'abs': np.abs, 'sign': np.sign, 'exp': np.exp, 'exp2': np.exp2, 'log': np.log,
    'log1p': np.log1p, 'expm1': np.expm1, 'tanh': np.tanh, 'sin': np.sin, 'cos': np.cos, 'sqrt': np.sqrt, 'square': np.square,
    'floor': np.floor, 'ceil': np.ceil, 'is_finite': np.isfinite, 'lt': np.less, 'le': np.less_equal, 'gt': np.greater,
    'ge': np.greater_equal, 'eq': np.equal, 'ne': np.not_equal, 'and': np.logical_and, 'or': np.logical_or, 'not': np.logical_not,
    'rsqrt': lambda x: 1 / np.sqrt(x), 'logistic': lambda x: 1 / (1 + np.exp(-x)),
    'clamp': lambda low, x, high: np.clip(x, low, high), 'select': lambda which, first, second: np.where(which, second, first),
}  # fmt: skip
NOISE = {'normal': lambda generator: generator.standard_normal, 'uniform': lambda generator: generator.random}


def load(path, seed=0):
    """The policy of a file; `seed` is that of the noise it draws, if it draws any."""
    return Policy(path, seed)


class Policy:
    """A policy as a function of observations."""

    def __init__(self, path, seed=0):
        with np.load(path, allow_pickle=False) as file:
            self.about = json.loads(str(file['about']))
            self.constants = {name: file[name] for name in file.files if name != 'about'}
        self.generator = np.random.default_rng(seed)

    def noise_shapes(self, rows):
        """Shapes of the noise, standard normal or uniform in [0, 1), that actions for so many rows take."""
        return [_shape(shape, rows) for shape in self.about['noise']]

    def __call__(self, observation, noise=None):
        observation = np.asarray(observation, np.float32)
        rows = observation.reshape(-1, self.about['observation_dim'])
        if noise is None:
            makers = [NOISE[kind](self.generator) for kind in self.about['noise_kinds']]
            noise = [make(shape, np.float32) for make, shape in zip(makers, self.noise_shapes(len(rows)), strict=True)]
        action = run(self.about['program'], self.constants, [rows, *noise], len(rows))[0]
        return action.reshape(*observation.shape[:-1], *action.shape[1:])


def run(program, constants, inputs, rows):
    """The outputs of a program of operations; what is not read again is let go."""
    values = dict(zip(program['inputs'], inputs, strict=True))
    done = program.get('done') or program.setdefault('done', _done(program))
    for op, finished in zip(program['ops'], done, strict=True):
        reads = [constants[ref] if isinstance(ref, str) else values[ref] for ref in op['in']]
        if op['op'] in ELEMENTWISE:
            made = [ELEMENTWISE[op['op']](*reads)]
        elif op['op'] == 'scan':
            made = scan(op, constants, reads, rows)
        else:
            made = STRUCTURAL[op['op']](op, rows, *reads)
            made = made if isinstance(made, list) else [made]
        values.update(zip(op['out'], made, strict=True))
        del reads, made
        for ref in finished:
            del values[ref]
    return [constants[ref] if isinstance(ref, str) else values[ref] for ref in program['outputs']]


def _done(program):
    """For each operation the values that nothing after it reads."""
    last = {ref: number for number, op in enumerate(program['ops']) for ref in (*op['out'], *op['in'])}
    kept = {*program['outputs'], *program['inputs']}
    found = [[] for _ in program['ops']]
    for ref, number in last.items():
        if not isinstance(ref, str) and ref not in kept:
            found[number].append(ref)
    return found


def scan(op, constants, reads, rows):
    """A loop: fixed arrays, what is carried from step to step, and arrays of which each step reads its row."""
    fixed, carried = reads[: op['fixed']], reads[op['fixed'] : op['fixed'] + op['carried']]
    sliced, collected = reads[op['fixed'] + op['carried'] :], []
    for step in reversed(range(op['length'])) if op['reverse'] else range(op['length']):
        made = run(op['program'], constants, [*fixed, *carried, *(array[step] for array in sliced)], rows)
        carried = made[: op['carried']]
        collected.append(made[op['carried'] :])
    collected = collected[::-1] if op['reverse'] else collected
    return [*carried, *(np.stack(column) for column in zip(*collected, strict=True))]


def _shape(sizes, rows):
    return tuple(size[0] * rows if isinstance(size, list) else size for size in sizes)


def _broadcast(op, rows, x):
    shape = _shape(op['shape'], rows)
    middle = [1] * len(shape)
    for axis, size in zip(op['axes'], np.shape(x), strict=True):
        middle[axis] = size
    return np.broadcast_to(np.reshape(x, middle), shape)


def _slice(op, rows, x):
    ends = zip(_shape(op['start'], rows), _shape(op['stop'], rows), op['step'], strict=True)
    return x[tuple(slice(*own) for own in ends)]


def _split(op, rows, x):
    return np.split(x, np.cumsum(_shape(op['sizes'], rows))[:-1], op['axis'])


def _iota(op, rows):
    shape = _shape(op['shape'], rows)
    along = np.arange(shape[op['axis']], dtype=op['dtype']).reshape([-1 if i == op['axis'] else 1 for i in range(len(shape))])
    return np.broadcast_to(along, shape)


def _sort(op, rows, *columns):
    order = np.argsort(columns[0], axis=op['axis'], kind='stable')
    return [np.take_along_axis(column, order, op['axis']) for column in columns]


def _window(shape, sizes, starts):
    starts = [int(np.clip(start, 0, whole - size)) for start, whole, size in zip(starts, shape, sizes, strict=True)]
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def _dynamic_slice(op, rows, x, *starts):
    return x[_window(x.shape, _shape(op['sizes'], rows), starts)]


def _dynamic_update_slice(op, rows, x, update, *starts):
    x = np.array(x)
    x[_window(x.shape, update.shape, starts)] = update
    return x


def _places(op, shape, index, sizes):
    """Where in an array of that shape the windows begin and reach: one index array for each axis, and the axes of the windows."""
    outer, (own, others) = index.shape[:-1], op['batch']
    kept = [axis for axis in range(len(shape)) if axis not in op['collapsed'] + own]
    places = []
    for axis in range(len(shape)):
        if axis in own:
            at = others[own.index(axis)]
            place = np.arange(outer[at]).reshape([-1 if i == at else 1 for i in range(len(outer))])
        elif axis in op['starts']:
            place = np.clip(index[..., op['starts'].index(axis)], 0, shape[axis] - sizes[axis])
        else:
            place = np.zeros([1] * len(outer), int)
        place = place.reshape(place.shape + (1,) * len(kept))
        if axis in kept:
            place = place + np.arange(sizes[axis]).reshape([-1 if i == kept.index(axis) else 1 for i in range(len(kept))])
        places.append(place)
    return tuple(places), range(len(outer), len(outer) + len(kept))


def _gather(op, rows, x, index):
    places, windows = _places(op, x.shape, index, _shape(op['sizes'], rows))
    return np.moveaxis(x[places], windows, op['offset'])


def _scatter(op, rows, x, index, updates):
    places, windows = _places(op, x.shape, index, _shape(op['sizes'], rows))
    x, updates = np.array(x), np.moveaxis(updates, op['offset'], windows)
    if op['op'] == 'scatter':
        x[places] = updates
    else:
        np.add.at(x, places, updates)
    return x


STRUCTURAL = {
    'tensordot': lambda op, rows, x, y: np.tensordot(x, y, op['axes']),
    'einsum': lambda op, rows, x, y: np.einsum(op['spec'], x, y, optimize=True),
    'integer_pow': lambda op, rows, x: x ** op['exponent'],
    'astype': lambda op, rows, x: np.asarray(x).astype(op['dtype']),
    'reshape': lambda op, rows, x: np.reshape(x, _shape(op['shape'], rows)),
    'transpose': lambda op, rows, x: np.transpose(x, op['axes']),
    'squeeze': lambda op, rows, x: np.squeeze(x, tuple(op['axes'])),
    'concatenate': lambda op, rows, *xs: np.concatenate(xs, op['axis']),
    'stack': lambda op, rows, *xs: np.stack(xs, op['axis']),
    'unstack': lambda op, rows, x: list(np.moveaxis(x, op['axis'], 0)),
    'flip': lambda op, rows, x: np.flip(x, op['axes']),
    'reduce': lambda op, rows, x: getattr(np, op['by'])(x, tuple(op['axes'])),
    'argmax': lambda op, rows, x: np.argmax(x, op['axis']).astype(op['dtype']),
    'argmin': lambda op, rows, x: np.argmin(x, op['axis']).astype(op['dtype']),
    'broadcast': _broadcast, 'slice': _slice, 'split': _split, 'iota': _iota, 'sort': _sort,
    'gather': _gather, 'scatter': _scatter, 'scatter_add': _scatter, 'dynamic_slice': _dynamic_slice,
    'dynamic_update_slice': _dynamic_update_slice,
}  # fmt: skip

if __name__ == '__main__':
    policy = load(sys.argv[1] if len(sys.argv) > 1 else 'policy.npz')
    print({key: value for key, value in policy.about.items() if key != 'program'})
    print(policy(np.zeros(policy.about['observation_dim'])))
