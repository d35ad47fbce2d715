"""Films of real MuJoCo environments: pictures where something can draw, one sentence where nothing can.

The renderer is chosen when MuJoCo is imported, so everything here runs in a process of its own for each renderer.
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
import jax, jax.numpy as jnp, numpy as np
import imageio.v3 as imageio
from ooorl.runner.video import Camera

def facts(path, name):
    camera = Camera(path, {'id': name, 'settings': {'horizon': 5}})
    dim = camera._environment.spec.action_dim
    agent = types.SimpleNamespace(chunk=1, best_action=lambda state, observation, key: jnp.zeros((*observation.shape[:-1], dim)))
    said = camera.film(agent, jnp.zeros(1), jax.random.key(0))
    film = imageio.imread(path)
    return said, film.shape, float(film[-1].std()), len(np.unique(film[-1] @ [1, 256, 65536]))

for number, name in enumerate(sys.argv[1:]):
    try:
        print(json.dumps([name, facts(f'{number}.gif', name)]))
    except Exception as error:
        print(json.dumps([name, f'{type(error).__name__}: {error}']))
"""
ENVIRONMENTS = [
    'HalfCheetah-v4', 'ooorl/SparseAnt-v0', 'ooorl/AntMazeUmaze-v0', 'ooorl/Maze2dLarge-v0', 'ooorl/AdroitDoor-v0',
    'ooorl/KitchenPartial-v0',
]  # fmt: skip


def film(folder, names, renderer):
    """For each environment: what was said, shape, spread and number of colours of its film; or the error, in words."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'MUJOCO_GL': renderer}
    command = [sys.executable, '-W', 'ignore', '-c', FILM, *names]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('['))


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


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    if renderer() is None:
        pytest.skip('nothing draws here: neither egl nor osmesa has its library')
    return film(tmp_path_factory.mktemp('films'), ENVIRONMENTS, renderer())


@pytest.mark.parametrize('name', ENVIRONMENTS)
def test_a_film_shows_something(films, name):
    if ('Adroit' in name or 'Kitchen' in name) and importlib.util.find_spec('gymnasium_robotics') is None:
        pytest.skip('gymnasium-robotics, which brings the model, is not installed')
    assert isinstance(films[name], list), films[name]
    said, shape, spread, colours = films[name]
    fine = name.startswith(('ooorl/Maze2d', 'ooorl/Adroit'))  # 100 steps a second: every fourth is shown, and the last
    assert said.endswith(f'{3 if fine else 6} pictures')
    assert shape == [3 if fine else 6, 480, 480, 3] and spread > 10 and colours > 10


def test_without_a_renderer_there_is_one_sentence(tmp_path):
    names = ('HalfCheetah-v4', 'ooorl/Maze2dUmaze-v0')
    told = film(tmp_path, names, 'disabled')
    for name in names:
        assert told[name].startswith(f'UsageError: --video needs graphics, or a software renderer; drawing {name} failed here')
    assert not list(tmp_path.iterdir())
