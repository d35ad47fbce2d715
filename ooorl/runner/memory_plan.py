"""The memory plan of a run: what it will hold at once, by kind, from shapes alone. Nothing is allocated and nothing compiled.

To what `memory` adds up comes the working memory of the largest program: batches, windows, gradients and whatever else lives
between its equations, traced for shapes. The compiler fuses some of that away and keeps copies elsewhere: IQL, TD3+BC, Cal-QL and
a diffusion policy of 256 x 256, batches of 256, took .92 to 1.28 of it. Python, its modules and the compiler are not counted.
"""

from collections.abc import Iterator
from dataclasses import replace

import jax
import numpy as np
from jax.extend.core import Literal

from ooorl.runner import memory
from ooorl.training import rounds
from ooorl.training.ahead import upcoming
from ooorl.training.cycles import host_job, known_job, nothing_known
from ooorl.training.known import needs_passes
from ooorl.training.phases import Setup, round_sizes
from ooorl.training.programs import Job, Programs

LOOPS = ('scan', 'while')


def of_run(setup: Setup) -> list[memory.Part]:
    """All parts of the plan, working memory by tracing in the place of the bound that `memory` has."""
    return [*(part for part in memory.of_setup(setup) if part.kind != memory.WORKING), working(setup)]


def table(parts: list[memory.Part], limit: int | None = None) -> list[str]:
    """The plan as lines of text: bytes of each kind with its largest part, their sum, what is free and allowed."""
    lines = [f'{"memory plan":<32} {"bytes":>10}']
    for kind, own in memory.by_kind(parts).items():
        largest = max(own, key=lambda part: part.bytes)
        lines.append(f'{kind:<32} {memory.in_words(sum(part.bytes for part in own)):>10}  {largest.what}')
    lines.append(f'{"together":<32} {memory.in_words(sum(part.bytes for part in parts)):>10}')
    lines.append(f'{"free":<32} {memory.in_words(memory.available()):>10}')
    return lines if limit is None else [*lines, f'{"allowed (memory_limit)":<32} {memory.in_words(limit):>10}']


def working(setup: Setup) -> memory.Part:
    """Working memory of the program that needs most of it."""
    found = []

    def trace(dataset):
        programs = Programs(replace(setup, dataset=dataset))
        for job in (*upcoming(programs, 0), *_on_host(programs)):
            found.append(of_job(job))
        return 0

    jax.eval_shape(trace, setup.dataset)
    what = f'the largest of {len(found)} programs at work'
    return memory.Part(max(found, default=0), what, 'batch_size, chunk, num_candidates, the widths or the seeds', memory.WORKING)


def of_job(job: Job) -> int:
    """Bytes that live inside a program beside its arguments and results; see `between`."""
    closed = jax.make_jaxpr(job.function)(*job.args)
    return between(closed.jaxpr) + memory.nbytes([value for value in closed.consts if hasattr(value, 'dtype')])


def _on_host(programs) -> Iterator[Job]:
    """What follows a cycle of collection on the host, phase by phase."""
    setup = programs.setup
    for number, phase in enumerate(setup.phases):
        if phase.num_env_steps and not setup.environment.compiled:
            updates, cycles = round_sizes(phase, setup)[0]
            agent, _, stores, *_ = rounds.template(setup, number, True, 0, {})
            yield _after_cycle(programs, phase, updates // cycles, agent, stores[phase.store])


def _after_cycle(programs, phase, updates, agent, store):
    online, known = nothing_known(programs)
    if needs_passes(phase.agent, phase.sampling):
        online, known = jax.eval_shape(lambda store: (job := known_job(programs, phase, store)).function(*job.args), store)
    copies, seeds = programs.setup.environment.batch_shape[-1], len(programs.setup.seeds)

    def rows(leaf):
        return jax.ShapeDtypeStruct((seeds, phase.cycle_steps, copies, *leaf.shape[2:]), np.float32)

    words = jax.eval_shape(lambda: jax.vmap(jax.random.key_data)(programs.keys(0, 0, 0)))
    arrays = agent, store, online, jax.tree.map(rows, store.storage), words, programs.dataset, known
    return host_job(programs, phase, updates, store)._replace(args=arrays)


def between(jaxpr, results: bool = False) -> int:
    """The most bytes of intermediate results at one time: equations in their order, each result kept until its last use.

    Results of the whole count where `results` says so: inside of loops, which read what they carry while they write it anew.
    Elsewhere they take the place of arguments.
    """
    last = {var: number for number, one in enumerate(jaxpr.eqns) for var in one.invars if not isinstance(var, Literal)}
    kept = {var for var in jaxpr.outvars if not isinstance(var, Literal)}
    given = {*jaxpr.invars, *jaxpr.constvars}
    live = most = 0
    for number, equation in enumerate(jaxpr.eqns):
        loops = equation.primitive.name in LOOPS
        made = [var for var in equation.outvars if loops or results or var not in kept]
        live += sum(map(_nbytes, made))
        most = max(most, live + _inside(equation, loops))
        done = {var for var in equation.invars if not isinstance(var, Literal) and last[var] == number} - given - kept
        live -= sum(map(_nbytes, done)) + sum(_nbytes(var) for var in made if var not in last and var not in kept)
    return most


def _inside(equation, loops) -> int:
    """Of the functions that an equation calls; of all devices together."""
    shares = equation.params['mesh'].size if equation.primitive.name == 'shard_map' else 1
    values = [item for value in equation.params.values() for item in (value if isinstance(value, tuple | list) else (value,))]
    jaxprs = [getattr(item, 'jaxpr', item) for item in values]
    return shares * max((between(one, loops) for one in jaxprs if hasattr(one, 'eqns')), default=0)


def _nbytes(var) -> int:
    aval = var.aval
    return aval.size * getattr(aval.dtype, 'itemsize', 8) if hasattr(aval, 'dtype') else 0
