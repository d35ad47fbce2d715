"""How many environment steps a second do host environments make here and in gymnasium's vector environments?

The same number of environments under the same random actions, by turns in one process: this project's host adapter in
one process and with a worker for each further core (one at least), `SyncVectorEnv`, `AsyncVectorEnv`. Then compiled tasks
at batch 4096, inside one scan. The time of the host adapter includes what makes it resumable. Environments whose packages
are absent are skipped.

    python benchmarks/stepping.py --cores 1            # about 3 minutes
    python benchmarks/stepping.py --cores 2
    python benchmarks/stepping.py --seconds 0.05 --repeats 2 --envs 2 --batch 64 --dry
"""

import argparse
import os
import statistics
import time
from pathlib import Path

HOST = ('HalfCheetah-v4', 'ooorl/AntMazeUmaze-v0', 'ooorl/AdroitDoor-v0')
COMPILED = ('ooorl/Tabletop-v0', 'ooorl/TabletopNoWalls-v0', 'ooorl/UMaze-v0', 'ooorl/PointMassWall-v0')


def vector(kind, name, num_envs):
    """One of gymnasium's vector environments, resetting within the step that ends an episode, as the host adapter does."""
    import gymnasium

    def make():
        import ooorl.envs  # noqa: F401 - registers the project's environments, in each worker too

        return gymnasium.make(name, disable_env_checker=True)

    # Nothing is forked beside jax's threads.
    options = {'context': 'spawn'} if kind is gymnasium.vector.AsyncVectorEnv else {}
    return kind([make] * num_envs, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP, **options)


def rate(step, actions, seconds, num_envs):
    """Environment steps a second of `step(action)` over at least `seconds`."""
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds or not count:
        step(actions[count % len(actions)])
        count += 1
    return count * num_envs / spent


def host_stepper(name, num_envs, workers):
    import jax

    from ooorl import envs

    environment = envs.make(name, (num_envs,), workers=workers)
    held = list(environment.reset(jax.random.key(0)))

    def step(action):
        held[0], _ = environment.step(held[0], action, None)

    return step, environment.spec


def host_contenders(name, arguments):
    """`(contenders, closing functions)` for one environment."""
    import gymnasium
    import numpy as np

    num_envs = arguments.envs
    counts = (0, max(1, len(os.sched_getaffinity(0)) - 1))
    steppers = {f'host adapter, workers={workers}': host_stepper(name, num_envs, workers) for workers in counts}
    spec = next(iter(steppers.values()))[1]
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (1000, num_envs, spec.action_dim)).astype(np.float32)
    contenders = {
        label: lambda step=step: rate(step, actions, arguments.seconds, num_envs) for label, (step, _) in steppers.items()
    }
    closing = []
    for kind in (gymnasium.vector.SyncVectorEnv, gymnasium.vector.AsyncVectorEnv):
        environment = vector(kind, name, num_envs)
        environment.reset(seed=0)
        closing.append(environment.close)
        contenders[kind.__name__] = lambda e=environment: rate(e.step, actions, arguments.seconds, num_envs)
    return contenders, closing


def measure_host(name, arguments, write):
    contenders, closing = host_contenders(name, arguments)
    try:
        rates = measuring_turns(contenders, arguments.repeats)
    finally:
        for close in closing:
            close()
    for contender, values in rates.items():
        ratios = [a / b for a, b in zip(values, rates['SyncVectorEnv'], strict=True)]
        settings = {'environment': name, 'num_envs': arguments.envs, 'ratio_to_sync': round(statistics.median(ratios), 3)}
        write(contender, values, settings)


def measure_compiled(name, arguments, write):
    import jax

    from ooorl import envs

    environment = envs.make(name, (arguments.batch,))
    length, shape = arguments.length, (arguments.batch, environment.spec.action_dim)

    def roll(state, key):
        def step(state, key):
            action_key, step_key = jax.random.split(key)
            action = jax.random.uniform(action_key, shape, minval=-1.0, maxval=1.0)
            state, timestep = environment.step(state, action, step_key)
            return state, timestep.reward.mean()

        return jax.lax.scan(step, state, jax.random.split(key, length))

    state, _ = environment.reset(jax.random.key(0))
    began = time.perf_counter()
    program = jax.jit(roll).lower(state, jax.random.key(1)).compile()
    compile_seconds = time.perf_counter() - began

    def contender():
        began = time.perf_counter()
        jax.block_until_ready(program(state, jax.random.key(2)))
        return arguments.batch * length / (time.perf_counter() - began)

    rates = measuring_turns({'compiled': contender}, arguments.repeats)
    settings = {'environment': name, 'num_envs': arguments.batch, 'length': length, 'compile_seconds': round(compile_seconds, 2)}
    write('compiled', rates['compiled'], settings)


def measuring_turns(contenders, repeats):
    import timing

    return timing.take_turns(contenders, repeats)


def write_or_print(dry):
    import timing

    def write(contender, values, settings):
        if dry:
            print(contender, timing.summary(values), settings)
        else:
            timing.record(Path(__file__).stem, unit='environment steps/s', contender=contender, values=values, **settings)

    return write


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--cores', type=int, help='use so many of the cores (all)')
    parser.add_argument('--envs', type=int, default=8, help='environments side by side')
    parser.add_argument('--batch', type=int, default=4096, help='copies of a compiled task')
    parser.add_argument('--length', type=int, default=200, help='steps of a compiled task in one dispatch')
    parser.add_argument('--seconds', type=float, default=2.0, help='of one measurement')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--dry', action='store_true', help='print, and write no results')
    arguments = parser.parse_args()
    if arguments.cores is not None:  # before jax counts them
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    import gymnasium
    import jax

    jax.config.update('jax_enable_compilation_cache', False)
    gymnasium.logger.min_level = gymnasium.logger.ERROR
    write = write_or_print(arguments.dry)
    for name in HOST:
        try:
            measure_host(name, arguments, write)
        except ImportError as error:
            print(f'{name} skipped: {error}')
    for name in COMPILED:
        measure_compiled(name, arguments, write)


if __name__ == '__main__':
    main()
