"""Several devices at work on one agent: each has a share of the rows of every batch.

The other way, and the first choice, is a share of the seeds (`mapping.map_seeds`): seeds need nothing of each other, while rows
of a batch meet in every mean, whose sums devices exchange and take in another order.
"""

from dataclasses import replace

import jax

from ooorl import mapping
from ooorl.errors import UsageError
from ooorl.training.phases import Setup
from ooorl.types import Agent

SHARED = ('seeds', 'batch')  # what several devices share out


def over_batches(setup: Setup) -> Setup:
    """The run with all of its agents' batches shared out over this process's devices.

    Raises:
      UsageError: if a batch has no whole number of rows for each.
    """
    num, agents = jax.device_count(), {}
    for phase in setup.phases:
        if phase.num_updates and phase.sampling.batch_size % num:
            raise UsageError(
                f'run.devices = "batch" needs a batch_size that is a multiple of the {num} devices; phase {phase.name!r} has '
                f'{phase.sampling.batch_size}; change it, or share out the seeds'
            )
        agents.setdefault(id(phase.agent), shared_out(phase.agent))
    phases = tuple(replace(phase, agent=agents[id(phase.agent)]) for phase in setup.phases)
    return replace(setup, phases=phases, devices='batch')


def shared_out(agent: Agent) -> Agent:
    """The agent, each of whose updates lays the rows of its batch `[B, ...]` over all devices and its state on every one."""

    def update(state, batch, key):
        state, metrics = agent.update(mapping.everywhere(state), mapping.rows_over_devices(batch), key)
        return mapping.everywhere(state), mapping.everywhere(metrics)

    return replace(agent, update=update)
