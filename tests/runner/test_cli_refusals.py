"""Bad input at the command line: one sentence, status 2, without traceback or anything written."""

import os

import numpy as np
import pytest
from commands import ROWS, hdf5, refusal, scratch  # noqa: F401
from tiny_configs import OFFLINE, TINY, changed, written

from ooorl.runner.cli import main


def test_a_missing_or_broken_config(capsys):
    assert 'nothing.toml does not exist' in refusal(capsys, 'run', 'nothing.toml')
    for number, content in enumerate((b'[run\nscheme=', b'\xff\xfe', b'a = 1\na = 2\n')):
        with open(f'{number}.toml', 'wb') as file:
            file.write(content)
        assert f'{number}.toml cannot be read as one' in refusal(capsys, 'run', f'{number}.toml')
    os.mkdir('folder')
    assert 'a config file or a preset' in refusal(capsys, 'run', 'folder')
    os.mkdir('folder.toml')
    assert 'folder.toml cannot be read as one' in refusal(capsys, 'run', 'folder.toml')


BAD_SETTINGS = [
    ({'explore__expectil': 0.7}, "unknown key 'expectil' in [explore]; did you mean 'expectile'?"),
    ({'run__seed': '0:2'}, "unknown key 'seed' in [run]; did you mean 'seeds'?"),
    ({'enviroment': {}}, "unknown key 'enviroment' in the config; did you mean 'environment'?"),
    ({'explore__sampling__batchsize': 3}, "unknown key 'batchsize' in [explore.sampling]; did you mean 'batch_size'?"),
    ({'explore__bonus': {'signal': 'rnd', 'scal': 1.0}}, "unknown key 'scal' in [explore.bonus]; did you mean 'scale'?"),
    ({'exploit__online_sampling': {}}, "[explore] of ooo; got scheme 'ooo'; write [exploit.sampling]"),
    ({'explore__sampling__gamma': 1.0, 'explore__sampling__failure_returns': True}, 'failure_returns needs gamma below 1'),
    ({'explore__expectile': 1.2}, 'expectile must lie strictly between 0 and 1; got 1.2'),
    ({'explore__hidden': 8}, "hidden in [explore] must be of type list; got 8"),
    ({'explore__learning_rate': 'fast'}, "learning_rate in [explore] must be of type float; got 'fast'"),
    ({'run__seed_group': 1.5}, 'seed_group in [run] must be of type int; got 1.5'),
    ({'run': 5}, '[run] must be a table; got 5'),
    ({'explore__sampling': 4}, '[explore.sampling] must be a table; got 4'),
    ({'explore__critic': 4}, '[explore.critic] must be a table; got 4'),
    ({'explore__agent': 'iqll'}, "agent must be one of bc, iql"),
    ({'exploit__agent': 'rebrac'}, "got 'rebrac', which is td3 with cloning_weight and critic_cloning_weight"),
    ({'explore__bonus': {'signal': 'rdn'}}, "signal must be one of 'rnd'"),
    ({'run__scheme': 'oo'}, "scheme must be one of 'offline', 'finetune', 'online', 'ooo', 'distil', 'wsrl'; got 'oo'"),
    ({'exploit': None}, "scheme 'ooo' needs the table [exploit]"),
    ({'agent': {}}, "scheme 'ooo' does not use the table [agent]"),
    ({'offline': {}}, "[offline] belongs to scheme 'offline'; got scheme 'ooo'"),
    ({'explore__sampling__batch_size': 100_000}, 'batch_size must be at most the number of rows,'),
    ({'explore__sampling__batch_size': 0}, 'batch_size must be greater than 0; got 0'),
    ({'explore__sampling__mix': {'dataset': 0.7}}, 'sum to 1'),
    ({'explore__sampling__mix': {'dataset': 'half'}}, 'the shares of mix must be numbers'),
    ({'explore__sampling__mix': {'dataset': 0.5, 'offline': 0.5}}, 'got dataset, offline'),
    ({'environment__id': 'ooorl/UMase-v0'}, "got 'ooorl/UMase-v0'; did you mean 'ooorl/UMaze-v0'?"),
    ({'environment__settings': {'horizont': 3}}, "got 'horizont'"),
    ({'environment__settings': {'horizon': -3}}, 'horizon must be greater than 0; got -3'),
    ({'environment__settings': {'horizon': 'long'}}, "horizon of ooorl/UMaze-v0 must be of type int; got 'long'"),
    ({'environment__settings': {'horizon': 2.5}}, 'horizon of ooorl/UMaze-v0 must be of type int; got 2.5'),
    ({'environment__num_envs': 0}, 'num_envs must be greater than 0; got 0'),
    ({'environment__workers': -2}, 'workers must be 0 or more, or -1 for all cores; got -2'),
    ({'environment__workers': 1.5}, 'workers in [environment] must be of type int; got 1.5'),
    ({'environment__workers': 1}, 'environment.workers is for environments on the host; ooorl/UMaze-v0 is compiled; got 1'),
    ({'environment__settings': {'workers': 1}}, 'workers is a key of [environment]'),
    ({'evaluation__settings': {'workers': 1}}, 'workers is a key of [environment]'),
    ({'evaluation__num_episodes': -1}, 'num_episodes must be 0 or more; got -1'),
    ({'evaluation__task': 'hoper-medium-v2'}, 'hoper-medium-v2'),
    ({'explore__ema_rate': 0.0}, 'ema_rate must be greater than 0 and at most 1; got 0.0'),
    ({'run__seeds': '4:2'}, "seeds must look like '0:8' or '3,5'"),
    ({'run__seeds': '1,1'}, "got '1,1'"),
    ({'run__seeds': 'one'}, "got 'one'"),
    ({'run__seeds': '0:1:2'}, "got '0:1:2'"),
    ({'run__seeds': '4294967296'}, '2**32'),
    ({'ooo__num_env_steps': 21}, 'num_env_steps of phase \'explore\' must be a multiple of num_envs x cycle_steps = 2; got 21'),
    ({'ooo__explore_updates': 11}, "num_updates of phase 'explore' must be a multiple of its 10 cycles of collection; got 11"),
    ({'ooo__cycle_steps': 0}, 'cycle_steps must be greater than 0; got 0'),
    ({'ooo__pretrain_updates': -5}, 'num_updates must be 0 or more; got -5'),
    ({'ooo__retrain_at': [30]}, 'retrain_at needs budgets between 0 and random_steps + num_env_steps, 20; got 30'),
    ({'ooo__retrain_at': [20, 20]}, 'names of their own'),
    ({'exploit__agent': 'bc'}, 'bc learns no values to bound; remove the sub-table bounds'),
    ({'explore__reward': {'scale': 0.0}}, 'scale of the reward must be greater than 0'),
    ({'explore__head': {'low': 1.0, 'high': 0.0}}, 'low must be less than high'),
    ({'explore__head': {'low': 1.0}}, '[explore.head] needs high; add it'),
    ({'explore__bonus': {'signal': 'counts', 'low': [0.0], 'high': [1.0], 'observation_bins': [3], 'action_bins': [3]}},
     'counts needs action_bins for 2 action dimensions'),
    ({'dataset__path': 'x.hdf5'}, '[dataset] takes one of path, task and scripted'),
    ({'dataset__settings': {'num_episodes': []}}, 'num_episodes in [dataset.settings] must be of type int'),
    ({'environment__settings': {'horizon': []}}, 'horizon of ooorl/UMaze-v0 must be of type int'),
    ({'dataset__scripted': 'umaze'}, 'dataset.scripted must be one of u_maze, point_mass_wall'),
    ({'dataset__drop_discs': [[0.0, 0.0]]}, 'a disc must be [x, y, radius]'),
    ({'dataset__drop_boxes': [[0, 0, 0, 1]]}, 'a box must be [low x, low y, high x, high y], low below high'),
    ({'dataset__drop_boxes': [-9, -9, 9, 9]}, 'drop_boxes in [dataset] must be of type list; got -9'),
    ({'dataset__drop_boxes': [[-99, -99, 99, 99]]}, 'lies in them'),
    ({'dataset__first_rows': 0}, 'first_rows must be greater than 0; got 0'),
    ({'dataset__terminal_ends_episode': False}, 'terminal_ends_episode is for a file given by path'),
    ({'dataset__settings': {'episodes': 4}}, 'dataset.settings must be those of scripted data'),
    ({'report__map_columns': [0, 7]}, 'report.map_columns must be observation columns, 0 to 1'),
    ({'report__map_columns': [0]}, 'map_columns must have 2 entries; got 1'),
    ({'report__walls': [[1, 2, 3]]}, 'walls must be segments'),
    ({'report__map_seed': 2}, 'map_seed must be a position in the list of 2 seeds; got 2'),
]  # fmt: skip


@pytest.mark.parametrize(('changes', 'words'), BAD_SETTINGS)
def test_bad_settings(capsys, changes, words):
    assert words in refusal(capsys, 'run', written(changed(TINY, **changes)))


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--set', 'run.seeds'], "--set takes section.key=value; got 'run.seeds'"),
    (['--set', 'seeds=3'], "--set takes section.key=value; got 'seeds=3'"),
    (['--set', 'name.deeper.x=3'], "'name' in 'name.deeper.x' is a value, not a section"),
    (['--set', 'explore.expectile=2'], 'expectile must lie strictly between 0 and 1; got 2'),
    (['--seeds', '3:1'], "got '3:1'"),
    (['--seeds', '-1:2'], "got '-1:2'"),
    (['--dataset', 'absent.hdf5'], 'absent.hdf5'),
])  # fmt: skip
def test_bad_options(capsys, arguments, words):
    assert words in refusal(capsys, 'run', written(TINY), *arguments)


@pytest.mark.parametrize('text', ['٣', '1_0', '²', '3.0', ''])
def test_options_take_digits_that_are_plain(capsys, text):
    with pytest.raises(SystemExit, match='2'):
        main(['eval', 'runs/a', '--episodes', text])
    assert f'argument --episodes: invalid int value: {text!r}' in capsys.readouterr().err


def nan_rows():
    rewards = np.zeros(ROWS, np.float32)
    rewards[7] = np.nan
    return rewards


@pytest.mark.parametrize(('replaced', 'words'), [
    ({'rewards': nan_rows()}, 'Finite numbers'),
    ({'actions': np.full((ROWS, 2), 3.0, np.float32)}, '[-1, 1]'),
    ({'observation_dim': 5}, '5'),
    ({'actions': np.zeros((ROWS, 3), np.float32)}, '3'),
    ({'rewards': np.zeros(ROWS - 1, np.float32)}, str(ROWS - 1)),
])  # fmt: skip
def test_bad_data(capsys, replaced, words):
    line = refusal(capsys, 'run', written(TINY), '--dataset', hdf5(**replaced))
    assert words in line


def test_a_file_that_holds_no_data_set(capsys):
    with open('noise.hdf5', 'wb') as file:
        file.write(b'not HDF5 at all' * 100)
    assert 'noise.hdf5' in refusal(capsys, 'run', written(TINY), '--dataset', 'noise.hdf5')
    os.mkdir('folder')
    assert 'folder' in refusal(capsys, 'run', written(TINY), '--dataset', 'folder')


def test_a_run_without_data_and_environment_is_refused(capsys):
    assert 'needs a data set, or an environment that it collects in' in refusal(capsys, 'run', written(OFFLINE))
    without = changed(OFFLINE, environment__id='ooorl/UMaze-v0')
    assert 'needs a data set' in refusal(capsys, 'run', written(without))
    normalised = changed(TINY, dataset=None, explore__normalise_observation=True)
    assert 'normalise_observation needs a data set' in refusal(capsys, 'run', written(normalised))


def test_directories_that_hold_something_else(capsys):
    os.mkdir('full')
    written(TINY, 'full/notes.txt')
    assert 'full holds other files' in refusal(capsys, 'run', written(TINY), out='full')
    written(TINY, 'full/config.toml')
    assert 'full holds another run; choose another one, or go on with --resume' in refusal(capsys, 'run', 'c.toml', out='full')
    assert 'out holds no config.toml; start it without --resume' in refusal(capsys, 'run', 'c.toml', '--resume')
    line = refusal(capsys, 'run', 'c.toml', '--resume', '--set', 'explore.expectile=0.8', out='full')
    assert 'this one differs' in line and '+expectile = 0.8' in line


def test_a_directory_that_cannot_be_made(capsys):
    written(TINY, 'file')
    assert 'files must be readable and writable' in refusal(capsys, 'run', written(TINY), out='file/out')
    assert "holds other files" in refusal(capsys, 'run', 'c.toml', out='file')
