"""Which programs a run will want, in the order in which it will: so that they can be made while it trains."""

from collections.abc import Callable, Iterator

import jax

from ooorl.training import rounds
from ooorl.training.cycles import cycles_job, known_job, nothing_known
from ooorl.training.evaluate import evaluation_job
from ooorl.training.known import needs_passes
from ooorl.training.phases import round_sizes
from ooorl.training.programs import Job, Programs
from ooorl.training.rounds import RunState


def upcoming(programs: Programs, number: int) -> Iterator[Job]:
    """The large programs of the phases from `number` on, for shapes in the place of arrays.

    Left out is what the host takes part in, step by step, and what small programs do between two rounds.
    """
    for phase_number in range(number, len(programs.setup.phases)):
        yield from _of_phase(programs, phase_number)


def _of_phase(programs, number):
    setup = programs.setup
    phase, compiled = setup.phases[number], setup.environment is not None and setup.environment.compiled
    keys = jax.eval_shape(lambda: programs.keys(0, 0, 0))
    agent, _, stores, collectors, *_ = rounds.template(setup, number, True, 0, {})
    arrays = agent, stores, collectors
    if phase.start is None or phase.fresh_optimizers:
        yield rounds.init_job(phase.agent, keys)
    if not phase.num_env_steps and phase.num_updates:
        yield shaped(lambda arrays, keys: _learning(programs, number, arrays, keys), arrays, keys)
    elif phase.num_env_steps and compiled:
        yield rounds.start_job(programs, keys)
        yield from _collecting(programs, number, arrays, keys)
    if setup.evaluation is not None and setup.evaluation.compiled:
        yield shaped(lambda agent, keys: evaluation_job(programs, phase.agent, agent, keys), agent, keys)


def _state(number, arrays):
    agent, stores, collectors = arrays
    return RunState(number, 0, agent, {}, stores, collectors)


def _learning(programs, number, arrays, keys):
    phase = programs.setup.phases[number]
    updates, _ = round_sizes(phase, programs.setup)[0]
    return rounds.learn_job(programs, _state(number, arrays), phase, keys, updates, 1)


def _collecting(programs, number, arrays, keys):
    phase = programs.setup.phases[number]
    updates, cycles = round_sizes(phase, programs.setup)[0]
    known = nothing_known(programs)
    if needs_passes(phase.agent, phase.sampling):
        job = shaped(lambda stores: known_job(programs, phase, stores[phase.store]), arrays[1])
        yield job
        known = jax.eval_shape(job.function, *job.args)

    def cycling(arrays, keys, known):
        return cycles_job(programs, _state(number, arrays), phase, keys, updates // cycles, cycles, 1, *known)

    yield shaped(cycling, arrays, keys, known)


def shaped(make: Callable[..., Job], *args) -> Job:
    """`make(*args)` for shapes of arrays: the job's own arguments are shapes, too."""
    jobs = []

    def arguments(*args):
        jobs.append(make(*args))
        return jobs[0].args

    shapes = jax.eval_shape(arguments, *args)
    return jobs[0]._replace(args=shapes)
