"""Films of real MuJoCo environments: pictures where something can draw, one sentence where nothing can.

The renderer is chosen when MuJoCo is imported, so everything here runs in processes of its own.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys

import pytest
from conftest import PATIENCE, ROOT

pytest.importorskip('mujoco')

FILM = """
import json, sys, types
import jax, jax.numpy as jnp
import imageio.v3 as imageio
from ooorl.runner.video import Camera

path, name = sys.argv[1:]
camera = Camera(path, {'id': name, 'settings': {'horizon': 5}})
dim = camera._environment.spec.action_dim
agent = types.SimpleNamespace(best_action=lambda state, observation, key: jnp.zeros((*observation.shape[:-1], dim)))
print(camera.film(agent, jnp.zeros(1), jax.random.key(0)))
film = imageio.imread(path)
print(json.dumps([film.shape, float(film[-1].std()), len(set(map(tuple, film[-1].reshape(-1, 3).tolist())))]))
"""
ENVIRONMENTS = [
    'HalfCheetah-v4', 'ooorl/SparseAnt-v0', 'ooorl/AntMazeUmaze-v0', 'ooorl/Maze2dLarge-v0', 'ooorl/AdroitDoor-v0',
    'ooorl/KitchenPartial-v0',
]  # fmt: skip


def film(path, name, renderer):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'MUJOCO_GL': renderer}
    command = [sys.executable, '-W', 'ignore', '-c', FILM, str(path), name]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)


@functools.cache
def renderer():
    """A value of MUJOCO_GL with which a picture can be drawn here, or None."""
    code = "import mujoco; m = mujoco.MjModel.from_xml_string('<mujoco/>'); mujoco.Renderer(m, 8, 8).render(); print('drawn')"
    for name in dict.fromkeys((os.environ.get('MUJOCO_GL', 'egl'), 'egl', 'osmesa')):
        environment = {**os.environ, 'MUJOCO_GL': name}
        done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=PATIENCE)
        if 'drawn' in done.stdout:
            return name
    return None


@pytest.mark.parametrize('name', ENVIRONMENTS)
def test_a_film_shows_something(tmp_path, name):
    if renderer() is None:
        pytest.skip('nothing draws here: neither egl nor osmesa has its library')
    if ('Adroit' in name or 'Kitchen' in name) and importlib.util.find_spec('gymnasium_robotics') is None:
        pytest.skip('gymnasium-robotics, which brings the model, is not installed')
    done = film(tmp_path / 'film.gif', name, renderer())
    assert done.returncode == 0, done.stderr
    said, facts = done.stdout.splitlines()
    fine = name.startswith(('ooorl/Maze2d', 'ooorl/Adroit'))  # 100 steps a second: every fourth is shown, and the last
    assert said.endswith(f'{3 if fine else 6} pictures')
    shape, spread, colours = json.loads(facts)
    assert shape == [3 if fine else 6, 480, 480, 3] and spread > 10 and colours > 10


def test_without_a_renderer_there_is_one_sentence(tmp_path):
    for name in ('HalfCheetah-v4', 'ooorl/Maze2dUmaze-v0'):
        done = film(tmp_path / 'film.gif', name, 'disabled')
        assert f'UsageError: --video needs graphics, or a software renderer; drawing {name} failed here' in done.stderr
    assert not (tmp_path / 'film.gif').exists()
