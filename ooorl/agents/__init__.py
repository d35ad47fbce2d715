"""Agents: losses and an update, one algorithm a file, and the one table of their names.

Adding an algorithm touches its file, one line of `ALGORITHMS`, one row of the conformance test and one config.
"""

import importlib
import typing
from collections.abc import Callable
from typing import NamedTuple

from ooorl.agents.bc import BCConfig, bc
from ooorl.agents.calql import CalQLConfig, calql
from ooorl.agents.iql import IQLConfig, iql
from ooorl.agents.odice import ODICEConfig, odice
from ooorl.agents.prdc import PRDCConfig, prdc
from ooorl.agents.sac import SACConfig, sac
from ooorl.agents.td3 import TD3Config, td3
from ooorl.errors import UsageError
from ooorl.types import Agent


class Algorithm(NamedTuple):
    """A frozen config dataclass, every field with a default, and the builder `(spec, config, **seams) -> Agent`."""

    config: type
    builder: Callable[..., Agent]


ALGORITHMS = {
    'bc': Algorithm(BCConfig, bc),
    'iql': Algorithm(IQLConfig, iql),
    'td3': Algorithm(TD3Config, td3),
    'sac': Algorithm(SACConfig, sac),
    'calql': Algorithm(CalQLConfig, calql),
    'odice': Algorithm(ODICEConfig, odice),
    'prdc': Algorithm(PRDCConfig, prdc),
}


def algorithm(name: str) -> Algorithm:
    """The algorithm of that name, or for `module:builder` the one that an installed module of yours holds.

    The config of such a builder is what its second parameter is annotated with.

    Raises:
      UsageError: if there is none.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    module, colon, attribute = name.partition(':')
    if not colon:
        raise UsageError(f'agent must be one of {", ".join(ALGORITHMS)}, or module:builder for one of yours; got {name!r}')
    try:
        builder = getattr(importlib.import_module(module), attribute)
        hints = typing.get_type_hints(builder)
    except Exception as error:  # noqa: BLE001 - importing somebody's module may raise anything
        raise UsageError(f'agent {name!r} could not be imported ({error!r}); install the module, or mend the name') from None
    config = next((kind for parameter, kind in hints.items() if parameter not in ('spec', 'return')), None)
    if not hasattr(config, '__dataclass_fields__'):
        raise UsageError(f'agent {name!r} needs a builder (spec: Spec, config: Config) with Config a dataclass; got {builder!r}')
    return Algorithm(config, builder)
