"""The `data` verbs of the command line: list, pull, verify, info, check, quality, convert, make."""

import json
import sys
import tempfile
import time
from pathlib import Path

from ooorl.errors import UsageError
from ooorl.validation import check_regions, decimal, whole


def add_parser(commands) -> None:
    """Adds `data` and its verbs to the subparsers of the command line."""
    data = commands.add_parser('data', help='list, fetch, check, convert and make data sets')
    verbs = data.add_subparsers(required=True, metavar='VERB')
    listing = verbs.add_parser('list', help='the tasks of the catalogue')
    listing.add_argument('pattern', nargs='?', default='*')
    listing.set_defaults(command=_list)

    pull = verbs.add_parser('pull', help="fetch the file of a task, or by Minari's package a data set of its")
    pull.add_argument('target', metavar='ID')
    pull.set_defaults(command=_pull)

    verify = verbs.add_parser('verify', help='whether files are what they were when first seen')
    verify.add_argument('target', nargs='?', default='*', metavar='PATTERN|FILE')
    verify.set_defaults(command=_verify)

    info = verbs.add_parser('info', help='what a file holds')
    info.add_argument('target', metavar='FILE')
    info.add_argument('--environment', '--env', metavar='ID', help="of the task, whose rewards OGBench's files need")
    _add_reading(info)
    info.set_defaults(command=_info)

    check = verbs.add_parser('check', help='what may be wrong with a file')
    check.add_argument('target', metavar='FILE')
    help_text = 'also replay recorded steps in this environment, and give its box to actions in its own units'
    check.add_argument('--environment', '--env', metavar='ID', help=help_text)
    _add_reading(check)
    check.set_defaults(command=_check)

    quality = verbs.add_parser('quality', help='what a data set is like: noise in actions, spread of steps, what another lacks')
    quality.add_argument('target', metavar='FILE|RUN_DIR')
    quality.add_argument('--against', metavar='FILE|RUN_DIR', help='another data set: how far it lies from this one')
    quality.add_argument('--columns', metavar='0,1', help='of the observation, to take distances in (all)')
    quality.add_argument('--neighbours', type=int, default=10, metavar='K', help='(10)')
    quality.add_argument('--rows', type=int, default=5_000, help='drawn to look for neighbours among (5000)')
    quality.add_argument('--seed', type=int, default=0, help='of the draws (0)')
    quality.add_argument('--episodes', action='store_true', help='score every episode as well, for choosing among them')
    quality.add_argument('--fit', action='store_true', help='also clone it: how much worse a policy knows episodes held out')
    quality.add_argument('--json', action='store_true', help='all numbers as JSON')
    quality.add_argument('--environment', '--env', metavar='ID', help="of the task, whose rewards OGBench's files need")
    _add_reading(quality)
    quality.set_defaults(command=_quality)

    convert = verbs.add_parser('convert', help='between D4RL HDF5, npz and Minari, by the extension of the target')
    convert.add_argument('source', metavar='FILE|RUN_DIR[:STORE]')
    convert.add_argument('target')
    convert.add_argument('--format', choices=('d4rl', 'npz', 'minari'))
    convert.add_argument('--clip-actions', action='store_true')
    _add_columns(convert)
    convert.add_argument('--environment', '--env', metavar='ID', help="of the task, whose rewards OGBench's files need")
    _add_reading(convert)
    convert.set_defaults(command=_convert)

    make = verbs.add_parser('make', help="make a data set by D4RL's or OGBench's recipes, e.g. maze2d-umaze, scene-play")
    make.add_argument('recipe', metavar='RECIPE')
    make.add_argument('--out', type=Path, required=True, metavar='FILE', help="HDF5, or .npz for OGBench's data")
    make.add_argument('--rows', type=int, metavar='N', help='how many rows (100000)')
    make.add_argument('--episodes', type=int, metavar='N', help="how many whole episodes instead, of OGBench's data")
    make.add_argument('--processes', type=int, metavar='N', help='threads or processes that share the work (one for each core)')
    make.add_argument('--seed', type=int, default=0, metavar='S', help='of everything that is drawn (0)')
    help_text = 'npz file of a behaviour policy; repeat it where the recipe names several'
    make.add_argument('--policy', action='append', default=[], metavar='PATH', help=help_text)
    help_text = 'leave out rows within RADIUS of (X, Y); may repeat'
    make.add_argument('--drop', action='append', default=[], metavar='X,Y,RADIUS', help=help_text)
    help_text = 'leave out rows in the box from (X, Y) to (X2, Y2); may repeat'
    make.add_argument('--drop-box', action='append', default=[], metavar='X,Y,X2,Y2', help=help_text)
    make.set_defaults(command=_make)


def _add_reading(parser):
    """What must be said of files that do not say it themselves."""
    parser.add_argument('--action-low', metavar='A[,B...]', help='lower bounds of the box that actions were recorded in')
    parser.add_argument('--action-high', metavar='A[,B...]', help='upper bounds')
    parser.add_argument('--observation-keys', metavar='A,B', help="of Minari's dict observations, LeRobot's features: which")


def _add_columns(parser):
    """What the columns of a log are."""
    for name in ('observations', 'actions', 'next-observations'):
        parser.add_argument(f'--{name}', metavar='A,B|PATTERN', help=f'of a CSV or Parquet file: columns of {name}, in order')
    single = {'reward': 'rewards', 'terminal': 'ends of the task', 'timeout': 'cuts', 'episode': "episodes' names"}
    for name, what in single.items():
        parser.add_argument(f'--{name}', metavar='COLUMN', help=f'of a CSV or Parquet file: the column of {what}')


def _columns(arguments):
    """Keyword arguments of `tabular.read` from these options; None where there are none."""
    found = {}
    for name in ('observations', 'actions', 'next_observations', 'reward', 'terminal', 'timeout', 'episode'):
        text = getattr(arguments, name)
        if text is not None:
            found[name] = [part.strip() for part in text.split(',')] if name.endswith('s') else text
    return found or None


def _reading(arguments):
    """Keyword arguments of `ooorl.data.load` from these options."""
    bounds = {}
    for side in ('low', 'high'):
        text = getattr(arguments, f'action_{side}')
        try:
            bounds[f'action_{side}'] = None if text is None else [decimal(part) for part in text.split(',')]
        except ValueError:
            raise UsageError(f'--action-{side} takes numbers, one or one for each action entry; got {text!r}') from None
    keys = arguments.observation_keys
    return {**bounds, 'observation_keys': None if keys is None else tuple(keys.split(','))}


def _labelling(arguments):
    """The labeller of `--environment`, where it is given."""
    name = arguments.environment
    return {} if name is None else {'labeller': _place(name, {}).labeller}


def _list(arguments):
    from rich.console import Console
    from rich.table import Table

    from ooorl.data.pull import list_tasks

    rows = list_tasks(arguments.pattern)
    if not sys.stdout.isatty():  # a program reads it: whole values, tab-separated
        for row in rows:
            print(*('' if value is None else value for value in row.values()), sep='\t')
        return
    table = Table(*rows[0].keys())
    for row in rows:
        table.add_row(*('' if value is None else str(value) for value in row.values()))
    Console().print(table)


def _pull(arguments):
    from ooorl.data.pull import pull

    print(pull(arguments.target, _show_bytes if sys.stderr.isatty() else None))


def _verify(arguments):
    from ooorl.data.pull import verified

    found = verified(arguments.target)
    for path, is_sound, told in found:
        print(f'{path}: {"sound" if is_sound else "WRONG"}, {told}')
    return 0 if all(is_sound for _, is_sound, _ in found) else 1


def _show_bytes(done, total):
    """One line that stays where it is; `total` is None where the server does not say."""
    of, end = ('', '') if total is None else (f' of {total / 1e6:,.0f}', '\n' if done >= total else '')
    print(f'\r{done / 1e6:,.0f}{of} MB', end=end, file=sys.stderr, flush=True)


def _collected(text):
    """What a run collected, where a text names the directory of one, with or without a store of it; else None."""
    from ooorl.runner import earlier_runs, run_directory

    if not run_directory.is_run(text):
        return None
    found, _, line = earlier_runs.load(text, None, 'a run as data')
    return earlier_runs.as_dataset(found, text, notes=(line,))


def _refuse_run(text):
    from ooorl.runner import run_directory

    if run_directory.is_run(text):
        raise UsageError(f'a data file is needed; {text} is a run; `ooorl data convert {text} FILE` writes what it collected')


def _info(arguments):
    from ooorl.data.check import info

    _refuse_run(arguments.target)
    for name, value in info(arguments.target, **_labelling(arguments), **_reading(arguments)).items():
        print(f'{name}: {value}')


def _check(arguments):
    from ooorl import data
    from ooorl.data.check import NOT_LOADED, check

    _refuse_run(arguments.target)
    name, settings = arguments.environment, {}
    if name is None:
        name, settings = data.environment_of(arguments.target)  # a file may say where it comes from
    place, unfit = None, None
    if name:
        try:
            place = _place(name, settings)
        except UsageError as error:
            unfit = error
    if unfit and arguments.environment:
        raise unfit
    known = {'environment_box': place and place.action_box, 'labeller': place and place.labeller}
    findings = check(arguments.target, **known, **_reading(arguments))
    if findings and findings[0].startswith(NOT_LOADED):
        raise UsageError(findings[0].removeprefix(NOT_LOADED))
    for finding in findings:
        print(finding)
    if place is not None:
        return _replay(arguments, place)
    print('not replayed: ' + (str(unfit) if unfit else 'the file names no environment; --environment ID gives one'))
    return 0


def _quality(arguments):
    from ooorl import data
    from ooorl.data.quality import page, quality

    try:
        columns = None if arguments.columns is None else tuple(whole(part) for part in arguments.columns.split(','))
    except ValueError:
        raise UsageError(f"--columns takes numbers such as '0,1'; got {arguments.columns!r}") from None
    reading = {**_labelling(arguments), **_reading(arguments), 'clip_actions': True}
    dataset = _collected(arguments.target) or data.load(arguments.target, **reading)
    other = arguments.against and (_collected(arguments.against) or data.load(arguments.against, **reading)).transitions
    found = quality(
        dataset.transitions, k=arguments.neighbours, rows=arguments.rows, seed=arguments.seed, columns=columns, against=other,
        by_episode=arguments.episodes,
    )  # fmt: skip
    told, lines = found._asdict(), page(dataset.name, found, arguments.against)
    if arguments.fit:
        from ooorl.runner import fitted_gap

        gap = fitted_gap.fitted_gap(dataset.transitions, seed=arguments.seed)
        told, lines = {**told, 'fitted_policy': gap._asdict()}, [*lines[:-1], fitted_gap.line(gap), lines[-1]]
    print(json.dumps(told, indent=2) if arguments.json else '\n'.join(lines))


def _replay(arguments, place):
    """Prints what a replay shows; 1 where something does not belong to the environment."""
    from ooorl.data.audit import audit

    try:
        found = audit(arguments.target, lambda: place.made, **_reading(arguments))
    except UsageError as error:
        if arguments.environment:
            raise
        print(f'not replayed in {place.name}: {error}')
        return 0
    for line in (found.verdict, *found.findings):
        print(line)
    return 1 if found.wrong else 0


def _place(name, settings):
    """The environment called `name`, to replay steps in."""
    from ooorl import envs
    from ooorl.runner.belonging import Place

    envs.make(name, **settings)  # says what is wrong with a name
    made = envs.single(name, **settings)
    if made is None:
        raise UsageError(f'--environment needs an environment whose states can be set; {name} is none; leave it out')
    return Place(name, made)


def _convert(arguments):
    from ooorl.data.convert import convert

    reading = {**_labelling(arguments), **_reading(arguments)}
    settings = {'format': arguments.format, 'clip_actions': arguments.clip_actions, 'table': _columns(arguments)}
    print(convert(_collected(arguments.source) or arguments.source, arguments.target, **settings, **reading))


def _make(arguments):
    from ooorl.data.make import drop_region, suffix

    out, discs = arguments.out, [_numbers('--drop', text, ('X', 'Y', 'RADIUS')) for text in arguments.drop]
    boxes = [_numbers('--drop-box', text, ('X', 'Y', 'X2', 'Y2')) for text in arguments.drop_box]
    check_regions(discs, boxes)
    if out.exists():
        raise UsageError(f'--out needs a new file; {out} exists already; remove it or choose another name')
    if not out.parent.is_dir():
        raise UsageError(f'--out needs a folder to write to; {out.parent} does not exist; create it first')
    if (discs or boxes) and suffix(arguments.recipe) == '.npz':
        raise UsageError(f"--drop and --drop-box are for data in D4RL's layout; {arguments.recipe} is not; leave them out")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='.make-', dir=out.parent) as drafts:
        draft = Path(drafts) / out.name
        manifest, new_rows = _made(arguments, draft)
        if discs or boxes:
            whole, draft = draft, Path(drafts) / 'rest' / out.name
            manifest = drop_region(whole, draft, discs=discs, boxes=boxes)
        # The manifest first: a data file under its own name is never without one.
        for name in (f'{draft}.json', draft):
            Path(name).replace(out.parent / Path(name).name)
    removed = f', {manifest["removed_rows"]:,} removed' if discs or boxes else ''
    speed = f'{new_rows / max(time.monotonic() - began, 1e-3):,.0f} rows/s'
    print(f'wrote {out}: {manifest["rows"]:,} rows{removed}, {speed}, sha256 {manifest["sha256"][:12]}; how: {out}.json')


def _made(arguments, draft):
    """The manifest, and how many rows were made now; a bar where episodes are made one by one."""
    from ooorl.data import shards
    from ooorl.data.make import RECIPES, make, named, num_rows, suffix
    from ooorl.reporting.writers import progress

    asked = {'rows': arguments.rows, 'episodes': arguments.episodes}
    common = {**asked, 'seed': arguments.seed, 'policies': arguments.policy, 'num_threads': arguments.processes}
    if suffix(arguments.recipe) != '.npz':
        manifest = make(arguments.recipe, draft, **common)
        return manifest, manifest['rows']
    parts = arguments.out.with_name(f'.{arguments.out.name}.parts')
    total = num_rows(arguments.recipe, **asked)
    found = shards.rows_in(parts, -(-total // RECIPES[named(arguments.recipe)].options['episode_rows']))
    with progress(arguments.recipe, total, completed=found, unit='rows', file=sys.stderr) as advance:
        manifest = make(arguments.recipe, draft, **common, advance=advance, parts=parts)
    return manifest, manifest['rows'] - found


def _numbers(option, text, names):
    try:
        numbers = tuple(decimal(part) for part in text.split(','))
    except ValueError:
        numbers = ()
    if len(numbers) != len(names):
        raise UsageError(f'{option} takes {",".join(names)}, {len(names)} numbers; got {text!r}')
    return numbers
