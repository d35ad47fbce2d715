"""A person in the loop: whoever answers whether a state can be taken back, while everything else stands still.

`asked` is `lives.endless` on the host: when a life ends its states are put to an expert, one question at a time, by bisection. An
expert is any function of a `Question` that says True (irreversible), False, or None where there is no answer; then the life stays
unlabelled and the run goes on. `remembered` keeps every answer in a file at once, so that a run that is killed while it waits
asks nothing twice when it is resumed: it comes back to the same questions, since everything else follows from the seeds.
"""

import json
import os
import select
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.errors import UsageError
from ooorl.mapping import host_scan
from ooorl.signals.labelling import MODES, UNKNOWN, label_life
from ooorl.training.lives import LifeState, Parts, Rules, life_spec, totals
from ooorl.types import Environment, Spec, State, Task
from ooorl.validation import check_choice


class Question(NamedTuple):
    """Can state `number` of `length` of a life be taken back? `observation` `[O]` is what it looks like."""

    seed: int
    copy: int
    life: int
    number: int
    length: int
    observation: np.ndarray


Expert = Callable[[Question], bool | None]


class AskedState(NamedTuple):
    """All copies `[S, N]` as numpy arrays: their lives, the successors of the lives under way `[S, N, horizon, O]`, totals of
    answers that contradict one another and of lives that nobody judged, and the state of the environment on the host, if any."""

    lives: LifeState
    past: np.ndarray
    contradictions: np.ndarray
    unlabelled: np.ndarray
    inner: State = ()


class Outcome(NamedTuple):
    """What came of a step on the host; `fresh` is the observation of the next episode where this one ended."""

    successor: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    success: np.ndarray
    fresh: np.ndarray


def outcomes(spec: Spec, horizon: int, irreversible: Callable | None, absorbing: bool = True) -> Task:
    """The task of an environment on the host as `asked` needs it: its state is the `Outcome` of its last step."""
    nothing, no = np.zeros(spec.observation_dim, np.float32), np.zeros((), bool)
    blank = Outcome(nothing, np.zeros((), np.float32), no, no, nothing)
    return Task(
        spec=spec, horizon=horizon, reset=lambda key: (blank, blank.fresh), step=lambda state, action, key: (state, *state[:4]),
        irreversible=irreversible, absorbing=absorbing,
    )


class _Unanswered(Exception):
    """The expert has no answer."""


def scripted(irreversible: Callable) -> Expert:
    """The task's own truth as an expert."""
    return lambda question: bool(np.asarray(irreversible(question.observation)))


def remembered(expert: Expert, path: str | Path) -> Expert:
    """The expert, asked only what the file at `path` does not answer yet; every answer is on the disk before it is used.

    Raises:
      UsageError: if the file is there and holds something else.
    """
    path, known = Path(path), {}
    lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else ()
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        if entry is None and line.endswith(']'):
            raise UsageError(f'answers must be lines [seed, copy, life, number, answer]; line {number} of {path} is not')
        if entry is not None:  # else the last line of a process that was killed while it wrote
            known[entry[:4]] = entry[4]

    def ask(question):
        place = tuple(int(x) for x in question[:4])
        if place not in known:
            answer = expert(question)
            if answer is None:
                return None
            with path.open('a', encoding='utf-8') as file:
                file.write(json.dumps([*place, bool(answer)]) + '\n')
                file.flush()
                os.fsync(file.fileno())
            known[place] = bool(answer)
        return known[place]

    return ask


def _entry(line):
    """A line of answers as (seed, copy, life, number, answer), or None."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    fits = isinstance(found, list) and [type(one) for one in found] == [int] * 4 + [bool]
    return tuple(found) if fits else None


def terminal(
    task: Task, *, seconds: float | None = None, picture: str | Path | None = None, lines: IO | None = None, out: IO | None = None
) -> Expert:
    """An expert at the terminal: y, n, or an empty line for no answer.

    Args:
      task: whose states are shown.
      seconds: to wait for an answer before going on without; None waits for ever. Only of a stream that can be waited for.
      picture: a .png that shows the state in question, where the task can be drawn.
      lines: where answers come from; standard input.
      out: where questions go; standard output.
    """

    def ask(question):
        shown, source, sink = '', lines or sys.stdin, out or sys.stdout
        if picture is not None and task.render is not None:
            import imageio.v3 as imageio

            imageio.imwrite(picture, task.render(np.asarray(question.observation)))
            shown = f', drawn in {picture}'
        place = f'state {question.number + 1} of {question.length} of life {question.life + 1}, seed {question.seed}'
        numbers = np.array2string(np.asarray(question.observation), precision=3, suppress_small=True)
        while True:
            print(f'{place}{shown}: {numbers}\nCan it never be taken back? [y/n] ', end='', file=sink, flush=True)
            if seconds is not None and not select.select([source], [], [], seconds)[0]:
                return None
            answer = source.readline().strip().lower()
            if answer in ('y', 'yes', 'n', 'no'):
                return answer[0] == 'y'
            if not answer:  # an empty line, or the end of what can be read
                return None

    return ask


def asked(
    task: Task,
    rules: Rules,
    expert: Expert,
    *,
    seeds: tuple[int, ...] = (0,),
    num_envs: int = 1,
    mode: str = 'bisect',
    audits: int = 0,
    new_goal: Callable | None = None,
    returned: Callable | None = None,
    host: Environment | None = None,
) -> Environment:
    """`lives.endless` on the host, whose lives an expert labels.

    False alarms and irreversible steps are still counted by the task's own truth, which nobody is told; of a task that has none
    they are 0. Lives whose answers contradict one another, and lives without answers, stay unlabelled and are counted.

    Args:
      task: compiled.
      rules: as for `endless`.
      expert: who answers.
      seeds: of the run.
      num_envs: copies of each seed.
      mode: 'bisect', or 'exhaustive' where what is irreversible may be left; then a life is labelled from its first such state on
        only if it is never left.
      audits: further questions within the bound, see `label_life`.
      new_goal: as for `endless`.
      returned: as for `endless`.
      host: `envs.host` of shape `(S, N)`, whose horizon is that of the rules, in the place of a compiled task; `task` is then
        made by `outcomes`. What ends its episodes ends lives; turns, goals and `end_at_success` are not for it.

    Raises:
      UsageError: if the rules are not for environments on the host.
    """
    if host is not None and (rules.end_at_success or rules.switch_every or new_goal or returned):
        raise UsageError('an environment on the host has lives of one policy that success does not end; got other rules')
    check_choice(MODES, mode=mode)
    truth = task.irreversible or (lambda observation: jnp.zeros(observation.shape[:-1], bool))
    parts, shape = Parts(replace(task, irreversible=truth), rules, new_goal, returned, host is not None), (len(seeds), num_envs)
    lived_, closed_, born_ = [jax.jit(jax.vmap(jax.vmap(function))) for function in (parts.lived, parts.closed, parts.born)]

    def reset(key):
        copies = np.broadcast_to(np.arange(num_envs, dtype=np.int32), shape)
        lives, observation = jax.tree.map(np.array, born_(copies, _keys(key, shape)))
        past, inner = np.zeros((*shape, rules.horizon, task.spec.observation_dim), np.float32), ()
        if host is not None:
            inner, first = host.reset(key)
            lives = lives._replace(observation=first)
            observation = np.concatenate([first, observation[..., first.shape[-1] :]], axis=-1)
        return AskedState(lives, past, np.zeros(shape, np.int32), np.zeros(shape, np.int32), inner), observation

    def step(state, action, key):
        action = np.asarray(action, np.float32)
        state = state if host is None else _played(host, lived_, state, action, key)
        moved, lived = jax.tree.map(np.array, lived_(state.lives, action, _keys(key, shape)))
        past = state.past.copy()
        np.put_along_axis(past, moved.age[..., None, None] - 1, moved.observation[..., None, :], axis=2)
        first, queries, contradictions = _judged(expert, seeds, moved, lived.hard, past, {'mode': mode, 'audits': audits})
        after, timestep = jax.tree.map(np.array, closed_(moved, lived, first, queries, _keys(key, shape)))
        over = after.task._replace(terminated=np.zeros(shape, bool)) if host is not None else after.task
        contradictions, unlabelled = state.contradictions + contradictions, state.unlabelled + (lived.hard & (first < 0))
        return AskedState(after._replace(task=over), past, contradictions, unlabelled, state.inner), timestep

    return Environment(
        spec=life_spec(task), horizon=rules.horizon, batch_shape=shape, compiled=False, reset=reset, step=step, scan=host_scan,
        counts=_counts,
    )


def _played(host, lived, state, action, key):
    """The step on the host: whether it is the last of a life does not depend on what comes of it."""
    ends = np.asarray(lived(state.lives, action, _keys(key, action.shape[:-1]))[1].hard, np.float32)
    inner, step = host.step(state.inner, np.concatenate([action[..., :-1], ends[..., None]], axis=-1), key)
    outcome = Outcome(step.next_observation, step.reward, step.terminated, step.success, step.observation)
    return state._replace(inner=inner, lives=state.lives._replace(task=outcome))


def _counts(state):
    more = {'contradictions': state.contradictions.sum(axis=-1), 'unlabelled_lives': state.unlabelled.sum(axis=-1)}
    return {**totals(state.lives), **more}


def _keys(key, shape):
    """A key for each copy; the host's loops hold the numbers of one."""
    key = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(jnp.asarray(key))
    return jax.random.split(key, shape)


def _judged(expert, seeds, moved, over, past, how):
    """What the expert says of the lives that are `over`, as `[S, N]` of what `_first` says of one; of others nothing is known."""
    first, queries, contradictions = (np.full(over.shape, value, np.int32) for value in (UNKNOWN, 0, 0))
    for seed, copy in np.argwhere(over).tolist():
        own = past[seed, copy, : int(moved.age[seed, copy])]
        found = _first(expert, (seeds[seed], copy, int(moved.life[seed, copy])), own, **how)
        first[seed, copy], queries[seed, copy], contradictions[seed, copy] = found
    return first, queries, contradictions


def _first(expert, place, past, mode, audits):
    """(first irreversible state, its length where there is none, -1 where nobody knows; answers given; contradictions)."""
    given = []

    def ask(number):
        answer = expert(Question(*place, number, len(past), past[number]))
        if answer is None:
            raise _Unanswered
        given.append(answer)
        return answer

    try:
        found = label_life(ask, len(past), mode=mode, audits=audits)
    except _Unanswered:
        return UNKNOWN, len(given), 0
    if found.contradictions or (found.label == UNKNOWN).any():
        return UNKNOWN, found.queries, found.contradictions
    bad = np.flatnonzero(found.label)
    return int(bad[0]) if bad.size else len(past), found.queries, 0
