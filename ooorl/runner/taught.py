"""`distil.teacher`: the policy of an earlier run, as the teacher of students that learn from the same data.

Whatever trained it: cloning, or an agent that moved a flow or diffusion policy by values, such as PA-RL's. Each seed's student
has the teacher of that seed. The earlier run is read when this one is prepared, also to go on with it or to evaluate it; loading
and exporting a student need it no more.
"""

from collections.abc import Mapping, Sequence

from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner import run_directory
from ooorl.types import State

PURPOSE = 'distil.teacher'


def with_table(settings: Mapping) -> Mapping:
    """The config with the table [teacher] of the run that it names, where it names one and does not have it yet.

    Raises:
      UsageError: where there is no such run, or the config has a [teacher] of its own.
    """
    text = _named(settings)
    if not text or ('teacher' in settings and settings['distil'].get('digest')):  # as it stands in a run's directory
        return settings
    if 'teacher' in settings:
        raise UsageError(f'{PURPOSE} brings the table [teacher] of its run; got another one beside {text}; remove one of them')
    directory, phase = run_directory.named(text)
    theirs = run_directory.read_config(directory, PURPOSE)
    own = {key: value for key, value in theirs[_table_of(theirs['run']['scheme'], phase)].items() if key != 'online'}
    return {**settings, 'teacher': own}


def given(settings: Mapping, seeds: Sequence[int], dataset) -> tuple[Mapping, dict[str, State]]:
    """The config with the digest of the teacher's parameters, and the teacher's final states `[S]` as `Setup.given`.

    Raises:
      UsageError: where the run has no such phase or not these seeds, was trained on other data, or has been trained anew since.
    """
    text = _named(settings)
    if not text:
        return settings, {}
    from ooorl.runner import deployed  # which prepares runs in turn
    from ooorl.runner.steering import digest_of

    directory, phase = run_directory.named(text)
    taught = deployed.finished(directory, phase or None, PURPOSE)
    _compare_data(directory, dataset)
    state = taught.of_seeds(seeds)
    found, known = digest_of(state), settings['distil']['digest']
    if known not in ('', found):
        raise UsageError(f'{PURPOSE} needs the policy that this run began with; {directory} has another now; restore it')
    return {**settings, 'distil': {**settings['distil'], 'digest': found}}, {'teacher': state}


def _named(settings):
    table = settings.get('distil')
    text = table.get('teacher', '') if isinstance(table, Mapping) else ''
    return text if isinstance(text, str) else ''


def _table_of(scheme, phase):
    if scheme == 'ooo':
        return 'exploit' if phase.removeprefix('plain-').startswith('retrain') or not phase else 'explore'
    return {'distil': 'teacher' if phase == 'teacher' else 'student'}.get(scheme, 'agent')


def _compare_data(directory, dataset):
    path = directory / 'summary.json'
    theirs = writers.read_json(path).get('dataset') if path.is_file() else None
    if not theirs:
        raise UsageError(f'{PURPOSE} needs a run with data and a summary; {directory} has none; let it end, or name another')
    rows = int(dataset.transitions.reward.shape[0]) if dataset is not None else 0
    if dataset is None or (theirs['sha256'], theirs['rows']) != (dataset.sha256, rows):
        ours = 'none' if dataset is None else f'{dataset.name}, {rows:,} rows, {dataset.sha256[:12]}'
        raise UsageError(
            f'a student learns from the data of its teacher, {theirs["name"]}, {theirs["rows"]:,} rows, '
            f'{str(theirs["sha256"])[:12]}; got {ours}; give that data set, or name another run'
        )
