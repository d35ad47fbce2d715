"""The verbs of the command line that work on what runs have left: table, export."""

from pathlib import Path


def add_parsers(commands) -> None:
    """Adds the verbs to the subparsers of the command line."""
    table = commands.add_parser('table', help='algorithms by tasks from sweeps and runs: html, md, tex, csv or json')
    table.add_argument('places', type=Path, nargs='+', metavar='DIR', help='of a sweep, of a run, of runs; or a results.json')
    table.add_argument('--out', type=Path, nargs='+', required=True, metavar='FILE', help='one or more; endings say formats')
    table.add_argument('--last', type=int, default=10, metavar='K', help='evaluations that the second protocol is a mean of (10)')
    table.set_defaults(command=_table)

    export = commands.add_parser('export', help='a policy of a run as a file: npz, stablehlo or onnx')
    export.add_argument('run_dir', type=Path, metavar='RUN_DIR')
    export.add_argument('--format', default='npz', metavar='npz|stablehlo|onnx', help='npz (default): with a runner in numpy')
    export.add_argument('--phase', help='whose policy; the one that the run is about where not said')
    export.add_argument('--seed', type=int, help='one of the run, its first where not said')
    export.add_argument('--out', type=Path, metavar='DIR', help='folder to write to (RUN_DIR/export/...)')
    export.set_defaults(command=_export)


def _table(arguments):
    from ooorl.reporting.comparison import compare
    from ooorl.reporting.comparison_pages import write
    from ooorl.runner.gathered import results_in
    from ooorl.validation import check_positive

    check_positive(last=arguments.last)
    comparison = compare([one for place in arguments.places for one in results_in(place, num_last=arguments.last)])
    for out in arguments.out:
        print(write(comparison, out))
    print('\n'.join(comparison.notes))


def _export(arguments):
    from ooorl.runner.export import export

    report = export(arguments.run_dir, arguments.format, arguments.out, phase=arguments.phase, seed=arguments.seed)
    print(f'wrote {report["folder"]}: phase {report["phase"]}, seed {report["seed"]}')
    print(f'largest difference over {report["observations"]}: {report["largest_difference"]:.3g}')
    for name, label in (('latency_ms', 'the file'), ('latency_ms_of_ooorl_load', 'ooorl.load')):
        print(f'one action with {label}: {report[name]["p50"]:.3g} ms (p50), {report[name]["p99"]:.3g} ms (p99)')
