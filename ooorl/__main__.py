"""`python -m ooorl` and the command `ooorl`: Ctrl-C ends the process quietly from the first moment on."""

import signal
import sys


def main() -> int:
    """Runs the command line; see `ooorl.runner.cli`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ooorl.runner.cli import main as run

    return run()


if __name__ == '__main__':
    sys.exit(main())
