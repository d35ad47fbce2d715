"""The one exception that a user is meant to read.

Its message is one sentence that names what was needed, what was given and what to do; the command line
prints it without a traceback and exits with status 2.
"""


class UsageError(ValueError):
    """Bad input: a file, a config value or an argument that cannot be used as it is."""
