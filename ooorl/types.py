"""The vocabulary of the project: everything else is built from these types.

Two kinds of type, and the kind tells which side of `jit` you are on:

* data that crosses `jit` is a `NamedTuple` of arrays (`Transition`, `TimeStep`, every agent's state);
* bundles of pure functions, and configs, are frozen dataclasses and never cross `jit`.

Shape letters used everywhere: B batch, E ensemble members, N samples or environments, O observation, A action, T time, S seeds, K
outputs of a value head. Ensemble first, then samples, then batch, then features: `[E, N, B, A]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array
Params = Any
State = Any
Metrics = dict[str, Array]


class Transition(NamedTuple):
    """One step of experience, or with leading axes a batch or a whole data set of them.

    Stored transitions are raw: rewards in the environment's units, no bonus, no shift, no normalisation.

    Attributes:
      observation: `[..., O]` float32.
      action: `[..., A]` float32, always in [-1, 1]; environment adapters rescale.
      reward: `[...]` float32, raw environment units.
      discount: `[...]` float32, 0 iff the MDP ended in this step. A time-out keeps 1. Not multiplied by gamma.
      next_observation: `[..., O]` the true successor, never the observation after a reset.
      extras: named columns `[...]`. Stored: `boundary` (1 on the last row of an episode, however it ended).
        Added when sampling: `return_to_go`, `discounted_horizon`, `next_action` `[..., A]` (NaN where unknown), `bonus`,
        `irreversible`, `floor`, `value_low`, `value_high`, `reward_low`, `reward_high`, `source` (0 data set, 1 online).
    """

    observation: Array
    action: Array
    reward: Array
    discount: Array
    next_observation: Array
    extras: dict[str, Array] = {}


class TimeStep(NamedTuple):
    """What an environment answers to an action; every field has the same leading axes.

    Attributes:
      observation: `[..., O]` what to act on next: the successor, or a reset observation where the episode ended.
      next_observation: `[..., O]` the true successor of the step, also where the episode ended.
      reward: `[...]` float32, raw.
      terminated: `[...]` bool, the MDP ended (discount 0).
      truncated: `[...]` bool, the time limit was reached and the MDP did not end (discount 1).
      success: `[...]` bool, the task's own success test on the successor; False where a task has none.
    """

    observation: Array
    next_observation: Array
    reward: Array
    terminated: Array
    truncated: Array
    success: Array


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Sizes an agent must know: `observation_dim` O and `action_dim` A. Actions live in [-1, 1]^A."""

    observation_dim: int
    action_dim: int


def as_optimised(before: Params, after: Params) -> Params:
    """The default `after_update`: what the optimiser has made."""
    del before
    return after


def no_facts(params: Params) -> Metrics:
    """The default `facts`: nothing to report."""
    del params
    return {}


def as_fitted(params: Params) -> Params:
    """The default `deployed`: the parameters being fitted."""
    return params


@dataclass(frozen=True, eq=False, kw_only=True)
class Policy:
    """Something that draws actions and can be fitted to actions.

    Losses and targets read the parameters as they are; acting reads `deployed(params)`, which differs where a policy keeps a
    slow copy of itself (`ooorl.policies.averaged`). Where `decode` is given, `sample` is `decode` of standard-normal noise.

    Attributes:
      init: `(key) -> params`.
      sample: `(params, observation[..., O], key, num) -> [num, ..., A]`.
      mode: `(params, observation[..., O], key) -> [..., A]`, the action to deploy; a sampler with no
        density may draw it.
      loss: `(params, observation[B, O], action[B, A], key) -> [B]`, one imitation loss a row, summed over A; the caller
        weights and averages.
      masks: whether `loss` takes a fifth argument, `known[B, A]`, 1 on the numbers of an action that are to be imitated and 0 on
        those to be left out; imitation of chunks that an episode's end cuts short needs it.
      decode: `(params, observation[..., O], noise[..., noise_dim]) -> [..., A]`, the action that this noise makes,
        differentiable in parameters and noise; None where draws are not made so. Whoever climbs Q through the action or
        steers its noise needs it.
      noise_dim: numbers that one draw takes: A for a deterministic map of noise to action, more where steps add noise.
      after_update: `(before, after) -> params`, applied to the parameters by every step of their optimiser.
      deployed: `(params) -> params`, the parameters to act with, in place of those being fitted.
      facts: `(params) -> metrics`, what the parameters themselves say that is worth a row of metrics.
    """

    init: Callable[[Key], Params]
    sample: Callable[[Params, Array, Key, int], Array]
    mode: Callable[[Params, Array, Key], Array]
    loss: Callable[[Params, Array, Array, Key], Array]
    decode: Callable[[Params, Array, Array], Array] | None = None
    noise_dim: int | None = None
    masks: bool = False
    after_update: Callable[[Params, Params], Params] = as_optimised
    deployed: Callable[[Params], Params] = as_fitted
    facts: Callable[[Params], Metrics] = no_facts


@dataclass(frozen=True, eq=False, kw_only=True)
class LikelihoodPolicy(Policy):
    """A policy over finitely many actions that knows the probability of each.

    Attributes:
      log_prob: `(params, observation[..., O], action[..., A]) -> [...]`, of the action that the given one is rounded to.
    """

    log_prob: Callable[[Params, Array, Array], Array]


@dataclass(frozen=True, eq=False, kw_only=True)
class DensityPolicy(Policy):
    """A policy that also knows the log-density of what it draws, which SAC-style updates need.

    Attributes:
      sample_and_log_prob: `(params, observation[..., O], key, num) -> ([num, ..., A], [num, ...])`,
        reparameterised: the gradient passes through the draw.
    """

    sample_and_log_prob: Callable[[Params, Array, Key, int], tuple[Array, Array]]


@dataclass(frozen=True, eq=False, kw_only=True)
class DenoisingPolicy(Policy):
    """A policy that guesses actions from noisy ones: every diffusion and every flow, seen alike.

    Draws follow dx / dsigma = (x - D(x, sigma)) / sigma from much noise to none, x being an action with noise of deviation sigma.

    Attributes:
      denoise: `(params, observation[..., O], x[..., A], sigma[...]) -> D[..., A]`, not clipped; all but x may lack leading axes.
      levels: the noise levels sigma that it was fitted at, most first; None: it can be asked at any sigma > 0.
      guesses: what its network puts out: 'noise', 'velocity', or 'edm' (the target of EDM's preconditioning).
      settings: the config that it was made from, which tells whether another network is of the same form; None: unknown.
    """

    denoise: Callable[[Params, Array, Array, Array], Array]
    levels: tuple[float, ...] | None
    guesses: str
    settings: Any = None


@dataclass(frozen=True, eq=False, kw_only=True)
class ValueHead:
    """How a network's raw outputs become a value, and what loss draws them to a target.

    Attributes:
      num_outputs: K, how many raw outputs one value takes.
      value: `raw[..., K] -> [...]`.
      loss: `(raw[..., K], target) -> [...]`; a target may lack leading axes of raw (one for all members).
    """

    num_outputs: int
    value: Callable[[Array], Array]
    loss: Callable[[Array, Array], Array]


@dataclass(frozen=True, eq=False, kw_only=True)
class Critic:
    """A value learner without a policy of its own.

    Attributes:
      init: `(key) -> state`.
      update: `(state, batch, key, sampler) -> (state, metrics)`; `sampler(observation, key, num) -> [num, ..., A]`. A batch with
        the columns `candidates` and `next_candidates` gives those of its rows as a fourth argument of that name.
      q: `(state, observation[..., O], action[..., A]) -> [E, ...]`.
      target_q: the same with the slow parameters.
      reads: names of the columns it needs in `batch.extras`, as for `Agent`.
      weighs: whether its losses heed the weights of rows, as for `Agent`.
    """

    init: Callable[[Key], State]
    update: Callable[..., tuple[State, Metrics]]
    q: Callable[[State, Array, Array], Array]
    target_q: Callable[[State, Array, Array], Array]
    reads: tuple[str, ...] = ()
    weighs: bool = False


def sees_all(state: State, batch: Transition) -> Transition:
    """The default `sees`: what an update is given is what it learns from."""
    del state
    return batch


def ignore_data(state: State, transitions: Transition) -> State:
    """The default `observe`: stored data leave the state as it is."""
    del transitions
    return state


@dataclass(frozen=True, eq=False, kw_only=True)
class Signal:
    """Something that scores transitions: novelty, disagreement, irreversibility.

    Attributes:
      init: `(key) -> state`.
      update: `(state, batch, key) -> (state, score[B], metrics)`: learn from a minibatch and score it, in
        the order the signal's source prescribes.
      score: `(state, batch) -> [B]`, reads only.
      observe: `(state, transitions[n]) -> state`, called once with every transition that enters the store
        (the data set first, then whatever is collected); the default ignores it.
    """

    init: Callable[[Key], State]
    update: Callable[[State, Transition, Key], tuple[State, Array, Metrics]]
    score: Callable[[State, Transition], Array]
    observe: Callable[[State, Transition], State] = ignore_data


@dataclass(frozen=True, eq=False, kw_only=True)
class Agent:
    """A learner as pure functions over a pytree; the key is an argument and never part of the state.

    Attributes:
      init: `(key) -> state`.
      update: `(state, batch: Transition[B], key) -> (state, metrics)`; metrics are scalars under the same
        keys at every step.
      sample_action: `(state, observation[..., O], key) -> [..., A]`, to collect data; A' = chunk * A numbers instead of A, one
        step's after another's, where `chunk` is more than 1.
      best_action: `(state, observation[..., O], key) -> [..., A]`, to be evaluated; the same.
      observe: `(state, transitions[n]) -> state`, called once with every transition that enters the store;
        the default ignores it.
      reads: names of the columns it needs in `batch.extras`; `learn` computes `return_to_go`, `discounted_horizon`,
        `next_action`, `source`, `reward_low` and `reward_high` on demand, others must be stored in the data.
      sees: `(state, batch) -> batch`, the batch as it reaches the losses: every wrapper that edits batches says so here, which
        is how `ooorl.training.measure` knows what an agent is given.
      q: `(state, observation[..., O], action[..., A]) -> [E, ...]`, raw observations in, the agent's own reward units out; None
        where the agent has no Q. Of a chunk, where `chunk` is more than 1.
      chunk: h, steps that one decision covers (`ooorl.wrap.chunked`). More than 1: collection and evaluation carry out all h
        before they ask again.
      window: rows of the windows `[B, window]`, as of `replay.sample_windows`, that `update` is given; 1: plain rows `[B]`.
      inherit: `(state, sources) -> state`, a new state given the final states of the phases that its own phase takes from
        (`Phase.sources`); None where it takes from none.
      weighs: whether each row counts as much as `batch.extras['weight']` says, where that is there, in all losses that read its
        action or what came of it (`nn.losses.weighted`), and nothing of an action is imitated but what
        `batch.extras['known']` `[B, A]` marks.
      decode: `(state, observation[..., O], noise[..., noise_dim]) -> [..., A]`, the draw that given noise makes, so that somebody
        may choose the noise (`ooorl.envs.steered`); None where draws are not made so.
      noise_dim: how many numbers of normal noise one draw takes.
    """

    init: Callable[[Key], State]
    update: Callable[[State, Transition, Key], tuple[State, Metrics]]
    sample_action: Callable[[State, Array, Key], Array]
    best_action: Callable[[State, Array, Key], Array]
    observe: Callable[[State, Transition], State] = ignore_data
    reads: tuple[str, ...] = ()
    sees: Callable[[State, Transition], Transition] = sees_all
    q: Callable[[State, Array, Array], Array] | None = None
    chunk: int = 1
    window: int = 1
    inherit: Callable[[State, tuple[State, ...]], State] | None = None
    weighs: bool = False
    decode: Callable[[State, Array, Array], Array] | None = None
    noise_dim: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """One episode-based environment in pure JAX, for a single copy; it compiles and maps like any function.

    Attributes:
      spec: sizes.
      horizon: steps after which an episode is cut (a time-out).
      reset: `(key) -> (state, observation[O])`.
      step: `(state, action[A], key) -> (state, next_observation[O], reward, terminated, success)`; it never
        resets and knows no time limit.
      state_at: `(observation[O]) -> state`, where the observation is all of the state; None where it hides a part.
      irreversible: `(observation[..., O]) -> [...]` bool, whether there is no way back from there, for scoring and for scripted
        experts only; None where nothing is irreversible or nobody knows.
      absorbing: whether what is irreversible is never left, so that labels along an episode are 0 .. 0 1 .. 1.
      render: `(observation[O]) -> [H, W, 3]` uint8, a picture made with numpy; None where there is none.
    """

    spec: Spec
    horizon: int
    reset: Callable[[Key], tuple[State, Array]]
    step: Callable[[State, Array, Key], tuple[State, Array, Array, Array, Array]]
    state_at: Callable[[Array], State] | None = None
    irreversible: Callable[[Array], Array] | None = None
    absorbing: bool = True
    render: Callable[[Any], Any] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Environment:
    """Many copies of a task stepped together, with automatic resets: what collection and evaluation see.

    A compiled environment (`compiled=True`) is pure JAX and `scan` is `jax.lax.scan`. A host environment steps outside JAX: its
    functions take and give numpy arrays, its state is a pytree of such that is enough to go on bit for bit, and `scan` is a loop.

    Attributes:
      name, irreversible: for people; as of `Task`.
      held_out: `(observation[*batch_shape, O]) -> [*batch_shape]` bool, whether an episode that begins so is of a combination
        that training never saw (`data.splits`), which evaluation then tells apart; or None.
      counts: `(state) -> {name: [...]}`, running totals over the copies: rows of metrics; None where nothing is counted.
      spec: sizes.
      horizon: the time limit of an episode.
      batch_shape: leading axes of everything, `(N,)` or for several seeds on the host `(S, N)`.
      compiled: whether `reset` and `step` may be called under `jit`.
      reset: `(key) -> (state, observation[*batch_shape, O])`.
      step: `(state, action[*batch_shape, A], key) -> (state, TimeStep)`.
      scan: `(f, init, xs, length=None) -> (carry, ys)`; on the host also `until=`, which ends it early once `until(carry)`.
      turns: where few copies on the host play the episodes of many, for evaluation alone: `(first, environment)` of each turn,
        in which they stand in the places `first` and following of the last axis.
    """

    spec: Spec
    horizon: int
    batch_shape: tuple[int, ...]
    compiled: bool
    reset: Callable[[Key], tuple[State, Array]]
    step: Callable[[State, Array, Key], tuple[State, TimeStep]]
    scan: Callable[..., tuple[Any, Any]]
    name: str = 'the environment'
    irreversible: Callable[[Array], Array] | None = None
    held_out: Callable[[Array], Array] | None = None
    counts: Callable[[State], dict[str, Array]] | None = None
    turns: tuple[tuple[int, 'Environment'], ...] = ()
