"""Environments that raise, exit, die, or answer what cannot be stored: one sentence, and nothing of that step handed on."""

import functools
import os
import re

import jax
import nasty
import numpy as np
import pytest

from ooorl.envs import host, make
from ooorl.errors import UsageError

KEY = jax.random.key(0)
FINE = np.zeros((2, 2), np.float32)


def two(workers, **settings):
    """Two environments; with a worker it is the first that lives there, and only that one misbehaves."""
    spare = os.getpid() if workers else 0
    return host(functools.partial(nasty.Nasty, spare=spare, **settings), (2,), workers=workers, horizon=10)


@pytest.mark.parametrize('workers', [0, 1])
def test_every_bad_answer_of_a_step_is_refused_with_environment_step_and_value(workers):
    environment = two(workers, kind='any')
    state, _ = environment.reset(KEY)
    state, _ = environment.step(state, FINE, None)
    for number, (kind, (_, said)) in enumerate(nasty.KINDS.items()):
        bad = FINE.copy()
        bad[0] = 1.0, 2 * number / (len(nasty.KINDS) - 1) - 1
        with np.errstate(over='ignore'), pytest.raises(UsageError, match=said) as caught:
            environment.step(state, bad, None)
        message = str(caught.value)
        assert 'Nasty, copy 0 of 2, ' in message and ' in step 2 of an episode; mend' in message and '\n' not in message, kind
    # The state from before is untouched and can be stepped on.
    state, timestep = environment.step(state, FINE, None)
    assert state.elapsed.tolist() == [2, 2] and np.isfinite(timestep.observation).all()


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('kind', nasty.STARTS)
def test_a_bad_reset_is_refused_at_the_start_and_after_an_episode(kind, workers):
    with pytest.raises(UsageError, match=nasty.STARTS[kind][1]):
        two(workers, when='reset', kind=kind).reset(KEY)
    if workers:
        return
    environment = two(workers, when='second reset', kind=kind)
    state, _ = environment.reset(KEY)
    with pytest.raises(UsageError, match=nasty.STARTS[kind][1].replace('reset runs', 'step runs')):
        environment.step(state, FINE + 1.0, None)


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('kind', ['raises', 'exits'])
def test_a_constructor_that_fails_is_refused(kind, workers):
    with pytest.raises(UsageError, match=f'constructor runs was needed; Nasty {nasty.KINDS[kind][1]}'):
        two(workers, when='constructor', kind=kind)


def test_a_worker_that_is_killed_says_how():
    environment = two(1, kind='killed')
    state, _ = environment.reset(KEY)
    for _ in range(2):
        with pytest.raises(UsageError, match='a worker process that lives was needed; Nasty ended its worker by signal 9'):
            environment.step(state, FINE + 1.0, None)


def test_a_module_that_fails_on_import_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in (('raises_early', '1 / 0'), ('exits_early', 'import sys; sys.exit(3)'), ('no_python', 'def (')):
        (tmp_path / f'{name}.py').write_text(text)
        with pytest.raises(UsageError, match=re.escape(f"a module was needed before the colon of '{name}:X-v0'; it cannot be")):
            make(f'{name}:X-v0', (1,))


def test_an_id_with_an_entry_point_that_cannot_be_imported_is_refused():
    nasty.gymnasium.register(id='NastyNowhere-v0', entry_point='no_such_module:Env', max_episode_steps=10)
    with pytest.raises(UsageError, match='constructor runs was needed; NastyNowhere-v0 raised ModuleNotFoundError'):
        make('NastyNowhere-v0', (1,))
