"""Fitted Q evaluation: values worked out by hand, and a run without a simulator from log to estimate."""

import re
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import PATIENCE, ROOT

from ooorl.agents.bc import BCConfig, bc
from ooorl.runner.cli import main
from ooorl.runner.deployed import Deployed
from ooorl.runner.fqe import Estimate, _is_possible, highest, of_policies
from ooorl.types import Spec, Transition

INTERFACE = {'observation_dim': 1, 'action_dim': 1, 'action_low': [-1.0], 'action_high': [1.0]}


def policies(num):
    agent = bc(Spec(observation_dim=1, action_dim=1), BCConfig(hidden=(8,)))
    return [Deployed(agent, agent.init(jax.random.key(seed)), INTERFACE, phase='offline', seed=seed) for seed in range(num)]


def chain(discount):
    """State 0 leads to state 1 with reward 1, state 1 to itself with reward 3; half of the rows each, actions of all kinds."""
    generator = np.random.default_rng(0)
    state = np.arange(200) % 2
    return Transition(
        observation=state[:, None].astype(np.float32), action=generator.uniform(-1, 1, (200, 1)).astype(np.float32),
        reward=(1.0 + 2.0 * state).astype(np.float32), discount=np.where(state == 1, discount, 1.0).astype(np.float32),
        next_observation=np.ones((200, 1), np.float32), extras={'boundary': state.astype(np.float32)},
    )  # fmt: skip


@pytest.mark.parametrize(('discount', 'value'), [(0.0, 1 + 0.5 * 3), (1.0, 1 + 0.5 * 3 / (1 - 0.5))])
def test_values_by_hand(discount, value):
    found = of_policies(policies(1), chain(discount), gamma=0.5, num_updates=1900, hidden=(16,))
    np.testing.assert_allclose(found.values, value, atol=0.25)
    assert found.believable and found.data_return == 1 + 0.5 * 3 and found.seeds == [0] and np.isnan(found.low)


SHORT = {
    'run': ['--set', 'offline.num_updates=10', '--set', 'agent.hidden=[8]', '--set', 'agent.sampling.batch_size=8',
            '--seeds', '0:1'],
    'fqe': ['--updates', '20', '--hidden', '8'],
}  # fmt: skip


def test_values_are_believed_as_far_as_rewards_add_up():
    rewards = np.array([-1.0, 2.0])  # with a discount of .5 they add up to -2 to 4
    assert [_is_possible(value, rewards, 0.5) for value in (-2.1, -2.0, 4.0, 4.1, np.nan)] == [False, True, True, False, False]
    assert _is_possible(1e9, rewards, 1.0) and not _is_possible(np.inf, rewards, 1.0)


def test_the_highest_believable_estimate_is_chosen():
    more = {'phase': 'offline', 'low': 0.0, 'high': 1.0, 'data_return': 0.0}
    one = Estimate(run='a', seeds=[3, 5], values=[1.0, 2.0], believable=True, **more)
    other = Estimate(run='b', seeds=[3], values=[9.0], believable=False, **more)
    assert highest([other, one]) == (('a', 'offline', 5), 2) and highest([other]) == ((), 0)


def test_the_page_on_own_data_leads_from_a_log_to_a_policy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = ['run,x,speed,throttle,gain,done']
    rows += [f'{n // 10},{np.sin(n):.4f},{n % 7},{np.cos(n):.4f},{n % 3},{int(n % 10 == 9)}' for n in range(60)]
    (tmp_path / 'log.csv').write_text('\n'.join(rows) + '\n')
    page = (ROOT / 'docs' / 'own_data.md').read_text(encoding='utf-8')
    for line in re.search(r'^```bash\n(.*?)^```', page, re.MULTILINE | re.DOTALL)[1].splitlines():
        program, *words = shlex.split(line)
        if program == 'python':
            done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=PATIENCE)
            assert done.returncode == 0 and 'observation_dim' in done.stdout
        else:
            assert main([*words, *SHORT.get(words[0], [])]) == 0, line
    told = capsys.readouterr().out
    assert 'runs/iql: estimated value' in told and 'no interval over 1 seeds' in told and 'An estimate from data alone' in told
    assert (tmp_path / 'runs' / 'iql' / 'fqe.json').exists()
    assert main(['fqe', 'runs/iql', '--phase', 'explore']) == 2 and 'fqe needs a phase' in capsys.readouterr().err
    assert main(['fqe', 'runs/iql', '--hidden', 'wide']) == 2 and '--hidden takes whole numbers' in capsys.readouterr().err
    assert main(['fqe', 'runs/iql', '--updates', '0']) == 2 and 'num_updates must be greater than 0' in capsys.readouterr().err
    # A second run that cannot be followed is told before the first one's critic is trained.
    later = {'later': 2}
    monkeypatch.setattr('ooorl.runner.fqe.load', lambda directory, **_: SimpleNamespace(chunk=later.get(directory.name, 1)))
    shutil.copytree('runs/iql', 'runs/later')
    assert main(['fqe', 'runs/iql', 'runs/later']) == 2
    assert 'the policy of runs/later decides on several at once; leave it out' in capsys.readouterr().err
