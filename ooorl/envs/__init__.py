"""Environments: compiled tasks, gymnasium environments on the host, and names for both.

Importing this package also registers the compiled tasks and the D4RL environments with gymnasium.
"""

from ooorl.envs import d4rl
from ooorl.envs.batched import batched
from ooorl.envs.gymnasium_adapter import host
from ooorl.envs.gymnasium_tasks import register
from ooorl.envs.registry import HOSTS, TASKS, make, make_task, single

__all__ = ['HOSTS', 'TASKS', 'batched', 'host', 'make', 'make_task', 'register', 'single']

register()
d4rl.register()
