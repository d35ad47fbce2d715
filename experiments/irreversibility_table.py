"""The table of `irreversibility.py` and what its results say of the targets."""

from collections.abc import Mapping

import numpy as np

from ooorl.reporting.intervals import score_interval

COLUMNS = ('interventions', 'help', 'horizon', 'false_alarms', 'label_queries', 'irreversible_steps')
BUDGETS = (1, 2, 5, 10, 20)
MARGIN = 0.05  # of success, one episode of an evaluation: what may be lost and still counts as nothing


def table(results: Mapping) -> str:
    """Markdown: success with its interval, then the mean counts of every cell; then the targets."""
    names = ' | '.join(name.replace('_', ' ') for name in COLUMNS)
    lines = [f'| cell | success | {names} |', '|---|---|' + '---|' * len(COLUMNS)]
    for cell in sorted(results):
        found = results[cell]
        counts = ' | '.join(f'{np.mean(found[name]):,.1f}' if name in found else '' for name in COLUMNS)
        lines.append(f'| {cell} | {_interval(found["success"])} | {counts} |')
    return '\n'.join([*lines, '', *targets(results)])


def _interval(values):
    found = score_interval('success', np.asarray(values))
    return f'{found.point:.2f} [{found.low:.2f}, {found.high:.2f}]'


def targets(results: Mapping) -> list[str]:
    """One line for each target: held, failed or untested."""
    lines = []
    for place in ('maze', 'tabletop', 'cliffs'):
        paint, episodic = results.get(f'{place}:paint'), results.get(f'{place}:episodic')
        asked = 'paint at least 0.9 and 5 times fewer interventions than episodic at equal success'
        lines.append(f'{place}: {asked}: {_help_pays(paint, episodic)}')
        lines.append(f'{place}: plan above fixed at every budget: {_plan_pays(results, place)}')
        lines.append(f'{place}: cautious OOO loses nothing and halves irreversible visits: {_caution_pays(results, place)}')
    over = [np.max(found['most_over_bound']) for found in results.values() if 'most_over_bound' in found]
    bound = _verdict(max(over) <= 0) if over else 'untested'
    lines.append(f'label queries of a life never above 1 + ceil(log2 T): {bound}')
    return lines


def _verdict(holds):
    return 'held' if holds else 'failed'


def _help_pays(paint, episodic):
    if paint is None or episodic is None:
        return 'untested'
    success, other = np.mean(paint['success']), np.mean(episodic['success'])
    equal = min(success, other)
    few, many = (_resets_until(one, equal) for one in (paint, episodic))
    ratio = many / max(few, 1)
    holds = _verdict(success >= 0.9 and ratio >= 5)
    return f'{holds} ({success:.2f} against {other:.2f}; {few:.1f} and {many:.1f} until {equal:.2f}, {ratio:.1f} times)'


def _resets_until(found, success):
    """Mean interventions at the first evaluation whose mean success is no less; all of them where a cell has no curve."""
    curve = found.get('curve', {'success': [found['success']], 'interventions': [found['interventions']]})
    reached = np.mean(curve['success'], axis=1) >= success - 1e-9
    return np.mean(curve['interventions'][int(np.argmax(reached))])


def _caution_pays(results, place):
    plain, careful = results.get(f'{place}:ooo'), results.get(f'{place}:ooo_cautious')
    if plain is None or careful is None:
        return 'untested'
    (before, after), (many, few) = (
        tuple(np.mean(one[name]) for one in (plain, careful)) for name in ('success', 'irreversible_steps')
    )
    holds, seen = few <= many / 2, ''
    if 'lost_lives' in plain:
        visits = [np.mean(one['lost_lives']) for one in (plain, careful)]
        holds, seen = visits[1] <= visits[0] / 2, f', {visits[0]:.1f} and {visits[1]:.1f} visits'
    loss = score_interval('return', np.subtract(careful['success'], plain['success']))
    holds = holds and np.nan_to_num(loss.low, nan=loss.point) >= -MARGIN
    lost = f'paired difference {loss.point:+.2f} [{loss.low:.2f}, {loss.high:.2f}]'
    shown = f'success {before:.2f} and {after:.2f}, {lost}; irreversible steps {many:,.0f} and {few:,.0f}'
    return f'{_verdict(holds)} ({shown}{seen})'


def _plan_pays(results, place):
    pairs = {b: (results.get(f'{place}:plan@{b}'), results.get(f'{place}:fixed@{b}')) for b in BUDGETS}
    if any(one is None for pair in pairs.values() for one in pair):
        return 'untested'
    means = {b: tuple(np.mean(one['success']) for one in pair) for b, pair in pairs.items()}
    shown = ', '.join(f'{b}: {plan:.2f} against {fixed:.2f}' for b, (plan, fixed) in means.items())
    return f'{_verdict(all(plan > fixed for plan, fixed in means.values()))} ({shown})'
