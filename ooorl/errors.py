"""The one exception that a user is meant to read.

Its message is one sentence that names what was needed, what was given and what to do; the command line
prints it without a traceback and exits with status 2.
"""


class UsageError(ValueError):
    """Bad input: a file, a config value or an argument that cannot be used as it is."""


def told_by_callback(error: Exception) -> str | None:
    """The sentence of a `UsageError` in a function that a compiled program called, which jax hides in an error of its own.

    None where the error is another one.
    """
    found = [line.partition('UsageError: ')[2] for line in str(error).splitlines() if 'UsageError: ' in line]
    return found[-1] if found else None
