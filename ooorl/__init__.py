"""ooorl: offline and online reinforcement learning for continuous control in JAX."""

import importlib

ROOMS = ('agents', 'data', 'envs', 'nn', 'policies', 'reporting', 'runner', 'signals', 'testing', 'training', 'types', 'wrap')
FUNCTIONS = {'load': 'ooorl.runner.deployed'}  # of a run directory, to its policy


def __getattr__(name: str):
    """Rooms are imported when they are first asked for: `import ooorl` alone loads no jax."""
    if name in ROOMS:
        return importlib.import_module(f'ooorl.{name}')
    if name in FUNCTIONS:
        return getattr(importlib.import_module(FUNCTIONS[name]), name)
    raise AttributeError(f'module ooorl has no attribute {name!r}; it offers {", ".join((*ROOMS, *FUNCTIONS))}')


def __dir__():
    return [*ROOMS, *FUNCTIONS, *(name for name in globals() if name.startswith('__'))]
