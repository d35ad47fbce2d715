"""What a phase's agent is given and what it believes, measured once a round: facts for `reporting.diagnostics` to reason from.

A few thousand rows are looked at: always the same ones of the data set, and of the online store the newest (whole episodes where
the window holds them). What the agent is given is these rows behind its wrappers (`Agent.sees`); a wrapper that edits batches
without `wrap.edited` or `sees` is invisible here. Rows of kind "diagnostics" hold, where known,

    mix/<source>                        share of a batch that comes from the source
    mix/effective_rows                  equally likely rows that the weights of whole episodes come down to (`selection`)
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
    <source>/episodes, successes, longest_success, longest_stay, median_stay   of a phase that collects nothing: see `walks`
    bonus/size, spread, reward_size     mean and deviation of the bonus, as scaled; mean size of r'
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
import numpy as np

from ooorl.mapping import index_seed
from ooorl.nn.optimizers import adams, moments
from ooorl.training import replay, walks
from ooorl.training.known import successes
from ooorl.training.phases import Phase
from ooorl.training.probe_rows import Probe, answers, dataset_probe, online_probes, questions, window_steps
from ooorl.training.rounds import Programs, RunState, store_of

NUM_MATCHED = 128  # rows compared with their nearest row of the data
SMALL_PRODUCT = 2**17  # multiplications
BETA2 = 0.999
KEY_PURPOSE = 5


class Gauge:
    """Measures the rounds of one run.

    Agents are asked by one program each, the same for every store; all else is numpy, since compiling it would take longer than
    the thousands of rows do.
    """

    def __init__(self, programs: Programs):
        self.programs = programs
        self._dataset_probes = {}
        self._dataset_wins, self._walks = {}, {}

    def begin(self, state: RunState, phase: Phase) -> dict[str, np.ndarray]:
        """What `measure` needs to know of the state before the first round of a phase, which destroys it."""
        return {} if not phase.num_updates else dict(zip(('count', 'squares'), self._moments(state), strict=True))

    def measure(self, state: RunState, phase: Phase, before: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Facts `[S]` after a round of a phase, by column; NaN where unknown. Empty for phases without updates.

        `before` is the answer of `begin` after the first round and empty after later ones.
        """
        if not phase.num_updates:
            return {}
        store = None if phase.online_limit == 0 else store_of(self.programs.setup, state, phase)
        if store is not None and phase.online_limit is not None:
            store = replay.take(store, phase.online_limit)
        probes = self._probes(phase, store)
        wins, sizes = self._wins(phase, store), self._sizes(store)
        ranges = [_reward_range(own) for own in probes]
        looks, found = self._ask(state, phase, probes, ranges), []
        filled = 1.0 if store is None else float(np.max(store.size)) / store.storage.reward.shape[1]
        for number, (own, look) in enumerate(zip(probes, looks, strict=True)):
            here = [{name: value[number] for name, value in counts.items()} for counts in (sizes, wins)]
            found.append(facts(phase, own, look, *here, filled))
        names = sorted({name for one in found for name in one})
        columns = {name: np.asarray([one.get(name, np.nan) for one in found], np.float32) for name in names}
        return {**columns, **self._of_episodes(phase, store), **self._optimizers(state, phase, before)}

    def _probes(self, phase, store):
        """For each seed the rows to look at by source."""
        setup, gamma = self.programs.setup, phase.sampling.gamma
        if setup.dataset is not None and gamma not in self._dataset_probes:
            self._dataset_probes[gamma] = dataset_probe(setup.dataset, gamma)
        probes = [{} if setup.dataset is None else {'dataset': self._dataset_probes[gamma]} for _ in setup.seeds]
        if store is None:
            return probes
        streams, stored = setup.streams(phase.store)['online'], np.asarray(store.size)
        longest = setup.stores[phase.store].longest if phase.store in setup.stores else setup.environment.horizon
        num = store.storage.reward.shape[1]
        length = window_steps(num, streams, longest)
        first = int(np.clip(stored.max() // streams - length, 0, num // streams - length)) * streams

        def window(storage, first):
            return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, length * streams, axis=1), storage)

        newest = jax.device_get(self.programs.call(('window', num), window, store.storage, np.int32(first), rare=True))
        best = None if setup.dataset is None else self._dataset_probes[gamma].rows.reward.max()
        online = online_probes(newest, stored - first, streams, gamma, best)
        return [{**own, 'online': probe} for own, probe in zip(probes, online, strict=True)]

    def _sizes(self, store):
        rows = {} if self.programs.setup.dataset is None else {'dataset': self.programs.setup.dataset.reward.shape[0]}
        sizes = {name: np.full(len(self.programs.setup.seeds), num) for name, num in rows.items()}
        return sizes if store is None else {**sizes, 'online': np.asarray(store.size)}

    def _wins(self, phase, store):
        """Rows `[S]` of each source that count as successes, where batches hold any by choice."""
        programs, sampling, wins = self.programs, phase.sampling, {}
        if not sampling.success_rows:
            return wins
        counts, kind = programs.setup.streams(phase.store), (sampling.success_unit, sampling.success_reward)

        def number(name):
            return lambda source: successes(source, counts[name], sampling).size

        if programs.dataset is not None:
            if kind not in self._dataset_wins:
                size = programs.call(('wins', kind), number('dataset'), programs.dataset, rare=True)
                self._dataset_wins[kind] = np.full(len(programs.setup.seeds), int(size))
            wins['dataset'] = self._dataset_wins[kind]
        if store is not None:
            name = ('wins', kind, store.storage.reward.shape)
            wins['online'] = np.asarray(programs.call(name, jax.vmap(number('online')), store, rare=True))
        return wins

    def _of_episodes(self, phase, store):
        """What is known of whole episodes, for phases whose rows stay as they are: a pass over them, once a phase."""
        name = (phase.name, phase.store, phase.online_limit)
        if phase.num_env_steps:
            return {}
        if name not in self._walks:
            self._walks = {name: walks.selected(self.programs, phase, store) | walks.walked(self.programs.setup, phase, store)}
        return self._walks[name]

    def _ask(self, state, phase, probes, ranges):
        """For each seed what the agent is given of the rows to look at, and what it believes of them."""
        agent, setup = phase.agent, self.programs.setup
        collects = bool(setup.stores) or any(p.num_env_steps for p in setup.phases)
        asked = [questions(own, low, high, collects) for own, (low, high) in zip(probes, ranges, strict=True)]
        rows, tail = jax.tree.map(lambda *leaves: np.stack(leaves), *asked)

        def one(state, rows, tail, key):
            num = tail.shape[0]
            given = agent.sees(state, rows)
            columns = {name: given.extras[name][:num] for name in ('return_to_go', 'bonus') if name in given.extras}
            look = {'reward': given.reward, 'discount': given.discount, **columns}
            look |= {name: getattr(given, name)[:num] for name in ('observation', 'action', 'next_observation')}
            if agent.q is not None and agent.chunk == 1:  # rows hold no chunks to ask about
                look['q'] = agent.q(state, rows.observation[:num], rows.action[:num]).mean(axis=0)
                look['rest'] = agent.q(state, tail, agent.best_action(state, tail, key)).mean(axis=0)
            return look

        keys = self.programs.keys(state.phase, state.round, KEY_PURPOSE)
        mapped = self.programs.over_seeds(one, (0, 0, 0, 0))
        found = jax.device_get(self.programs.call(('measure', agent), mapped, state.agent, rows, tail, keys, rare=True))
        return [answers(index_seed(found, number), own) for number, own in enumerate(probes)]

    def _moments(self, state):
        found = jax.device_get(adams(state.agent))
        each = [moments(index_seed(found, number)) for number in range(len(self.programs.setup.seeds))]
        return tuple(np.stack(column) for column in zip(*each, strict=True))

    def _optimizers(self, state, phase, before):
        if not before or not before['count'].shape[-1]:
            return {}
        count, old, (later, new) = before['count'], before['squares'], self._moments(state)
        kept = BETA2 ** (later - count)
        with np.errstate(divide='ignore', invalid='ignore'):
            growth = np.where((count > 0) & (kept < 1), (new / old - kept) / (1.0 - kept), np.nan)
        num_seeds = len(count)
        known = {'should_be_fresh': np.full(num_seeds, float(begins_anew(phase))), 'steps_at_start': count.max(axis=-1)}
        if np.isfinite(growth).all():
            known |= {'growth_low': growth.min(axis=-1), 'growth_high': growth.max(axis=-1)}
        return {f'optimizer/{name}': value for name, value in known.items()}


def begins_anew(phase: Phase) -> bool:
    """Whether its optimisers have done nothing yet; what is inherited from sources brings some that have."""
    return phase.fresh_optimizers or (phase.start is None and not phase.sources)


def facts(
    phase: Phase, probes: Mapping[str, Probe], look, sizes: Mapping, wins: Mapping, filled: float = 1.0
) -> dict[str, float]:
    """The columns of the module's list for one seed, but for those of the optimiser; `filled` is a share of the store."""
    gamma, (looks, varied) = phase.sampling.gamma, look
    given = {name: own.given for name, own in looks.items()}
    reference = next(iter(probes))
    found = _mix(phase.sampling, sizes, wins, filled)
    found |= _transforms(probes[reference], given[reference], *(own.given for own in varied))
    for name, p in probes.items():
        found |= {f'{name}/{k}': v for k, v in _rows(p, given[name]).items()}
        if looks[name].q is not None:
            found |= _values(name, p, looks[name], gamma)
    if looks[reference].q is not None and gamma < 1:
        rewards = np.concatenate([given[n].reward + given[n].extras.get('bonus', 0.0) for n in probes])
        rewards = rewards[np.concatenate([_looked_at(p) for p in probes.values()])]
        found |= {'q/lowest': rewards.min(initial=0.0) / (1.0 - gamma), 'q/highest': rewards.max(initial=0.0) / (1.0 - gamma)}
    if all('bonus' in own.extras for own in given.values()):
        found |= _bonus(probes, given)
    if len(probes) == 2:
        found |= _shifted(probes, given) | _matched(probes, given)
    return found


def _bonus(probes, given):
    seen = [(own.extras['bonus'], own.reward, probes[name].uniform > 0) for name, own in given.items()]
    bonus, reward = (np.concatenate([own[column][own[2]] for own in seen]) for column in (0, 1))
    if not len(bonus):
        return {}
    return {'bonus/size': np.abs(bonus).mean(), 'bonus/spread': bonus.std(), 'bonus/reward_size': np.abs(reward).mean()}


def _looked_at(probe):
    return (probe.uniform > 0) | (probe.ends > 0) | (probe.best > 0)


def _reward_range(probes):
    rewards = np.concatenate([p.rows.reward[_looked_at(p)] for p in probes.values()])
    return rewards.min(initial=np.inf), rewards.max(initial=-np.inf)


def _mean(values, weight):
    """Mean over the rows of weight 1; NaN where there is none."""
    chosen = values[weight > 0]
    return chosen.mean(axis=0) if len(chosen) else np.nan


def _mix(sampling, sizes, wins, filled):
    stored = np.asarray(list(sizes.values()), np.float32)
    weights = stored
    if not isinstance(sampling.mix, str):
        end = sampling.mix if sampling.mix_end is None else sampling.mix_end
        ends = [np.asarray([own.get(name, 0.0) for name in sizes]) for own in (sampling.mix, end)]
        weights = (ends[0] + (ends[1] - ends[0]) * filled) * (stored > 0)
    share = weights / max(weights.sum(), 1e-30)
    if wins:
        won = np.asarray([wins[name] for name in sizes], np.float32)
        won = won / won.sum() if won.sum() > 0 else share
        share = share + (won - share) * sampling.success_rows / sampling.batch_size
    return {f'mix/{name}': share[number] for number, name in enumerate(sizes)}


def _transforms(p, given, raised, ended, going):
    """What the agent's wrappers do to rewards, ends and observations, from rows with these columns set by hand."""
    scale = _mean(raised.reward - given.reward, p.uniform)
    observation = given.observation
    found = {
        'observation_mean': _mean(observation.mean(axis=-1), p.uniform),
        'observation_size': np.sqrt(_mean((observation**2).mean(axis=-1), p.uniform)),
        'reward_scale': scale,
        'reward_shift': _mean(given.reward - scale * p.rows.reward, p.uniform),
        'terminal_kept': _mean(1.0 * (ended.discount == 0), p.uniform),
        'terminal_added': _mean(1.0 * (going.discount == 0), p.uniform),
    }
    return {f'given/{name}': value for name, value in found.items()}


def _rows(p, given):
    rewards = p.rows.reward[_looked_at(p)]
    return {
        'reward': _mean(given.reward, p.uniform),
        'reward_low': rewards.min(initial=np.inf),
        'reward_high': rewards.max(initial=-np.inf),
        'num_ends': p.ends.sum(),
        'ends_stored': _mean(1.0 * (p.rows.discount == 0), p.ends),
        'ends_given': _mean(1.0 * (given.discount == 0), p.ends),
        'num_best': p.best.sum(),
        'best_terminal': _mean(1.0 * (given.discount == 0), p.best),
    }


def _values(name, p, look, gamma):
    left = p.cut * (1.0 - (1.0 - gamma) * p.horizon) if gamma < 1 else p.cut  # gamma to the power of the steps until the cut
    returns = look.given.extras['return_to_go']
    known = p.uniform * np.isfinite(returns)
    return {
        f'q/{name}': _mean(look.q, p.uniform),
        f'q_minus_return/{name}': _mean(look.q - returns - left * look.rest, known),
    }


def _shifted(probes, given):
    """How far online observations lie from those of the data set."""
    data, online = (given[name].observation for name in ('dataset', 'online'))
    weight, other_weight = (probes[name].uniform[:, None] for name in ('dataset', 'online'))
    centre, other = _column_mean(data, weight), _column_mean(online, other_weight)
    std = np.sqrt(_column_mean((data - centre) ** 2, weight))
    varies = std > 1e-6 * (1.0 + np.abs(centre))
    distance = np.where(varies, np.abs(other - centre) / np.where(varies, std, 1.0), 0.0)
    low, high = data.min(axis=0, keepdims=True), data.max(axis=0, keepdims=True)
    far = ((online < 2 * low - high) | (online > 2 * high - low)) & varies
    return {
        'online/distance': distance.sum() / max(varies.sum(), 1),
        'online/outside': _mean(1.0 * far.any(axis=-1), probes['online'].uniform),
    }


def _column_mean(values, weight):
    return np.where(weight > 0, values, 0.0).sum(axis=0, keepdims=True) / max(weight.sum(), 1.0)


def _matched(probes, given):
    """Rewards of online rows against those of the rows of the data set nearest to them."""
    data, online = (
        np.concatenate([g.observation, g.action, g.next_observation], axis=-1) for g in (given['dataset'], given['online'])
    )
    centre, std = data.mean(axis=0, keepdims=True), data.std(axis=0, keepdims=True)
    std = np.maximum(std, 1e-6 * (1.0 + np.abs(centre)))
    data, online = (data - centre) / std, (online - centre) / std
    drawn = (probes['online'].ends == 0) & (probes['online'].best == 0)
    stride = slice(None, None, max(1, drawn.sum() // NUM_MATCHED))
    usable = probes['dataset'].uniform > 0
    reward, own = given['dataset'].reward, data[:NUM_MATCHED]
    others = usable[None, :] & (np.arange(own.shape[0])[:, None] != np.arange(data.shape[0])[None, :])
    inside, inside_row = _nearest(own, data, others)
    outside, outside_row = _nearest(online[stride], data, usable[None, :])
    valid = probes['online'].uniform[stride] > 0
    close = valid & (outside <= 2.0 * np.median(inside))
    difference = (given['online'].reward[stride] - reward[outside_row])[close]
    return {
        'match/share': _mean(1.0 * close, valid),
        'match/difference': np.median(difference) if len(difference) else np.nan,
        'match/noise': np.median(np.abs(reward[: own.shape[0]] - reward[inside_row])),
    }


def _nearest(query, base, allowed):
    """Distance to, and index of, the nearest allowed row of `base` for each row of `query`."""
    # In products so small that numpy's BLAS wakes no threads: these spin, and cost a hundred times what they compute.
    step = max(1, SMALL_PRODUCT // base.size // 16) * 16
    products = np.concatenate([2.0 * query[i : i + step] @ base.T for i in range(0, len(query), step)])
    squares = (query**2).sum(-1)[:, None] + (base**2).sum(-1)[None, :] - products
    squares = np.where(allowed, np.maximum(squares, 0.0), np.inf)
    return np.sqrt(squares.min(axis=1)), squares.argmin(axis=1)
