"""Acting in environments that step on the host: with the agents where they learn, or with a copy of what they act with nearby."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ooorl import mapping


def acting(programs, key, act: Callable, agent) -> Callable:
    """`(observation[S, ...], key) -> action[S, ...]` of all seeds' agents, by the program that goes by `key` in this run.

    Where learning has a device of its own (`mapping.acting_device`), the arrays of the state that `act` reads are copied to the
    CPU when it is first asked, and the program runs there. Make one anew whenever the agents have learnt.

    Args:
      programs: the `programs.Programs` of the run.
      key: names the program.
      act: `(agent state, observation, key) -> action` of one seed.
      agent: states [S].
    """
    mapped, device = over_seeds_split(programs, act), mapping.acting_device()
    if device is None:
        return lambda observation, words: programs.call(key, mapped, agent, observation, words)
    leaves, structure = jax.tree.flatten(agent)
    copies = []

    def act_nearby(observation, words):
        read = programs.once(('reads', *key), lambda: reads(mapped, agent, observation, words))
        if not copies:
            copies.append(jax.device_put([leaf for leaf, own in zip(leaves, read, strict=True) if own], device))

        def with_copies(some, observation, words):
            some = iter(some)
            whole = [next(some) if own else jnp.zeros(leaf.shape, leaf.dtype) for leaf, own in zip(leaves, read, strict=True)]
            return mapped(jax.tree.unflatten(structure, whole), observation, words)

        return programs.call(key, with_copies, copies[0], observation, words)

    return act_nearby


def reads(function: Callable, first, *args) -> tuple[bool, ...]:
    """For each array of `first` whether `function(first, *args)` computes with it."""
    traced = jax.make_jaxpr(function)(first, *args).jaxpr
    used = {id(one) for equation in traced.eqns for one in equation.invars} | set(map(id, traced.outvars))
    return tuple(id(one) in used for one in traced.invars[: len(jax.tree.leaves(first))])


def over_seeds_split(programs, act):
    """`(agent states [S], observation [S, ...], key) -> action [S, ...]`: every seed acts with its own part of the key.

    The key may come as its words, which is cheaper where a call is small.
    """
    nearby, num_seeds = mapping.acting_device() is not None, len(programs.setup.seeds)
    mapped = programs.over_seeds(act, (0, 0, 0), nearby=nearby)

    def split(agent, observation, key):
        key = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
        return mapped(agent, observation, jax.random.split(key, num_seeds))

    return split
