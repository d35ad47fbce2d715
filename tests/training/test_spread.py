"""Eight devices that share out seeds, or the rows of each batch, give what one device gives."""

import os
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from conftest import PATIENCE, ROOT
from test_ahead import setup

from ooorl.errors import UsageError
from ooorl.training import run as running
from ooorl.training.spread import over_batches, shared_out

# Runs the setup both ways on eight devices; says how many hold the agents, and whether an update makes devices talk.
EIGHT = """
import sys
import jax, numpy as np
from test_spread import eight_seeds, learnt
from ooorl.training.spread import over_batches, shared_out

for name, spread in (('seeds', eight_seeds()), ('batch', over_batches(eight_seeds()))):
    state, leaves = learnt(spread)
    devices = {shard.device for leaf in jax.tree.leaves(state.finished) for shard in leaf.addressable_shards}
    print(name, len(devices))
    np.savez(sys.argv[1] + '/' + name, *leaves)
agent, batch = eight_seeds().phases[0].agent, jax.tree.map(lambda leaf: leaf[:8], eight_seeds().dataset)
program = jax.jit(shared_out(agent).update).lower(np.float32(0.5), batch, jax.random.key(0)).compile()
print('all-reduce' in program.as_text())
"""


def eight_seeds():
    """Exploration alone."""
    whole = setup()
    explore = whole.phases[1]
    explore = replace(explore, start=None, sampling=replace(explore.sampling, success_rows=0))
    return replace(whole, seeds=tuple(range(8)), phases=(explore,), evaluation=None)


def learnt(setup):
    """The final state, and its agents and stores as arrays."""
    state = running.run(setup)
    return state, list(map(np.asarray, jax.tree.leaves((state.finished, state.stores))))


def test_eight_devices_give_what_one_gives(tmp_path):
    places = (ROOT, *(ROOT / 'tests' / name for name in ('.', 'support', 'training')))
    environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '8', 'PYTHONPATH': os.pathsep.join(map(str, places))}
    command = [sys.executable, '-c', EIGHT, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['seeds', '8', 'batch', '8', 'True']
    _, expected = learnt(eight_seeds())
    for name in ('seeds', 'batch'):
        with np.load(tmp_path / f'{name}.npz') as file:
            for leaf, other in zip(file.values(), expected, strict=True):
                np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6)


def test_batches_that_devices_do_not_divide_are_refused(monkeypatch):
    monkeypatch.setattr(jax, 'device_count', lambda: 3)
    with pytest.raises(UsageError, match=r"multiple of the 3 devices; phase 'pretrain' has 8; change it, or share out the seeds"):
        over_batches(setup())


def test_one_device_shares_nothing_out():
    plain, spread = setup().phases[0].agent, over_batches(setup())
    assert spread.devices == 'batch' and len({id(phase.agent) for phase in spread.phases}) == 2
    batch = jax.tree.map(lambda leaf: leaf[:8], setup().dataset)
    for agent in (plain, shared_out(plain)):
        state, _ = jax.jit(agent.update)(np.float32(0.5), batch, jax.random.key(0))
        np.testing.assert_allclose(state, 0.5 + 0.1 * (np.sin(np.arange(8.0)).mean() - 0.5), rtol=1e-6)
