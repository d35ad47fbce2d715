"""What every agent and every signal must satisfy, as functions: the project's own conformance suite, for yours too.

    check_agent(my_agent(spec, config), spec)

Each check is one sentence about the types in `ooorl.types`; the first that does not hold is raised as an `AssertionError`
with that sentence. Sizes of 8 make a check of a few seconds. What no function can know is left to tests of your own: that
each setting changes something, and that the numbers are those of the source.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from ooorl.interpreted import interpreted
from ooorl.nn import schedules
from ooorl.types import Agent, Array, Key, Signal, Spec, State, Transition

NUM_UPDATES = 3
SHAPES = ((), (5,), (4, 2))  # leading axes of observations


class _Trial(NamedTuple):
    """Something with a state, ready to be updated."""

    init: Callable[[Key], State]  # ready to be updated
    update: Callable  # (state, batch, key) -> (state, dict), as it was written
    donating: Callable  # the same, compiled, taking its state with it
    traces: list  # one entry for each time `donating` was traced
    batches: tuple[Transition, ...]
    starts: tuple[State, ...]  # of the keys 0, 1, ..., on the host

    def start(self, number: int = 0) -> State:
        """The state of a key, in arrays of its own."""
        return jax.tree.map(jnp.array, self.starts[number])

    @staticmethod
    def key(number: int) -> Key:
        """A new key: those that are watched serve once."""
        return jax.random.key(number)


def example_batch(spec: Spec, key: Key, rows: int = 12, reads: tuple[str, ...] = (), chunk: int = 1) -> Transition:
    """Noise in which every third row is terminal, with all columns in `reads`: actions where these are named so, else ones.

    For agents with chunks, windows of so many rows, of which every fourth is cut short.
    """
    keys, shape = jax.random.split(key, 5), (rows,) if chunk == 1 else (rows, chunk)
    place = jnp.arange(rows).reshape(rows, *(1 for _ in shape[1:]))

    def box(key):
        return jax.random.uniform(key, (*shape, spec.action_dim), minval=-0.9, maxval=0.9)

    extras = {name: box(keys[4]) if name == 'next_action' else jnp.ones(shape) for name in reads}
    if chunk > 1:
        extras['valid'] = jnp.where((place % 4 == 1) & (jnp.arange(chunk)[None, :] > 0), 0.0, jnp.ones(shape))
    return Transition(
        observation=jax.random.normal(keys[0], (*shape, spec.observation_dim)),
        action=box(keys[1]),
        reward=jax.random.normal(keys[2], shape),
        discount=jnp.where(place % 3 == 0, 0.0, jnp.ones(shape)),
        next_observation=jax.random.normal(keys[3], (*shape, spec.observation_dim)),
        extras=extras,
    )


def check_agent(
    agent: Agent, spec: Spec, *, batch: Transition | None = None, reads_final_successors: bool = False, rtol: float = 2e-4
):
    """Raises unless the agent keeps what `ooorl.types.Agent` promises.

    * a key gives one state, float32, without keys in it; equal keys give equal updates; no key is used for two draws;
    * three updates are traced once, keep the state's structure, shapes and types, and may donate it;
    * metrics are finite scalars under the same names; the columns it reads are those in `reads`;
    * three seeds mapped at once equal three seeds in a loop; a state stored and restored goes on bit for bit;
    * where the discount is 0, the successor is not read;
    * actions have the shapes of their observations, are finite and stay in the box; `q` is `[E, ...]`;
    * `observe` keeps the state's structure, `sees` keeps the batch's rows.

    Of an agent with chunks the same is asked of windows, and of actions that are those of `agent.chunk` steps.

    Args:
      agent: under test; small networks keep it quick.
      spec: the sizes it was made for.
      batch: `[rows]` with the columns it reads, where noise and ones in them (`example_batch`) will not do.
      reads_final_successors: True for what rightly reads successors of terminal rows: bonuses, Cal-QL's gap.
      rtol: of mapped against looped seeds, whose sums may round differently; 0.1 of it absolutely.

    Raises:
      AssertionError: naming what does not hold.
    """
    trial = _trial(agent.init, agent.update, _batches(spec, batch, agent.reads, agent.window))
    with jax.debug_key_reuse(True):  # keys that are used twice raise
        metrics = _check_updates(trial)
        _check_metrics(metrics)
        _check_reads(agent, trial)
        _check_seeds(trial, rtol)
        if not reads_final_successors:
            _check_final_successors(trial)
    state = trial.start()
    _check_outputs(agent, state, spec)
    _check_observing(agent.observe, state, trial.batches[0])
    seen = _tried('sees', agent.sees, state, trial.batches[0])
    _ensure(_shapes(seen[:5]) == _shapes(trial.batches[0][:5]), 'sees(state, batch) keeps the shapes and types of the batch')


def check_signal(signal: Signal, spec: Spec, *, batch: Transition | None = None, rtol: float = 2e-4):
    """The same for a signal; besides, its scores are `[rows]`, finite and not negative, from `update` and from `score`."""

    def update(state, batch, key):
        state, score, metrics = signal.update(state, batch, key)
        return state, {'score': score, **metrics}

    trial = _trial(signal.init, update, _batches(spec, batch, ()))
    with jax.debug_key_reuse(True):
        results = _check_updates(trial)
        _check_seeds(trial, rtol)
    rows = trial.batches[0].reward.shape
    for metrics in results:
        _check_score(metrics.pop('score'), rows, 'update')
    _check_metrics(results, needed=False)
    _check_score(_tried('score', interpreted(signal.score), trial.start(), trial.batches[1]), rows, 'score')
    _check_observing(signal.observe, trial.start(), trial.batches[0])


def _ensure(holds, sentence):
    if not holds:
        raise AssertionError(f'it does not hold that {sentence}')


def _tried(what, function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        raise AssertionError(f'{what} raised {type(error).__name__}: {error}') from error


def _trial(init, update, batches):
    traces = []

    def traced(state, batch, key):
        traces.append(None)
        return update(state, batch, key)

    def ready(key):
        # An agent with a schedule must be told how long its phase is.
        return schedules.begin(init(key), NUM_UPDATES)

    compiled = jax.jit(ready)
    _check_init(compiled, jax.random.key(0))
    with jax.debug_key_reuse(True):  # as it has just been traced
        make = interpreted(_as_traced(compiled, jax.random.key(0)))
    starts = tuple(make(jax.random.key(seed)) for seed in range(NUM_UPDATES))
    return _Trial(ready, update, jax.jit(traced, donate_argnums=0), traces, batches, starts)


def _batches(spec, batch, reads, chunk=1):
    if batch is None:
        return tuple(example_batch(spec, jax.random.key(seed), reads=reads, chunk=chunk) for seed in range(NUM_UPDATES))
    missing = [name for name in reads if name not in batch.extras]
    _ensure(not missing, f'the batch has the columns {missing}, which the agent reads')
    return tuple(jax.tree.map(lambda leaf, n=n: jnp.asarray(np.roll(leaf, n, axis=0)), batch) for n in range(NUM_UPDATES))


def _shapes(tree):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)


def _same(left, right):
    """Whether two pytrees hold the same numbers bit for bit."""
    return jax.tree.structure(left) == jax.tree.structure(right) and all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


def _check_types(tree, what):
    for path, leaf in jax.tree.leaves_with_path(tree):
        here = f'{what}{jax.tree_util.keystr(path)}'
        _ensure(hasattr(leaf, 'dtype'), f'{here} is an array and not a {type(leaf).__name__}')
        _ensure(not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key), f'{here} is no key: keys are arguments, never stored')
        real = not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype == jnp.float32
        _ensure(real and leaf.dtype.itemsize <= 4, f'{here} is float32 or an integer of at most 32 bits, and not {leaf.dtype}')


def _check_init(init, key):
    """What a compiled `init` does not show any more: Python numbers, two leaves that are one array, a key used twice."""
    with jax.debug_key_reuse(True):
        traced = _tried('init, watched for keys that are used twice,', init.trace, key)
    leaves, owners = jax.tree.leaves_with_path(traced.out_info), {}
    for (path, _), variable in zip(leaves, traced.jaxpr.jaxpr.outvars, strict=True):
        here = f'the state{jax.tree_util.keystr(path)}'
        weak = getattr(variable.aval, 'weak_type', False)
        _ensure(not weak, f'{here} is an array with a type of its own and no Python number')
        other = owners.setdefault(id(variable), here)
        _ensure(other == here, f'{here} is a copy and not the same array as {other}, so that the state can be donated')


def _check_updates(trial):
    """Three donated updates, again from the start, and from a stored state; returns the metrics of each update."""
    states, metrics, state = [], [], trial.start()
    _check_types(state, 'the state')
    _ensure(_same(state, interpreted(lambda key: trial.init(key))(trial.key(0))), 'init gives equal states for equal keys')
    what = 'update, compiled, with a donated state and watched for keys that are used twice,'
    for number, batch in enumerate(trial.batches):
        given = state
        state, result = _tried(what, trial.donating, given, batch, trial.key(number))
        _check_kept(given, state)
        states.append(jax.tree.map(np.array, state))
        metrics.append(dict(result))
    _check_types(state, 'the updated state')
    times = len(trial.traces)
    _ensure(times == 1, f'{NUM_UPDATES} updates with batches of one shape are traced once, not {times} times')
    results = [trial.donating(trial.start(), trial.batches[0], trial.key(0)) for _ in range(2)]
    _ensure(_same(*results), 'equal states, batches and keys give equal updates')
    # A checkpoint is this: every leaf to the host and back.
    restored = jax.tree.map(jnp.asarray, states[1])
    after, _ = trial.donating(restored, trial.batches[2], trial.key(2))
    _ensure(_same(after, states[2]), 'a state that was stored and restored goes on bit for bit')
    return metrics


def _check_kept(given, state):
    _ensure(jax.tree.structure(given) == jax.tree.structure(state), 'update keeps the structure of the state')
    _ensure(_shapes(given) == _shapes(state), 'update keeps the shapes and types of the state')


def _check_metrics(results, needed=True):
    names = [set(metrics) for metrics in results]
    _ensure(names[0] or not needed, 'update reports metrics')
    _ensure(all(one == names[0] for one in names), f'metrics have the same names in every update; got {names}')
    for metrics in results:
        for name, value in metrics.items():
            _ensure(jnp.shape(value) == (), f'the metric {name} is a scalar; got the shape {jnp.shape(value)}')
            _ensure(np.isfinite(value), f'the metric {name} is finite; got {value}')


def _check_reads(agent, trial):
    batch = trial.batches[0]
    given = (*agent.reads, *(('valid',) if agent.window > 1 else ()))  # windows say how far they go
    if set(batch.extras) <= set(given):
        return  # all updates so far have shown it
    bare = batch._replace(extras={name: column for name, column in batch.extras.items() if name in given})
    _tried(
        f'update, given the columns in reads, {agent.reads}, and no others,',
        jax.eval_shape, trial.update, trial.start(), bare, trial.key(0),
    )  # fmt: skip


def _check_seeds(trial, rtol):
    inputs = list(zip(trial.starts, trial.batches, strict=True))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *inputs)
    keys = jax.vmap(jax.random.key)(jnp.arange(len(inputs)))
    update = interpreted(_as_traced(trial.donating, *inputs[0], keys[0]))
    with jax.debug_key_reuse(False):  # it takes keys of mapped loops for one key
        mapped = _tried('update, mapped over seeds,', interpreted(jax.vmap(trial.update)), *stacked, keys)
        looped = [update(*given, trial.key(seed)) for seed, given in enumerate(inputs)]
    for seed, result in enumerate(looped):
        for (path, one), other in zip(jax.tree.leaves_with_path(result), jax.tree.leaves(mapped), strict=True):
            # Adam turns a gradient that is rounding noise into a step of up to its rate: hence the absolute tolerance.
            close = np.allclose(other[seed], one, rtol=rtol, atol=rtol / 10, equal_nan=True)
            _ensure(close, f'seeds mapped at once equal seeds in a loop, in {jax.tree_util.keystr(path)}')


def _as_traced(compiled, *arguments):
    """The program that a compiled function has for such arguments, to be run or mapped without being traced again."""
    program, shape = jax.make_jaxpr(compiled, return_shape=True)(*arguments)
    run = core.jaxpr_as_fun(program)
    return lambda *arguments: jax.tree.unflatten(jax.tree.structure(shape), run(*jax.tree.leaves(arguments)))


def _check_final_successors(trial):
    batch = trial.batches[0]
    moved = jnp.where(batch.discount[..., None] == 0, 100.0 - 3.0 * batch.next_observation, batch.next_observation)
    results = [
        trial.donating(trial.start(), rows, trial.key(0)) for rows in (batch, batch._replace(next_observation=moved))
    ]
    _ensure(_same(*results), 'update does not read the successor where the discount is 0')


def _check_outputs(agent, state, spec):
    """Actions and values at observations of several shapes."""
    numbers = agent.chunk * spec.action_dim

    def outputs(state, key):
        found = {}
        for shape in SHAPES:
            observation, action = jnp.ones((*shape, spec.observation_dim)), jnp.ones((*shape, numbers))
            for name in ('sample_action', 'best_action'):
                what = f'{name} at observations {observation.shape}'
                found[what] = _tried(what, getattr(agent, name), state, observation, key)
                _check_array(found[what], (*shape, numbers), what)
            if agent.q is not None:
                what = f'q at observations {observation.shape}'
                found[what] = values = _tried(what, agent.q, state, observation, action)
                _ensure(values.ndim == len(shape) + 1, f'{what} is [E, *{shape}]; got {values.shape}')
                _check_array(values, (*values.shape[:1], *shape), what)
        return found

    program = interpreted(outputs)
    found = program(state, jax.random.key(0))
    _ensure(_same(found, program(state, jax.random.key(0))), 'equal keys give equal actions')
    for what, values in found.items():
        _ensure(np.isfinite(values).all(), f'{what} is finite')
        _ensure(what.startswith('q ') or np.abs(values).max() <= 1.0, f'{what} stays in the box [-1, 1]')


def _check_array(array: Array, shape: tuple[int, ...], what: Any):
    _ensure(array.shape == shape, f'{what} has the shape {shape}; got {array.shape}')
    _ensure(array.dtype == jnp.float32, f'{what} is float32; got {array.dtype}')


def _check_score(score, rows, what):
    _check_array(score, rows, f'the score of {what}')
    _ensure(np.isfinite(score).all(), f'the score of {what} is finite')
    _ensure((np.asarray(score) >= 0).all(), f'the score of {what} is not negative')


def _check_observing(observe, state, batch):
    for num in (batch.reward.shape[0], 1):
        rows = jax.tree.map(lambda leaf, num=num: leaf[:num], batch)
        new = _tried(f'observe of {num} rows', jax.eval_shape, observe, state, rows)
        _ensure(
            jax.tree.structure(new) == jax.tree.structure(state) and _shapes(new) == _shapes(state),
            'observe keeps the structure, shapes and types of the state',
        )
