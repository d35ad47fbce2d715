"""What a run consists of: phases, and what all of them share. Nothing here computes.

A phase trains one agent. It may collect experience into a named online store while it does, or read from such a store (or from
the beginning of it). `offline`, `finetune`, `online` and `ooo` return the phases of the usual schemes; a new scheme is a new
tuple.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ooorl.errors import UsageError
from ooorl.training.evaluate import ScoreRange
from ooorl.training.lengths import Rounds, divided
from ooorl.training.replay import ReplayState
from ooorl.training.sampling import Sampling
from ooorl.types import Agent, Environment, State, Transition
from ooorl.validation import check_not_negative, check_positive


@dataclass(frozen=True, eq=False, kw_only=True)
class Phase:
    """One stretch of training.

    Attributes:
      name: unique within the run.
      agent: what is trained. Two phases that share the agent object share its compiled programs.
      num_updates: gradient updates in this phase, per seed.
      num_env_steps: environment steps collected in this phase, per seed, over all copies; 0 means offline.
      cycle_steps: steps of every copy between two blocks of updates.
      start: name of an earlier phase whose final agent state is continued; None means freshly initialised.
      sources: names of earlier phases, or of states of earlier runs (`Setup.given`), whose final agent states the new agent
        is given (`Agent.inherit`).
      fresh_optimizers: begin with new optimiser states where `start` continues an agent; parameters are kept.
      store: the online store this phase adds to or reads from; None means the data set only.
      online_limit: read only the first so many rows of the store; None means all.
      sampling: how batches are drawn.
      note: one sentence for people.
    """

    name: str
    agent: Agent
    num_updates: int
    num_env_steps: int = 0
    cycle_steps: int = 1
    start: str | None = None
    sources: tuple[str, ...] = ()
    fresh_optimizers: bool = False
    store: str | None = None
    online_limit: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    note: str = ''

    def __post_init__(self):
        check_not_negative(num_updates=self.num_updates, num_env_steps=self.num_env_steps)
        check_positive(cycle_steps=self.cycle_steps)
        if self.num_env_steps and self.store is None:
            raise UsageError(f'phase {self.name!r} collects {self.num_env_steps} steps and needs a store to put them in')


class Collected(NamedTuple):
    """A store that an earlier run has filled: `rows` with leading axis `[S]`, collected by `streams` environments side by side.

    No episode in it is longer than `longest` steps.
    """

    rows: ReplayState
    streams: int
    longest: int

    @property
    def num_rows(self) -> int:
        """Rows that every seed has."""
        return int(np.min(self.rows.size))


@dataclass(frozen=True, eq=False, kw_only=True)
class Setup:
    """What all phases of a run share.

    Attributes:
      phases: in order.
      seeds: integers; S of them.
      dataset: offline transitions `[n]`, the same for every seed, or None.
      environment: to collect from; compiled `(N,)` or host `(S, N)`; None for purely offline runs.
      evaluation: to evaluate in; its last batch axis is the number of episodes; None for no evaluation.
      updates_per_round: updates (or cycles of collection) in one dispatch.
      evaluate_every: also evaluate whenever so many updates of a phase have passed; None means at its end only.
      seed_group: seeds mapped together on a CPU (see `mapping.map_seeds`).
      score_range: which score normalises to 0 and 100 and where, or None.
      stores: what earlier runs have collected, by name; phases may read them and add nothing.
      given: final agent states `[S]` of earlier runs, by the names that `Phase.sources` has for them.
      devices: what several devices share out: 'seeds', or the rows of each 'batch' (`spread.over_batches` makes such a setup).
    """

    phases: Sequence[Phase]
    seeds: Sequence[int]
    dataset: Transition | None = None
    environment: Environment | None = None
    evaluation: Environment | None = None
    updates_per_round: int = 1_000
    evaluate_every: int | None = None
    seed_group: int | None = None
    score_range: ScoreRange | None = None
    stores: Mapping[str, Collected] = field(default_factory=dict)
    given: Mapping[str, State] = field(default_factory=dict)
    devices: str = 'seeds'

    def streams(self, store: str | None) -> dict[str, int]:
        """How many environments filled each source of a phase with this store side by side."""
        if store in self.stores:
            return {'dataset': 1, 'online': self.stores[store].streams}
        return {'dataset': 1, 'online': 1 if self.environment is None else self.environment.batch_shape[-1]}


def _next_multiple(number, of):
    return -(-number // of) * of


def round_sizes(phase: Phase, setup: Setup) -> Rounds:
    """The rounds of a phase: at most `updates_per_round` updates each, cut where an evaluation is due.

    Every length of a round is a program of its own. So between two evaluations the rounds are equal where that makes them no
    shorter than half of `updates_per_round`; else the last one is shorter than the others.

    Raises:
      UsageError: if steps and updates do not divide into whole cycles, or an evaluation is due in the middle of one.
    """
    if not phase.num_env_steps:
        return divided(phase.num_updates, setup.updates_per_round, setup.evaluate_every)
    block = setup.environment.batch_shape[-1] * phase.cycle_steps
    if phase.num_env_steps % block:
        raise UsageError(
            f'num_env_steps of phase {phase.name!r} must be a multiple of num_envs x cycle_steps = {block}; '
            f'got {phase.num_env_steps}; make it {_next_multiple(phase.num_env_steps, block)}'
        )
    cycles = phase.num_env_steps // block
    if phase.num_updates % cycles:
        raise UsageError(
            f'num_updates of phase {phase.name!r} must be a multiple of its {cycles} cycles of collection; '
            f'got {phase.num_updates}; make it {_next_multiple(phase.num_updates, cycles)}, or change cycle_steps'
        )
    per_cycle, every = phase.num_updates // cycles, setup.evaluate_every
    if per_cycle and every is not None and every < phase.num_updates and every % per_cycle:
        raise UsageError(
            f'evaluate_every must be a multiple of the {per_cycle} updates of one cycle of phase {phase.name!r}; got {every}; '
            f'make it {_next_multiple(every, per_cycle)}'
        )
    most = max(1, setup.updates_per_round // max(per_cycle, 1))
    return divided(cycles, most, every // per_cycle if per_cycle and every is not None else None, per_cycle)


def env_steps(setup: Setup, phase_number: int, cycles: int) -> int:
    """Environment steps of experience, per seed, that a phase can have learnt from after so many cycles of its own."""
    phase = setup.phases[phase_number]
    if phase.store is None:
        return 0
    if phase.store in setup.stores:
        return setup.stores[phase.store].num_rows if phase.online_limit is None else phase.online_limit
    before = sum(p.num_env_steps for p in setup.phases[:phase_number] if p.store == phase.store)
    block = setup.environment.batch_shape[-1] * phase.cycle_steps
    total = before + cycles * block
    return total if phase.online_limit is None else min(total, phase.online_limit)


def rows_known(setup: Setup, phase: Phase) -> int:
    """How many of the first rows of its store the agent that a phase continues was told of in the phases before."""
    names, store = [p.name for p in setup.phases], phase.store
    while phase.start is not None:
        number = names.index(phase.start)
        phase = setup.phases[number]
        if phase.store == store:
            given = setup.stores.get(store)
            stored = given.num_rows if given else sum(p.num_env_steps for p in setup.phases[: number + 1] if p.store == store)
            return stored if phase.online_limit is None else min(stored, phase.online_limit)
    return 0


def offline(
    agent: Agent, *, num_updates: int, sampling: Sampling = Sampling(), store: str | None = None
) -> tuple[Phase, ...]:
    """Offline training on the data set, and on a store that an earlier run has filled."""
    return (Phase(name='offline', agent=agent, num_updates=num_updates, sampling=sampling, store=store),)


def retraining(
    exploit: Agent, *, num_updates: int, budgets: Sequence[int], sampling: Sampling = Sampling(), store: str = 'online'
) -> tuple[Phase, ...]:
    """`retrain@T` for each T of `budgets`: a new exploiter learns offline from the data set and the first T rows of the store."""
    return tuple(
        Phase(
            name=f'retrain@{budget}', agent=exploit, num_updates=num_updates, store=store, online_limit=budget, sampling=sampling
        )
        for budget in budgets
    )


def finetune(
    agent: Agent,
    *,
    offline_updates: int,
    num_env_steps: int,
    num_updates: int,
    cycle_steps: int = 1,
    fresh_optimizers: bool = False,
    sampling: Sampling = Sampling(),
    online_sampling: Sampling | None = None,
    store: str = 'online',
    online_agent: Agent | None = None,
) -> tuple[Phase, ...]:
    """Offline training, then collection and learning with the same agent and its whole state, optimisers included by default.

    `online_agent` is the same agent with settings that differ online; they must leave its state as it is.
    """
    online_sampling = online_sampling or sampling
    return (
        Phase(name='offline', agent=agent, num_updates=offline_updates, sampling=sampling),
        Phase(
            name='finetune', agent=online_agent or agent, num_updates=num_updates, num_env_steps=num_env_steps,
            cycle_steps=cycle_steps, start='offline', fresh_optimizers=fresh_optimizers, store=store, sampling=online_sampling,
        ),
    )


def online(
    agent: Agent,
    *,
    num_env_steps: int,
    num_updates: int,
    cycle_steps: int = 1,
    random_agent: Agent | None = None,
    random_steps: int = 0,
    sampling: Sampling = Sampling(),
    store: str = 'online',
) -> tuple[Phase, ...]:
    """Learning from collected data alone, after `random_steps` of `random_agent` without updates."""
    return (
        *_random(random_agent, random_steps, store),
        Phase(
            name='online', agent=agent, num_updates=num_updates, num_env_steps=num_env_steps, cycle_steps=cycle_steps,
            store=store, sampling=sampling,
        ),
    )


def _random(agent, num_steps, store):
    if not num_steps:
        return ()
    return (Phase(name='random', agent=agent, num_updates=0, num_env_steps=num_steps, store=store),)


def ooo(
    explore: Agent,
    exploit: Agent,
    *,
    pretrain_updates: int,
    num_env_steps: int,
    explore_updates: int,
    retrain_updates: int,
    retrain_at: Sequence[int] | None = None,
    cycle_steps: int = 1,
    random_agent: Agent | None = None,
    random_steps: int = 0,
    explore_sampling: Sampling = Sampling(),
    online_sampling: Sampling | None = None,
    retrain_sampling: Sampling = Sampling(),
    store: str = 'online',
) -> tuple[Phase, ...]:
    """Offline -> online -> offline.

    1. `pretrain`: the explorer learns offline, its bonus (if it has one) already on. Without `pretrain_updates`, and so without
       a data set, there is no such phase and the explorer begins anew.
    2. `random`: `random_steps` of `random_agent` without updates; none by default.
    3. `explore`: the same agent, optimisers included, collects `num_env_steps` more and learns.
    4. `retrain@T` for each T in `retrain_at`: a brand-new exploiter learns offline from the data set and the first T rows of the
       store, extrinsic reward only. The random steps are the store's first rows and count: T lies between 0 and
       `random_steps + num_env_steps`, the default. T = 0 retrains on the data set alone.

    Any two agents go together. Source: Mark et al., arXiv:2310.08558.
    """
    total = random_steps + num_env_steps
    budgets = (total,) if retrain_at is None else tuple(retrain_at)
    for budget in budgets:
        if not 0 <= budget <= total:
            raise UsageError(f'retrain_at needs budgets between 0 and random_steps + num_env_steps, {total}; got {budget}')
    pretrain = Phase(name='pretrain', agent=explore, num_updates=pretrain_updates, sampling=explore_sampling)
    return (
        *((pretrain,) if pretrain_updates else ()),
        *_random(random_agent, random_steps, store),
        Phase(
            name='explore', agent=explore, num_updates=explore_updates, num_env_steps=num_env_steps, cycle_steps=cycle_steps,
            start='pretrain' if pretrain_updates else None, store=store, sampling=online_sampling or explore_sampling,
        ),
        *retraining(exploit, num_updates=retrain_updates, budgets=budgets, sampling=retrain_sampling, store=store),
    )
