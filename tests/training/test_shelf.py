"""Programs kept on the disk: what comes back computes the same, and only where everything it was made from is the same."""

import time
import tomllib
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ooorl.runner import fingerprint
from ooorl.runner.prepare import prepare
from ooorl.training.programs import Job, Programs
from ooorl.training.shelf import Shelf

CONFIG = """
[run]
scheme = "offline"
[environment]
id = "ooorl/UMaze-v0"
[evaluation]
num_episodes = 0
[dataset]
scripted = "u_maze"
settings = { num_episodes = 9 }
[offline]
num_updates = 1
[agent]
agent = "bc"
hidden = [8]
[agent.sampling]
batch_size = 8
"""


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
    """A job and a folder with its program."""
    nobody_compiled = time.time_ns() % 2**24  # what comes out of jax's cache cannot be kept
    job = Job('double', lambda values: {'twice': 2 * values['once'], 'now': nobody_compiled}, ({'once': np.arange(3.0)},))
    shelf = Shelf(tmp_path_factory.mktemp('of') / 'one')
    shelf.compiled(job, job.lower())
    shelf.close(True)
    return job, shelf


def test_a_program_comes_back_under_its_name_alone(kept):
    job, shelf = kept
    assert shelf.whole
    np.testing.assert_array_equal(Shelf(shelf.folder).load(job)(*job.args)['twice'], [0, 2, 4])
    assert shelf.load(job._replace(key='triple')) is None
    assert shelf.load(job._replace(args=({'once': np.arange(4.0)},))) is None
    assert shelf.load(job._replace(key=('double', object()))) is None  # nothing that another process could ask for


def test_a_damaged_program_is_none(kept, tmp_path):
    job, shelf = kept
    for path in shelf.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:-20])
    assert Shelf(tmp_path).load(job) is None


def test_what_comes_out_of_jax_s_cache_is_not_kept(kept, tmp_path):
    def compiled():
        jax.monitoring.record_event('/jax/compilation_cache/cache_hits')
        return kept[1].load(kept[0])

    shelf = Shelf(tmp_path / 'one')
    assert shelf.compiled(kept[0], SimpleNamespace(compile=compiled)) is not None
    shelf.close(True)
    assert shelf.load(kept[0]) is None and not shelf.whole


def test_a_run_takes_what_another_has_left(kept):
    def never(values):
        raise AssertionError('traced')

    job, shelf = kept
    programs = Programs(SimpleNamespace(dataset=None, phases=()), shelf=Shelf(shelf.folder))
    np.testing.assert_array_equal(programs.run(job._replace(function=never))['twice'], [0, 2, 4])


def test_fingerprints_tell_what_programs_are_made_from():
    def of(**changes):
        table = tomllib.loads(CONFIG)
        for name, value in changes.items():
            table.setdefault(name.partition('__')[0], {})[name.partition('__')[2]] = value
        return fingerprint.fingerprint(prepare(table))

    plain = of()
    assert of() == of(run__seeds='3,4') == plain
    changed = [of(agent__learning_rate=1e-3), of(dataset__settings={'num_episodes': 8})]
    assert None not in changed and len({plain, *changed}) == 3
