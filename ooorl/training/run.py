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

from ooorl.errors import UsageError
from ooorl.training.cycles import FINITE, over_seeds_split
from ooorl.training.evaluate import evaluate, with_normalised
from ooorl.training.finite import Diverged, inherited, judged, mask_scores
from ooorl.training.measure import Gauge
from ooorl.training.phases import Phase, Setup, check, env_steps, round_sizes
from ooorl.training.rounds import Programs, RunState, begin, one_round
from ooorl.types import Agent, State

__all__ = ['Diverged', 'Event', 'evaluate_agent', 'initial', 'iterate', 'run', 'score']


class Event(NamedTuple):
    """What `iterate` tells after every round: the state so far, rows of metrics (plain dicts), and where the time went."""

    state: RunState
    rows: list[dict]
    phase: Phase
    updates: int
    phase_done: bool
    seconds: float
    compile_seconds: float


def run(setup: Setup, *, resume: RunState | None = None, report: Callable[[Event], None] | None = None) -> RunState:
    """Runs all phases and returns the final state; `report` is called after every round."""
    state = resume
    for event in iterate(setup, resume=resume):
        state = event.state
        if report is not None:
            report(event)
    return state


def iterate(setup: Setup, *, resume: RunState | None = None) -> Iterator[Event]:
    """Runs the phases round by round.

    The caller may stop consuming after any event. An event's state must be saved before the next one is asked for, because its
    arrays are donated to the next round.

    Raises:
      UsageError: if the setup cannot be run, or an environment raises or gives a number that is not finite.
      Diverged: as soon as a round ends in which the last seed diverged; the others go on without those that have (see `finite`).
    """
    check(setup)
    programs = Programs(setup)
    gauge = Gauge(programs)
    state = resume if resume is not None else initial(setup)
    while state.phase < len(setup.phases):
        phase = setup.phases[state.phase]
        sizes = round_sizes(phase, setup)
        began, compiled = time.monotonic(), programs.compile_seconds
        if state.round == 0 and state.agent is None:
            lost = inherited(setup, state.phase, state.diverged)
            state = begin(programs, state, phase)._replace(diverged={**state.diverged, phase.name: lost})
        while state.round < len(sizes):
            if state.round == 0:
                gauge.begin(state, phase)
            state, metrics, finished = one_round(programs, state, phase, sizes)
            state = judged(programs, state, phase, sizes, metrics)
            rows = _metric_rows(setup, state, sizes, metrics, finished)
            rows += _diagnostic_rows(setup, state, sizes, gauge.measure(state, phase))
            done = state.round == len(sizes)
            updates, _ = sizes.done(state.round)
            if setup.evaluation is not None and (done or sizes.ends_period(state.round)):
                rows += _evaluation_rows(programs, state, phase, sizes)
            if done:
                state = state._replace(
                    phase=state.phase + 1, round=0, agent=None, finished={**state.finished, phase.name: state.agent}
                )
            spent, compiled = time.monotonic() - began, programs.compile_seconds - compiled
            yield Event(state, rows, phase, updates, done, spent - compiled, compiled)
            began, compiled = time.monotonic(), programs.compile_seconds
            if done:
                break


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


def _diagnostic_rows(setup, state, sizes, found):
    rows = _rows(setup, state, sizes, 'diagnostics', found) if found else ()
    return [{name: v for name, v in row.items() if not isinstance(v, float) or np.isfinite(v)} for row in rows]


def _evaluation_rows(programs, state, phase, sizes):
    setup = programs.setup
    scores = evaluate_agent(programs, phase.agent, state.agent, programs.keys(state.phase, state.round, 3))
    means = {name: np.asarray([np.mean(own) for own in score]) for name, score in scores.items()}
    rows = list(_rows(setup, state, sizes, 'eval', with_normalised(means, setup.score_range)))
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

        def one(state, key):
            return evaluate(environment, lambda obs, k: agent.best_action(state, obs, k), key)

        scores = programs.call(('evaluate', agent), programs.over_seeds(one, (0, 0)), agent_state, keys)
    else:
        act = over_seeds_split(programs, agent.best_action)

        def best(observation, key):
            return programs.call(('best', agent), act, agent_state, observation, key)

        scores = evaluate(environment, best, keys[0])
    return jax.device_get(scores)


def score(setup: Setup, agent: Agent, agent_state: State, *, purpose: int = 4, lost=()) -> dict[str, np.ndarray]:
    """Evaluates a stored agent state on its own: per-episode scores `[S, episodes]`; NaN for diverged and `lost` seeds."""
    programs = Programs(setup)
    scores = evaluate_agent(programs, agent, agent_state, programs.keys(len(setup.phases), 0, purpose))
    return mask_scores(programs, agent_state, scores, lost)
