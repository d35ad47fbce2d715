"""Evaluating the stored policies of a run directory."""

from pathlib import Path

import jax

from ooorl.errors import UsageError
from ooorl.reporting import tables, writers
from ooorl.runner import place, run_directory, steering
from ooorl.runner.prepare import prepare
from ooorl.training import checkpoint
from ooorl.training.evaluate import means, with_normalised
from ooorl.training.run import score


def evaluate_run(directory: Path, num_episodes: int, phase: str | None = None, video: Path | None = None) -> list[str]:
    """Plays `num_episodes` fresh episodes with the deployed policy of each finished phase and each seed.

    Writes every episode's numbers, `[seed][episode]` for each phase and metric, to `eval.json` in the directory and returns
    lines to print. `video` is a file for a film of one more episode, by the last of the phases and the first seed.

    Raises:
      UsageError: if the directory holds no run, no checkpoint, or no such phase, or if no film can be made.
    """
    directory = Path(directory)
    if num_episodes < 1:
        raise UsageError(f'eval needs at least one episode; got {num_episodes}; raise --episodes')
    settings = run_directory.read_config(directory, 'eval')
    writers.check_file(directory / 'eval.json')
    settings['evaluation']['num_episodes'] = num_episodes
    setup = prepare(settings).setup
    if setup.evaluation is None:
        raise UsageError(f'eval needs an environment; the run in {directory} names none; run it with --env ID')
    found = checkpoint.restore(directory / 'checkpoint', place.template_of(setup))
    if found is None:
        raise UsageError(f'eval needs a checkpoint; {directory} has none yet; let the run get further')
    finished, diverged = found[0][1], found[1].get('diverged', {})
    chosen = [p for p in setup.phases if p.name in finished and phase in (None, p.name)]
    if not chosen:
        raise UsageError(f'eval needs a finished phase; finished are {", ".join(finished) or "none"}; got {phase}')
    camera = None if video is None else _camera(video, settings)
    results = {p.name: _scores(setup, p, finished[p.name], diverged.get(p.name, ())) for p in chosen}
    writers.write_json(directory / 'eval.json', {'seeds': list(setup.seeds), 'num_episodes': num_episodes, 'phases': results})
    lines = [_line(name, scores) for name, scores in results.items()]
    if camera is not None:
        agent = steering.outward(chosen[-1].agent, steering.frozen(settings))
        lines.append(camera.film(agent, finished[chosen[-1].name], jax.random.key(setup.seeds[0])))
    return lines


def _camera(video, settings):
    from ooorl.runner.video import Camera

    environment = settings['environment']
    merged = {**environment['settings'], **settings['evaluation']['settings']}
    merged['observation_keys'] = settings['dataset'].get('observation_keys', ())
    return Camera(video, {**environment, 'settings': merged})


def _scores(setup, phase, state, lost):
    return with_normalised(score(setup, phase.agent, state, lost=lost), setup.score_range)


def _line(name, scores):
    """The numbers of a phase as the run's own tables print them."""
    seeds = {metric: values.tolist() for metric, values in means(scores).items()}
    order = sorted(seeds, key=[*tables.LABELS, *seeds].index)
    return f'{name}: ' + ', '.join(f'{tables.LABELS.get(m, m)} {tables.cell(m, seeds[m])}' for m in order)
