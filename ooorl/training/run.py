"""Runs phases round by round and reports what each round did; it knows nothing of algorithms.

Everything carries a leading seed axis [S]. Every key is derived from (seed, phase, round), so `RunState` holds no key, and going
on from a stored `RunState` repeats the uninterrupted run bit for bit. With compiled environments each seed's numbers depend on
that seed alone; host environments draw all seeds' episodes from the first seed's key.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from ooorl.errors import UsageError, told_by_callback
from ooorl.training.acting import acting
from ooorl.training.ahead import upcoming
from ooorl.training.cycles import FINITE
from ooorl.training.evaluate import BY_COMBINATION, evaluate, evaluation_job, means, with_normalised
from ooorl.training.finite import Diverged, inherited, judged, mask_scores
from ooorl.training.measure import Gauge
from ooorl.training.phases import Phase, Setup, env_steps, round_sizes
from ooorl.training.preflight import check
from ooorl.training.programs import Pace, Programs, Stopped
from ooorl.training.rounds import RunState, begin, closed, part, round_length
from ooorl.training.stopwatch import Stopwatch
from ooorl.types import Agent, State

__all__ = ['Diverged', 'Event', 'Failed', 'evaluate_agent', 'initial', 'iterate', 'run', 'score']


class Failed(UsageError):
    """Somebody's function, which is asked for actions, has failed; the last event brought the state that stood, if one did."""


class Event(NamedTuple):
    """What `iterate` tells after every part of a round: the state so far, and at the end of the round its rows of metrics.

    `steps` counts the updates (or cycles, in phases without updates) of this part; `updates` those of the phase so far.
    """

    state: RunState
    rows: list[dict]
    phase: Phase
    steps: int
    updates: int
    round_done: bool
    phase_done: bool


def run(setup: Setup, *, resume: RunState | None = None, report: Callable[[Event], None] | None = None) -> RunState:
    """Runs all phases and returns the final state; `report` is called after every round."""
    state = resume
    for event in iterate(setup, resume=resume):
        state = event.state
        if report is not None and event.round_done:
            report(event)
    return state


def iterate(
    setup: Setup,
    *,
    resume: RunState | None = None,
    stopped: Callable[[], bool] | None = None,
    watch: Stopwatch | None = None,
    ahead: bool = False,
) -> Iterator[Event]:
    """Runs the phases round by round, and rounds in parts of a second or two.

    The caller may stop consuming after any event. An event's state must be saved before the next one is asked for, because its
    arrays are donated to the next round.

    Args:
      setup: the run.
      resume: a stored state to go on from.
      stopped: asked while something takes long (compiling, evaluating): once it says True that is given up, and a last event
        brings the state that stands. It is not asked between events.
      watch: counts the time by phase and activity.
      ahead: make the programs of later phases in threads of their own, while the first ones train.

    Raises:
      UsageError: if the setup cannot be run, or an environment raises or gives a number that is not finite.
      Failed: if a function that a policy consists of does.
      Diverged: as soon as a round ends in which the last seed diverged; the others go on without those that have (see `finite`).
    """
    check(setup)
    programs = Programs(setup, stopped=stopped, watch=watch)
    state = resume if resume is not None else initial(setup)
    if ahead:
        programs.expect(upcoming(programs, state.phase))
    try:
        yield from _events(programs, state)
    finally:
        programs.close()


def _events(programs, state):
    setup, gauge, pace = programs.setup, Gauge(programs), Pace()
    while state.phase < len(setup.phases):
        phase, number, steps, rows, whole = setup.phases[state.phase], state.phase, 0, [], False
        programs.watch.enter(phase.name)
        sizes = round_sizes(phase, setup)
        try:
            state = _begun(programs, gauge, state, phase)
            left = round_length(sizes[state.round]) - state.done
            if left:
                steps = pace.count(phase, left)
                state = _part(programs, pace, state, phase, sizes, steps)
            if steps == left:
                state, rows = _closed(programs, gauge, state, phase, sizes)
                whole = True
        except Stopped:
            yield Event(state, [], phase, steps, 0, False, False)
            return
        except (jax.errors.JaxRuntimeError, ValueError) as error:  # whichever waits for the results makes its own of it
            sentence = told_by_callback(error)
            if sentence is None:
                raise
            if state.agent is not None and stands(state):
                yield Event(state, [], phase, steps, 0, False, False)
            raise Failed(sentence) from None
        done = state.phase > number
        updates, _ = sizes.done(len(sizes) if done else state.round)
        per_step = sizes[0][0] // sizes[0][1] if sizes[0][0] and sizes[0][1] else 1
        yield Event(state, rows, phase, steps * per_step, updates, whole, done)
    programs.watch.enter('')


def stands(state: RunState) -> bool:
    """Whether nothing of it was donated to a program that has failed since."""
    return not any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(state))


def _begun(programs, gauge, state, phase):
    if state.agent is None:
        lost = inherited(programs.setup, state.phase, state.diverged)
        state = begin(programs, state, phase)._replace(diverged={**state.diverged, phase.name: lost})
    if state.round == 0 and not state.sums:
        state = state._replace(sums={'measured': gauge.begin(state, phase)})
    return state


def _part(programs, pace, state, phase, sizes, steps):
    compiled, began = programs.compile_seconds, time.monotonic()
    with programs.watch.on('train'):
        state = part(programs, state, phase, sizes, steps)
        jax.block_until_ready(state.agent)
    pace.took(phase, steps, time.monotonic() - began - (programs.compile_seconds - compiled))
    return state


def _closed(programs, gauge, state, phase, sizes):
    """The state after a round whose steps are all done, and its rows."""
    setup, measured = programs.setup, state.sums.get('measured', {})
    state, metrics, finished = closed(state, sizes)
    state = judged(programs, state, phase, sizes, metrics)
    rows = _metric_rows(setup, state, sizes, metrics, finished)
    rows += _count_rows(setup, state, phase, sizes)
    rows += _diagnostic_rows(setup, state, sizes, gauge.measure(state, phase, measured))
    done = state.round == len(sizes)
    if setup.evaluation is not None and (done or sizes.ends_period(state.round)):
        with programs.watch.on('evaluate'):
            rows += _evaluation_rows(programs, state, phase, sizes)
    if done:
        finished = {**state.finished, phase.name: state.agent}
        state = state._replace(phase=state.phase + 1, round=0, agent=None, finished=finished)
    return state, rows


def initial(setup: Setup) -> RunState:
    """The state before the first round."""
    return RunState(0, 0, None, {}, {}, {})


def _rows(setup, state, sizes, kind, columns):
    """A row for every seed, of a number from each column `[S]`; of a diverged seed it says so instead."""
    (updates, cycles), phase = sizes.done(state.round), setup.phases[state.phase].name
    shared = {'updates': updates, 'env_steps': env_steps(setup, state.phase, cycles)}
    for number, seed in enumerate(map(int, setup.seeds)):
        lost = seed in state.diverged.get(phase, ())
        values = {FINITE: 0.0} if lost else {name: float(value[number]) for name, value in columns.items()}
        yield {'kind': kind, 'phase': phase, 'seed': seed, **shared, **values}


def _metric_rows(setup, state, sizes, metrics, finished):
    columns = {'train': jax.device_get(metrics), 'episodes': jax.device_get(finished)}
    return [row for kind, own in columns.items() if own for row in _rows(setup, state, sizes, kind, own)]


def _count_rows(setup, state, phase, sizes):
    """Running totals of what the environment counts, of rows of kind "counts"."""
    if not phase.num_env_steps or setup.environment.counts is None:
        return []
    totals = jax.device_get(setup.environment.counts(state.collectors[phase.store].environment))
    return list(_rows(setup, state, sizes, 'counts', totals))


def _diagnostic_rows(setup, state, sizes, found):
    rows = _rows(setup, state, sizes, 'diagnostics', found) if found else ()
    return [{name: v for name, v in row.items() if not isinstance(v, float) or np.isfinite(v)} for row in rows]


def _evaluation_rows(programs, state, phase, sizes):
    setup = programs.setup
    scores = evaluate_agent(programs, phase.agent, state.agent, programs.keys(state.phase, state.round, 3))
    rows = list(_rows(setup, state, sizes, 'eval', with_normalised(means(scores), setup.score_range)))
    rows = [{name: value for name, value in row.items() if name not in BY_COMBINATION or np.isfinite(value)} for row in rows]
    bad = [row for row in rows if FINITE not in row and not np.isfinite(row['return'])]
    if bad:
        raise UsageError(
            f'finite numbers were needed; {setup.evaluation.name} gave a return of {bad[0]["return"]} when phase {phase.name!r} '
            f'was evaluated, seed {bad[0]["seed"]}; mend the environment'
        )
    return rows


def evaluate_agent(programs: Programs, agent: Agent, agent_state: State, keys) -> dict[str, np.ndarray]:
    """Scores of every episode, `[S, episodes]`, of the agent's deployed actions in the evaluation environment."""
    environment = programs.setup.evaluation
    if environment.compiled:
        scores = programs.run(evaluation_job(programs, agent, agent_state, keys))
    else:
        act = acting(programs, ('best', agent), agent.best_action, agent_state)

        def best(observation, key):
            programs.heed()
            return act(observation, key)

        scores = evaluate(environment, best, keys[0], agent.chunk)
    return programs.wait(scores) if environment.compiled else jax.device_get(scores)


def score(setup: Setup, agent: Agent, agent_state: State, *, purpose: int = 4, lost=()) -> dict[str, np.ndarray]:
    """Evaluates a stored agent state on its own: per-episode scores `[S, episodes]`; NaN for diverged and `lost` seeds."""
    programs = Programs(setup)
    scores = evaluate_agent(programs, agent, agent_state, programs.keys(len(setup.phases), 0, purpose))
    return mask_scores(programs, agent_state, scores, lost)
