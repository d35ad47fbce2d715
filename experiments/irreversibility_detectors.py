"""What detectors of irreversibility and of novelty tell apart: two columns, because the one is not the other.

    python experiments/irreversibility_detectors.py

Each learns from the demonstrations and from lives of a wandering policy; `classifier` also from labels by bisection, `neighbour`
and `confidence` from which rows are demonstrations. Scored on new lives: how well the score tells irreversible successors from
reversible ones of the same lives (AUROC; with expected calibration error, false alarms and detections at one half), and how well
it tells reversible successors of these lives from those of demonstrations, which a detector of novelty does and one of
irreversibility does not.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from irreversibility_methods import PLACES, demonstrations

from ooorl import signals
from ooorl.envs import make_task
from ooorl.reporting import writers
from ooorl.signals.calibration import auroc, calibration, reliability
from ooorl.signals.familiarity import confidence_minimisation, progress_classes, usual_distance
from ooorl.signals.labelling import label_life
from ooorl.types import Transition

LIVES, STEPS, UPDATES, SEEDS, HIDDEN = 60, 150, 1500, 10, (64, 64)


def wander(observation, key):
    """Uniform actions; on the table, to the mug and away with it, the magnet mostly on."""
    if observation.shape[-1] != 12:
        return jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
    drift = jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0)
    chase = jnp.append(jnp.clip((observation[2:4] - observation[0:2]) / 0.2, -1.0, 1.0), 1.0)
    return jnp.where(observation[4] < -0.5, chase, jnp.append(drift[:2] + 0.3, 0.95 + drift[2]))


def lives(task, key) -> Transition:
    """`LIVES` lives of `STEPS` rows each, in order, with `truth` in extras."""

    def life(key):
        reset_key, loop_key = jax.random.split(key)

        def step(carry, key):
            state, seen = carry
            act_key, step_key = jax.random.split(key)
            action = wander(seen, act_key)
            state, after, reward, *_ = task.step(state, action, step_key)
            return (state, after), Transition(seen, action, reward, jnp.ones(()), after)

        return jax.lax.scan(step, task.reset(reset_key), jax.random.split(loop_key, STEPS))[1]

    rows = jax.jit(jax.vmap(life))(jax.random.split(key, LIVES))
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)
    boundary = jnp.tile(jnp.arange(STEPS) == STEPS - 1, LIVES).astype(jnp.float32)
    return rows._replace(extras={'boundary': boundary, 'truth': task.irreversible(rows.next_observation).astype(jnp.float32)})


def labelled(rows: Transition) -> tuple[np.ndarray, int]:
    """Labels of all rows by bisection, and how many states were asked about."""
    truth, found, queries = np.asarray(rows.extras['truth']).reshape(LIVES, STEPS), [], 0
    for life in truth:
        labels = label_life(lambda number, life=life: bool(life[number]), STEPS)
        found.append(labels.label)
        queries += labels.queries
    return np.concatenate(found).astype(np.float32), queries


def detectors(name: str, rows: Transition) -> dict:
    """Those of this table, for the task's own columns."""
    place = PLACES[name]
    task, columns = make_task(place.id), place.columns
    start = np.asarray(task.reset(jax.random.key(0))[1])[list(columns)]
    known = {'hidden': HIDDEN, 'columns': columns, 'min_updates': 1}
    radius = usual_distance(rows.next_observation[:1000, list(columns)])
    return {
        'classifier': signals.reversibility_classifier(task.spec, signals.ClassifierConfig(hidden=HIDDEN, columns=columns)),
        'precedence': signals.precedence(task.spec, signals.PrecedenceConfig(**known, threshold=0.5)),
        'reachability': signals.reset_reachability(
            task.spec, signals.ReachabilityConfig(**known, reset=tuple(map(float, start)), radius=0.3)
        ),
        'neighbour': signals.nearest_neighbour(task.spec, signals.NeighbourConfig(columns=columns, radius=radius)),
        'confidence': confidence_minimisation(task.spec, signals.ConfidenceConfig(**known)),
    }


def together(demos, rows, label):
    """Both sets with all columns that anybody learns from."""
    known = progress_classes(demos, 8)
    classes = jnp.concatenate([known.extras['class'], -jnp.ones(len(rows.reward))])
    parts = [one._replace(extras={}) for one in (demos, rows)]
    both = jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a, jnp.float32), b]), *parts)
    marks = jnp.concatenate([jnp.zeros(len(demos.reward)), jnp.asarray(label)])
    return both._replace(extras={'class': classes, 'label': marks})


def fitted(detector, data, demos, key):
    """Half of each batch from the demonstrations, half from the lives."""
    first = len(demos.reward)
    state = detector.observe(detector.init(key), jax.tree.map(jnp.asarray, demos._replace(extras={})))

    def step(state, key):
        a, b = jax.random.split(key)
        rows = jnp.concatenate([jax.random.randint(a, (64,), 0, first), jax.random.randint(b, (64,), first, len(data.reward))])
        return detector.update(state, jax.tree.map(lambda leaf: leaf[rows], data), key)[0], None

    return jax.lax.scan(step, state, jax.random.split(key, UPDATES))[0]


def measure(name: str) -> dict:
    """The numbers of a task: for each detector lists over seeds."""
    task, demos, found, pooled = make_task(PLACES[name].id), demonstrations(name), {}, {}
    made = detectors(name, demos)
    programs = {one: jax.jit(lambda data, key, d=detector: fitted(d, data, demos, key)) for one, detector in made.items()}
    for seed in range(SEEDS):
        keys = jax.random.split(jax.random.key(seed), 3)
        train, test = lives(task, keys[0]), lives(task, keys[1])
        label, queries = labelled(train)
        data, truth = together(demos, train, label), np.asarray(test.extras['truth'])
        for one, detector in made.items():
            state = programs[one](data, keys[2])
            score = np.asarray(detector.score(state, test))
            calm = np.asarray(detector.score(state, jax.tree.map(jnp.asarray, demos)))
            novelty = auroc(np.append(score[truth == 0], calm), np.append(np.ones((truth == 0).sum()), np.zeros(calm.size)))
            report = calibration(score, truth.astype(int))
            row = {'irreversible': report.auroc, 'novel': novelty, 'error': report.expected_error}
            row |= {'false_alarms': report.false_alarms, 'detected': report.detected}
            row |= {'queries': queries if one == 'classifier' else 0}
            for key, value in row.items():
                found.setdefault(one, {}).setdefault(key, []).append(float(value))
            pooled.setdefault(one, []).append((score, truth))
    for one, pairs in pooled.items():
        curve = reliability(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))
        found[one]['reliability'] = {name: values.tolist() for name, values in curve._asdict().items()}
    return found


def main() -> int:
    """Measures all tasks and prints the table."""
    results = {name: measure(name) for name in PLACES}
    writers.write_json(Path(__file__).resolve().parent / 'results' / 'irreversibility_detectors.json', results)
    columns = ('irreversible', 'novel', 'error', 'false_alarms', 'detected', 'queries')
    print('| task | detector | ' + ' | '.join(columns) + ' |\n|---|---|' + '---|' * len(columns))
    for name, found in results.items():
        for one, row in found.items():
            shown = ' | '.join(f'{np.nanmean(row[c]):.2f}' if c != 'queries' else f'{np.mean(row[c]):.0f}' for c in columns)
            print(f'| {name} | {one} | {shown} |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
