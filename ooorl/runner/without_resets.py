"""The `[lives]` table: a run whose environment is not reset after episodes, and whose agent asks for help instead."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ooorl import envs
from ooorl.envs import one_way
from ooorl.errors import UsageError
from ooorl.runner import browser, signal_tables
from ooorl.runner.interruption import obeying
from ooorl.training import asking, interventions, lives
from ooorl.training.phases import Setup
from ooorl.types import Agent, Environment, Task
from ooorl.validation import check_choice, check_not_negative, check_unit

SCHEMES = ('online', 'finetune')
TRIGGERS = ('never', 'detector', 'truth')


@dataclass(frozen=True, kw_only=True)
class LivesConfig(lives.Rules):
    """The `[lives]` table: no resets between episodes; schemes online and finetune, tasks that know what is irreversible."""

    trigger: str = 'detector'  # help is wanted where the detector of [agent.cautious] says so, where the 'truth' does, or 'never'
    threshold: float = 0.5  # of the detector's score
    audits: int = 0  # further questions about each life, within its bound, that find contradictions; where somebody is asked
    imitate: str = 'all'  # what a policy that imitates is shown: 'all' rows, or the 'demonstrations' of the data set alone

    def __post_init__(self):
        super().__post_init__()
        check_choice(TRIGGERS, trigger=self.trigger)
        check_choice(interventions.IMITATED, imitate=self.imitate)
        check_unit(threshold=self.threshold)
        check_not_negative(audits=self.audits)
        if self.switch_every or self.wish != 'help':
            raise UsageError('[lives] has one policy; got switch_every or wish; leave them out, Python can have a second one')


def refuse_elsewhere(settings: Mapping) -> None:
    """Refuses a `[lives]` table where it means nothing.

    Raises:
      UsageError: naming what is needed.
    """
    scheme = settings['run']['scheme']
    if 'lives' not in settings:
        return
    if scheme not in SCHEMES:
        raise UsageError(f"[lives] needs scheme 'online' or 'finetune'; got {scheme!r}; remove the table")
    if settings['lives']['trigger'] == 'detector' and 'cautious' not in settings['agent']:
        raise UsageError("lives.trigger = 'detector' needs a detector, sub-table cautious of [agent]; got none; add it")
    cautious = settings['agent'].get('cautious', {})
    if settings['lives']['trigger'] == 'detector' and cautious['signal'] == 'precedence' and not cautious['reset']:
        raise UsageError('lives.trigger asks about states, and precedence needs cautious.reset for that; got none; set it')
    for name in ('chunk', 'normalise_observation', 'reranked'):
        if settings['agent'].get(name) not in (None, 1, False):
            raise UsageError(f'[lives] takes an agent of plain steps and observations; got {name}; remove it')
    if cautious.get('labels') == 'environment':
        raise UsageError("[lives] finds labels by asking; got cautious.labels = 'environment'; remove it")


def _task(settings) -> Task:
    name, horizon = settings['environment']['id'], settings['lives']['horizon']
    if name in one_way.IRREVERSIBLE:
        known = one_way.IRREVERSIBLE[name]
        return asking.outcomes(_host(settings, 1).spec, horizon, known.test, known.absorbing)
    if name not in envs.TASKS:
        known = ', '.join(one_way.IRREVERSIBLE)
        raise UsageError(f'[lives] needs a compiled task, or one of {known}; got {name}; use another or remove the table')
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in settings['environment']['settings'].items()}
    task = envs.make_task(name, **given)
    if task.irreversible is None:
        raise UsageError(f'[lives] needs a task that knows what is irreversible; {name} does not; use PointMassCliffs or another')
    return task


def _host(settings, num_seeds) -> Environment:
    """The environment on the host, whose episodes are as long as lives may be."""
    table = settings['environment']
    shape = (num_seeds, table['num_envs'])
    return envs.host(table['id'], shape, workers=table['workers'], horizon=settings['lives']['horizon'], **table['settings'])


def _labelled(settings, setup, expert: Callable) -> Environment:
    """Lives whose labels come from an expert, made of the task: the expert answers for its truth."""
    task, more = _task(settings), {'audits': settings['lives']['audits']}
    if settings['environment']['id'] not in envs.TASKS:
        mode = 'bisect' if task.absorbing else 'exhaustive'  # what may be left again is asked about state by state
        more |= {'host': _host(settings, len(setup.seeds)), 'mode': mode}
    return asking.asked(
        task, _rules(settings['lives']), expert, seeds=tuple(setup.seeds), num_envs=settings['environment']['num_envs'], **more
    )


def _rules(table) -> lives.Rules:
    names = [field.name for field in dataclasses.fields(lives.Rules)]
    return lives.Rules(**{name: table[name] for name in names if name in table})


def _intervening(agent: Agent, settings, task: Task) -> Agent:
    table, cautious = settings['lives'], settings['agent'].get('cautious')
    detector = None if cautious is None else signal_tables.detector(cautious, task.spec)
    trigger = {
        'never': lambda: interventions.never,
        'detector': lambda: interventions.when_detected(detector, table['threshold']),
        'truth': lambda: interventions.when_true(task.irreversible),
    }[table['trigger']]()
    floor = None if cautious is None else cautious['floor']
    return interventions.intervening(
        agent, trigger=trigger, detector=detector, floor=floor, imitate=table['imitate'],
        copies=settings['environment']['num_envs'],
    )


def living(settings: Mapping, setup: Setup, plain: Agent) -> Setup:
    """The setup with lives in the place of episodes; `plain` is its agent without caution.

    Raises:
      UsageError: if the environment cannot have lives.
    """
    task = _task(settings)
    if setup.dataset is None and settings['lives']['imitate'] == 'demonstrations':
        raise UsageError("lives.imitate = 'demonstrations' needs a data set that holds them; got none; give one, or set 'all'")
    if settings['environment']['id'] in envs.TASKS:
        environment = lives.endless(task, _rules(settings['lives']), num_envs=settings['environment']['num_envs'])
    else:
        environment = _labelled(settings, setup, asking.scripted(task.irreversible))
    agent, wander = _intervening(plain, settings, task), interventions.wandering(environment.spec)
    phases = tuple(dataclasses.replace(p, agent=wander if p.num_env_steps and not p.num_updates else agent) for p in setup.phases)
    dataset = None if setup.dataset is None else lives.as_lives(setup.dataset)
    return dataclasses.replace(setup, phases=phases, environment=environment, dataset=dataset)


def ask_place(text: str) -> tuple[str, int]:
    """('terminal', 0) or ('web', port) of 'terminal', 'web' or 'web:8123'; port 0 is any free one.

    Raises:
      UsageError: if it is none of these.
    """
    place, _, port = text.partition(':')
    fits = text == 'terminal' or text == 'web' or (place == 'web' and port.isascii() and port.isdigit() and 0 < int(port) < 65536)
    if not fits:
        raise UsageError(f"--ask takes 'terminal', 'web' or 'web:PORT', port 1 to 65535; got {text!r}; choose one")
    return place, int(port or 0)


def asked(settings: Mapping, setup: Setup, folder: Path, place: str = 'terminal') -> Setup:
    """The setup with somebody at `place` (see `ask_place`) who labels lives; answers are kept in `answers.jsonl` in `folder`.

    Raises:
      UsageError: if the run has no lives, or there is no such place.
    """
    if 'lives' not in settings:
        raise UsageError('--ask needs a run without resets, table [lives]; the config has none; add it or leave --ask out')
    return dataclasses.replace(setup, environment=_asking(settings, setup, folder, *ask_place(place)))


def _asking(settings, setup, folder, place, port) -> Environment:
    task, folder = _task(settings), Path(folder)
    asker = browser.announced(task, port) if place == 'web' else asking.terminal(task, picture=folder / 'question.png')
    expert = asking.remembered(obeying(asker), folder / 'answers.jsonl')
    return _labelled(settings, setup, expert)
