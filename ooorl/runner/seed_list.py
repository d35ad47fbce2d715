"""Seeds as people write them."""

from ooorl.errors import UsageError
from ooorl.validation import whole

MOST_SEEDS = 10_000


def parse_seeds(text: str) -> tuple[int, ...]:
    """'0:8' is 0 to 7; '3,5' is 3 and 5.

    Raises:
      UsageError: if it is neither, or names no seed.
    """
    try:
        if ':' in text:
            low, high = (whole(part) for part in text.split(':'))
            seeds = range(low, high) if high - low > MOST_SEEDS else tuple(range(low, high))
        else:
            seeds = tuple(whole(part) for part in text.split(','))
    except ValueError:
        seeds = ()
    if len(seeds) > MOST_SEEDS:
        raise UsageError(f'seeds must be at most {MOST_SEEDS}; got {len(seeds)} with {text[:40]!r}; run them in several runs')
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**32 or len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds must look like '0:8' or '3,5', from 0 to 2**32 - 1 and without repeats; got {text!r}")
    return seeds
