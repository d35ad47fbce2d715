"""An agent that diverges for some seeds and not for others, also for config files: `agent = "fragile:fragile"`."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ooorl.types import Agent, Spec


@dataclass(frozen=True, kw_only=True)
class FragileConfig:
    """The settings of `fragile`."""

    breaks_at: int = 3  # the update in which the weights become NaN
    share: float = 0.5  # of initial states that ever break
    gamma: float = 0.99  # beside the others, for the sampling



def breaks(key, share=0.5):
    """Whether the state drawn with this key will break."""
    return jax.random.uniform(key) < share


def fragile(spec: Spec, config: FragileConfig) -> Agent:
    """Acts by its weight, 0.5, which is NaN after `breaks_at` updates of a state that breaks."""

    def init(key):
        return {'weight': jnp.asarray(0.5), 'breaks': 1.0 * breaks(key, config.share), 'updates': jnp.zeros(())}

    def update(state, batch, key):
        del key
        updates = state['updates'] + 1
        broken = (state['breaks'] == 1) & (updates >= config.breaks_at)
        weight = jnp.where(broken, jnp.nan, state['weight'])
        return state | {'weight': weight, 'updates': updates}, {'reward': batch.reward.mean()}

    def act(state, observation, key):
        del key
        return jnp.broadcast_to(state['weight'], (*observation.shape[:-1], spec.action_dim))

    return Agent(init=init, update=update, sample_action=act, best_action=act)
