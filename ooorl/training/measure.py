"""What a phase's agent is given and what it believes, measured once a round: facts for `reporting.diagnostics` to reason from.

A few thousand rows are looked at: always the same ones of the data set, and of the online store the newest (whole episodes where
the window holds them). What the agent is given is these rows behind its wrappers (`Agent.sees`); a wrapper that edits batches
without `wrap.edited` or `sees` is invisible here. Rows of kind "diagnostics" hold, where known,

    mix/<source>                        share of a batch that comes from the source
    given/observation_mean, _size       mean and root mean square of the observations, of fixed rows (data set, else online)
    given/reward_scale, _shift          r' = scale r + shift
    given/terminal_kept, _added         share of rows of discount 0 that stay so; share of rows of discount 1 that become 0
    <source>/reward, reward_low, _high  mean of r'; range of the stored r
    <source>/num_ends, ends_stored, ends_given   episode ends looked at; their shares of discount 0 as stored and as given
    <source>/num_best, best_terminal    rows with the data set's highest reward; their share of discount 0 as given
    online/distance, online/outside     shift of the mean in standard deviations of the data, mean over columns; share of rows
                                        more than one range of the data outside of it
    match/share, difference, noise      share of online rows close to a row of the data; median of r' there minus r' of the row
                                        of the data; median size of the same difference inside the data
    q/<source>, q_minus_return/<source> mean Q; mean of Q minus the Monte-Carlo return, in the agent's reward units. Where a
                                        time limit cut the return, Q of the deployed action stands for the rest.
    q/lowest, q/highest                 smallest and largest r' over 1 - gamma, zero included: no value lies outside
    optimizer/...                       first round of a phase only: `should_be_fresh`, `steps_at_start`, and
                                        `growth_low`, `growth_high`: squared gradients of the round over the second moment that
                                        the optimiser began with, the smallest and largest over its Adams (beta2 = 0.999)

A bonus is part of Q and of its bounds, and not of the return.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.nn.optimizers import moments
from ooorl.training import learn, replay
from ooorl.training.phases import Phase
from ooorl.training.probe_rows import NUM_SPECIAL, Probe, dataset_probe, online_probe
from ooorl.training.rounds import Programs, RunState
from ooorl.types import Agent, Array
from ooorl.wrap import with_extras

NUM_MATCHED = 128  # rows compared with their nearest row of the data
BETA2 = 0.999
KEY_PURPOSE = 5


class Gauge:
    """Measures the rounds of one run."""

    def __init__(self, programs: Programs):
        self.programs = programs
        self._dataset_probes = {}
        self._before = None

    def begin(self, state: RunState, phase: Phase) -> None:
        """To be called before the first round of a phase: the round destroys what it starts from."""
        self._before = None if not phase.num_updates else self._moments(phase, state)

    def measure(self, state: RunState, phase: Phase) -> dict[str, np.ndarray]:
        """Facts `[S]` after a round of a phase, by column; NaN where unknown. Empty for phases without updates."""
        if not phase.num_updates:
            return {}
        setup, gamma = self.programs.setup, phase.sampling.gamma
        if setup.dataset is not None and gamma not in self._dataset_probes:
            self._dataset_probes[gamma] = dataset_probe(setup.dataset, gamma)
        store = None if phase.online_limit == 0 else state.stores.get(phase.store)
        if store is not None and phase.online_limit is not None:
            store = replay.take(store, phase.online_limit)  # outside of the program, which then serves every budget
        keys = self.programs.keys(state.phase, state.round, KEY_PURPOSE)

        def one(agent, store, key, probe, dataset):
            return facts(setup, phase, agent, probe, store, dataset, key)

        mapped = self.programs.over_seeds(one, (0, 0, 0, None, None))
        rows = None if store is None else store.storage.reward.shape
        name = ('measure', phase.agent, id(phase.sampling), rows)
        dataset = self.programs.dataset if phase.sampling.success_rows else None
        found = self.programs.call(name, mapped, state.agent, store, keys, self._dataset_probes.get(gamma), dataset)
        return {**jax.device_get(found), **self._optimizers(state, phase)}

    def _moments(self, phase, state):
        return jax.device_get(self.programs.call(('moments', phase.agent), jax.vmap(moments), state.agent))

    def _optimizers(self, state, phase):
        before, self._before = self._before, None
        if before is None or not before[0].shape[-1]:
            return {}
        (count, old), (later, new) = before, self._moments(phase, state)
        fresh = phase.start is None or phase.fresh_optimizers
        kept = BETA2 ** (later - count)
        with np.errstate(divide='ignore', invalid='ignore'):
            growth = np.where((count > 0) & (kept < 1), (new / old - kept) / (1.0 - kept), np.nan)
        num_seeds = len(count)
        known = {'should_be_fresh': np.full(num_seeds, float(fresh)), 'steps_at_start': count.max(axis=-1)}
        if np.isfinite(growth).all():
            known |= {'growth_low': growth.min(axis=-1), 'growth_high': growth.max(axis=-1)}
        return {f'optimizer/{name}': value for name, value in known.items()}


def facts(setup, phase: Phase, state, probe: Probe | None, store, dataset, key) -> Mapping[str, Array]:
    """The columns of the module's list for one seed, but for those of the optimiser."""
    agent, gamma = phase.agent, phase.sampling.gamma
    probes, sizes = {}, {}
    if probe is not None:
        probes['dataset'], sizes['dataset'] = probe, setup.dataset.reward.shape[0]
    if store is not None:
        best = None if probe is None else jnp.max(probe.rows.reward)
        streams, horizon = setup.environment.batch_shape[-1], setup.environment.horizon
        probes['online'], sizes['online'] = online_probe(store, streams, horizon, gamma, best), store.size
    low, high = _reward_range(probes)
    given = {name: _given(agent, state, p.rows, p, low, high) for name, p in probes.items()}
    found = _mix(phase.sampling, sizes, _wins(setup, phase.sampling, dataset, store))
    reference = next(iter(probes))
    found |= _transforms(agent, state, probes[reference], low, high)
    for name, p in probes.items():
        found |= {f'{name}/{k}': v for k, v in _rows(p, given[name]).items()}
        if agent.q is not None:
            found |= _values(agent, state, name, p, given[name], gamma, key)
    if agent.q is not None:
        rewards = jnp.concatenate([given[n].reward + given[n].extras.get('bonus', 0.0) for n in probes])
        weights = jnp.concatenate([jnp.maximum(jnp.maximum(p.uniform, p.ends), p.best) for p in probes.values()])
        least = jnp.where(weights > 0, rewards, 0.0).min(initial=0.0)
        most = jnp.where(weights > 0, rewards, 0.0).max(initial=0.0)
        found |= {'q/lowest': least / (1.0 - gamma), 'q/highest': most / (1.0 - gamma)} if gamma < 1 else {}
    if len(probes) == 2:
        found |= _shifted(probes, given) | _matched(probes, given)
    return found


def _reward_range(probes):
    low, high = jnp.inf, -jnp.inf
    for p in probes.values():
        here = jnp.maximum(jnp.maximum(p.uniform, p.ends), p.best) > 0
        low = jnp.minimum(low, jnp.where(here, p.rows.reward, jnp.inf).min())
        high = jnp.maximum(high, jnp.where(here, p.rows.reward, -jnp.inf).max())
    return low, high


def _given(agent: Agent, state, rows, probe, low, high):
    """The rows as the agent is given them, with every column it reads; the return moves with the reward."""
    columns = {'return_to_go': probe.returns, 'discounted_horizon': probe.horizon, 'reward_low': low, 'reward_high': high}
    columns = {name: jnp.broadcast_to(value, rows.reward.shape) for name, value in columns.items()}
    return agent.sees(state, with_extras(rows, **columns))


def _mean(values, weight):
    """Mean over the rows of weight 1; NaN where there is none."""
    return jnp.where(weight > 0, values, 0.0).sum() / jnp.where(weight.sum() > 0, weight.sum(), jnp.nan)


def _wins(setup, sampling, dataset, store):
    """Rows of each source that count as successes, where batches hold any by choice."""
    if not sampling.success_rows:
        return None
    streams = {'dataset': 1, 'online': setup.environment.batch_shape[-1] if setup.environment else 1}
    sources = {'dataset': dataset, 'online': store}
    return {n: learn.successes(s, streams[n], sampling).size for n, s in sources.items() if s is not None}


def _mix(sampling, sizes, wins):
    names = tuple(sizes)
    weights, _ = replay.shares(sampling.mix, names)
    stored = jnp.stack([jnp.asarray(size, jnp.float32) for size in sizes.values()])
    weights = stored if weights is None else weights * (stored > 0)
    share = weights / jnp.maximum(weights.sum(), 1e-30)
    if wins is not None:
        won = jnp.stack([jnp.asarray(wins[name], jnp.float32) for name in names])
        won = jnp.where(won.sum() > 0, won / jnp.maximum(won.sum(), 1.0), share)
        share = share + (won - share) * sampling.success_rows / sampling.batch_size
    return {f'mix/{name}': share[number] for number, name in enumerate(names)}


def _transforms(agent, state, p, low, high):
    """What the agent's wrappers do to rewards, ends and observations, from rows with these columns set by hand."""
    given = _given(agent, state, p.rows, p, low, high)
    raised = _given(agent, state, p.rows._replace(reward=p.rows.reward + 1.0), p, low, high)
    ended = _given(agent, state, p.rows._replace(discount=jnp.zeros_like(p.rows.discount)), p, low, high)
    going = _given(agent, state, p.rows._replace(discount=jnp.ones_like(p.rows.discount)), p, low, high)
    scale = _mean(raised.reward - given.reward, p.uniform)
    observation = given.observation
    found = {
        'observation_mean': _mean(observation.mean(axis=-1), p.uniform),
        'observation_size': jnp.sqrt(_mean((observation**2).mean(axis=-1), p.uniform)),
        'reward_scale': scale,
        'reward_shift': _mean(given.reward - scale * p.rows.reward, p.uniform),
        'terminal_kept': _mean(1.0 * (ended.discount == 0), p.uniform),
        'terminal_added': _mean(1.0 * (going.discount == 0), p.uniform),
    }
    return {f'given/{name}': value for name, value in found.items()}


def _rows(p, given):
    here = jnp.maximum(jnp.maximum(p.uniform, p.ends), p.best) > 0
    return {
        'reward': _mean(given.reward, p.uniform),
        'reward_low': jnp.where(here, p.rows.reward, jnp.inf).min(),
        'reward_high': jnp.where(here, p.rows.reward, -jnp.inf).max(),
        'num_ends': p.ends.sum(),
        'ends_stored': _mean(1.0 * (p.rows.discount == 0), p.ends),
        'ends_given': _mean(1.0 * (given.discount == 0), p.ends),
        'num_best': p.best.sum(),
        'best_terminal': _mean(1.0 * (given.discount == 0), p.best),
    }


def _values(agent, state, name, p, given, gamma, key):
    q = agent.q(state, p.rows.observation, p.rows.action).mean(axis=0)
    rest = agent.q(state, p.tail, agent.best_action(state, p.tail, key)).mean(axis=0)
    left = p.cut * (1.0 - (1.0 - gamma) * p.horizon) if gamma < 1 else p.cut  # gamma to the power of the steps until the cut
    returns = given.extras['return_to_go']
    known = p.uniform * jnp.isfinite(returns)
    return {
        f'q/{name}': _mean(q, p.uniform),
        f'q_minus_return/{name}': _mean(q - returns - left * rest, known),
    }


def _shifted(probes, given):
    """How far online observations lie from those of the data set."""
    data, online = (given[name].observation for name in ('dataset', 'online'))
    weight, other_weight = (probes[name].uniform[:, None] for name in ('dataset', 'online'))
    centre, other = _column_mean(data, weight), _column_mean(online, other_weight)
    std = jnp.sqrt(_column_mean((data - centre) ** 2, weight))
    varies = std > 1e-6 * (1.0 + jnp.abs(centre))
    distance = jnp.where(varies, jnp.abs(other - centre) / jnp.where(varies, std, 1.0), 0.0)
    low, high = data.min(axis=0, keepdims=True), data.max(axis=0, keepdims=True)
    far = ((online < 2 * low - high) | (online > 2 * high - low)) & varies
    return {
        'online/distance': distance.sum() / jnp.maximum(varies.sum(), 1),
        'online/outside': _mean(1.0 * far.any(axis=-1), probes['online'].uniform),
    }


def _column_mean(values, weight):
    return jnp.where(weight > 0, values, 0.0).sum(axis=0, keepdims=True) / jnp.maximum(weight.sum(), 1.0)


def _matched(probes, given):
    """Rewards of online rows against those of the rows of the data set nearest to them."""
    data, online = (
        jnp.concatenate([g.observation, g.action, g.next_observation], axis=-1) for g in (given['dataset'], given['online'])
    )
    centre, std = data.mean(axis=0, keepdims=True), data.std(axis=0, keepdims=True)
    std = jnp.maximum(std, 1e-6 * (1.0 + jnp.abs(centre)))
    data, online = (data - centre) / std, (online - centre) / std
    stride = slice(None, None, max(1, (online.shape[0] - 2 * NUM_SPECIAL) // NUM_MATCHED))
    usable = probes['dataset'].uniform > 0
    reward, own = given['dataset'].reward, data[:NUM_MATCHED]
    others = usable[None, :] & (jnp.arange(own.shape[0])[:, None] != jnp.arange(data.shape[0])[None, :])
    inside, inside_row = _nearest(own, data, others)
    outside, outside_row = _nearest(online[stride], data, usable[None, :])
    valid = probes['online'].uniform[stride] > 0
    close = valid & (outside <= 2.0 * jnp.median(inside))
    difference = jnp.where(close, given['online'].reward[stride] - reward[outside_row], jnp.nan)
    return {
        'match/share': _mean(1.0 * close, 1.0 * valid),
        'match/difference': jnp.nanmedian(difference),
        'match/noise': jnp.median(jnp.abs(reward[: own.shape[0]] - reward[inside_row])),
    }


def _nearest(query, base, allowed):
    """Distance to, and index of, the nearest allowed row of `base` for each row of `query`."""
    squares = (query**2).sum(-1)[:, None] + (base**2).sum(-1)[None, :] - 2.0 * query @ base.T
    squares = jnp.where(allowed, jnp.maximum(squares, 0.0), jnp.inf)
    return jnp.sqrt(squares.min(axis=1)), squares.argmin(axis=1)
