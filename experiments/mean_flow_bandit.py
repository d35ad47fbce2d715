"""How far values pull one-step policies from the data where the answer is known: one decision, no observation, Q a straight line.

    python experiments/mean_flow_bandit.py

Actions of the data are draws of N(0, .15^2), the reward of one is c times the action. A policy of one call that minimises
E|a(z) - data(z)|^2 - Q(a(z)) moves by c / 2 and keeps its spread: `fql` with `distil_weight = 1`. OFQL's loss has these weights
(`cloning_weight = 1`, no normalisation), but imitates at times between which it does not act. `ends` has times near 0 and 1. Five
seeds, 4,000 updates at batch 128, networks of 2 x 64; the results' JSON is `mean_flow_bandit.json`.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.agents.fql import FQLConfig, fql
from ooorl.agents.td3 import TD3Config, td3
from ooorl.policies.mean_flow import MeanFlowConfig, mean_flow_policy
from ooorl.reporting import writers
from ooorl.types import Spec, Transition

UPDATES, BATCH, SEEDS, DRAWS, STD = 4_000, 128, 5, 2_000, 0.15
SLOPES = (0.0, 0.05)
SPEC, WIDTHS = Spec(observation_dim=1, action_dim=1), (64, 64)


def ofql(**times):
    """OFQL with the weights of `fql` below."""
    config = TD3Config(
        policy_delay=1, target_noise=0.0, policy_action='sample', policy_value='mean', cloning_weight=1.0, cloning_reduce='mean',
        hidden=WIDTHS,
    )  # fmt: skip
    return td3(SPEC, config, policy=mean_flow_policy(SPEC, MeanFlowConfig(hidden=WIDTHS, ema_rate=0.005, **times)))


AGENTS = {
    'fql': fql(SPEC, FQLConfig(hidden=WIDTHS, distil_weight=1.0)),
    'ofql': ofql(),
    'ofql, ends': ofql(time_mean=0.0, time_std=3.0),
}


def trained(agent, slope, key):
    """Draws `[DRAWS]` of the policy, and the slope of what its critic has learnt between -.3 and .3."""
    init_key, update_key, act_key = jax.random.split(key, 3)

    def step(state, key):
        data_key, key = jax.random.split(key)
        action, nothing = STD * jax.random.normal(data_key, (BATCH, 1)), jnp.zeros((BATCH, 1))
        rows = Transition(nothing, action, slope * action[:, 0], jnp.zeros(BATCH), nothing, {})
        return agent.update(state, rows, key)[0], None

    state, _ = jax.lax.scan(step, agent.init(init_key), jax.random.split(update_key, UPDATES))
    ends = agent.q(state, jnp.zeros((2, 1)), jnp.array([[-0.3], [0.3]])).mean(axis=0)
    return agent.best_action(state, jnp.zeros((DRAWS, 1)), act_key)[:, 0], (ends[1] - ends[0]) / 0.6


def main():
    """Trains, prints and writes all cases."""
    found = {}
    for name, agent in AGENTS.items():
        for slope in SLOPES:
            keys = jax.random.split(jax.random.key(0), SEEDS)
            draws, learnt = map(np.asarray, jax.jit(jax.vmap(lambda key: trained(agent, slope, key)))(keys))  # noqa: B023
            rows = {'mean': draws.mean(axis=1), 'std': draws.std(axis=1), 'slope_of_q': learnt}
            found[f'{name}, c = {slope}'] = {key: [float(f'{one:.4g}') for one in values] for key, values in rows.items()}
            print(name, slope, {key: values.mean().round(3) for key, values in rows.items()}, flush=True)
    writers.write_json(Path(__file__).resolve().parent / 'results' / 'mean_flow_bandit.json', found)
    return 0


if __name__ == '__main__':
    sys.exit(main())
