"""Where a plan of when to ask must win, and whether it does: no learning, one policy, one detector, the same cliffs.

    python experiments/irreversibility_budget.py

A wandering point falls sooner or later; a life ends by a request alone, and there are few. What counts is how many of the steps
of a run are reversible. A plan, from 40 logged lives without help, says what each budget is worth to it, and what asking above
one half is worth (`budget.judged`): that is the theory. 100 runs each say what came of it. With a classifier from bisected labels
nobody needs a plan: to fall is to know it, and one time is as good as another. With nearest neighbours, to whom what is new is
lost, a threshold spends its requests where nothing has happened.
"""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from irreversibility_detectors import detectors, fitted, labelled, lives, together
from irreversibility_methods import BUDGETS, PLACES, demonstrations

from ooorl.envs import make_task
from ooorl.reporting import writers
from ooorl.reporting.intervals import score_interval
from ooorl.signals.reversibility import visited
from ooorl.training import budget, interventions
from ooorl.training.lives import WIDTH, Rules, column, endless

STEPS, EVERY, RUNS, LOGGED, BINS = 2000, 5, 100, 40, 6


def detector_of(name: str):
    """`(detector, its state)` after `experiments/irreversibility_detectors.py`'s training on the cliffs, seed 1000."""
    task, demos, keys = make_task(PLACES['cliffs'].id), demonstrations('cliffs'), jax.random.split(jax.random.key(1000), 3)
    known, train = detectors('cliffs', demos)[name], lives(task, keys[0])
    return known, fitted(known, together(demos, train, labelled(train)[0]), demos, keys[2])


def played(rules: Rules, trigger, state, key):
    """A run of `STEPS` steps: (observations with columns, whether each step ended where there is no way back, final counts)."""
    environment = endless(make_task(PLACES['cliffs'].id), rules)

    def step(carry, key):
        inside, seen = carry
        act_key, wish_key, step_key = jax.random.split(key, 3)
        wish = trigger(state, seen[..., :-WIDTH], seen[..., -WIDTH:], wish_key)
        action = jax.random.uniform(act_key, (1, 3), minval=-1.0, maxval=1.0).at[..., -1].set(jnp.where(wish, 1.0, -1.0)[0])
        inside, found = environment.step(inside, action, step_key)
        return (inside, found.observation), (seen[0], environment.irreversible(found.next_observation)[0])

    reset_key, loop_key = jax.random.split(key)
    (inside, _), (seen, bad) = jax.lax.scan(step, environment.reset(reset_key), jax.random.split(loop_key, STEPS))
    return seen, bad, environment.counts(inside)


def cells_of(known, edges, state, observation, key):
    """The bin of the risk, `[...]`; a policy that wanders has no value to bin."""
    del key
    risk = known.score(state.detector, visited(observation.reshape(-1, observation.shape[-1])))
    return budget.cells(jnp.zeros_like(risk), risk, (), edges).reshape(observation.shape[:-1])


def logged(known, state) -> tuple[budget.Log, tuple[float, ...]]:
    """Decisions of lives without help, and the edges of the bins of risk: half, and what cuts the rest into equal shares."""
    run = jax.jit(jax.vmap(lambda key: played(Rules(horizon=300), interventions.never, state, key)[:2]))
    seen, bad = run(jax.random.split(jax.random.key(2000), LOGGED * 300 // STEPS))
    risk = np.asarray(known.score(state.detector, visited(seen[..., :-WIDTH].reshape(-1, 2))))
    edges = tuple(sorted({0.5, *np.quantile(risk, np.arange(1, BINS) / BINS).round(3).tolist()}))
    cell = np.asarray(cells_of(known, edges, state, seen[..., :-WIDTH], None))
    due = np.asarray(column(seen, 'age') % EVERY == 0)
    life = np.asarray(column(seen, 'life')) + 1e6 * np.arange(len(seen))[:, None]
    return budget.count(cell[due], life[due], 1.0 - np.asarray(bad)[due], len(edges) + 1), edges


def measure(name: str) -> dict:
    """Expected and realised reversible steps of plan and threshold, for every budget."""
    known, inner = detector_of(name)
    state = interventions.InterveningState((), (), inner, (), ())
    log, edges = logged(known, state)
    fresh, decisions = log.fresh / log.fresh.sum(), STEPS // EVERY
    found = {'edges': edges, 'steps': log.steps.tolist(), 'fresh': log.fresh.tolist(), 'worth': log.worth.tolist(), 'budgets': {}}
    for most in BUDGETS:
        made = budget.plan(log, decisions, most)
        rule = budget.judged(log, np.append(0.0, edges) >= 0.5, decisions, most)
        trigger = budget.when_it_pays(made, partial(cells_of, known, edges), total_steps=STEPS, decision_steps=EVERY)
        row = {'fixed': (rule, interventions.when_detected(known), Rules(horizon=STEPS, budget=most))}
        row['plan'] = (made, trigger, Rules(horizon=STEPS, budget=most))
        found['budgets'][str(most)] = {one: _measured(*parts, state, fresh) for one, parts in row.items()}
    return found


def _measured(made, trigger, rules, state, fresh):
    counts = jax.jit(jax.vmap(lambda key: played(rules, trigger, state, key)[2]))(jax.random.split(jax.random.key(0), RUNS))
    reversible = STEPS - np.asarray(counts['irreversible_steps'])
    expected = float(made.worth[-1, rules.budget] @ fresh) * EVERY
    more = {name: np.asarray(counts[name]).tolist() for name in ('help', 'false_alarms')}
    return {'expected': expected, 'reversible_steps': reversible.tolist(), **more}


def table(results: dict) -> str:
    """Markdown."""
    lines = ['| detector | budget | rule | expected | reversible steps | help | false alarms |', '|---|---|---|---|---|---|---|']
    for name, found in results.items():
        for most, row in found['budgets'].items():
            for rule, one in row.items():
                real = score_interval('return', np.asarray(one['reversible_steps'], float))
                counts = ' | '.join(f'{np.mean(one[key]):.1f}' for key in ('help', 'false_alarms'))
                shown = f'{real.point:,.0f} [{real.low:,.0f}, {real.high:,.0f}]'
                lines.append(f'| {name} | {most} | {rule} | {one["expected"]:,.0f} | {shown} | {counts} |')
    return '\n'.join([*lines, '', *differences(results)])


def differences(results: dict) -> list[str]:
    """By how many reversible steps the plan is ahead, with its interval over runs and what the log said."""
    lines = []
    for name, found in results.items():
        for most, row in found['budgets'].items():
            ahead = np.subtract(*(np.asarray(row[rule]['reversible_steps'], float) for rule in ('plan', 'fixed')))
            expected = row['plan']['expected'] - row['fixed']['expected']
            real = score_interval('return', ahead)
            lines.append(f'* {name}, {most}: {real.point:+.0f} [{real.low:.0f}, {real.high:.0f}], expected {expected:+.0f}')
    return lines


def main() -> int:
    """Measures both detectors, keeps the numbers and prints the table."""
    results = {name: measure(name) for name in ('classifier', 'neighbour')}
    writers.write_json(Path(__file__).resolve().parent / 'results' / 'irreversibility_budget.json', results)
    print(table(results))
    return 0


if __name__ == '__main__':
    sys.exit(main())
