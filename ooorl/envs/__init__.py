"""Environments: compiled tasks, gymnasium environments on the host, and names for both.

Importing this package also registers the compiled tasks and D4RL's, OGBench's and our own MuJoCo environments with gymnasium.
"""

from ooorl.envs import d4rl, ogbench, one_way
from ooorl.envs.batched import batched
from ooorl.envs.gymnasium_adapter import host
from ooorl.envs.gymnasium_tasks import register
from ooorl.envs.ogbench import own_name
from ooorl.envs.registry import HOSTS, TASKS, check_known, make, make_task, single

__all__ = ['HOSTS', 'TASKS', 'batched', 'check_known', 'host', 'make', 'make_task', 'own_name', 'register', 'single']

register()
d4rl.register()
ogbench.register()
one_way.register()
