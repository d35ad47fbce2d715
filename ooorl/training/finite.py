"""Numbers that are not finite, looked for once a round: an environment's end the run, an agent's mark its seed as diverged.

A diverged seed is computed on beside the others, since all of them are one program, but nothing of it is reported any more: its
rows hold `finite` = 0 and no other number, and its scores are missing. Phases that continue its agent or read what it collected
have it diverged from their start. The other seeds' numbers do not depend on it.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.errors import UsageError
from ooorl.training.cycles import FINITE
from ooorl.training.phases import Phase, Rounds, Setup, env_steps
from ooorl.training.programs import Programs
from ooorl.training.replay import ReplayState
from ooorl.training.rounds import RunState


class Diverged(ArithmeticError):
    """Every seed's parameters or metrics stopped being finite; the message names the phase and the seeds."""


def sentence(phase_name: str, seeds, updates: int | None = None) -> str:
    """What is said of seeds that diverged."""
    by = '' if updates is None else f' by update {updates}'
    return (
        f'training needs finite numbers; phase {phase_name!r} produced others{by} for seeds {list(seeds)}; '
        'lower the learning rate, bound the values, or check the rewards'
    )


def inherited(setup: Setup, number: int, diverged: Mapping) -> tuple[int, ...]:
    """Seeds that have diverged before phase `number` begins: in the phase that it continues, or while filling its store."""
    phase, lost = setup.phases[number], set()
    for earlier in setup.phases[:number]:
        reads = phase.store is not None and phase.online_limit != 0 and earlier.num_env_steps and earlier.store == phase.store
        if reads or earlier.name in (phase.start, *phase.sources):
            lost |= set(diverged.get(earlier.name, ()))
    return tuple(sorted(lost))


def judged(programs: Programs, state: RunState, phase: Phase, sizes: Rounds, metrics: Mapping) -> RunState:
    """The state after a round, with the seeds that diverged in it noted.

    Args:
      programs: of the run.
      state: after the round.
      phase: whose round it was.
      sizes: its rounds.
      metrics: of the round, `[S]` each.

    Raises:
      UsageError: if an environment gave a number that is not finite.
      Diverged: if no seed is left.
    """
    seeds, known = programs.setup.seeds, set(state.diverged.get(phase.name, ()))
    _, cycles = sizes[state.round - 1]
    lost = _from_rows(programs, state, phase, cycles, known) if cycles else set()
    for name, values in jax.device_get(metrics).items():
        fine = np.isfinite(values) & ((values == 1.0) if name == FINITE else True)
        lost |= {seeds[number] for number in np.flatnonzero(~fine).tolist()}
    if not lost - known:
        return state
    every = tuple(sorted(known | lost))
    if len(every) == len(seeds):
        raise Diverged(sentence(phase.name, every, sizes.done(state.round)[0]))
    return state._replace(diverged={**state.diverged, phase.name: every})


def _from_rows(programs, state, phase, cycles, known):
    """Seeds whose new rows hold an action that is not finite."""
    setup, store = programs.setup, state.stores[phase.store]
    num = cycles * phase.cycle_steps * setup.environment.batch_shape[-1]
    # In one group: going through groups would copy the stores.
    mapped = programs.over_seeds(lambda one: _first_bad(one, num), (0,), together=True)
    first = jax.device_get(programs.call(('bad rows', num, store.storage.reward.shape), mapped, store))
    lost = set()
    for number in np.flatnonzero(first >= 0).tolist():
        if setup.seeds[number] in known:
            continue
        row = jax.tree.map(lambda leaf, at=(number, int(first[number])): np.asarray(leaf[at]), store.storage)
        if np.isfinite(row.observation).all() and not np.isfinite(row.action).all():
            lost.add(setup.seeds[number])
        else:
            raise UsageError(_blame(setup, state, row, number, int(first[number])))
    return lost


def _first_bad(store: ReplayState, num: int):
    """Which row is the first of the newest `num` with a number that is not finite; -1 where none is."""
    begin = store.size - num
    rows = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, begin, num), store.storage)
    fine = [jnp.isfinite(leaf).reshape(num, -1).all(axis=-1) for leaf in jax.tree.leaves(rows)]
    bad = ~jnp.stack(fine).all(axis=0)
    return jnp.where(bad.any(), begin + jnp.argmax(bad), -1)


def _blame(setup, state, row, number, index):
    copies = setup.environment.batch_shape[-1]
    named = {'an observation': row.observation, 'a reward': row.reward, 'an observation after a step': row.next_observation}
    what, value = next((what, value) for what, value in named.items() if not np.isfinite(value).all())
    bad = np.atleast_1d(value)[~np.isfinite(np.atleast_1d(value))][0]
    step = (index - env_steps(setup, state.phase, 0)) // copies + 1
    where = f', copy {index % copies} of {copies},' if copies > 1 else ''
    return (
        f'finite numbers were needed; {setup.environment.name}{where} gave {what} of {bad} in step {step} of phase '
        f'{setup.phases[state.phase].name!r}, seed {setup.seeds[number]}; mend the environment or use another'
    )


def mask_scores(programs: Programs, agent_state, scores: Mapping, lost=()) -> dict[str, np.ndarray]:
    """Scores `[S, episodes]` with NaN for the seeds `lost` and those whose agent's state holds a number that is not finite."""
    fine = ~np.isin(programs.setup.seeds, np.asarray(lost, np.int64))
    for leaf in jax.tree.leaves(agent_state):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            fine &= np.isfinite(np.asarray(leaf)).reshape(len(fine), -1).all(axis=-1)
    return {name: np.where(fine[:, None], value, np.nan) for name, value in scores.items()}
