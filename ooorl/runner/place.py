"""Where a run stands, as a checkpoint's `meta.json` says it, and what that promises of the checkpoint's arrays and the rows."""

from collections.abc import Callable

from ooorl.training import rounds
from ooorl.training.phases import Setup, round_sizes

_KINDS = {
    'phase': int, 'round': int, 'under_way': bool, 'done': int, 'sums': dict, 'number': int, 'offset': int,
    'digest': (str, type(None)), 'times': dict,
}  # fmt: skip


def new() -> dict:
    """The place before a run begins."""
    place = {'phase': 0, 'round': 0, 'under_way': False, 'done': 0, 'sums': {}}
    return {**place, 'number': 0, 'offset': 0, 'digest': None, 'times': {}}


def of(state: rounds.RunState) -> dict:
    """What is known of the place from the state alone."""
    return {
        'phase': state.phase, 'round': state.round, 'under_way': state.agent is not None, 'done': state.done,
        'sums': rounds.shapes_of(state.sums), 'diverged': {name: list(seeds) for name, seeds in state.diverged.items() if seeds},
    }  # fmt: skip


def template_of(setup: Setup) -> Callable[[dict], tuple]:
    """`meta -> rounds.template` at the place that `meta` tells, for `checkpoint.restore`.

    The function raises LookupError or TypeError where `meta` tells none of this run.
    """

    def template(meta):
        _check(setup, meta)
        try:
            return rounds.template(setup, meta['phase'], meta['under_way'], meta['done'], meta['sums'])
        except (ValueError, AttributeError) as error:
            raise TypeError(f'sums are {meta["sums"]!r}') from error

    return template


def _check(setup, meta):
    for name, kind in _KINDS.items():
        if not isinstance(meta[name], kind) or (kind is int and isinstance(meta[name], bool)):
            raise TypeError(f'{name} is {meta[name]!r}')
    lost = meta.get('diverged', {})
    _demand(isinstance(lost, dict) and all(isinstance(seeds, list) for seeds in lost.values()), 'diverged', lost)
    spent = meta['times']
    _demand(all(isinstance(own, dict) and all(map(_is_number, own.values())) for own in spent.values()), 'times', spent)
    _demand(meta['number'] >= 0 and meta['offset'] >= 0, 'number or offset', (meta['number'], meta['offset']))
    _demand(0 <= meta['phase'] <= len(setup.phases) - meta['under_way'], 'phase', meta['phase'])
    if meta['phase'] < len(setup.phases):
        sizes = round_sizes(setup.phases[meta['phase']], setup)
        _demand(0 <= meta['round'] < len(sizes), 'round', meta['round'])
        _demand(0 <= meta['done'] <= rounds.round_length(sizes[meta['round']]), 'done', meta['done'])


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _demand(true, name, value):
    if not true:
        raise LookupError(f'{name} is {value!r}')
