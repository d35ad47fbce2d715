"""Out-of-combination generalisation: which combinations of factors are learnt from, and which only the test has.

A factor (where an episode starts, its goal, how heavy something is) has levels, a combination is one level of each. All levels
occur in the training data, but not all combinations:

    class(l_1 .. l_k) = (l_1 + .. + l_k) mod n,     n = the largest number of levels of a factor

Each class is a Latin square (for k = 3, n levels each: n^2 of n^3 combinations, each pair of levels of two factors exactly once);
the last `held_out_classes` of the n classes are held out. `held_out` names combinations instead. With two factors, a start and a
goal, n - 1 classes held out leave one goal for each start, one class held out leaves all goals but one.

What is compared learns from equally many rows (`part`): 'train' without the held-out combinations, 'all' with them, which is the
ceiling that an oracle reaches. Numbers that are taken of the data afterwards (normalisation, ranges of rewards) are of these rows
alone. Evaluation tells the two kinds of episode apart by the observation that they begin with (`held_out_test`).

Source: of the question "State Combinatorial Generalization In Decision Making With Conditional Diffusion Models",
arXiv:2501.13241; the Latin classes are ours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ooorl.data import fixups
from ooorl.data.dataset import Dataset
from ooorl.errors import UsageError
from ooorl.types import Array
from ooorl.validation import check_choice, check_not_negative, check_positive

PARTS = ('train', 'all')
READ_AT = ('row', 'start', 'end')
MOST_LEVELS = 64


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One factor of `[dataset.combinations]`, an entry of `factors`: what tells its levels apart."""

    name: str  # for people
    columns: tuple[int, ...]  # of the observation
    levels: tuple[tuple[float, ...], ...] = ()  # a point in these columns for each level, the nearest counts; none: values found
    at: str = 'row'  # read in every 'row', which must not change within an episode, or where an episode has its 'start' or 'end'
    radius: float | None = None  # what is farther from all levels has none and is left out; absent: nothing is

    def __post_init__(self):
        check_choice(READ_AT, at=self.at)
        check_positive(radius=self.radius)
        if not self.columns or min(self.columns) < 0:
            raise UsageError(f'factor {self.name!r} needs columns of the observation, counted from 0; got {list(self.columns)}')
        if any(len(level) != len(self.columns) for level in self.levels):
            raise UsageError(f'a level of factor {self.name!r} needs {len(self.columns)} numbers, one a column; got others')


@dataclass(frozen=True, kw_only=True)
class Combinations:
    """The table `[dataset.combinations]`: which combinations of factors are learnt from, with equal data for all that compare."""

    factors: tuple[Mapping, ...]  # `[[dataset.combinations.factors]]`, two or more
    part: str = 'train'  # rows learnt from: 'train' or, equally many, 'all' (the oracle's)
    held_out_classes: int = 1  # Latin classes that are held out, of as many as the largest factor has levels
    held_out: tuple[tuple[int, ...], ...] = ()  # or the combinations themselves, as numbers of levels from 0
    rows: int = 0  # of each part; 0: as many as 'train' has
    seed: int = 0  # of which episodes are kept

    def __post_init__(self):
        check_choice(PARTS, part=self.part)
        check_not_negative(held_out_classes=self.held_out_classes, rows=self.rows, seed=self.seed)
        if len(self.factors) < 2:
            raise UsageError(f'combinations are of two factors or more; got {len(self.factors)}; add to factors')
        names = [factor['name'] for factor in self.factors if 'name' in factor]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UsageError(f'factors of combinations need names of their own; got two {twice[0]!r}; rename one')


class Split(NamedTuple):
    """Combinations by the numbers of their levels: `train` `[n, k]` and `held_out` `[m, k]`, together all, of `sizes` levels."""

    sizes: tuple[int, ...]
    train: np.ndarray
    held_out: np.ndarray

    def of(self, part: str) -> np.ndarray:
        """Those that a part, 'train' or 'all', has rows of: `[., k]`."""
        return self.train if part == 'train' else _every(self.sizes)


def _every(sizes):
    return np.indices(sizes).reshape(len(sizes), -1).T


def split(sizes: Sequence[int], *, held_out_classes: int = 1, held_out: Sequence[Sequence[int]] = ()) -> Split:
    """The split of all combinations of factors with `sizes` levels; see the top of this file.

    >>> split((3, 3)).held_out.tolist()
    [[0, 2], [1, 1], [2, 0]]

    Raises:
      UsageError: if nothing is held out or a level is left without a training combination, which would be another question
        (out of distribution), or if `held_out` names what does not exist.
    """
    sizes, every = tuple(sizes), _every(tuple(sizes))
    if held_out:
        given = np.asarray(held_out, int)
        if given.ndim != 2 or given.shape[1] != len(sizes) or (given < 0).any() or (given >= sizes).any():
            raise UsageError(f'held_out needs levels of the {len(sizes)} factors, each below {list(sizes)}; got {given.tolist()}')
        out = (every[:, None] == given[None]).all(axis=-1).any(axis=1)
    else:
        out = every.sum(axis=1) % max(sizes) >= max(sizes) - held_out_classes
    made = Split(sizes, every[~out], every[out])
    if not out.any():
        raise UsageError('out of combination needs combinations that are held out; got none; set held_out_classes = 1 or more')
    for factor, size in enumerate(sizes):
        missing = sorted(set(range(size)) - set(made.train[:, factor].tolist()))
        if missing:
            raise UsageError(
                f'each level must occur in training, in another combination; level {missing[0]} of factor {factor} does not; '
                'hold out fewer'
            )
    return made


def read_factors(table: Combinations, dataset: Dataset) -> tuple[Factor, ...]:
    """The factors of a table, with the levels that the data have where it names none: distinct values, in rising order.

    Raises:
      UsageError: if columns are not those of the data, or the data have one value or too many.
    """
    observation = dataset.transitions.observation
    return tuple(_with_levels(factor, observation) for factor in (Factor(**own) for own in table.factors))


def _with_levels(factor, observation):
    width = observation.shape[-1]
    if max(factor.columns) >= width:
        raise UsageError(f'columns of factor {factor.name!r} must be below {width}, as the data have; got {list(factor.columns)}')
    levels = factor.levels or np.unique(observation[:, factor.columns], axis=0)
    if not 2 <= len(levels) <= MOST_LEVELS:
        raise UsageError(
            f'factor {factor.name!r} needs 2 to {MOST_LEVELS} levels; got {len(levels)}; name them, or other columns'
        )
    return Factor(**{**vars(factor), 'levels': tuple(tuple(map(float, level)) for level in levels)})


def nearest_level(factor: Factor, observation: Array) -> Array:
    """The level of an observation `[..., O]`, int `[...]`; -1 beyond the factor's radius of all."""
    xp = np if isinstance(observation, np.ndarray) else jnp
    levels = xp.asarray(factor.levels, xp.float32).reshape((1,) * (observation.ndim - 1) + (-1, len(factor.columns)))
    apart = ((observation[..., None, factor.columns] - levels) ** 2).sum(axis=-1)
    found = apart.argmin(axis=-1)
    return found if factor.radius is None else xp.where(apart.min(axis=-1) <= factor.radius**2, found, -1)


def combinations_of(factors: Sequence[Factor], dataset: Dataset) -> np.ndarray:
    """The combination of every row, `[N, k]` numbers of levels; rows with -1 have none.

    A row has none where a factor that is read in every row has another level in its successor, because the successor would show
    what may be held out.
    """
    transitions = dataset.transitions
    last = transitions.extras['boundary'] > 0
    number = np.concatenate([[0], np.cumsum(last[:-1])])
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    ends = np.append(starts[1:], len(number)) - 1
    columns = []
    for factor in factors:
        if factor.at == 'row':
            own, after = (nearest_level(factor, rows) for rows in (transitions.observation, transitions.next_observation))
            columns.append(np.where(own == after, own, -1))
        elif factor.at == 'start':
            columns.append(nearest_level(factor, transitions.observation[starts])[number])
        else:
            columns.append(nearest_level(factor, transitions.next_observation[ends])[number])
    return np.stack(columns, axis=-1)


def part(dataset: Dataset, table: Combinations) -> Dataset:
    """The rows that a table lets learn, of every combination of its part in proportion to how many the data have.

    Whole episodes are taken in an order drawn with the table's seed, of each combination's last one the first rows. Where `rows`
    is not given, 'train' is all rows of its combinations, and 'all' comes out with as many.

    Raises:
      UsageError: if a combination of the part has no rows, or there are fewer than `rows`.
    """
    factors = read_factors(table, dataset)
    made = split([len(f.levels) for f in factors], held_out_classes=table.held_out_classes, held_out=table.held_out)
    found = combinations_of(factors, dataset)
    code = np.where((found < 0).any(axis=1), -1, np.ravel_multi_index(np.maximum(found, 0).T, made.sizes))
    counts = np.bincount(code[code >= 0], minlength=np.prod(made.sizes))
    learnt, chosen = (np.ravel_multi_index(made.of(name).T, made.sizes) for name in ('train', table.part))
    for combination, number in zip(made.of(table.part), counts[chosen], strict=True):
        if not number:
            names = ', '.join(f'{factor.name} {level}' for factor, level in zip(factors, combination, strict=True))
            raise UsageError(f'part {table.part!r} needs rows of each combination; {dataset.name} has none of {names}; add some')
    rows, most = table.rows or int(counts[learnt].sum()), int(counts[chosen].sum())
    wanted = np.zeros_like(counts)
    wanted[chosen] = _shared_out(rows, counts[chosen])
    if rows > most or not wanted[chosen].all():
        raise UsageError(
            f'rows in [dataset.combinations] must be at most {most}, those of part {table.part!r}, and enough for one of each of '
            f'its {len(chosen)} combinations; got {rows}'
        )
    keep = _drawn(code, dataset.transitions.extras['boundary'] > 0, wanted, np.random.default_rng(table.seed))
    kinds = f'{len(made.train)} of {len(_every(made.sizes))} combinations of {", ".join(f.name for f in factors)}'
    return fixups.kept(dataset, keep, f'not of part {table.part!r}; {kinds} are for training')


def _shared_out(rows, counts):
    """`rows` in proportion to counts, the ones left over to the largest remainders."""
    exact = rows * counts / counts.sum()
    wanted = np.floor(exact).astype(int)
    wanted[np.argsort(wanted - exact, kind='stable')[: rows - wanted.sum()]] += 1
    return wanted


def _drawn(code, last, wanted, random):
    """`[N]` bool: of each combination so many rows, in whole stretches of one episode but for the last."""
    fresh = np.append(True, last[:-1] | (code[1:] != code[:-1]))
    starts = np.flatnonzero(fresh)
    lengths = np.diff(np.append(starts, len(code)))
    keep, left = np.zeros(len(code), bool), wanted.copy()
    for number in random.permutation(len(starts)):
        own = code[starts[number]]
        if own >= 0 and left[own] > 0:
            taken = min(lengths[number], left[own])
            keep[starts[number] : starts[number] + taken] = True
            left[own] -= taken
    return keep


def held_out_test(table: Combinations, dataset: Dataset) -> Callable[[Array], Array] | None:
    """`(observation[..., O]) -> [...]` bool: whether an episode that begins so is of a held-out combination.

    None where a factor is read at the end of episodes, which their beginning does not show.
    """
    factors = read_factors(table, dataset)
    if any(factor.at == 'end' for factor in factors):
        return None
    made = split([len(f.levels) for f in factors], held_out_classes=table.held_out_classes, held_out=table.held_out)
    out = np.zeros(made.sizes, bool)
    out[tuple(made.held_out.T)] = True

    def test(observation):
        xp = np if isinstance(observation, np.ndarray) else jnp
        levels = [nearest_level(Factor(**{**vars(factor), 'radius': None}), observation) for factor in factors]
        return xp.asarray(out)[tuple(levels)]

    return test
