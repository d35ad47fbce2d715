"""What episodes in a store look like from outside: how far successes are, how long anybody stays there, how few are drawn."""


import jax
import numpy as np

from ooorl.training import selection
from ooorl.training.known import know


def walks(reward, boundary, success: float) -> dict[str, float]:
    """Facts about episodes in rows `[T, N]` of N streams, in numpy; a row of at least `success` is a success.

    `episodes` and `successes` count them (the unfinished last ones included), `longest_success` is the largest number of steps
    from the beginning of an episode to its first success, `longest_stay` and `median_stay` are of the longest run of successes in
    each episode that has any. The last three are 0 where no episode has.
    """
    found = []
    for stream, ends in zip(reward.T, boundary.T, strict=True):
        last = np.append(np.flatnonzero(ends[:-1] > 0), len(stream) - 1)
        begins = np.append(0, last[:-1] + 1)
        won = stream >= success
        if not won.any():
            found += [(0, 0)] * len(last)
            continue
        for begin, stop in zip(begins, last + 1, strict=True):
            found.append(_of_episode(won[begin:stop]))
    first, stay = np.asarray([one for one in found if one[1]] or [(0, 0)]).T
    return {
        'episodes': float(len(found)),
        'successes': float(sum(one[1] > 0 for one in found)),
        'longest_success': float(first.max()),
        'longest_stay': float(stay.max()),
        'median_stay': float(np.median(stay)),
    }


def _of_episode(won):
    """Steps to the first success, and length of the longest run of successes; (0, 0) without any."""
    if not won.any():
        return 0, 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], won.astype(np.int8), [0]])))
    return int(won.argmax()) + 1, int((edges[1::2] - edges[::2]).max())


def walked(setup, phase, store) -> dict[str, np.ndarray]:
    """`walks` of what a phase reads, `[S]` each, as columns `<source>/<name>`; `store` `[S]` or None."""
    found, success = {}, phase.sampling.success_reward
    if setup.dataset is not None:
        data = setup.dataset
        own = walks(np.asarray(data.reward)[:, None], np.asarray(data.extras['boundary'])[:, None], success)
        found |= {f'dataset/{name}': np.full(len(setup.seeds), value) for name, value in own.items()}
    if store is not None:
        streams = setup.streams(phase.store)['online']
        steps = int(np.min(store.size)) // streams
        columns = (np.asarray(jax.device_get(own)) for own in (store.storage.reward, store.storage.extras['boundary']))
        columns = (own[:, : steps * streams].reshape(-1, steps, streams) for own in columns)
        each = [walks(reward, boundary, success) for reward, boundary in zip(*columns, strict=True)]
        found |= {f'online/{name}': np.asarray([own[name] for own in each]) for name in each[0]}
    return found


def selected(programs, phase, store) -> dict[str, np.ndarray]:
    """`mix/effective_rows`: how many rows `[S]` the weights of whole episodes come down to, where a phase draws by them."""
    sampling, counts = phase.sampling, programs.setup.streams(phase.store)
    if sampling.weighting == 'none':
        return {}

    def one(dataset, store):
        sources = {name: source for name, source in (('dataset', dataset), ('online', store)) if source is not None}
        known = [know(source, counts[name], (), sampling).worth for name, source in sources.items()]
        return selection.effective_rows(selection.row_weights(known, sampling))

    mapped = jax.vmap(one, in_axes=(None, None if store is None else 0), axis_size=len(programs.setup.seeds))
    name = ('selected', repr(sampling), None if store is None else store.storage.reward.shape)
    return {'mix/effective_rows': np.asarray(programs.call(name, mapped, programs.dataset, store, rare=True))}
