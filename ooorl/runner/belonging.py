"""Data and the environment that they are used with: which one it is, and whether the two belong together."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ooorl import data, envs
from ooorl.data import action_box
from ooorl.data.audit import info_names, replayed
from ooorl.data.recorded_states import simulator, state_columns
from ooorl.errors import UsageError
from ooorl.runner import run_directory
from ooorl.runner.settings import QUIET_SCHEMES
from ooorl.types import Spec, Task

ROWS = 300  # that are replayed, a few hundred milliseconds at most


class Place(NamedTuple):
    """One copy of the environment that data are compared with: a `Task` or a gymnasium environment, under its `name`.

    `settings` are those of the config's `[environment]`.
    """

    name: str
    made: object
    settings: Mapping = MappingProxyType({})

    @property
    def action_box(self) -> action_box.Box | None:
        """The box of its actions; None for a `Task`, whose actions are in [-1, 1] by definition."""
        return action_box.of_space(getattr(self.made, 'action_space', None), self.name)

    @property
    def spec(self) -> Spec | None:
        """Its sizes; None where they are not those of two vectors."""
        if isinstance(self.made, Task):
            return self.made.spec
        sizes = [np.shape(getattr(space, 'low', None)) for space in (self.made.observation_space, self.made.action_space)]
        return Spec(observation_dim=sizes[0][0], action_dim=int(np.prod(sizes[1]))) if len(sizes[0]) == 1 else None

    @property
    def labeller(self):
        """It, where it gives rewards to recorded states; else None."""
        made = getattr(self.made, 'unwrapped', None)
        return made if hasattr(made, 'labelled') else None


class _Unmade:
    """In the place of an environment that gives rewards to states and cannot be made: whoever needs it is told why."""

    labels_from = ''

    def __init__(self, name, settings):
        self._name, self._settings = name, settings

    @property
    def state_names(self):
        envs.make(self._name, (1,), **self._settings)
        raise UsageError(f'rewards for these data are needed; {self._name} gives none to recorded states; name their environment')


def labeller(table: Mapping, place: Place | None):
    """What gives rewards to the recorded states of data that have none; None where the config names no environment."""
    if place is not None or not table['id'] or table['id'] in envs.HOSTS:
        return place and place.labeller
    return _Unmade(table['id'], table['settings'])


def settled(settings: Mapping) -> tuple[dict, str]:
    """The config with the environment that its data name, where it names none itself, and one line about that; or ''."""
    scheme, table, evaluation = settings['run']['scheme'], settings['environment'], settings['evaluation']
    if table['id'] or (scheme in QUIET_SCHEMES and not evaluation['num_episodes']):
        return settings, ''
    source = settings['dataset']
    collected = next((text for text in (settings['run']['store'], source['path']) if text and run_directory.is_run(text)), '')
    if collected:
        own = run_directory.read_config(run_directory.named(collected)[0], 'environment.id')['environment']
        name, own = own['id'], own['settings']
    elif source['task']:
        name, own = data.entry(source['task']).environment, {}
    else:
        name, own = data.environment_of(source['path']) if source['path'] else ('', {})
    if not name:
        return settings, 'not evaluated: neither the config nor the data name an environment; --env ID gives one'
    changed = {**table, 'id': name, 'settings': {**own, **table['settings']}}
    return {**settings, 'environment': changed}, f'environment: {name}, which the data name'


def without_environment(settings: Mapping, error: UsageError) -> tuple[dict, str]:
    """The config without the environment that only the data named, because it cannot be used; and one line about that."""
    name = settings['environment']['id']
    line = f'not evaluated: the data name {name}, which cannot be used ({error}); --env ID names another'
    return {**settings, 'environment': {**settings['environment'], 'id': '', 'settings': {}}}, line


@contextlib.contextmanager
def opened(settings: Mapping):
    """A `Place` for the environment of a resolved config, or None where it names none or that cannot be made alone."""
    table, name = settings['environment'], settings['environment']['id']
    merged = dict(table['settings'])
    if settings['run']['scheme'] in QUIET_SCHEMES:  # otherwise the data belong to where more are collected
        merged |= settings['evaluation']['settings']
    if settings['dataset']['observation_keys'] and name not in envs.TASKS:
        merged['observation_keys'] = settings['dataset']['observation_keys']
    made = envs.single(name, **{k: tuple(v) if isinstance(v, list) else v for k, v in merged.items()}) if name else None
    try:
        yield None if made is None else Place(name, made, table['settings'])
    finally:
        if hasattr(made, 'close'):
            made.close()


def states_in(path: str, place: Place | None) -> tuple[str, ...]:
    """Names of the recorded states to read from a file for `compared`; none where it lacks some."""
    if place is None:
        return ()
    given = info_names(path)
    needed = state_columns(place.made, given)
    return needed if set(needed) <= set(given) else ()


def compared(dataset: 'data.Dataset', place: Place | None, mode: str) -> 'data.Dataset':
    """The data set without its recorded states, and with notes on what the comparison with the environment showed.

    Sizes must agree. Where states can be set, recorded steps are replayed (`ooorl.data.audit`): rows that lead elsewhere are
    refused in mode 'refuse' and noted in mode 'warn'; in mode 'off' nothing is replayed. Rewards and ends that the environment
    does not give are noted.

    Raises:
      UsageError: where sizes differ, or rows lead elsewhere.
    """
    notes = [] if place is None or place.spec is None else _differences(dataset, place, mode)
    return replace(dataset, notes=(*dataset.notes, *notes), infos={})


def _differences(dataset, place, mode):
    data.check_spec(dataset, place.spec, environment=place.name)
    if mode == 'off':
        return ['not replayed: dataset.replay is off']
    try:
        found = replayed(simulator(place.made, dataset, dataset.name), dataset, dataset.name, ROWS)
    except UsageError as error:
        return [f'only sizes were compared with {place.name}: {error}', *_outside(dataset, place)]
    if found.kind == 'other' and mode == 'refuse':
        raise UsageError(
            f'data of {place.name} are needed; {found.verdict[:-1]}; name the environment they come from with --env ID, or set '
            'dataset.replay="warn" to use them all the same'
        )
    lines = {
        'same': f'replay: {found.rows} rows lead where they led, in {place.name}',
        'rough': f'replay: WARNING, {found.verdict}',
        'other': f'replay: WARNING, {found.verdict}',
    }
    clipped = ' (actions were clipped)' if any('clipped to' in note for note in dataset.notes) else ''
    return [lines[found.kind], *(f'replay: {"WARNING, " if found.wrong else ""}{line}{clipped}' for line in found.findings)]


def _outside(dataset, place):
    """A note where observations leave the environment's own bounds, which is all that can be said without its state."""
    if isinstance(place.made, Task):
        return []
    space, seen = place.made.observation_space, dataset.transitions.observation
    slack = 1e-3 * (1.0 + np.abs(np.where(np.isfinite(space.high), space.high, 0.0)))
    share = ((seen < space.low - slack) | (seen > space.high + slack)).any(axis=1).mean()
    if share <= 0.01:
        return []
    return [f'WARNING: {100 * share:.3g} % of the observations lie outside the bounds of {place.name}']
