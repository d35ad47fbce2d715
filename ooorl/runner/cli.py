"""The command line: `ooorl demo | run | eval | choose | bound | report | table | export | explain | sweep | data | doctor`.

Bad input prints one sentence and exits with status 2; SIGTERM checkpoints and exits with 143, Ctrl-C with 130; a run that
diverges exits with 1.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import tomllib
from importlib import metadata, resources
from pathlib import Path

from ooorl.errors import UsageError, told_by_callback
from ooorl.runner import cli_data, cli_presets, cli_results, cli_runs, cli_sweep
from ooorl.runner.cli_words import Parser, joined


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status. Without `argv`, that of this process, the signals are its own, too."""
    if argv is None:
        _end_by_signals()
        _Process.began = _process_began()
        _find_modules_here()
        gc.set_threshold(20_000, 50, 100)  # traces leave little that only the collector finds; looking for it took a twentieth
    arguments = _parser().parse_args(joined(sys.argv[1:] if argv is None else argv))
    try:
        try:
            status = _command(arguments, argv is None)
        finally:
            if argv is None:
                _end_by_signals()
        if argv is None and arguments.command in (_demo, _run) and _alone():
            _leave(status)  # to unload jax takes a second, and all files are closed
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        status, sentence = _told(error)
        if status is None:
            raise
        print(f'ooorl: {sentence}', file=sys.stderr)
        given_up = _Asked.number is not None or any(thread.name == 'compile' for thread in threading.enumerate())
        if argv is None and given_up:  # in the middle of anything: libraries that are unloaded then have crashed
            _leave(status)  # nobody waits for what was given up
        return status


def _find_modules_here():
    """A config may name modules in the folder that the command is given in: after all others, since it holds anything."""
    with contextlib.suppress(OSError):
        if not {'', os.getcwd()} & set(sys.path):
            sys.path.append(os.getcwd())


def _version():
    try:
        return metadata.version('ooorl')
    except metadata.PackageNotFoundError:
        return 'of a checkout that is not installed'


def _alone():
    """Whether no other process, worker or host, waits for what this one does at its end."""
    from ooorl.mapping import num_hosts

    return not multiprocessing.active_children() and num_hosts() == 1


def _leave(status):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _command(arguments, whole_process):
    _default_compilation_cache()
    from ooorl.runner import session  # noqa: F401 - whatever takes long to load

    if whole_process:
        _from_now_on()
    return arguments.command(arguments) or 0


class _Process:
    """What is known of this process where the command line is all of it."""

    began = None  # by `time.monotonic`


def _process_began():
    """When this process began, before Python did; now where the system does not say."""
    try:
        with open('/proc/self/stat', 'rb') as file:
            ticks = int(file.read().rpartition(b')')[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK')
    except (OSError, AttributeError, ValueError, IndexError):
        age = 0.0
    return time.monotonic() - age


class _Asked(KeyboardInterrupt):
    """A signal, raised where the program stands; it is remembered, since code that it meets may make another error of it."""

    number = None


def _end_by_signals():
    """Nothing is written while modules are loaded or unloaded: the process simply ends, without a word from half of them."""
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _from_now_on():
    def ask(number, frame):
        del frame
        if number != signal.SIGALRM:
            _Asked.number = number
        signal.setitimer(signal.ITIMER_REAL, 1.0)  # callbacks of the garbage collector swallow what is raised in them: ask again
        raise _Asked

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, ask)


def _told(error):
    """Exit status and sentence for what ended a command; (None, None) for what nobody foresaw."""
    from ooorl.runner.interruption import Interrupted
    from ooorl.training.run import Diverged

    if isinstance(error, Interrupted):
        return 128 + error.number, 'stopped after a checkpoint; the same command with --resume goes on'
    if isinstance(error, KeyboardInterrupt) or _Asked.number is not None:
        return 128 + (_Asked.number or signal.SIGINT), 'stopped at once; whatever is on the disk is whole'
    if isinstance(error, UsageError):
        return 2, error
    if told_by_callback(error) is not None:
        return 2, told_by_callback(error)
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
        return 2, 'this command needs more memory than there is; lower its sizes or run fewer seeds at once'
    if isinstance(error, Diverged):
        return 1, error
    if isinstance(error, OSError):
        # Files are closed on the way out; what went wrong first says more than what that did on a full disk.
        first = error.__context__ if isinstance(error.__context__, UsageError) else None
        return 2, first or f'files must be readable and writable; {error}; see to it and try again'
    return None, None


def _parser():
    parser = Parser(prog='ooorl', description='Offline and online reinforcement learning in JAX.')
    parser.add_argument('--version', action='version', version=f'ooorl {_version()}')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    demo = commands.add_parser('demo', help='offline -> online -> offline on a small task; needs no data and no download')
    _run_options(demo, out='runs/demo')
    demo.set_defaults(command=_demo)

    run = commands.add_parser('run', help='run a preset or a config file')
    run.add_argument('config', type=Path, metavar='PRESET|CONFIG.toml', help='iql, iql@small, ... (`ooorl explain`); or a file')
    run.add_argument('--family', help='whose settings of a preset to take, where the task does not say it')
    run.add_argument('--like', metavar='ID', help='take the settings and reference scores of this task of the catalogue')
    help_text = 'D4RL HDF5, npz or Minari file; a LeRobot folder; a run directory; or a catalogue id such as hopper-medium-v2'
    run.add_argument('--dataset', metavar='PATH', help=help_text)
    run.add_argument('--env', metavar='ID', help="environment instead of the config's, or of the one that the data name")
    _run_options(run, out=None)
    run.set_defaults(command=_run)

    report = commands.add_parser('report', help='one HTML page from one or several run directories')
    report.add_argument('run_dirs', type=Path, nargs='+', metavar='RUN_DIR')
    report.add_argument('--out', type=Path, required=True, metavar='FILE.html')
    report.set_defaults(command=_report)

    doctor = commands.add_parser('doctor', help='say what this machine has and what is missing; of a run, what to set otherwise')
    doctor.add_argument('run_dir', type=Path, nargs='?', metavar='RUN_DIR', help='a run to look at instead')
    doctor.set_defaults(command=_doctor)
    cli_runs.add_parsers(commands)
    cli_presets.add_parsers(commands)
    cli_sweep.add_parsers(commands, main)
    cli_results.add_parsers(commands)
    cli_data.add_parser(commands)
    return parser


def _run_options(parser, out):
    parser.add_argument('--seeds', metavar='A:B', help="'0:8' is 0 to 7; '3,5' is 3 and 5")
    parser.add_argument('--out', type=Path, default=out, metavar='DIR', help='run directory (runs/<config name>)')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE', help='change a setting; may repeat')
    parser.add_argument('--store', metavar='RUN_DIR[:STORE]', help='retrain on what an earlier run collected, collecting nothing')
    parser.add_argument('--memory-limit', metavar='8GB', help='refuse the run before it starts if its plan needs more')
    parser.add_argument('--plan', action='store_true', help='print how much memory the run will take, and run nothing')
    parser.add_argument('--resume', action='store_true', help='go on from the last checkpoint in the run directory')
    parser.add_argument('--ask', metavar='terminal|web[:PORT]', help='who labels what is irreversible; of runs with [lives]')


def _demo(arguments):
    from ooorl.runner import config

    table = tomllib.loads(resources.files('ooorl.runner').joinpath('demo.toml').read_text(encoding='utf-8'))
    for override in arguments.set:
        config.override(table, override)
    return _start(table, arguments, arguments.out)


def _run(arguments):
    from ooorl.runner import chosen, config, presets

    if arguments.family is not None and not presets.is_preset(str(arguments.config)):
        raise UsageError(f'--family chooses among the settings of a preset; got {arguments.config}, which is none; leave it out')
    keys = [text.partition('=')[0].strip() for text in arguments.set]
    table = chosen.table_of(str(arguments.config), arguments.dataset, arguments.env, arguments.family, keys, arguments.like)
    for text in arguments.set:
        config.override(table, text)
    table = chosen.placed(table, arguments.dataset, arguments.env, keys, arguments.like)
    return _start(table, arguments, arguments.out or Path('runs') / str(table.get('name', arguments.config.stem)))


def _start(table, arguments, out):
    from ooorl.mapping import is_first_host
    from ooorl.reporting.remedies import remedies
    from ooorl.reporting.report import headline, phase_table
    from ooorl.reporting.writers import read_rows, times_text
    from ooorl.runner import config, hosts, session
    from ooorl.runner.cli_header import print_header
    from ooorl.runner.prepare import prepare

    if arguments.store is not None:
        from ooorl.runner import earlier_runs

        table.setdefault('run', {}).update(store=arguments.store, seeds=earlier_runs.seeds_of(arguments.store))
    if arguments.seeds is not None:
        table.setdefault('run', {})['seeds'] = arguments.seeds
    if arguments.memory_limit is not None:
        table.setdefault('run', {})['memory_limit'] = arguments.memory_limit
    _use_all_cores(config.resolve(table)['run'])
    hosts.join(config.resolve(table)['run']['hosts'])
    if arguments.plan:
        return _plan(prepare(table, fits=False))
    prepared = prepare(table)
    if arguments.ask:
        from ooorl.runner import without_resets

        prepared = prepared._replace(setup=without_resets.asked(prepared.config, prepared.setup, Path(out), arguments.ask))
    if is_first_host():
        print_header(prepared, out)
    summary = session.execute(prepared, Path(out), resume=arguments.resume, began=_Process.began)
    if summary is None:  # the first host tells
        return 0
    from rich.console import Console

    console = Console()
    console = console if console.is_terminal else Console(width=130)  # a log file is no narrow screen
    console.print(phase_table(summary))
    console.print(headline(summary))
    console.print(f'time: {times_text(summary["wall_seconds"], summary["times"])}', highlight=False)
    advice = len(remedies(summary, read_rows(Path(out) / 'metrics.jsonl')))
    if advice:
        console.print(f'{advice} of its settings should be looked at: ooorl doctor {out}', highlight=False)
    console.print(f'report: {Path(out) / "report.html"}', highlight=False)
    return _diverged(summary)


def _plan(prepared):
    """Prints the memory plan of a run; refuses what does not fit after that."""
    from ooorl.runner import memory, memory_plan

    allowed = prepared.config['run']['memory_limit']
    parts, limit = memory_plan.of_run(prepared.setup), memory.parsed(allowed) if allowed else None
    print('\n'.join(memory_plan.table(parts, limit)))
    memory.check(parts, limit)


def _diverged(summary):
    """The status of a run that has ended: 1 where a seed diverged, with a word on it."""
    from ooorl.training.finite import sentence

    lost = {phase['name']: phase['diverged'] for phase in summary['phases'] if phase.get('diverged')}
    if not lost:
        return 0
    name, seeds = next(iter(lost.items()))
    print(f'ooorl: {sentence(name, seeds)}; the other seeds are complete', file=sys.stderr)
    return 1


def _use_all_cores(settings):
    """Gives jax a CPU device per core, as far as there are seeds to share out, unless the user has decided about devices.

    The rows of batches are shared out over as many CPU devices as the user asks for.
    """
    import jax

    from ooorl.mapping import num_cores
    from ooorl.runner.seed_list import parse_seeds

    if 'xla_force_host_platform_device_count' not in os.environ.get('XLA_FLAGS', '') and 'JAX_NUM_CPU_DEVICES' not in os.environ:
        with contextlib.suppress(RuntimeError):  # a backend is already running: somebody else decides
            seeds = len(parse_seeds(settings['seeds'])) if settings['devices'] == 'seeds' else 1
            jax.config.update('jax_num_cpu_devices', min(num_cores(), seeds))


def _report(arguments):
    from ooorl.reporting.report import report

    print(report(arguments.run_dirs, arguments.out))


def _doctor(arguments):
    from ooorl.runner.doctor import diagnose, of_run

    lines, healthy = diagnose() if arguments.run_dir is None else (of_run(arguments.run_dir), True)
    print('\n'.join(lines))
    return 0 if healthy else 1


def _default_compilation_cache():
    """Keeps compiled programs between processes, unless the user has already said where or that not."""
    if 'JAX_COMPILATION_CACHE_DIR' in os.environ or 'JAX_ENABLE_COMPILATION_CACHE' in os.environ:
        return
    import jax

    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'ooorl' / 'programs'
    jax.config.update('jax_compilation_cache_dir', str(cache))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.05)


if __name__ == '__main__':
    sys.exit(main())
