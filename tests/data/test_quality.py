"""What a data set is like: numbers by hand, noise that shows as what it adds, sets that differ."""

import json

import numpy as np
import pytest

from ooorl import data
from ooorl.data.quality import divergence, quality
from ooorl.errors import UsageError
from ooorl.runner.cli import main
from ooorl.types import Transition

RNG = np.random.default_rng(0)


def rows(state, action, step=0.0, episodes=None):
    """Transitions, each an episode of its own where it is not said otherwise."""
    state, action = np.reshape(state, (len(state), -1)), np.reshape(action, (len(action), -1))
    episodes = len(state) if episodes is None else episodes
    boundary = np.arange(len(state)) % (len(state) // episodes) == len(state) // episodes - 1
    return Transition(
        observation=state, action=action, reward=np.ones(len(state)), discount=np.ones(len(state)),
        next_observation=state + np.reshape(step, (-1, 1)), extras={'boundary': boundary.astype(np.float32)},
    )  # fmt: skip


def test_action_variance_by_hand():
    found = quality(rows([0, 0.1, 0.2, 1, 1.1], [0, 1, 0, 0.5, 0.5]), k=2)
    # Among the two nearest: (1, 0), (0, 0), (0, 1), (.5 and one of (0, .2)'s 0), likewise: .5, 0, .5, .125, .125.
    assert found.action_variance == pytest.approx(0.25)
    assert found.relative_action_variance == pytest.approx(0.25 / np.var([0, 1, 0, 0.5, 0.5], ddof=1))
    assert found.columns == 1 and found.length == {'min': 1.0, 'median': 1.0, 'max': 1.0, 'mean': 1.0}
    deviation = np.std([0, 0.1, 0.2, 1, 1.1])
    assert found.distance == pytest.approx(np.mean([0.15, 0.1, 0.15, 0.45, 0.5]) / deviation)


STATE = RNG.uniform(-1, 1, (3_000, 2))


def test_noise_adds_its_variance_and_no_more():
    smooth = np.sin(STATE)
    before = quality(rows(STATE, smooth), rows=3_000, queries=1_000)
    noisy = quality(rows(STATE, smooth + RNG.normal(0, 0.3, smooth.shape)), rows=3_000, queries=1_000)
    assert before.action_variance < 0.005
    assert noisy.action_variance - before.action_variance == pytest.approx(0.09, rel=0.1)
    sure = quality(rows(STATE, smooth, step=STATE[:, 0]), rows=3_000)
    unsure = quality(rows(STATE, smooth, step=STATE[:, 0] + RNG.normal(0, 1, 3_000)), rows=3_000)
    assert sure.transition_diversity < 0.05 < 0.6 < unsure.transition_diversity < 1


def test_rows_of_one_moment_are_no_neighbours():
    # Ten slow walks in different places: the nearest rows are the walk's own, an instant before.
    walk = np.repeat(np.arange(10.0), 60) + np.tile(np.linspace(0, 0.1, 60), 10)
    action = np.repeat(RNG.normal(size=10), 60)
    data = rows(walk, action, episodes=10)
    assert quality(data, k=3, rows=600, apart=0).action_variance == pytest.approx(0.0, abs=1e-20)
    assert quality(data, k=3, rows=600, apart=60).action_variance > 0.01
    with pytest.raises(UsageError, match='10 neighbours from other times are needed'):
        quality(rows(walk[:60], action[:60], episodes=1))


def test_the_way_from_an_episodes_end_to_the_next_ones_start_is_no_step(tmp_path):
    # Two walks at equal pace, far apart: every step inside of them is alike, the one between them is not.
    walk = np.concatenate([np.linspace(0, 1, 40), np.linspace(100, 101, 40)])[:, None] + RNG.normal(0, 1e-3, (80, 1))
    given = {'observations': walk, 'actions': RNG.uniform(-1, 1, (80, 1)), 'rewards': np.zeros(80), 'terminals': np.zeros(80)}
    np.savez(tmp_path / 'walks.npz', **given, timeouts=np.arange(80) % 40 == 39)
    found = quality(data.load(tmp_path / 'walks.npz').transitions, k=3, apart=1)
    steps = np.diff(np.split(walk[:, 0], 2))
    assert found.num_episodes == 2 and found.rows == steps.size and np.ptp(steps) < 0.1
    assert found.transition_diversity > 0.2, 'in units of the steps inside: one jump of 99 would make all others zero'


def test_two_sets_and_single_episodes():
    reference = rows(STATE, STATE, episodes=30)
    assert divergence(reference, rows(RNG.uniform(-1, 1, (3_000, 2)), STATE)) == pytest.approx(0.5, abs=0.05)
    assert divergence(reference, rows(STATE + 10, STATE)) == 1.0
    wild = np.where(np.arange(3_000)[:, None] // 100 == 7, RNG.normal(0, 2, STATE.shape), STATE)
    scores = quality(rows(STATE, wild, episodes=30), by_episode=True).episodes
    assert len(scores) == 30 and np.argmax(scores) == 7
    with pytest.raises(UsageError, match='one size are needed to compare two sets; got 2 and 1'):
        divergence(reference, rows(STATE[:, 0], STATE))


def test_constant_columns_and_chosen_ones():
    wide = np.concatenate([STATE[:500], np.full((500, 1), 7.0)], axis=1)
    assert quality(rows(wide, STATE[:500])).columns == 2
    assert quality(rows(wide, STATE[:500]), columns=(0, 2)).columns == 1
    for columns in ((3,), ()):
        with pytest.raises(UsageError, match='columns must lie between 0 and 2'):
            quality(rows(wide, STATE[:500]), columns=columns)
    refused = {'columns must differ': {'columns': (0, 0)}, '2 rows more than': {'rows': 11}, 'seed must be 0': {'seed': -1}}
    for told, settings in refused.items():
        with pytest.raises(UsageError, match=told):
            quality(rows(wide, STATE[:500]), **settings)
    with pytest.raises(UsageError, match='At least 12 rows and a column that varies are needed'):
        quality(rows(wide, STATE[:500]), columns=(2,))


def test_the_command_fits_one_page(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    columns = rows(STATE[:600], np.clip(STATE[:600], -1, 1), episodes=6)
    arrays = {
        'observations': columns.observation, 'actions': columns.action, 'rewards': columns.reward,
        'next_observations': columns.next_observation, 'boundary': columns.extras['boundary'], 'terminals': np.zeros(600),
    }  # fmt: skip
    np.savez('a.npz', **arrays)
    assert main(['data', 'quality', 'a.npz', '--against', 'a.npz', '--episodes']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'a.npz: 600 rows in 6 episodes' and 8 <= len(lines) <= 12 and max(map(len, lines)) <= 130
    assert main(['data', 'quality', 'a.npz', '--json', '--columns', '1']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['columns'] == 1 and found['num_episodes'] == 6 and found['episodes'] is None
    assert main(['data', 'quality', 'a.npz', '--columns', 'x']) == 2 and "--columns takes numbers" in capsys.readouterr().err
    assert main(['data', 'quality', 'a.npz', '--columns', '١']) == 2 and "got '١'" in capsys.readouterr().err


def test_demonstrations_by_a_person(shared_dir):
    dataset = data.load(shared_dir / 'data' / 'adroit' / 'door-human.hdf5', clip_actions=True)
    found = quality(dataset.transitions, apart=0)
    # Measured independently with the same definitions and other draws: .013, .098, .191.
    assert found.action_variance == pytest.approx(0.013, abs=0.002)
    assert found.relative_action_variance == pytest.approx(0.098, abs=0.01)
    assert found.distance == pytest.approx(0.191, abs=0.01)
