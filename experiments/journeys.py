"""How long the nine ways through take: `python experiments/journeys.py OUT.json [NUMBER ...]`, in an empty folder.

The commands of docs/journeys.md, one after another, with the `ooorl` that is on the PATH. What the page fetches is replaced by
data made on the spot, what takes a cluster or hours by the same command at a smaller size; `instead` says so.
"""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

SWEEP = """
name = "first"
presets = ["bc@small", "td3bc@small", "iql@small"]
tasks = [{ dataset = "umaze.hdf5", like = "maze2d-umaze-v1" }, { dataset = "medium.hdf5", like = "maze2d-medium-v1" }]
seeds = "0:2"
"""
AGENT = """
import jax
import jax.numpy as jnp
from ooorl.agents.iql import IQLConfig, iql
from ooorl.types import Spec, Transition

agent = iql(Spec(observation_dim=3, action_dim=2), IQLConfig(hidden=(8,)))
state = agent.init(jax.random.key(0))
batch = Transition(jnp.zeros((4, 3)), jnp.zeros((4, 2)), jnp.zeros(4), jnp.ones(4), jnp.zeros((4, 3)))
state, metrics = jax.jit(agent.update)(state, batch, jax.random.key(1))
print(agent.best_action(state, batch.observation[0], jax.random.key(2)))
"""
FINETUNE = (
    'ooorl run iql@finetune --dataset umaze.hdf5 --like maze2d-umaze-v1 --out runs/online --seeds 0:2 --set agent.hidden=[64,64] '
    '--set finetune.offline_updates=5000 --set finetune.num_env_steps=20000 --set finetune.num_updates=5000 '
    '--set environment.num_envs=8 --set evaluation.num_episodes=10'
)
PREPARED = [
    'ooorl data make maze2d-umaze --rows 20000 --out umaze.hdf5',
    'ooorl data make maze2d-medium --rows 20000 --out medium.hdf5',
    'ooorl data convert umaze.hdf5 mine.npz',
]
JOURNEYS = {
    1: ['ooorl doctor', 'ooorl demo'],
    2: [
        'ooorl explain iql --dataset hopper-medium-v2', 'ooorl sweep sweep.toml --dry-run', 'ooorl sweep sweep.toml',
        'ooorl table sweeps/first --out first.html',
    ],
    3: [
        'ooorl data check mine.npz', 'ooorl data quality mine.npz',
        'ooorl run bc@small --dataset mine.npz --family locomotion --seeds 0:2 --out runs/bc', 'ooorl fqe runs/bc',
    ],
    4: [
        'ooorl sweep sweep.toml --engine slurm',
        'ooorl run bc@small --dataset mine.npz --family locomotion --seeds 0:2 --out runs/bc --resume',
        'ooorl run bc@small --dataset mine.npz --family locomotion --plan --memory-limit 64GB',
    ],
    5: ['ooorl table runs --out results.html results.tex results.csv'],
    6: ['python agent.py'],
    7: ['ooorl export runs/bc --format npz --out robot', 'python robot/policy.py robot/policy.npz'],
    8: ['python -c "exec(open(\'page.py\').read())"', 'ooorl run one_step.toml --out runs/own'],
    9: [FINETUNE, 'ooorl doctor runs/bc', 'ooorl report runs/bc --out compared.html'],
}  # fmt: skip
INSTEAD = {
    2: 'two mazes made on the spot for two D4RL files, two seeds for five',
    4: 'the script is written, not submitted',
    8: 'the blocks of docs/algorithm.md, its config run as a user would',
    9: 'a maze and 5,000 + 5,000 updates for antmaze and 2,000,000',
}


def page(root: Path) -> None:
    """The files of docs/algorithm.md, and the rest of its blocks as `page.py`."""
    import re

    rest = []
    for _, code in re.findall(r'^```(python|toml)\n(.*?)^```', (root / 'docs' / 'algorithm.md').read_text(), re.M | re.S):
        name = re.match(r'# ([\w.]+\.(?:py|toml))\n', code)
        if name:
            Path(name[1]).write_text(code)
        else:
            rest.append(code)
    Path('page.py').write_text('\n'.join(rest))


def timed(command: str) -> dict:
    """Seconds of a command, and its status."""
    began = time.monotonic()
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': seen()})
    took = round(time.monotonic() - began, 1)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:])
    return {'command': command, 'seconds': took, 'status': done.returncode}


def seen() -> str:
    """Where Python looks for modules: here, too."""
    return os.pathsep.join(part for part in (os.environ.get('PYTHONPATH', ''), '.') if part)


if __name__ == '__main__':
    Path('sweep.toml').write_text(SWEEP)
    Path('agent.py').write_text(AGENT)
    page(Path(__file__).resolve().parent.parent)
    chosen = [int(number) for number in sys.argv[2:]] or list(JOURNEYS)
    before = [timed(command) for command in PREPARED if not Path(command.split()[-1]).exists()]
    found = {}
    for number in chosen:
        steps = [timed(command) for command in JOURNEYS[number]]
        seconds = round(sum(step['seconds'] for step in steps), 1)
        found[number] = {'seconds': seconds, 'instead': INSTEAD.get(number, ''), 'steps': steps}
        print(number, found[number]['seconds'], [step['status'] for step in steps], flush=True)
    told = {'python': platform.python_version(), 'cores': len(os.sched_getaffinity(0)), 'load': round(os.getloadavg()[1], 1)}
    told = {**told, 'data': before, 'journeys': found}
    Path(sys.argv[1]).write_text(json.dumps(told, indent=1) + '\n')
