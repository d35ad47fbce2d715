"""A classification head against the returns of the data, worked out by hand."""

import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.runner.head_support import check_heads
from ooorl.types import Transition


def data_of(reward, discount, boundary):
    rows = np.zeros((len(reward), 1), np.float32)
    columns = (np.array(values, np.float32) for values in (reward, discount))
    return Transition(rows, rows, *columns, rows, {'boundary': np.array(boundary, np.float32)})


# -1, then 4 at the end: -1 + .5 * (-1 + .5 * 4) = -.5 and 1 and 4; the second episode is cut: -1.5, -1.
DATA = data_of([-1, -1, 4, -1, -1], [1, 1, 0, 1, 1], [0, 0, 1, 0, 1])


def table(low, high, **agent):
    return {'agent': {'agent': 'iql', 'gamma': 0.5, 'head': {'low': low, 'high': high}, **agent}}


@pytest.mark.parametrize(('config', 'fits'), [
    (table(-1.5, 4.0), True),
    (table(-1.4, 4.0), False),
    (table(-1.5, 3.9), False),
    (table(-3.0, 8.0, reward={'scale': 2.0, 'shift': 0.0}), True),
    (table(-3.0, 7.9, reward={'scale': 2.0, 'shift': 0.0}), False),
    (table(-3.0, 3.0, reward={'scale': 1.0, 'shift': -1.0}), True),  # -2 + .5 * -2 and 4 - 1
    (table(-1.0, 2.0, bounds={'low': -1.0, 'high': 2.0}), True),
    (table(-1.0, 4.0, terminal_reward=-1.0), True),  # every -1 ends what is before it
    ({'agent': {'agent': 'parl', 'critic': {'gamma': 0.9}, 'head': {'low': -1.8, 'high': 4.0}}}, False),
    ({'agent': {'agent': 'parl', 'critic': {'gamma': 0.9}, 'head': {'low': -1.9, 'high': 4.0}}}, True),
    ({'agent': {'agent': 'iql', 'gamma': 0.5}}, True),
])  # fmt: skip
def test_a_head_holds_the_returns_or_is_refused(config, fits):
    if fits:
        check_heads(config, DATA)
    else:
        with pytest.raises(UsageError, match=r'\[agent.head\] must hold the discounted returns of the data, from'):
            check_heads(config, DATA)
