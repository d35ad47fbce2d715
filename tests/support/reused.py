"""What runs of one kind have in common, made once for all runs of a test file: most of what a tiny run costs is compiling."""

import json

import jax
import pytest
from tiny_configs import changed

from ooorl.runner import prepare
from ooorl.runner.session import execute
from ooorl.training import programs
from ooorl.types import Agent


class Reused(programs.Programs):
    """The same programs, kept for the next run whose setup looks the same: its agents must be made of the same settings.

    Agents are told apart by their places among those of the setup, everything else by keys, shapes and sizes.
    """

    kept = {}

    def expect(self, jobs):
        """Nothing is made ahead: that would be made for one run."""

    def call(self, key, function, *args, donate=(), **options):
        """As `Programs.call`."""
        name = self._name(key, args)
        if key not in self._compiled and name in self.kept:
            self._compiled[key] = self.kept[name]
        result = super().call(key, function, *args, donate=donate, **options)
        self.kept[name] = self._compiled[key]
        return result

    def _name(self, key, args):
        setup = self.setup
        agents = {id(phase.agent): number for number, phase in reversed(list(enumerate(setup.phases)))}
        parts = key if isinstance(key, tuple) else (key,)
        named = tuple(agents.get(id(part), part) if isinstance(part, Agent) else part for part in parts)
        sizes = tuple((e.spec, e.batch_shape, e.horizon, e.compiled) for e in (setup.environment, setup.evaluation) if e)
        lengths = tuple((phase.name, phase.num_updates, phase.num_env_steps, repr(phase.sampling)) for phase in setup.phases)
        shapes = tuple((jax.numpy.shape(leaf), str(jax.numpy.result_type(leaf))) for leaf in jax.tree.leaves(args))
        return named, sizes, lengths, len(setup.seeds), setup.seed_group, str(jax.tree.structure(args)), shapes


@pytest.fixture(scope='module', autouse=True)
def reused_programs():
    """Import it into a test file, each of whose setups is always made of the same settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('ooorl.training.run.Programs', Reused)
        yield
    Reused.kept.clear()


def one_after_another(folder, table, later, key):
    """(directory of a run, that of a later one, whose config names the first at `key`, that config)."""
    base, out = folder / 'base', folder / 'later'
    execute(prepare.prepare(table), base, quiet=True)
    table = changed(later, **{key: str(base)})
    execute(prepare.prepare(table), out, quiet=True)
    return base, out, table


SCRIPTED = {}  # rows, by the table that asks for them


def _scripted_once(table, make=prepare._scripted):
    name = json.dumps(table, default=str)
    if name not in SCRIPTED:
        SCRIPTED[name] = make(table)
        for leaf in jax.tree.leaves(SCRIPTED[name].transitions):
            leaf.flags.writeable = False  # it is everybody's
    return SCRIPTED[name]


@pytest.fixture(scope='module', autouse=True)
def reused_data():
    """Import it into a test file whose configs name scripted data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('ooorl.runner.prepare._scripted', _scripted_once)
        yield


@pytest.fixture(scope='module', autouse=True)
def undrawn():
    """Import it into a test file that is not about reports: its runs build their figures and do not draw them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('ooorl.reporting.figures.svg', lambda drawn: '<svg></svg>')
        yield
