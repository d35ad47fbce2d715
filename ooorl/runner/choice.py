"""Which policy of a finished run to deploy: `ooorl choose RUN_DIR`."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner import place, run_directory
from ooorl.runner.prepare import make_environments, prepare
from ooorl.training import checkpoint, deployment
from ooorl.training.deployment import Candidate
from ooorl.training.programs import Programs
from ooorl.training.rounds import RunState, store_of


def choose_run(directory: Path, num_episodes: int) -> list[str]:
    """Compares the final policies of a run, each under one critic and in `num_episodes` episodes a seed.

    Candidates are the run's retrained policies and its explorer, not the arms that are there to be compared with; the critic is
    that of the last of them with a Q. Writes `choice.json` in the directory and returns lines to print.

    Raises:
      UsageError: if the directory holds no run, no finished policies, or nowhere to play.
    """
    directory = Path(directory)
    settings = run_directory.read_config(directory, 'choose')
    writers.check_file(directory / 'choice.json')
    if num_episodes < 1:
        raise UsageError(f'choose needs at least one episode for each candidate and seed; got {num_episodes}')
    setup = prepare(settings).setup
    found = checkpoint.restore(directory / 'checkpoint', place.template_of(setup))
    if found is None:
        raise UsageError(f'choose needs a checkpoint; {directory} has none yet; let the run get further')
    settings['evaluation']['num_episodes'] = num_episodes
    _, evaluation = make_environments(settings, len(setup.seeds))
    if evaluation is None:
        raise UsageError(f'choose needs an environment to play in; the run in {directory} names none; run it with --env ID')
    (_, finished, stores, *_), _ = found
    phases = [phase for phase in setup.phases if phase.name in finished and phase.num_updates and _is_final(phase.name)]
    if not phases:
        raise UsageError(f'choose needs finished phases that learn; {directory} has none yet; let the run get further')
    candidates = [Candidate(phase.name, phase.agent, finished[phase.name]) for phase in reversed(phases)]
    with_q = [phase for phase in phases if phase.agent.q is not None] or phases
    state = RunState(0, 0, None, finished, stores, {})
    observation = deployment.states_of(setup.dataset, store_of(setup, state, with_q[-1]), len(setup.seeds))
    programs = Programs(replace(setup, evaluation=evaluation))
    critic = next(one for one in candidates if one.name == with_q[-1].name)
    choice = deployment.choose(programs, candidates, critic, observation)
    result = {'seeds': list(setup.seeds), 'num_episodes': num_episodes, 'critic': critic.name, **as_plain(choice)}
    writers.write_json(directory / 'choice.json', result)
    return list(_lines(choice, critic.name, setup.seeds, num_episodes))


def _is_final(name):
    return name not in ('pretrain', 'random') and not name.startswith('plain-')


def as_plain(choice: deployment.Choice) -> dict:
    """A choice as lists of numbers and names."""
    tables = {name: getattr(choice, name) for name in ('values', 'returns', 'steps')}
    plain = {name: {one: np.asarray(own, float).tolist() for one, own in table.items()} for name, table in tables.items()}
    return {**plain, 'chosen': list(choice.chosen), 'by_value': list(choice.by_value)}


def _lines(choice, critic, seeds, num_episodes):
    for name, returns in choice.returns.items():
        value = f'value {choice.values[name].mean():.3g}' if name in choice.values else 'no value'
        yield f'{name}: return {returns.mean():.3g} in {num_episodes} episodes a seed, {value} under the critic of {critic}'
    steps = int(sum(own.sum() for own in choice.steps.values()))
    yield f'the trial took {steps:,} environment steps, {steps / len(seeds):,.0f} a seed, which count'
    for word, names in (('episodes', choice.chosen), ('the critic', choice.by_value)):
        if names:
            picked = ', '.join(f'{name} in {names.count(name)}' for name in dict.fromkeys(names))
            yield f'by {word}: {picked} of {len(seeds)} seeds'
