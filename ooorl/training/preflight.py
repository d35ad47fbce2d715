"""What about a run can be known to be wrong before it starts."""

import jax
import numpy as np

from ooorl.errors import UsageError
from ooorl.training.phases import Setup, round_sizes


def check(setup: Setup) -> None:
    """Everything about a run that can be known to be wrong before it starts.

    Raises:
      UsageError: naming the phase and what to change.
    """
    names = [phase.name for phase in setup.phases]
    if len({*names, *setup.given}) != len(names) + len(setup.given):
        raise UsageError(f'phases need names of their own; got {[*setup.given, *names]}')
    for number, phase in enumerate(setup.phases):
        if phase.start is not None and phase.start not in names[:number]:
            raise UsageError(f'phase {phase.name!r} starts from {phase.start!r}, which is not an earlier phase of this run')
        _check_continued(phase, setup.phases[:number])
        _check_sources(phase, (*setup.given, *names[:number]))
        if phase.num_env_steps and setup.environment is None:
            raise UsageError(f'phase {phase.name!r} collects data and needs an environment; none was given')
        _check_store(phase, number, setup)
        if setup.dataset is None and phase.num_updates and (phase.store is None or phase.online_limit == 0):
            raise UsageError(f'phase {phase.name!r} trains offline and needs a data set; none was given; give one')
        if phase.num_updates and 'source' in phase.agent.reads:
            _check_labels(phase, setup)
        if setup.dataset is not None and phase.num_updates and 'next_action' in phase.agent.reads:
            _check_order(phase, setup.dataset)
        if setup.dataset is not None and phase.num_updates and 'return_to_go' in phase.agent.reads:
            _check_returns(phase, setup.dataset)
        if phase.agent.window > 1:
            _check_chunk(phase, setup)
        if phase.num_updates and not phase.num_env_steps and phase.sampling.mix_end is not None:
            raise UsageError(
                f'mix_end is for phases that collect; phase {phase.name!r} collects nothing; remove it there, which leaves it in '
                "the sub-table online_sampling of a config's agent"
            )
        if phase.num_env_steps and phase.sampling.weighting != 'none':
            raise UsageError(
                f'weighting is for phases that collect nothing; phase {phase.name!r} does; set it to "none" there, in a '
                "config by the sub-table online_sampling of its agent"
            )
        round_sizes(phase, setup)


def _check_continued(phase, earlier):
    """Another agent may go on with a state that it could have made itself."""
    agents = [one.agent for one in earlier if one.name == phase.start and one.agent is not phase.agent]
    if not agents:
        return
    made, own = (jax.eval_shape(lambda agent=agent: agent.init(jax.random.key(0))) for agent in (*agents, phase.agent))
    if made != own:
        raise UsageError(
            f'phase {phase.name!r} continues {phase.start!r} with other settings, which must leave the state as it is (no other '
            'networks, policies, critics or schedules); got another state; change only what losses and acting read'
        )


def _check_store(phase, number, setup):
    """What a phase reads must be there: collected before it, or by an earlier run."""
    if phase.store in setup.stores:
        rows = setup.stores[phase.store].num_rows
        if phase.num_env_steps:
            raise UsageError(f'phase {phase.name!r} must not add to the store {phase.store!r} of an earlier run; give it its own')
        if phase.online_limit is not None and not 0 <= phase.online_limit <= rows:
            raise UsageError(
                f'phase {phase.name!r} needs a budget of 0 to {rows} rows, which the store {phase.store!r} of an earlier run '
                f'holds for every seed; got {phase.online_limit}; change retrain_at'
            )
    elif phase.store is not None and not any(p.num_env_steps for p in setup.phases[: number + 1] if p.store == phase.store):
        raise UsageError(f'phase {phase.name!r} reads the store {phase.store!r}, to which no phase before it adds')


def _check_labels(phase, setup):
    """Rows of the data set get labels that rows collected online teach: both must be there."""
    if setup.dataset is None or phase.store is None or phase.online_limit == 0:
        lacking = 'no data set' if setup.dataset is None else 'no store'
        raise UsageError(
            f'phase {phase.name!r} labels the rows of a data set by what was collected online (prior) and needs both; it has '
            f'{lacking}; take scheme online with a data set, or remove the sub-table prior'
        )


def _check_sources(phase, earlier):
    missing = [name for name in phase.sources if name not in earlier]
    if missing:
        raise UsageError(f'phase {phase.name!r} takes from {missing[0]!r}, which is not an earlier phase of this run')
    if bool(phase.sources) != (phase.agent.inherit is not None):
        raise UsageError(
            f'phase {phase.name!r} needs either sources and an agent that inherits from them, or neither; got sources '
            f'{list(phase.sources)}; schemes.distil makes such phases'
        )
    if phase.sources and phase.start is not None:
        raise UsageError(f'phase {phase.name!r} either continues {phase.start!r} or begins anew from sources; got both')


def _check_order(phase, dataset):
    """Next actions come from next rows: refused where most rows that have a successor are the last of their episode."""
    going = np.asarray(dataset.discount) > 0
    known = going & (np.asarray(dataset.extras['boundary']) == 0)
    if 'next_action' not in dataset.extras and 2 * known.sum() < going.sum():
        raise UsageError(
            f'phase {phase.name!r} reads the next action of every row and needs a data set in the order it was lived; '
            f'{int(known.sum())} of {int(going.sum())} rows are followed by the next of their episode; give such data, or set '
            'critic_cloning_weight to 0'
        )


def _check_returns(phase, dataset):
    """Returns are sums to the ends of episodes: refused where most of the sums are cut at once, or episodes have no ends."""
    going, last = np.asarray(dataset.discount) > 0, np.asarray(dataset.extras['boundary']) > 0
    cut = int((going & last).sum())
    if 2 * cut > going.sum():
        raise UsageError(
            f'phase {phase.name!r} learns from what followed each row and needs whole episodes; {cut} of {int(going.sum())} rows '
            'are cut off from the next; give data in the order it was lived, or take out what reads returns'
        )
    if not (last | ~going).any():
        raise UsageError(f'phase {phase.name!r} learns from returns to the ends of episodes; the data have none; mark them')


def _check_chunk(phase, setup):
    """A chunk that no episode is long enough for is never carried out, and never seen whole."""
    chunk, window = phase.agent.chunk, phase.agent.window
    places = {one.name: (one.horizon, chunk) for one in (setup.environment, setup.evaluation) if one is not None}
    if setup.dataset is not None and phase.num_updates:
        ends = np.flatnonzero(np.append(np.asarray(setup.dataset.extras['boundary'])[:-1] > 0, True))
        places['the data set'] = int(np.diff(ends, prepend=-1).max()), window
    for place, (steps, given) in places.items():
        if given > steps:
            name = 'chunk' if given == chunk else 'backup_steps'
            most = f'{name} must be at most {steps} in phase {phase.name!r}, the longest episode of {place}'
            raise UsageError(f'{most}; got {given}; lower it')
