"""What is not finite: an environment's numbers end the run, a seed's mark that seed and leave the others as they were."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fragile import FragileConfig, breaks, fragile
from line_world import HORIZON, LineEnv, line_task
from small import random_batch

from ooorl.envs import batched, host
from ooorl.errors import UsageError
from ooorl.runner.build import uniform
from ooorl.training import run as running
from ooorl.training.phases import Phase, Setup, ooo
from ooorl.training.rounds import Programs
from ooorl.training.sampling import Sampling
from ooorl.types import Spec

LINE, SAMPLING = Spec(observation_dim=1, action_dim=1), Sampling(batch_size=4)
DATA = random_batch(jax.random.key(0), 12, observation_dim=1, action_dim=1, boundary=jnp.ones(12))


def agent(**settings):
    return fragile(LINE, FragileConfig(**settings))


def setup(phases, *, kind='compiled', task=None, seeds=(0, 1), evaluated=True):
    if kind == 'compiled':
        environment, evaluation = (dataclasses.replace(batched(task or line_task(), n), name='Line') for n in (2, 3))
    else:
        environment, evaluation = (host(LineEnv, (len(seeds), n), horizon=HORIZON) for n in (2, 3))
    return Setup(
        phases=phases, seeds=seeds, dataset=DATA, environment=environment, evaluation=evaluation if evaluated else None,
        updates_per_round=4,
    )


def rows_of(given, resume=None):
    rows, states = [], []
    running.run(given, resume=resume, report=lambda event: (rows.extend(event.rows), states.append(event.state)))
    return rows, states


def two_seeds(phases, phase_number):
    """A seed whose agent of that phase breaks, and one whose does not."""
    broken = [bool(breaks(key)) for key in Programs(setup(phases, seeds=range(8))).keys(phase_number, 0, 1)]
    return broken.index(True), broken.index(False)


@pytest.fixture(scope='module', params=['compiled', 'host'])
def half_lost(request):
    """An OOO run whose explorer diverges for one of two seeds while it explores, and the sound seed's rows without the other."""
    explore, exploit = agent(breaks_at=7), agent(share=0.0)
    sizes = {'pretrain_updates': 4, 'num_env_steps': 16, 'explore_updates': 8, 'retrain_updates': 4}
    phases = ooo(explore, exploit, retrain_at=(0, 16), **sizes, explore_sampling=SAMPLING, retrain_sampling=SAMPLING)
    bad, good = two_seeds(phases, 0)
    both, states = rows_of(setup(phases, kind=request.param, seeds=(good, bad)))
    alone = rows_of(setup(phases, seeds=(good,)))[0] if request.param == 'compiled' else None
    return request.param, bad, good, both, alone, states


def test_a_seed_that_diverges_is_marked_from_then_on_wherever_its_agent_or_its_rows_are_read(half_lost):
    _, bad, _, rows, _, states = half_lost
    assert states[-1].diverged == {'pretrain': (), 'explore': (bad,), 'retrain@0': (), 'retrain@16': (bad,)}
    base = {'kind', 'phase', 'seed', 'updates', 'env_steps'}
    for row in (row for row in rows if row['seed'] == bad):
        if row['phase'] in ('explore', 'retrain@16'):
            assert set(row) == base | {'finite'} and row['finite'] == 0.0
        else:
            assert row.get('finite', 1.0) == 1.0 and set(row) > base
    kinds = {(row['kind'], row['phase']) for row in rows if row['seed'] == bad}
    assert {('eval', 'retrain@16'), ('train', 'explore'), ('episodes', 'explore'), ('eval', 'retrain@0')} <= kinds


def test_the_other_seed_goes_on_as_if_it_were_alone(half_lost):
    kind, _, good, rows, alone, _ = half_lost
    own = [row for row in rows if row['seed'] == good]
    assert kind == 'host' or own == alone
    assert all(np.isfinite(value) for row in own for value in row.values() if isinstance(value, float))


def test_the_run_ends_with_the_last_seed():
    phases = (Phase(name='only', agent=agent(share=1.0), num_updates=8, sampling=SAMPLING),)
    with pytest.raises(running.Diverged, match=r"phase 'only' produced others by update 4 for seeds \[0, 1\]; lower"):
        rows_of(setup(phases))


def test_a_diverged_seed_has_no_score_later_on():
    phases = (Phase(name='only', agent=agent(breaks_at=1), num_updates=4, sampling=SAMPLING),)
    bad, good = two_seeds(phases, 0)
    given = setup(phases, seeds=(good, bad))
    _, states = rows_of(given)
    scores = running.score(given, phases[0].agent, states[-1].finished['only'])
    for values in scores.values():
        assert np.isfinite(values[0]).all() and np.isnan(values[1]).all()


def sick_task(what, when):
    """The line, on which a reward or an observation is not finite once the position is above `when`."""
    task = line_task()

    def step(state, action, key):
        position, observation, reward, reached, success = task.step(state, action, key)
        bad = jnp.where(position[0] > when, jnp.nan, 1.0)
        changed = {'reward': reward, 'observation': observation}
        changed[what] = changed[what] * bad
        return position, changed['observation'], changed['reward'], reached, success

    return dataclasses.replace(task, step=step)


@pytest.mark.parametrize(('what', 'said'), [('reward', 'a reward'), ('observation', 'an observation after a step')])
def test_a_compiled_task_that_gives_nan_ends_the_run_before_its_round_is_handed_on(what, said):
    # The agent moves by a half: the third step leads to 1.5; the first round is two cycles of one step.
    phases = (Phase(name='only', agent=agent(share=0.0), num_updates=12, num_env_steps=12, store='s', sampling=SAMPLING),)
    rewards = []
    given = dataclasses.replace(setup(phases, task=sick_task(what, 1.2), evaluated=False), updates_per_round=4)
    message = f"Line, copy 0 of 2, gave {said} of nan in step 3 of phase 'only', seed 0; mend"
    with pytest.raises(UsageError, match=message):
        running.run(given, report=lambda event: rewards.append(np.array(event.state.stores['s'].storage.reward)))
    assert len(rewards) == 1 and np.isfinite(rewards[0]).all()


def test_an_evaluation_environment_that_gives_nan_ends_the_run():
    phases = (Phase(name='only', agent=uniform(LINE), num_updates=0),)
    with pytest.raises(UsageError, match="Line gave a return of nan when phase 'only' was evaluated, seed 0"):
        rows_of(setup(phases, task=sick_task('reward', -9.0)))
