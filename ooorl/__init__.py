"""ooorl: offline and online reinforcement learning for continuous control in JAX."""

import importlib

ROOMS = ('agents', 'data', 'envs', 'nn', 'policies', 'reporting', 'runner', 'signals', 'testing', 'training', 'types', 'wrap')


def __getattr__(name: str):
    """Rooms are imported when they are first asked for: `import ooorl` alone loads no jax."""
    if name in ROOMS:
        return importlib.import_module(f'ooorl.{name}')
    raise AttributeError(f'module ooorl has no attribute {name!r}; it offers {", ".join(ROOMS)}')


def __dir__():
    return [*ROOMS, *(name for name in globals() if name.startswith('__'))]
