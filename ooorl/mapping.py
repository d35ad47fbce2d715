"""How one function is applied to many independent copies, ensemble members and seeds, and on how many cores.

An accelerator wants one wide program; a CPU wants one copy after another, because a second copy evicts the
first from the cache. These decisions are taken here and nowhere else.
"""

import itertools
import os
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ooorl.errors import UsageError

GROUPS = pathlib.Path('/sys/fs/cgroup')  # where Linux says how much processor time a container may use


def num_cores() -> int:
    """Cores that this process may use: those of its affinity mask, or fewer where its container is allowed less time.

    `os.cpu_count` counts the cores of the machine, of which a container or a batch job often owns a few.
    """
    mask = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return max(1, min([mask, *_allowed_by_groups()]))


def _allowed_by_groups() -> list[int]:
    """Processor time over wall time, rounded up, of each control group (v2, v1) that limits it."""
    found = []
    for names in (('cpu.max',), ('cpu/cpu.cfs_quota_us', 'cpu/cpu.cfs_period_us')):
        try:
            quota, period, *_ = ' '.join((GROUPS / name).read_text() for name in names).split()
            found += [-(-int(quota) // int(period))] if int(quota) > 0 else []
        except (OSError, ValueError):  # no such file, or 'max': no limit
            continue
    return found


def seldom(function: Callable, **settings) -> Callable:
    """`jax.jit` for a program that runs once or seldom: on a CPU it is compiled without optimisation, in a quarter of the time.

    >>> states = seldom(jax.vmap(agent.init))(jax.random.split(jax.random.key(0), 32))    # doctest: +SKIP
    """
    return jax.jit(function, **settings, compiler_options=unoptimised())


def unoptimised() -> dict | None:
    """XLA's options for programs that take longer to compile than to run; None where the defaults serve better."""
    return {'xla_backend_optimization_level': 0, 'xla_cpu_use_fusion_emitters': False} if on_cpu() else None


def of_part(function: Callable, first: int, shape: tuple[int, ...]) -> Callable:
    """`function(*arrays[*shape, ...]) -> [*shape, ...]` for some places of the last axis of `shape` alone, on the host.

    The places are those from `first` on, as many as the arrays have; the others are filled with zeros and what is answered about
    them dropped. So draws and rounding are those of the whole batch, and a function that is compiled is compiled once.
    """
    axis = len(shape) - 1

    def partly(*arrays):
        part = (slice(None),) * axis + (slice(first, first + arrays[0].shape[axis]),)
        wholes = [np.zeros((*shape, *array.shape[axis + 1 :]), array.dtype) for array in arrays]
        for whole, array in zip(wholes, arrays, strict=True):
            whole[part] = array
        return np.asarray(function(*wholes))[part]

    return partly


def on_cpu() -> bool:
    """Whether programs compiled now run on the CPU."""
    return jax.default_backend() == 'cpu'


def num_hosts() -> int:
    """How many processes, each on a machine of its own as a rule, work on this run together."""
    return jax.process_count()


def is_first_host() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def acting_device() -> jax.Device | None:
    """Where policies act whose environments step on the host, if not where they learn.

    A single action is little work for an accelerator, and a wait for it. None where everything is on the CPU, or where jax was
    told to know no CPU (JAX_PLATFORMS).
    """
    if on_cpu():
        return None
    try:
        return jax.local_devices(backend='cpu')[0]
    except RuntimeError:
        return None


def stacks_members() -> bool:
    """Whether ensembles made now keep their members in one tree (`Stacked`) rather than in a tuple of trees.

    An accelerator wants one wide product and one optimiser step for all members, a CPU products of their own.
    """
    return not on_cpu()


@jax.tree_util.register_pytree_with_keys_class
class Stacked:
    """The members of an ensemble as one tree whose leaves carry a leading axis [E]; used like the tuple of E trees.

    `members` is that tree, `num` is E. A slice or an array of indices gives the `Stacked` of these members.
    """

    def __init__(self, members, num: int):
        self.members, self.num = members, num

    def tree_flatten_with_keys(self):
        """Its one child, and E."""
        return ((jax.tree_util.GetAttrKey('members'), self.members),), self.num

    @classmethod
    def tree_unflatten(cls, num, children):
        """The reverse."""
        return cls(*children, num)

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        chosen = jax.tree.map(lambda leaf: leaf[index], self.members)
        if isinstance(index, slice):
            return Stacked(chosen, len(range(*index.indices(self.num))))
        return Stacked(chosen, index.shape[0]) if getattr(index, 'ndim', 0) else chosen

    def __iter__(self):
        return (self[number] for number in range(self.num))


def _is_stacked(node):
    return isinstance(node, Stacked)


def split_members(tree, axis: int = 0):
    """The tree with a tuple of E trees in the place of every `Stacked`, whose leaves have the members at `axis`.

    Leaves may be arrays or shapes. This is how ensembles are stored, wherever they were trained.
    """

    def one(leaf, number):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape[:axis] + leaf.shape[axis + 1 :], leaf.dtype)
        return leaf[(slice(None),) * axis + (number,)]

    def split(node):
        if not _is_stacked(node):
            return node
        return tuple(jax.tree.map(partial(one, number=number), node.members) for number in range(node.num))

    return jax.tree.map(split, tree, is_leaf=_is_stacked)


def join_members(like, tree, axis: int = 0):
    """The reverse of `split_members`: members are stacked where `like` has them so."""

    def join(node, found):
        if not _is_stacked(node):
            return found
        return Stacked(jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=axis), *found), node.num)

    return jax.tree.map(join, like, tree, is_leaf=_is_stacked)


def map_members(function: Callable, members, *args):
    """`stack([function(member, *args) for member in members])` along a new leading axis E.

    Members are pytrees of one structure: in a tuple each gets matrix products of its own, `Stacked` ones are mapped as one.
    """
    if _is_stacked(members):
        return jax.vmap(function, in_axes=(0,) + (None,) * len(args))(members.members, *args)
    outputs = [function(member, *args) for member in members]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def map_seeds(
    function: Callable, in_axes: tuple[int | None, ...], *, group: int | None = None, spread: bool = True
) -> Callable:
    """Maps a function over a leading seed axis [S] of some of its arguments.

    On an accelerator this is `jax.vmap`; on a CPU, seeds are run in groups of `group` one after another (1 where not given).
    Where the process has several devices of either kind, each takes its share of the seeds: 5 seeds on 4 devices run as 6 on 3,
    one of them for nothing, in the time of 2.

    Args:
      function: positional arguments, any pytree out.
      in_axes: one entry per argument: 0 if its leaves carry the seed axis, None if it is shared.
      group: seeds mapped together on a CPU; small networks gain from about 4, large ones from 1. What only moves data wants
        all of them in one group: going through groups copies the arguments.
      spread: whether devices share the seeds out; without, all seeds are one program of all devices.

    Returns:
      a function with the same arguments whose outputs all carry the seed axis.
    """
    together = jax.vmap(function, in_axes=in_axes)
    if not on_cpu() and (not spread or jax.device_count() == 1):
        return together

    def grouped(*args):
        mapped = [arg for arg, axis in zip(args, in_axes, strict=True) if axis == 0]
        if not on_cpu() or (group is not None and group >= jax.tree.leaves(mapped)[0].shape[0]):
            return together(*args)

        def one(items):
            remaining = iter(items)
            return function(*(next(remaining) if axis == 0 else arg for arg, axis in zip(args, in_axes, strict=True)))

        return jax.lax.map(one, mapped, batch_size=None if group in (None, 1) else group)

    def across_devices(*args):
        num_seeds = next(jax.tree.leaves(arg)[0].shape[0] for arg, axis in zip(args, in_axes, strict=True) if axis == 0)
        num_devices = num_shares(num_seeds)
        each = -(-num_seeds // num_devices)
        if num_devices == 1:
            return grouped(*args)
        mesh = _mesh('seeds', num_devices)
        everywhere = NamedSharding(mesh, PartitionSpec())
        specs = tuple(PartitionSpec('seeds') if axis == 0 else PartitionSpec() for axis in in_axes)
        # check_vma=False: no collective is meant to appear, each device works on seeds of its own.
        shared_out = jax.shard_map(grouped, mesh=mesh, in_specs=specs, out_specs=PartitionSpec('seeds'), check_vma=False)
        if num_seeds != each * num_devices:
            return _padded(shared_out, args, in_axes, num_seeds, each * num_devices, everywhere)
        # What several hosts have made, every host must be able to read.
        return shared_out(*args) if num_hosts() == 1 else jax.lax.with_sharding_constraint(shared_out(*args), everywhere)

    return across_devices if spread else grouped


def num_shares(num_seeds: int) -> int:
    """Over how many devices so many seeds are shared out; whatever seeds have in common, each of these holds."""
    if num_hosts() > 1:
        return jax.device_count()  # a host without a device in the mesh could not take part
    each = -(-num_seeds // min(num_seeds, jax.device_count()))
    return -(-num_seeds // each)


def _padded(function, args, in_axes, num_seeds, num, everywhere):
    """`function` of `num` seeds, the last one repeated; the results of the first `num_seeds`.

    An axis that the devices do not divide lies on all of them between two calls.
    """
    rows = jnp.minimum(jnp.arange(num), num_seeds - 1)

    def filled(arg):
        return jax.tree.map(lambda leaf: leaf[rows], jax.lax.with_sharding_constraint(arg, everywhere))

    args = (filled(arg) if axis == 0 else arg for arg, axis in zip(args, in_axes, strict=True))
    results = jax.tree.map(lambda leaf: leaf[:num_seeds], function(*args))
    return jax.lax.with_sharding_constraint(results, everywhere)


def _mesh(axis, num):
    return jax.make_mesh((num,), (axis,), devices=jax.devices()[:num], axis_types=(jax.sharding.AxisType.Auto,))


def rows_over_devices(tree):
    """Inside of a program: leaves `[B, ...]` with their rows shared out over all devices, which B is a multiple of."""
    return _laid(tree, PartitionSpec('rows'))


def everywhere(tree):
    """Inside of a program: leaves that every device has as a whole."""
    return _laid(tree, PartitionSpec())


def _laid(tree, spec):
    return jax.lax.with_sharding_constraint(tree, NamedSharding(_mesh('rows', jax.device_count()), spec))


def index_seed(tree, seed_index: int):
    """The copy of one seed out of a pytree whose leaves carry the seed axis."""
    return jax.tree.map(partial(_take, index=seed_index), tree)


def _take(leaf, index):
    return leaf[index]


def host_scan(
    f: Callable, init: Any, xs: Any, length: int | None = None, *, until: Callable[[Any], bool] | None = None
) -> tuple[Any, Any]:
    """`jax.lax.scan` as a Python loop: `f` may step host environments. Results are stacked into numpy arrays.

    It ends early, with as many results as steps were taken, once `until(carry)` holds.
    """
    leaves, structure = jax.tree.flatten(xs)
    length = len(leaves[0]) if leaves else length
    if length is None:
        raise UsageError('scan needs xs or length; got neither; pass length=...')
    carry, results = init, []
    # Iterating over a jax array takes it apart in one go; an index for each step would be a program each.
    for items in zip(*leaves, strict=True) if leaves else itertools.repeat((), length):
        carry, result = f(carry, jax.tree.unflatten(structure, items))
        results.append(result)
        if until is not None and until(carry):
            break
    if not results:
        return carry, None
    return carry, jax.tree.map(lambda *parts: np.stack([np.asarray(part) for part in parts]), *results)
