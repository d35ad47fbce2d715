"""A task without automatic resets: one long life after another, which only a request for help or the horizon ends.

`endless` makes an environment of a task. It knows nothing of policies: which of two is acting, for how long, since when help is
wanted and how often it was given are columns behind the observation (`COLUMNS`), and whoever acts says by one number behind the
action whether it wants help (greater than 0). So collection, learning and resuming are those of any other environment, and the
labels of a life are found when it ends and told to the next one.

Everything that costs somebody something is counted (`Counts`) in the state of the environment, which every checkpoint holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.signals.labelling import first_irreversible
from ooorl.types import Array, Environment, Key, Spec, State, Task, TimeStep, Transition
from ooorl.validation import check_choice, check_not_negative, check_positive

# Behind every observation. copy: which copy of the environment; mode: 0 forward, 1 backward; life: how many were ended before (-1
# in data sets); age: steps of this life; told: number of the first irreversible successor of the life before (its length where
# there is none); elapsed: steps altogether; left: requests for help that are left of the budget.
COLUMNS = ('copy', 'mode', 'life', 'age', 'told', 'elapsed', 'left')
WIDTH = len(COLUMNS)
NO_LIMIT = 2**20  # requests for help that are left where there is no budget


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When policies take turns and when a life ends."""

    horizon: int  # steps after which a life is ended anyway; also the longest life that is labelled
    patience: int = 0  # steps between the first wish for help and the reset; the wish cannot be taken back
    switch_every: int = 0  # steps after which the other policy takes over, also after success; 0: there is only one
    budget: int | None = None  # requests for help that are granted to each copy; none given: all
    seed_steps: int = 0  # the first life ends after so many steps, for the first labels; 0: it ends as any other
    end_at_success: bool = False  # whether success ends a life, as episodes end
    wish: str = 'help'  # what a wish of the forward policy does: 'help' or 'switch' to the backward one (Leave No Trace)

    def __post_init__(self):
        check_positive(horizon=self.horizon)
        check_not_negative(patience=self.patience, switch_every=self.switch_every, seed_steps=self.seed_steps)
        check_choice(('help', 'switch'), wish=self.wish)
        if self.patience >= self.horizon:
            raise UsageError(f'patience must be less than the horizon, {self.horizon}, or help never comes; got {self.patience}')
        if self.budget is not None:
            check_not_negative(budget=self.budget)
        if self.wish == 'switch' and not self.switch_every:
            raise UsageError("wish = 'switch' needs a backward policy; got switch_every = 0; give the steps of its turn")


class Counts(NamedTuple):
    """Running totals of a copy, int32.

    `help`: resets that were asked for; `horizon`: those that were not; `false_alarms`: asked for without having done anything
    irreversible; `label_queries`: states that somebody was asked about; `most_over_bound`: the most by which a life took more of
    them than 1 + ceil(log2 T), which is never above 0; `irreversible_steps`: steps that ended where there is no way back;
    `lost_lives`: lives that did something irreversible; `successes`: steps that met the task's success test.
    """

    help: Array
    horizon: Array
    false_alarms: Array
    label_queries: Array
    most_over_bound: Array
    irreversible_steps: Array
    lost_lives: Array
    successes: Array


class LifeState(NamedTuple):
    """One copy: the task's state and observation, and what `COLUMNS` say; `alarm` counts steps since help was first wanted, from
    -1; `clock` those of the policy that acts; `first` is the number of the first irreversible successor, -1 as long as there is
    none."""

    task: State
    observation: Array
    copy: Array
    mode: Array
    clock: Array
    alarm: Array
    life: Array
    age: Array
    told: Array
    first: Array
    elapsed: Array
    counts: Counts


def _columns(state, budget):
    left = (NO_LIMIT if budget is None else budget) - state.counts.help
    own = [state.copy, state.mode, state.life, state.age, state.told, state.elapsed, jnp.maximum(left, 0)]
    return jnp.stack(own).astype(jnp.float32)


def as_lives(transitions: Transition, *, backward: bool = False) -> Transition:
    """A data set as it fits `endless`: its rows belong to no life, and nobody wanted help; of the backward policy or not."""
    mark = jnp.zeros(WIDTH).at[COLUMNS.index('life')].set(-1.0).at[COLUMNS.index('mode')].set(float(backward))
    rows = transitions.reward.shape[0]
    marks = jnp.broadcast_to(mark, (rows, WIDTH))
    return transitions._replace(
        observation=jnp.concatenate([jnp.asarray(transitions.observation), marks], axis=-1),
        next_observation=jnp.concatenate([jnp.asarray(transitions.next_observation), marks], axis=-1),
        action=jnp.concatenate([jnp.asarray(transitions.action), -jnp.ones((rows, 1))], axis=-1),
    )


def column(observation: Array, name: str) -> Array:
    """A column of `COLUMNS`, `[...]`, from an observation of `endless`."""
    return observation[..., COLUMNS.index(name) - WIDTH]


def endless(
    task: Task,
    rules: Rules,
    *,
    num_envs: int = 1,
    new_goal: Callable[[State, Key], tuple[State, Array]] | None = None,
    returned: Callable[[Array], Array] | None = None,
) -> Environment:
    """A task whose lives end as `rules` say, `num_envs` side by side; a scripted expert knows what is irreversible.

    A row whose step succeeded has discount 0 where the task says that success ends it, and the life goes on. `truncated` marks
    the rows before another policy, another goal or another life.

    Args:
      task: knows what is irreversible, and that it is never left.
      rules: of lives.
      num_envs: copies.
      new_goal: `(task state, key) -> (task state, observation)`, applied whenever a policy begins its turn or has succeeded.
      returned: whether an observation is one where lives begin: it ends the backward policy's turn, and a turn that ends
        without it asks for help (Leave No Trace).

    Raises:
      UsageError: if nobody knows what is irreversible in the task, or it can be left.
    """
    if task.irreversible is None or not task.absorbing:
        raise UsageError('endless needs a task that knows what is irreversible and never leaves it; this one does not')
    parts = Parts(task, rules, new_goal, returned)

    def keys(key):
        return jax.random.split(key, num_envs)

    return Environment(
        spec=life_spec(task),
        horizon=rules.horizon,
        batch_shape=(num_envs,),
        compiled=True,
        reset=lambda key: jax.vmap(parts.born)(jnp.arange(num_envs, dtype=jnp.int32), keys(key)),
        step=lambda state, action, key: jax.vmap(parts.step)(state, action, keys(key)),
        scan=jax.lax.scan,
        irreversible=lambda observation: task.irreversible(observation[..., :-WIDTH]),
        counts=totals,
    )


def life_spec(task: Task) -> Spec:
    """Sizes of what stands in a life: columns behind the observation, a wish behind the action."""
    return Spec(observation_dim=task.spec.observation_dim + WIDTH, action_dim=task.spec.action_dim + 1)


def totals(state: LifeState) -> dict[str, Array]:
    """What all copies `[..., N]` together have cost, `[...]`; `interventions` are all resets, `most_over_bound` is a maximum."""
    counts = state.counts._asdict()
    most = counts.pop('most_over_bound').max(axis=-1)
    found = {name: value.sum(axis=-1) for name, value in counts.items()}
    return {**found, 'interventions': found['help'] + found['horizon'], 'most_over_bound': most}


class Lived(NamedTuple):
    """What a step did, before anything ends: `help`: a request is granted; `hard`: the life is over; `over`: the turn is."""

    reward: Array
    terminated: Array
    success: Array
    help: Array
    hard: Array
    over: Array


class Parts(NamedTuple):
    """The functions that a step of one copy is made of.

    `elsewhere`: the task is stepped and reset by somebody else, who puts what comes of it into `LifeState.task`; what ends
    the task then ends the life, and `fresh` in it is the observation where the next one begins.
    """

    task: Task
    rules: Rules
    new_goal: Callable | None
    returned: Callable | None
    elsewhere: bool = False

    def born(self, copy: Array, key: Key) -> tuple[LifeState, Array]:
        """The first life of a copy and its first observation."""
        state, observation = self.task.reset(key)
        zero = jnp.zeros((), jnp.int32)
        counts = Counts(*(zero for _ in Counts._fields))
        fresh = LifeState(state, observation, copy, zero, zero, zero - 1, zero, zero, zero, zero - 1, zero, counts)
        return fresh, jnp.concatenate([observation, _columns(fresh, self.rules.budget)])

    def advance(self, state: LifeState, action: Array, key: Key) -> tuple:
        """The step of the task: (state, reward, terminated, success, whether help is wanted)."""
        stepped, successor, reward, terminated, success = self.task.step(state.task, action[:-1], key)
        bad = self.task.irreversible(successor)
        first = jnp.where((state.first < 0) & bad, state.age, state.first)
        wish = action[-1] > 0
        if self.rules.wish == 'switch':
            wish = jnp.zeros_like(wish)
        alarm = jnp.where(state.alarm >= 0, state.alarm + 1, jnp.where(wish, 0, -1))
        counts = state.counts._replace(
            irreversible_steps=state.counts.irreversible_steps + bad,
            lost_lives=state.counts.lost_lives + ((state.first < 0) & bad),
            successes=state.counts.successes + success,
        )
        state = state._replace(
            task=stepped, observation=successor, first=first, alarm=alarm, counts=counts, age=state.age + 1,
            clock=state.clock + 1, elapsed=state.elapsed + 1,
        )
        return state, reward, terminated, success, action[-1] > 0

    def turn(self, state: LifeState, success: Array, wish: Array) -> tuple[Array, Array]:
        """Whether the turn of the policy that acts is over, and whether it failed to come home."""
        if not self.rules.switch_every:
            return success, jnp.zeros_like(success)
        late, back = state.clock >= self.rules.switch_every, jnp.zeros_like(success)
        if self.returned is not None:
            back = (state.mode == 1) & self.returned(state.observation)
        over = late | back | (success & (state.mode == 0))
        if self.rules.wish == 'switch':
            over = over | (wish & (state.mode == 0))
        failed = late & (state.mode == 1) & ~back if self.returned is not None else jnp.zeros_like(over)
        return over, failed

    def step(self, before: LifeState, action: Array, key: Key):
        """A step whose life, where it ends, is labelled by bisection, with its own truth as the answers."""
        state, lived = self.lived(before, action, key)
        found = first_irreversible(lambda j: (state.first >= 0) & (j >= state.first), state.age, self.rules.horizon)
        return self.closed(state, lived, found.high, found.queries, key)

    def lived(self, before: LifeState, action: Array, key: Key) -> tuple[LifeState, Lived]:
        """The step itself: nothing is ended or reset yet."""
        state, reward, terminated, success, wish = self.advance(before, action, jax.random.split(key, 3)[0])
        over, failed = self.turn(state, success, wish)
        left = column(jnp.append(state.observation, _columns(state, self.rules.budget)), 'left')
        help_ = ((state.alarm >= self.rules.patience) & (state.alarm >= 0) | failed) & (left > 0)
        last = state.age >= self.rules.horizon
        if self.rules.end_at_success:
            last = last | success
        if self.elsewhere:
            last = last | terminated
        if self.rules.seed_steps:
            last = last | (state.elapsed == self.rules.seed_steps)
        hard = help_ | last
        # A wish that will be granted suspends turns; where nothing is left to grant, life goes on.
        over = over & ((state.alarm < 0) | (left <= 0)) & ~hard
        return state, Lived(reward, terminated, success, help_, hard, over)

    def closed(self, state: LifeState, lived: Lived, first: Array, queries: Array, key: Key) -> tuple[LifeState, TimeStep]:
        """What follows: the next life where one ended, whose first irreversible successor was `first` (-1: nobody knows)."""
        _, goal_key, reset_key = jax.random.split(key, 3)
        ended = self.begun(state, first, queries, lived.help, reset_key)
        going = self.turned(state, lived.over, goal_key)
        after = jax.tree.map(lambda new, old: jnp.where(lived.hard, new, old), ended, going)
        timestep = TimeStep(
            observation=jnp.concatenate([after.observation, _columns(after, self.rules.budget)]),
            next_observation=jnp.concatenate([state.observation, _columns(state, self.rules.budget)]),
            reward=lived.reward,
            terminated=lived.terminated,
            truncated=(lived.hard | lived.over) & ~lived.terminated,
            success=lived.success,
        )
        return after, timestep

    def turned(self, state: LifeState, over: Array, key: Key) -> LifeState:
        """The state with the next policy acting where a turn is over, and a new goal where that is the forward one."""
        mode = jnp.where(over, 1 - state.mode, state.mode) if self.rules.switch_every else state.mode
        state = state._replace(mode=mode, clock=jnp.where(over, 0, state.clock))
        if self.new_goal is None:
            return state
        task, observation = self.new_goal(state.task, key)
        aimed = state._replace(task=task, observation=observation)
        # The forward policy's turn brings a new goal; a backward one keeps it until then.
        return jax.tree.map(lambda new, old: jnp.where(over & (mode == 0), new, old), aimed, state)

    def begun(self, state: LifeState, first: Array, queries: Array, help_: Array, key: Key) -> LifeState:
        """The first state of the next life."""
        task, observation = (state.task, state.task.fresh) if self.elsewhere else self.task.reset(key)
        bound = 1 + jnp.ceil(jnp.log2(jnp.maximum(state.age, 1))).astype(jnp.int32)
        counts = state.counts._replace(
            help=state.counts.help + help_,
            horizon=state.counts.horizon + ~help_,
            false_alarms=state.counts.false_alarms + (help_ & (state.first < 0)),
            label_queries=state.counts.label_queries + queries,
            most_over_bound=jnp.maximum(state.counts.most_over_bound, queries - bound),
        )
        zero = jnp.zeros((), jnp.int32)
        return state._replace(
            task=task, observation=observation, mode=zero, clock=zero, alarm=zero - 1, life=state.life + 1, age=zero,
            told=first, first=zero - 1, counts=counts,
        )
