"""Agents that live without resets: they act, learn from the labels of lives that are over, and ask for help.

`intervening` makes one agent of a forward policy, if wanted a backward one, and a detector of what cannot be taken back, for the
environments of `training.lives`; any scheme of `training.phases` then is reset-free learning, and nothing about running, storing
or resuming is new. A trigger is a function `(state, observation[..., O], columns[..., WIDTH], key) -> bool [...]`: help is
wanted.

Source: Xie et al., "When to Ask for Help", NeurIPS 2022, arXiv:2210.10765 (PAINT); Sharma et al., "A State-Distribution Matching
Approach to Non-Episodic RL", ICML 2022, arXiv:2205.05212 (MEDAL); Eysenbach et al., "Leave no Trace", ICLR 2018,
arXiv:1711.06782. Different from PAINT's release: the detector learns on from every batch instead of from scratch at every reset;
forward and backward critics learn from all rows, whoever acted; only success ends a value, and no turn and no request does.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.signals.labelling import UNKNOWN
from ooorl.signals.reversibility import Detector, verdict, visited
from ooorl.training.lives import WIDTH, column
from ooorl.types import Agent, Array, Key, Signal, Spec, State, Transition
from ooorl.validation import check_choice
from ooorl.wrap import penalised, with_extras

IMITATED = ('all', 'demonstrations')
NOTHING = Signal(init=lambda key: (), update=lambda s, b, k: (s, jnp.zeros_like(b.reward), {}), score=lambda s, b: 0.0)
Trigger = Callable[[State, Array, Array, Key], Array]


class InterveningState(NamedTuple):
    """`told` `[copies, lives]`: number of the first irreversible successor of each life, -1 where the life is not judged. States
    of agents and detectors that there are not are empty."""

    forward: State
    backward: State
    detector: State
    discriminator: State
    told: Array


def never(state: State, observation: Array, columns: Array, key: Key) -> Array:
    """No help: lives end at their horizon."""
    del state, columns, key
    return jnp.zeros(observation.shape[:-1], bool)


def when_detected(detector: Detector, threshold: float = 0.5) -> Trigger:
    """Where the detector's score exceeds the threshold; an unfitted one never does."""

    def trigger(state, observation, columns, key):
        del columns, key
        flat = observation.reshape(-1, observation.shape[-1])
        return (verdict(detector, state.detector, visited(flat), threshold) == 1).reshape(observation.shape[:-1])

    return trigger


def when_true(irreversible: Callable[[Array], Array]) -> Trigger:
    """The oracle: as soon as it has happened."""
    return lambda state, observation, columns, key: irreversible(observation)


def value_of(agent: Agent, state: State, observation: Array, key: Key, draws: int = 10) -> Array:
    """`[...]`: mean over draws of the policy of the smallest Q of the members."""
    actions = jax.vmap(lambda k: agent.sample_action(state, observation, k))(jax.random.split(key, draws))
    return jax.vmap(lambda action: agent.q(state, observation, action).min(axis=0))(actions).mean(axis=0)


def when_worthless(agent: Agent, threshold: float) -> Trigger:
    """Where the forward value (`value_of`) is below the threshold."""
    return lambda state, observation, columns, key: value_of(agent, state.forward, observation, key) < threshold


def when_value_drops(agent: Agent, reset: Array, threshold: float) -> Trigger:
    """Where the forward value lies more than the threshold below that of the reset observation `[O]`."""

    def trigger(state, observation, columns, key):
        del columns
        here_key, reset_key = jax.random.split(key)
        at_reset = value_of(agent, state.forward, jnp.asarray(reset, jnp.float32), reset_key)
        return at_reset - value_of(agent, state.forward, observation, here_key) > threshold

    return trigger


def when_no_way_back(backward: Agent, threshold: float) -> Trigger:
    """Where the backward agent's own value is below the threshold; with `Rules(wish='switch')` it then takes over."""
    return lambda state, observation, columns, key: value_of(backward, state.backward, observation, key) < threshold


def returning(returned: Callable[[Array], Array]) -> Callable:
    """Leave No Trace's reward of the backward agent: 1 and the end where lives begin, else 0."""

    def relabel(batch, state):
        del state
        back = returned(batch.next_observation).astype(jnp.float32)
        return batch._replace(reward=back, discount=1.0 - back)

    return relabel


def matching(discriminator: Detector) -> Callable:
    """MEDAL's reward of the backward agent: -log P(s' was visited by the backward policy and is no demonstration); nothing ends.

    The discriminator is a `reversibility_classifier` whose label is 1 on rows of the backward policy and 0 on those of the data
    set.
    """

    def relabel(batch, state):
        score = discriminator.score(state.discriminator, batch)
        reward = jnp.where(discriminator.fitted(state.discriminator), -jnp.log(score + 1e-6), 0.0)
        return batch._replace(reward=reward, discount=jnp.ones_like(reward))

    return relabel


def own_columns(batch: Transition) -> Transition:
    """A batch of `lives` as the task's own: without what stands behind observation and action."""
    return batch._replace(
        observation=batch.observation[..., :-WIDTH], action=batch.action[..., :-1],
        next_observation=batch.next_observation[..., :-WIDTH],
    )


def labels(told: Array, batch: Transition) -> Array:
    """`[B]` of a batch of `lives`: 1 from the first irreversible successor of its life on, 0 before, -1 where it is not judged
    yet.

    Rows of a data set keep their own column `label`, where they have one.
    """
    copy, life, age = (column(batch.observation, name) for name in ('copy', 'life', 'age'))
    first = told.at[copy.astype(jnp.int32), life.astype(jnp.int32)].get(mode='fill', fill_value=UNKNOWN)
    label = jnp.where(first < 0, UNKNOWN, (age >= first).astype(jnp.float32))
    return jnp.where(life < 0, batch.extras.get('label', jnp.full_like(label, UNKNOWN)), label)


def _demonstrated(rows, life, mode, turn):
    """The rows with `imitated` = 1 on the demonstrations of one policy and 0 on all others."""
    return with_extras(rows, imitated=((life < 0) & (mode == turn)).astype(jnp.float32))


def _wishing(forward, backward, trigger):
    """`sample_action` of `intervening`: the action of whose turn it is, and behind it whether help is wanted."""

    def sample_action(state, observation, key):
        keys = jax.random.split(key, 3)
        seen, columns = observation[..., :-WIDTH], observation[..., -WIDTH:]
        action = forward.sample_action(state.forward, seen, keys[0])
        if backward is not None:
            other = backward.sample_action(state.backward, seen, keys[1])
            action = jnp.where(column(observation, 'mode')[..., None] > 0, other, action)
        wish = jnp.where(trigger(state, seen, columns, keys[2]), 1.0, -1.0)
        return jnp.concatenate([action, wish[..., None]], axis=-1)

    return sample_action


def _looking(watch, judge):
    """`(state, batch, keys[2]) -> (state, rows, score[B], metrics)`: both detectors learn, and the rows are labelled."""

    def look(state, batch, keys):
        life, mode = column(batch.observation, 'life'), column(batch.observation, 'mode')
        rows = with_extras(own_columns(batch), label=labels(state.told, batch))
        watching, score, seen = watch.update(state.detector, rows, keys[0])
        visits = jnp.where(mode > 0, jnp.where(life < 0, UNKNOWN, 1.0), jnp.where(life < 0, 0.0, UNKNOWN))
        judging, _, judged = judge.update(state.discriminator, with_extras(rows, label=visits), keys[1])
        metrics = {f'detector/{name}': value for name, value in seen.items()}
        metrics |= {f'discriminator/{name}': value for name, value in judged.items()}
        known = rows.extras['label'] >= 0
        metrics |= {'privileged_labels': ((life < 0) & known).sum()}  # of data sets: nobody was asked for them
        metrics |= {'labelled': known.mean(), 'irreversible': (rows.extras['label'] == 1).mean()}
        return state._replace(detector=watching, discriminator=judging), rows, score, metrics

    return look


def intervening(
    forward: Agent,
    *,
    trigger: Trigger = never,
    detector: Detector | None = None,
    floor: float | None = None,
    backward: Agent | None = None,
    backward_reward: Callable | None = None,
    discriminator: Detector | None = None,
    imitate: str = 'all',
    copies: int = 1,
    lives: int = 4096,
) -> Agent:
    """One agent for the environments of `lives`.

    Every update gives one batch to all: the detector learns its labels, then scores it; both agents learn from it, with the floor
    in the place of what cannot be taken back (`wrap.cautious`) where one is given; the backward one with a reward of its own.

    Args:
      forward: made for the task's own sizes, as is `backward`.
      trigger: when help is wanted.
      detector: of irreversible successors; None: labels are found and counted, and nobody learns from them.
      floor: in reward units of both agents; None: no caution.
      backward: acts in its turns; None: the forward one does.
      backward_reward: `(batch, state) -> batch`: `matching` or `returning`.
      discriminator: of `matching`.
      imitate: what a policy that imitates is shown: 'all' rows, whoever acted and however it ended, or 'demonstrations', each
        policy its own (`as_lives`, `backward`); critics learn from all rows either way.
      copies: of the environment.
      lives: how many of each copy can be labelled; later ones stay unknown.
    """
    check_choice(IMITATED, imitate=imitate)
    shown = _demonstrated if imitate == 'demonstrations' else lambda rows, life, mode, turn: rows
    watch, judge = detector or NOTHING, discriminator or NOTHING
    look = _looking(watch, judge)

    def init(key):
        keys = jax.random.split(key, 4)
        back = () if backward is None else backward.init(keys[1])
        told = jnp.full((copies, lives), float(UNKNOWN))
        return InterveningState(forward.init(keys[0]), back, watch.init(keys[2]), judge.init(keys[3]), told)

    def update(state, batch, key):
        keys = jax.random.split(key, 4)
        life, mode = column(batch.observation, 'life'), column(batch.observation, 'mode')
        state, rows, score, metrics = look(state, batch, keys[:2])
        careful = rows if floor is None else penalised(rows, jax.lax.stop_gradient(score), floor)
        ahead, own = forward.update(state.forward, shown(careful, life, mode, 0), keys[2])
        metrics = own | metrics
        if backward is not None:
            rewarded = shown(backward_reward(careful, state), life, mode, 1)
            back, own = backward.update(state.backward, rewarded, keys[3])
            state = state._replace(backward=back)
            metrics |= {f'backward/{name}': value for name, value in own.items()}
        return state._replace(forward=ahead), metrics

    return Agent(
        init=init,
        update=update,
        sample_action=_wishing(forward, backward, trigger),
        # Deployed in the task itself, whose observations have no columns behind them.
        best_action=lambda state, observation, key: forward.best_action(state.forward, observation, key),
        observe=_observing(forward=forward, backward=backward, detector=detector, discriminator=discriminator),
        reads=tuple(dict.fromkeys((*forward.reads, *(backward.reads if backward else ())))),
        sees=lambda state, batch: forward.sees(state.forward, own_columns(batch)),
    )


def _observing(**members):
    """`Agent.observe` for all who are there: what became of earlier lives is told first, then all see the task's own rows."""

    def observe(state, transitions):
        state = state._replace(told=_told(state.told, transitions))
        rows = with_extras(own_columns(transitions), label=labels(state.told, transitions))
        return state._replace(
            **{name: one.observe(getattr(state, name), rows) for name, one in members.items() if one is not None}
        )

    return observe


def _told(told, transitions):
    """The table of lives with what collected rows say of the life before theirs; a first one has none, and its row is dropped."""
    copy, life, label = (column(transitions.observation, name) for name in ('copy', 'life', 'told'))
    place = jnp.where(life > 0, life - 1, told.shape[1]).astype(jnp.int32)
    return told.at[copy.astype(jnp.int32), place].set(label, mode='drop')


def wandering(spec: Spec) -> Agent:
    """Uniform actions that never ask for help, for the first steps; `spec` is that of the environment of lives."""

    def act(state, observation, key):
        del state
        action = jax.random.uniform(key, (*observation.shape[:-1], spec.action_dim), minval=-1.0, maxval=1.0)
        return action.at[..., -1].set(-1.0)

    return Agent(
        init=lambda key: {'unused': jax.random.uniform(key)}, update=lambda state, batch, key: (state, {}), sample_action=act,
        best_action=lambda state, observation, key: act(state, observation, key)[..., :-1],
    )
