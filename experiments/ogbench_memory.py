"""What copies of an OGBench environment take of memory: this process's largest resident size, with one or many of them alive.

    python experiments/ogbench_memory.py scene 1 40        # family, numbers of copies; writes results/ogbench_memory.json
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import jax

from ooorl import envs

RESULT = Path(__file__).resolve().parent / 'results' / 'ogbench_memory.json'


def measured(family: str, copies: int, steps: int = 50) -> float:
    """Megabytes after `steps` random steps of so many copies."""
    environment = envs.make(f'{family}-singletask-task1-v0', copies)
    state, _ = environment.reset(jax.random.key(0))
    for step in range(steps):
        key = jax.random.key(step)
        action = jax.random.uniform(key, (copies, environment.spec.action_dim), minval=-1.0)
        state, _ = environment.step(state, action, key)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main(arguments: list[str]) -> None:
    """Measures each number in a process of its own."""
    family, *numbers = arguments
    if numbers[0] == '--alone':
        print(f'\n{measured(family, int(numbers[1])):.0f}')
        return
    command = [sys.executable, __file__, family, '--alone']
    found = {n: int(subprocess.run([*command, n], capture_output=True, check=True).stdout.split()[-1]) for n in numbers}
    RESULT.write_text(json.dumps({'family': family, 'resident_megabytes': found}, indent=2) + '\n', encoding='utf-8')
    print(found)


if __name__ == '__main__':
    main(sys.argv[1:])
