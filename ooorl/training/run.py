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

from ooorl.training.cycles import FINITE, over_seeds_split
from ooorl.training.evaluate import evaluate, with_normalised
from ooorl.training.measure import Gauge
from ooorl.training.phases import Phase, Setup, check, env_steps, round_sizes
from ooorl.training.rounds import Programs, RunState, begin, one_round
from ooorl.types import Agent, State


class Diverged(ArithmeticError):
    """Parameters or metrics stopped being finite; the message names phase and seeds."""


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
      UsageError: if the setup cannot be run.
      Diverged: as soon as a round ends with a number that is not finite.
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
            state = begin(programs, state, phase)
        while state.round < len(sizes):
            if state.round == 0:
                gauge.begin(state, phase)
            state, metrics, finished = one_round(programs, state, phase, sizes)
            rows = _metric_rows(setup, state, phase, sizes, metrics, finished)
            rows += _diagnostic_rows(setup, state, sizes, gauge.measure(state, phase))
            done = state.round == len(sizes)
            updates, _ = sizes.done(state.round)
            if setup.evaluation is not None and (done or sizes.ends_period(state.round)):
                rows += _evaluation_rows(programs, state, phase, updates)
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


def _row(setup, state, sizes, seed_number, kind):
    updates, cycles = sizes.done(state.round)
    return {
        'kind': kind,
        'phase': setup.phases[state.phase].name,
        'seed': int(setup.seeds[seed_number]),
        'updates': updates,
        'env_steps': env_steps(setup, state.phase, cycles),
    }


def _metric_rows(setup, state, phase, sizes, metrics, finished):
    rows = []
    for kind, columns in (('train', metrics), ('episodes', finished)):
        for number in range(len(setup.seeds) if columns else 0):
            values = {name: float(value[number]) for name, value in jax.device_get(columns).items()}
            rows.append({**_row(setup, state, sizes, number, kind), **values})
    bad = sorted({row['seed'] for row in rows if row['kind'] == 'train' and not _all_finite(row)})
    if bad:
        raise Diverged(
            f'training needs finite numbers; phase {phase.name!r} produced others by update {rows[0]["updates"]} for seeds '
            f'{bad}; lower the learning rate, bound the values, or check the rewards'
        )
    return rows


def _diagnostic_rows(setup, state, sizes, found):
    rows = []
    for number in range(len(setup.seeds) if found else 0):
        known = {name: float(value[number]) for name, value in found.items() if np.isfinite(value[number])}
        rows.append({**_row(setup, state, sizes, number, 'diagnostics'), **known})
    return rows


def _all_finite(row):
    return row.get(FINITE, 1.0) == 1.0 and all(np.isfinite(v) for v in row.values() if isinstance(v, float))


def _evaluation_rows(programs, state, phase, updates):
    setup, sizes = programs.setup, round_sizes(phase, programs.setup)
    scores = evaluate_agent(programs, phase.agent, state.agent, programs.keys(state.phase, state.round, 3))
    rows = []
    for number in range(len(setup.seeds)):
        values = {name: float(np.mean(score[number])) for name, score in scores.items()}
        rows.append({**_row(setup, state, sizes, number, 'eval'), **with_normalised(values, setup.score_range)})
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


def score(setup: Setup, agent: Agent, agent_state: State, *, purpose: int = 4) -> dict[str, np.ndarray]:
    """Evaluates a stored agent state on its own: per-episode scores `[S, episodes]`."""
    programs = Programs(setup)
    return evaluate_agent(programs, agent, agent_state, programs.keys(len(setup.phases), 0, purpose))
