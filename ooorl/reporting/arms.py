"""What the phases of a run are called in its report, and what each is: the arms that its result compares.

An arm is an entry of `summary.json` (see `ooorl.reporting.report`) that has scores: a phase, or another way to spend the same
steps. Names come from the scheme that made the phases (`ooorl.training.phases`); a phase of a scheme of one's own keeps its name.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Arm(NamedTuple):
    """An arm as people read of it: its name in the files, a short label, and what it is in one sentence ('' where unknown)."""

    name: str
    label: str
    explanation: str


def arms(summary: Mapping) -> dict[str, Arm]:
    """The arms of a run by name, phases first."""
    found = {}
    for phase in summary['phases']:
        label, explanation = _of_scheme(summary, phase) or (phase['name'], '')
        found[phase['name']] = Arm(phase['name'], str(label), explanation)
    for entry in summary.get('arms') or ():
        found.setdefault(entry['name'], Arm(entry['name'], entry['name'], _sentence(entry.get('description') or '')))
    return found


def leading(summary: Mapping) -> str | None:
    """The name of the arm that the run is about: OOO's retraining on everything, else the last phase with scores."""
    others = summary.get('arms') or ()
    if others:
        return others[0]['name']
    names = [phase['name'] for phase in summary['phases'] if phase.get('scores')]
    labels = arms(summary)
    return next((name for name in names if labels[name].label == 'OOO'), names[-1] if names else None)


def shown(arm: Arm) -> str:
    """The label, with the name in the files where that is another."""
    return arm.label if arm.label == arm.name else f'{arm.label} ({arm.name})'


def _of_scheme(summary, phase):
    agent, updates = phase.get('agent') or 'the agent', _count(phase.get('num_updates'))
    steps, rows = _count(phase.get('num_env_steps')), _count(phase.get('online_rows'))
    data = 'the data set and ' if summary.get('dataset') else ''
    if summary.get('kind') == 'ooo':
        return _of_ooo(summary, phase, agent, data, steps, rows)
    return {
        'offline': ('offline', f'{agent}, {updates} updates on the data set alone.'),
        'finetune': ('fine-tuned', f'The same {agent}, {updates} more updates on {data}{steps} environment steps of its own.'),
        'online': ('online', f'{agent}, {updates} updates on {steps} environment steps of its own.'),
        'warm-up': ('warm-up', f'{steps} environment steps of the pretrained policy, nothing trained.'),
        'random': ('random steps', f'{steps} uniformly random environment steps, nothing trained.'),
        'teacher': ('teacher', f'{agent}, {updates} updates on the data set alone.'),
        'returns': ('model of returns', f'{agent}, {updates} updates on the data set alone; it acts at random.'),
        'distil': ('student', f'{agent}, {updates} updates on the data set and what the teacher makes of it.'),
    }.get(phase['name'])


def _of_ooo(summary, phase, agent, data, steps, rows):
    is_plain = phase['name'].startswith('plain-')
    name, _, budget = phase['name'].removeprefix('plain-').partition('@')
    without, own = (' without bonus', 'without its bonus, ') if is_plain else ('', '')
    if name == 'retrain' and is_plain:
        return 'retrained without bonus', f'A new {agent}, trained on {data}what the explorer without bonus collected.'
    if name == 'retrain' and budget == '0':
        return 'data alone', f'A new {agent}, trained on the data set alone: what OOO has more is what collecting brought.'
    if name == 'retrain':
        label = 'OOO' if budget == _largest_budget(summary) else f'OOO after {_count(budget)} steps'
        return label, f'A new {agent}, trained on {data}the first {rows} rows collected, with the reward of the task alone.'
    return {
        'pretrain': (f'pretrained{without}', f'The explorer, {own}{agent}, after training on the data set alone.'),
        'random': (f'random steps{without}', f'{steps} uniformly random environment steps, nothing trained.'),
        'explore': (
            f'explorer{without}',
            f'The policy that collects, {own}{agent}, after {steps} environment steps of its own'
            + (': the base method at equal steps.' if is_plain else '.'),
        ),
    }.get(name)


def _largest_budget(summary):
    names = [phase['name'].partition('@') for phase in summary['phases']]
    budgets = [budget for name, _, budget in names if name == 'retrain']
    return max(budgets, key=lambda budget: int(budget) if budget.isdecimal() else -1)


def _count(value):
    text = str(value or 0)
    return f'{float(text):,.0f}' if text.replace('.', '', 1).isdecimal() else text


def _sentence(text):
    return text[:1].upper() + text[1:] + '.' * (not text.endswith('.')) if text else ''
