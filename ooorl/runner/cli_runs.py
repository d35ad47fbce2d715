"""The verbs of the command line that look at runs: eval, choose, fqe, bound."""

import json
from pathlib import Path

from ooorl.errors import UsageError
from ooorl.validation import decimal, whole


def add_parsers(commands) -> None:
    """Adds the verbs to the subparsers of the command line."""
    evaluate = commands.add_parser('eval', help='evaluate the policies of a finished or interrupted run')
    evaluate.add_argument('run_dir', type=Path, metavar='RUN_DIR')
    evaluate.add_argument('--episodes', type=int, default=100, help='per seed and phase (100)')
    evaluate.add_argument('--phase', help='only this phase')
    evaluate.add_argument('--video', type=Path, metavar='FILE.gif|mp4', help='also film an episode, where it can be drawn')
    evaluate.set_defaults(command=_eval)

    choose = commands.add_parser('choose', help='compare the policies of a run: by a critic, and by a few episodes that count')
    choose.add_argument('run_dir', type=Path, metavar='RUN_DIR')
    choose.add_argument('--episodes', type=int, default=5, help='per seed and candidate (5)')
    choose.set_defaults(command=_choose)

    fqe = commands.add_parser('fqe', help='what policies are worth by their data alone, an estimate; the best run first')
    fqe.add_argument('run_dirs', type=Path, nargs='+', metavar='RUN_DIR')
    fqe.add_argument('--updates', type=int, default=20_000, help='of each critic (20000)')
    fqe.add_argument('--hidden', default='256,256', metavar='W,W', help='widths of the critics (256,256)')
    fqe.add_argument('--phase', help='whose policy; the one that a run is about where not said')
    fqe.set_defaults(command=_fqe)

    bound = commands.add_parser('bound', help='the best that recorded steps allow, by dynamic programming over a few columns')
    bound.add_argument('run', metavar='RUN_DIR[:STORE]')
    bound.add_argument('--columns', required=True, metavar='0,1', help='of the observation, that cells are made of')
    bound.add_argument('--bins', type=int, default=20, help='cells along each column (20)')
    bound.add_argument('--success', type=decimal, metavar='REWARD', help="least reward of a success (the run's success_reward)")
    bound.add_argument('--json', action='store_true', help='all numbers as JSON')
    bound.set_defaults(command=_bound)


def _eval(arguments):
    from ooorl.runner.evaluate_run import evaluate_run

    for line in evaluate_run(arguments.run_dir, arguments.episodes, arguments.phase, arguments.video):
        print(line)


def _fqe(arguments):
    from ooorl.runner.fqe import fqe_runs, highest

    try:
        hidden = tuple(whole(width) for width in arguments.hidden.split(','))
    except ValueError:
        raise UsageError(f'--hidden takes whole numbers, 256,256; got {arguments.hidden!r}') from None
    found = fqe_runs(arguments.run_dirs, num_updates=arguments.updates, hidden=hidden, phase=arguments.phase)
    for one in found:
        mean = sum(one.values) / len(one.values)
        ends = f' [{one.low:.4g}, {one.high:.4g}]' if one.low == one.low else ', no interval'
        doubt = '' if one.believable else '; NOT BELIEVABLE: more than the rewards of the data can add up to'
        print(f'{one.run}: estimated value {mean:.4g}{ends} over {len(one.values)} seeds, data {one.data_return:.4g}{doubt}')
    print('An estimate from data alone: discounted, of the first states of the data; it ranks policies of the same data.')
    best, num = highest(found)
    if num > 1:
        print(f'Highest of {num} policies, which flatters it: `ooorl export {best[0]} --phase {best[1]} --seed {best[2]}`')


def _choose(arguments):
    from ooorl.runner.choice import choose_run

    for line in choose_run(arguments.run_dir, arguments.episodes):
        print(line)


def _bound(arguments):
    from ooorl.runner.bound import as_plain, bound_run, said

    try:
        columns = tuple(whole(part) for part in arguments.columns.split(','))
    except ValueError:
        raise UsageError(f"--columns takes numbers such as '0,1'; got {arguments.columns!r}") from None
    found = bound_run(arguments.run, columns, arguments.bins, arguments.success)
    print(json.dumps(as_plain(found), indent=2) if arguments.json else '\n'.join(said(found)))
