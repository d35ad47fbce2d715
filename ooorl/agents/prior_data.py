"""Prior data without rewards as targets of exploration: the data set's rows get the rewards that online rows teach, and a bonus.

    rows of the data set   r' = r_hat(s, a),   d' = sigmoid(m(s, a)),   bonus = scale * mean_k (f_k(s, a) - g_k(s, a))^2
    online rows            as they are
    models, online rows only   (r_hat - r)^2 + cross-entropy of m against d + mean_k (f_k - g_k)^2

r_hat and the mask m learn what a step earns and whether the task goes on, f a random network g: where f is wrong nobody has been
online. The mask matters as much as the reward: without it values leak through goals that the data pass. `label='gt'` keeps the
data's own rewards and ends, and with `scale=0` nothing is left but the agent; 'min' gives every row the smallest reward seen
online.

It learns from batches that hold both sources (`mix`), whose rows say where they are from in `batch.extras['source']`.

Source: Li et al., arXiv:2311.05067; constants of facebookresearch/ExPLORe@fff95eb. Deviations: the novelty model takes a step
with every update on the batch's online rows, where theirs takes one with each environment step on the newest row; no models wait
for a number of steps.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ooorl.agents.steps import descend, init_q, learner
from ooorl.nn.networks import mlp
from ooorl.nn.optimizers import adam
from ooorl.types import Agent, Array, Params, Spec, State, Transition
from ooorl.validation import check_choice, check_not_negative, check_positive
from ooorl.wrap import nested

ONLINE = 1.0  # `source` of rows that were collected
UNSEEN = float(np.finfo(np.float32).max)  # smallest reward before there was any


@dataclass(frozen=True, kw_only=True)
class PriorDataConfig:
    """Sub-table `prior` of an agent: how rows of the data set are labelled (ExPLORe)."""

    label: str = 'pred'  # reward and end of the data's rows: 'pred', as learnt online; 'gt', as stored; 'min', the smallest
    scale: float = 1.0  # of the novelty bonus on the data's rows
    hidden: tuple[int, ...] = (256, 256, 256)  # widths of all models
    num_features: int = 256  # outputs of the novelty model
    learning_rate: float = 3e-4  # Adam, all models

    def __post_init__(self):
        check_choice(('pred', 'gt', 'min'), label=self.label)
        check_not_negative(scale=self.scale)
        check_positive(num_features=self.num_features, learning_rate=self.learning_rate)


class PriorDataState(NamedTuple):
    """The agent's state, what is learnt online with its optimiser, the frozen random network, the smallest reward seen."""

    agent: State
    models: dict[str, Params]
    models_opt: optax.OptState
    target: Params
    lowest: Array


def prior_data(agent: Agent, spec: Spec, config: PriorDataConfig = PriorDataConfig()) -> Agent:
    """The agent learning from rows of the data set as the module says."""
    judge, novelty = mlp(config.hidden, 2), mlp(config.hidden, config.num_features)
    optimizer = adam(config.learning_rate)

    def init(key):
        agent_key, judge_key, novelty_key, target_key = jax.random.split(key, 4)
        models = {'judge': init_q(judge, spec, judge_key), 'novelty': init_q(novelty, spec, novelty_key)}
        own = learner('models', models, optimizer)
        target, lowest = init_q(novelty, spec, target_key), jnp.asarray(UNSEEN, jnp.float32)
        return PriorDataState(agent.init(agent_key), **own, target=target, lowest=lowest)

    def judged(models, batch):
        out = judge.apply(models['judge'], batch.observation, batch.action)
        return out[..., 0], out[..., 1]

    def errors(models, target, batch):
        known = novelty.apply(models['novelty'], batch.observation, batch.action)
        return ((known - novelty.apply(target, batch.observation, batch.action)) ** 2).mean(axis=-1)

    def learn(state, batch):
        online = (batch.extras['source'] == ONLINE).astype(jnp.float32)

        def mean(rows):
            return (online * rows).sum() / jnp.maximum(online.sum(), 1.0)

        def loss_fn(models):
            reward, mask = judged(models, batch)
            loss = {
                'prior/reward': mean((reward - batch.reward) ** 2),
                'prior/mask': mean(optax.sigmoid_binary_cross_entropy(mask, batch.discount)),
                'prior/novelty': mean(errors(models, state.target, batch)),
            }
            return sum(loss.values()), loss

        state, _, losses = descend(state, 'models', loss_fn, optimizer)
        lowest = jnp.where(online > 0, batch.reward, UNSEEN).min()
        return state._replace(lowest=jnp.minimum(state.lowest, lowest)), losses

    def relabelled(state, batch):
        old = batch.extras['source'] != ONLINE
        bonus = jnp.where(old, config.scale * errors(state.models, state.target, batch), 0.0)
        extras = {**batch.extras, 'bonus': batch.extras.get('bonus', 0.0) + bonus}
        if config.label == 'gt':
            return batch._replace(extras=extras)
        reward, mask = judged(state.models, batch)
        if config.label == 'min':
            reward = jnp.where(state.lowest < UNSEEN, state.lowest, reward)
        reward, discount = jnp.where(old, reward, batch.reward), jnp.where(old, jax.nn.sigmoid(mask), batch.discount)
        return batch._replace(reward=reward, discount=discount, extras=extras)

    def update(state, batch: Transition, key):
        state, losses = learn(state, batch)
        own, metrics = agent.update(state.agent, jax.lax.stop_gradient(relabelled(state, batch)), key)
        return state._replace(agent=own), metrics | losses

    return nested(
        agent,
        init=init,
        update=update,
        reads=tuple(dict.fromkeys((*agent.reads, 'source'))),
        sees=lambda state, batch: agent.sees(state.agent, relabelled(state, batch)),
    )
