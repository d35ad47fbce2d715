"""The `[lives]` table: a run whose environment is not reset after episodes, and whose agent asks for help instead."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ooorl import envs
from ooorl.errors import UsageError
from ooorl.runner import browser, signal_tables
from ooorl.runner.interruption import obeying
from ooorl.training import asking, interventions, lives
from ooorl.training.phases import Setup
from ooorl.types import Agent, Environment, Task
from ooorl.validation import check_choice, check_unit

SCHEMES = ('online', 'finetune')
TRIGGERS = ('never', 'detector', 'truth')


@dataclass(frozen=True, kw_only=True)
class LivesConfig(lives.Rules):
    """The `[lives]` table: no resets between episodes; schemes online and finetune, tasks that know what is irreversible."""

    trigger: str = 'detector'  # help is wanted where the detector of [agent.cautious] says so, where the 'truth' does, or 'never'
    threshold: float = 0.5  # of the detector's score
    imitate: str = 'all'  # what a policy that imitates is shown: 'all' rows, or the 'demonstrations' of the data set alone

    def __post_init__(self):
        super().__post_init__()
        check_choice(TRIGGERS, trigger=self.trigger)
        check_choice(interventions.IMITATED, imitate=self.imitate)
        check_unit(threshold=self.threshold)
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
    for name in ('chunk', 'normalise_observation', 'reranked'):
        if settings['agent'].get(name) not in (None, 1, False):
            raise UsageError(f'[lives] takes an agent of plain steps and observations; got {name}; remove it')
    if settings['agent'].get('cautious', {}).get('labels') == 'environment':
        raise UsageError("[lives] finds labels by asking; got cautious.labels = 'environment'; remove it")


def _task(settings) -> Task:
    name = settings['environment']['id']
    if name not in envs.TASKS:
        raise UsageError(f'[lives] needs a compiled task; {name} is none; use another or remove the table')
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in settings['environment']['settings'].items()}
    return envs.make_task(name, **given)


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
    environment = lives.endless(task, _rules(settings['lives']), num_envs=settings['environment']['num_envs'])
    agent, wander = _intervening(plain, settings, task), interventions.wandering(environment.spec)
    phases = tuple(dataclasses.replace(p, agent=agent if p.num_updates else wander) for p in setup.phases)
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
    return asking.asked(
        task, _rules(settings['lives']), expert, seeds=tuple(setup.seeds), num_envs=settings['environment']['num_envs']
    )
