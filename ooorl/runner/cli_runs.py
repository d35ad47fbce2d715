"""The verbs of the command line that look at one run: eval, choose."""

from pathlib import Path


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


def _eval(arguments):
    from ooorl.runner.evaluate_run import evaluate_run

    for line in evaluate_run(arguments.run_dir, arguments.episodes, arguments.phase, arguments.video):
        print(line)


def _choose(arguments):
    from ooorl.runner.choice import choose_run

    for line in choose_run(arguments.run_dir, arguments.episodes):
        print(line)
