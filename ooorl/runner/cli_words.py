"""How the command line reads what was typed: numbers, and words that begin with a minus."""

import argparse
import re

from ooorl.validation import whole

_NEGATIVE = re.compile(r'-[0-9.].*')


class Parser(argparse.ArgumentParser):
    """Reads numbers as they are read everywhere (`validation.whole`); parsers of its commands are of its class."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register('type', int, whole)


def joined(words: list[str]) -> list[str]:
    """`--columns -1,0` as `--columns=-1,0`: argparse takes what begins with a minus and is no number for an option."""
    found = []
    for word in words:
        if found and found[-1].startswith('--') and _NEGATIVE.fullmatch(word):
            found[-1] += f'={word}'
        else:
            found.append(word)
    return found
