"""What the results of `ooo_claims.py` say: scores by arm, successes in the buffers, verdicts on the paper's claims."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ooorl import catalogue
from ooorl.reporting import intervals, tables, writers

PREFIX = 'ooo_claims-'
RECIPE_PREFIX = 'ooo_recipe-'

# Arms: what each phase of a run is called in the results. Phases that are not here are stages on the way.
ARMS = {
    'offline': 'data alone',
    'plain-explore': 'base method',
    'plain-retrain': 'retrained, no bonus explorer',
    'explore': 'explorer with bonus',
    'retrain': 'OOO',
    'frozen': 'retrained, frozen bonus',
    'td3': 'retrained, TD3',
}
LANDED = 'landed'
# Arms of runs with a recipe, beside those above.
OF_RECIPES = {
    LANDED: 'retrained as landed',
    'climb': 'retrained, climbing',
    'data': 'data alone',
    'chosen': 'chosen by a trial',
}
CANDIDATES = ('retrain', 'climb', 'data', 'explore')  # of the choice, the first of equals first
SHARED = ('offline', 'plain-explore', 'plain-retrain')
CLAIMS = {
    'plain-explore': 'OOO beats the base method at equal environment steps',
    'explore': "OOO beats the bonus explorer's own policy",
    'plain-retrain': 'OOO beats retraining on the data of an explorer without bonus',
    'frozen': 'OOO beats retraining with the frozen bonus',
    'td3': 'OOO beats retraining without pessimism (TD3)',
}

class Score(NamedTuple):
    """How a task is scored: a column of the evaluation, moved so that `low` is 0, `high` 1; the `bounds` of what results."""

    column: str = 'success'
    low: float = 0.0
    high: float = 1.0
    bounds: tuple[float, float] | None = (0.0, 1.0)


def _reference(task_id: str) -> Score:
    """D4RL's normalised score / 100."""
    entry = catalogue.lookup(task_id)
    return Score('return', entry.reference_min, entry.reference_max, bounds=None)


SCORES = {
    # On the wall every policy arrives; how fast is the question: the return there is minus the number of steps.
    'wall': Score('return', -50.0, 0.0),
    'maze2d_umaze': _reference('maze2d-umaze-v1'),
    'maze2d_medium': _reference('maze2d-medium-v1'),
    # The share of an episode's 1,000 steps that is spent beyond the line.
    'sparse_cheetah': Score('return', 0.0, 1000.0),
    'sparse_ant': Score('return', 0.0, 1000.0),
}


class Cell(NamedTuple):
    """One run: `signal` is 'none' for the arms without a bonus."""

    task: str
    method: str
    signal: str

    def __str__(self):
        return ':'.join(self)

    def path(self, out: Path, prefix: str = PREFIX) -> Path:
        """Where its result lies."""
        return out / f'{prefix}{"-".join(self)}.json'


def read_results(out: Path, prefix: str = PREFIX) -> dict[Cell, dict]:
    """All results in a directory, in the order of the cells."""
    found = {}
    for path in sorted(out.glob(f'{prefix}*.json')):
        result = writers.read_json(path)
        found[Cell(*result['cell'].split(':'))] = result
    return found


def score(cell: Cell, arm: Mapping) -> np.ndarray:
    """One number a seed: 0 to 1, but for D4RL's scores, which may leave that range."""
    how = SCORES.get(cell.task, Score())
    return (np.asarray(arm[how.column], np.float64) - how.low) / (how.high - how.low)


def bounds(task: str) -> tuple[float, float] | None:
    """The range that a task's scores cannot leave, where there is one."""
    return SCORES.get(task, Score()).bounds


def shown(task: str, values: np.ndarray) -> str:
    """'0.62 [0.29, 0.89]', the mean over seeds and its interval; no bracket where there is none."""
    found = intervals.interval(values, bounds=bounds(task))
    if not np.isfinite(found.low):
        return f'{found.point:.2f} ({found.method})'
    return f'{found.point:.2f} [{found.low:.2f}, {found.high:.2f}]{tables.mark(found)}'


def verdict(task: str, x: np.ndarray, y: np.ndarray) -> str:
    """What the difference of two arms `[S]` on the same seeds says, with its mean and interval."""
    found = intervals.paired_difference(x, y, bounds=bounds(task))
    if not np.isfinite(found.low):
        return f'not separated: {found.point:+.2f} ({found.method})'
    word = 'held' if found.low > 0 else 'reversed' if found.high < 0 else 'not separated'
    return f'{word}: {found.point:+.2f} [{found.low:+.2f}, {found.high:+.2f}]{tables.mark(found)}'


def all_arms(results: Mapping[Cell, dict], cell: Cell) -> dict[str, np.ndarray]:
    """Scores of a cell's arms, the shared ones included where they have been run on the same seeds."""
    shared = results.get(cell._replace(signal='none'))
    arms = dict(results[cell]['arms'])
    if shared is not None and shared['seeds'] == results[cell]['seeds']:
        arms |= shared['arms']
    return {name: score(cell, arm) for name, arm in arms.items()}


def table(results: Mapping[Cell, dict]) -> str:
    """The results as Markdown: scores, successes in the buffers, verdicts by cell and by method."""
    cells = [cell for cell in results if cell.signal != 'none']
    seeds = sorted({len(result['seeds']) for result in results.values()})
    lines = [
        f'Mean over {" or ".join(map(str, seeds))} seeds [95 % interval]: t, within the possible range; † every seed 0 or 1, or '
        'close to it: exact binomial interval, or the one that generalises it.',
        '',
        '| cell | ' + ' | '.join(ARMS.values()) + ' |',
        '|---' * (len(ARMS) + 1) + '|',
    ]
    for cell in cells:
        arms = all_arms(results, cell)
        entries = [shown(cell.task, arms[name]) if name in arms else 'not run' for name in ARMS]
        lines.append(f'| {cell} | ' + ' | '.join(entries) + ' |')
    lines += ['', 'Successful rows among those collected, by seed:', '', '| cell | with bonus | without |', '|---|---|---|']
    for cell in cells:
        shared = results.get(cell._replace(signal='none'))
        without = shared['buffer']['plain']['success_rows'] if shared else ()
        counts = [' '.join(map(str, rows)) or 'not run' for rows in (results[cell]['buffer']['online']['success_rows'], without)]
        lines.append(f'| {cell} | ' + ' | '.join(counts) + ' |')
    lines += ['', 'Mean paired difference, by cell; † equal in every seed, or close to -1 or 1 in each:', '']
    lines.append('| cell | ' + ' | '.join(f'OOO - {ARMS[c]}' for c in CLAIMS) + ' |')
    lines.append('|---' * (len(CLAIMS) + 1) + '|')
    for cell in cells:
        arms = all_arms(results, cell)
        entries = [verdict(cell.task, arms['retrain'], arms[name]) if name in arms else 'not run' for name in CLAIMS]
        lines.append(f'| {cell} | ' + ' | '.join(entries) + ' |')
    return '\n'.join([*lines, '', *_by_method(results, cells)])


def side_by_side(old: Mapping[Cell, dict], new: Mapping[Cell, dict]) -> str:
    """Retraining as landed and with a recipe, as Markdown: scores, then OOO against its base method and its best other arm.

    With a recipe OOO is the policy that a trial has chosen, where there was one. "Landed, new seeds" is the old retraining on the
    very buffers of the new run.
    """
    heads = ('cell', 'OOO, old seeds', 'landed, new seeds', 'weighted', 'climbing', 'data alone', 'chosen')
    lines = ['| ' + ' | '.join(heads) + ' |', '|---' * len(heads) + '|']
    cells = [cell for cell in new if cell.signal != 'none']
    for cell in cells:
        arms = all_arms(new, cell)
        entries = [shown(cell.task, all_arms(old, cell)['retrain']) if cell in old else 'not run']
        for name in (LANDED, 'retrain', 'climb', 'data', 'chosen'):
            entries.append(shown(cell.task, arms[name]) if name in arms else 'not run')
        lines.append(f'| {cell} | ' + ' | '.join(entries) + ' |')
    heads = ('cell', 'old: OOO - base', 'old: OOO - best arm', 'new: OOO - landed', 'new: OOO - base', 'new: OOO - best arm')
    lines += ['', '| ' + ' | '.join(heads) + ' |', '|---' * len(heads) + '|']
    for cell in cells:
        arms = all_arms(new, cell)
        own = _deployed(arms)
        entries = [*(_against(cell.task, all_arms(old, cell)) if cell in old else ('not run',) * 2)]
        entries += [verdict(cell.task, own, arms[LANDED]) if LANDED in arms else 'not run', *_against(cell.task, arms, own)]
        lines.append(f'| {cell} | ' + ' | '.join(entries) + ' |')
    return '\n'.join(lines)


def counted(results: Mapping[Cell, dict]) -> str:
    """One sentence: in how many cells OOO, deployed as the results say, is above its base method and below its best other arm."""
    every = [(cell.task, all_arms(results, cell)) for cell in results if _is_whole(results, cell)]
    found = [_against(task, arms, _deployed(arms)) for task, arms in every]
    words = [tuple(text.split(':')[0] for text in both) for both in found]
    numbers = {(place, word): sum(own[place] == word for own in words) for place in (0, 1) for word in ('held', 'reversed')}
    return (
        f'{len(words)} cells: OOO above its base method beyond the interval in {numbers[0, "held"]}, below in '
        f'{numbers[0, "reversed"]}; above its best other arm in {numbers[1, "held"]}, below in {numbers[1, "reversed"]}'
    )


def brief(old: Mapping[Cell, dict], new: Mapping[Cell, dict]) -> str:
    """Old and new beside each other, as Markdown: the base method, OOO, their difference and that from the best other arm."""
    heads = ('cell', 'old: base', 'old: OOO', 'OOO - best arm', 'recipe: base', 'recipe: **OOO**', 'OOO - base', 'OOO - best arm')
    lines = ['| ' + ' | '.join(heads) + ' |', '|---' * len(heads) + '|']
    for cell in (cell for cell in old if cell.signal != 'none'):
        before = all_arms(old, cell)
        entries = [str(cell), shown(cell.task, before['plain-explore']), shown(cell.task, before['retrain'])]
        entries.append(_against(cell.task, before)[1])
        if _is_whole(new, cell):
            arms = all_arms(new, cell)
            own = _deployed(arms)
            both = _against(cell.task, arms, own)
            entries += [shown(cell.task, arms['plain-explore']), f'**{shown(cell.task, own)}**', *both]
        else:
            entries += ['not run'] * 4
        lines.append('| ' + ' | '.join(entries) + ' |')
    return '\n'.join(lines)


def _is_whole(results, cell):
    return cell.signal != 'none' and cell in results and 'plain-explore' in all_arms(results, cell)


def _deployed(arms):
    return arms.get('chosen', arms['retrain'])


def _against(task, arms, own=None):
    """OOO's differences from the base method and from the best of all other arms of the landed table, which is named."""
    own = arms['retrain'] if own is None else own
    others = {name: values for name, values in arms.items() if name in ARMS and name != 'retrain'}
    best = max(others, key=lambda name: others[name].mean())
    base = verdict(task, own, arms['plain-explore']) if 'plain-explore' in arms else 'not run'
    return base, f'{verdict(task, own, others[best])} ({ARMS[best]})'


def _by_method(results, cells):
    groups = {}
    for cell in cells:
        groups.setdefault((cell.task, cell.method), []).append(cell)
    lines = [
        'Mean over the signals of a task and method, by seed:',
        '',
        '| claim | ' + ' | '.join(':'.join(g) for g in groups) + ' |',
    ]
    lines.append('|---' * (len(groups) + 1) + '|')
    means = []
    for group in groups.values():
        arms = [found for found in (all_arms(results, cell) for cell in group) if 'plain-explore' in found]
        both = [np.mean([found[name] for found in arms]) for name in ('retrain', 'plain-explore') if arms]
        means.append(' / '.join(f'{mean:.2f}' for mean in both) or 'not run')
    lines.append('| mean of OOO / of the base method | ' + ' | '.join(means) + ' |')
    for name, claim in CLAIMS.items():
        entries = []
        for group in groups.values():
            arms = [all_arms(results, cell) for cell in group]
            arms = [found for found in arms if name in found]
            both = [np.mean([found[arm] for found in arms], axis=0) for arm in ('retrain', name) if arms]
            entries.append(verdict(group[0].task, *both) if arms else 'not run')
        lines.append(f'| {claim} | ' + ' | '.join(entries) + ' |')
    return lines
