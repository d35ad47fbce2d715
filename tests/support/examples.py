"""Checks of many examples that hypothesis finds; who runs one imports it, and not every process that reads the files."""


def for_all(check, num, kinds):
    """`check(**example)` for `num` examples of `kinds(strategies)`, a dict of strategies by argument."""
    from hypothesis import given, settings, strategies

    settings(max_examples=num, deadline=None)(given(**kinds(strategies))(check))()
