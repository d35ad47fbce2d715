"""How often 95 % intervals over few seeds hold the true value: measured, so that the intervals of reports can be chosen.

    python experiments/interval_coverage.py                # writes results/interval_coverage.json, some minutes on one core
    python experiments/interval_coverage.py --table        # the tables of docs/statistics.md, from that file

A trial draws `n` scores, one a seed, from a distribution with a known mean, interquartile mean and median, and asks each
contender for its interval. Coverage is the share of trials whose interval holds the true value; the width is the median one.
A contender that gives no interval in a trial (equal scores) does not cover there.

Contenders: percentile and BCa bootstrap, studentised bootstrap (bootstrap-t; the interquartile mean with its winsorised
deviation), Student's t, t about a trimmed mean (Tukey & McLaughlin, Sankhya A 25, 1963; Yuen & Dixon, Biometrika 60, 1973),
order statistics for the median (binomial), the exact binomial interval (Clopper & Pearson, Biometrika 26, 1934) for zeros and
ones, Gaffke's interval for the mean of bounded scores (Gaffke 2005; Learned-Miller & Thomas, arXiv:1905.06208: Dirichlet weights
on the scores and one end of the range), and `ours`, the function that every table, report and command of ooorl calls.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import special

from ooorl.reporting import intervals, writers

RESULT = Path(__file__).parent / 'results' / 'interval_coverage.json'
SIZES = (3, 5, 8, 10, 20)
LEVEL, TAIL = 0.95, 0.025
CHUNK = 100  # trials resampled at a time


class Source(NamedTuple):
    """A distribution of scores: `draw(generator, shape)`, and the range scores cannot leave."""

    draw: Callable
    bounds: tuple[float, float] | None = None


def _rates(a, b, episodes):
    """Success rates over some episodes; a seed's own chance is drawn from Beta(a, b)."""
    return Source(lambda g, shape: g.binomial(episodes, g.beta(a, b, shape)) / episodes, (0.0, 1.0))


def _split(failing, episodes=50):
    """Success rates where some seeds fail altogether and the others succeed in 97 % of their episodes."""
    return Source(lambda g, shape: g.binomial(episodes, 0.97, shape) / episodes * (g.random(shape) >= failing), (0.0, 1.0))


SOURCES = {
    'normal': Source(lambda g, shape: g.normal(size=shape)),
    'exponential': Source(lambda g, shape: g.exponential(size=shape)),
    'lognormal': Source(lambda g, shape: g.lognormal(size=shape)),
    'rate Beta(8, 2), 20 episodes': _rates(8, 2, 20),
    'rate Beta(8, 2), 100 episodes': _rates(8, 2, 100),
    'rate Beta(19, 1), 50 episodes': _rates(19, 1, 50),
    'rate Beta(.5, .5), 50 episodes': _rates(0.5, 0.5, 50),
    'rate, a fifth of seeds fails': _split(0.2),
    '0/1, p = .5': Source(lambda g, shape: (g.random(shape) < 0.5) * 1.0, (0.0, 1.0)),
    '0/1, p = .8': Source(lambda g, shape: (g.random(shape) < 0.8) * 1.0, (0.0, 1.0)),
}
STATISTICS = {'mean': np.mean, 'iqm': intervals.iqm, 'median': np.median}
# Two arms on the same seeds: half of each score's deviation is the seed's, shared by both.
PAIRS = {
    'difference of normal scores': (lambda g, shape: g.normal(size=shape) + g.normal(size=shape), None),
    'difference of exponential scores': (lambda g, shape: g.exponential(size=shape), None),
    'difference of rates, Beta(8, 2) - Beta(5, 5)': (None, ((8, 2), (5, 5))),
    'difference of rates, Beta(2, .5) - Beta(.5, 2)': (None, ((2, 0.5), (0.5, 2))),
    'difference of 0/1, p = .9 and .3': (None, (0.9, 0.3)),
}


def truth(source, name, generator):
    """The statistic of ten million scores; zeros and ones have no other mean than their chance."""
    values = np.sort(source.draw(generator, 10_000_000))
    if name == 'iqm':
        return values[len(values) // 4 : -(len(values) // 4)].mean()
    return float(STATISTICS[name](values))


def _resampled(values, num, generator):
    """`[T, n] -> [T, num, n]`."""
    rows = generator.integers(values.shape[-1], size=(len(values), num, values.shape[-1]))
    return np.take_along_axis(values[:, None], rows, axis=-1)


def _deviation(values, name):
    """Standard error of the mean, or of the interquartile mean by its winsorised deviation; and degrees of freedom."""
    size = values.shape[-1]
    cut = size // 4 if name == 'iqm' else 0
    ordered = np.sort(values, axis=-1)
    ordered = np.clip(ordered, ordered[..., cut, None], ordered[..., size - 1 - cut, None])
    kept = size - 2 * cut
    return ordered.std(axis=-1) * np.sqrt(size / (kept * (kept - 1))), kept - 1


def student(values, name, **_):
    """t about the mean, or about the trimmed mean."""
    point = STATISTICS[name](values, axis=-1)
    error, freedom = _deviation(values, name)
    half = special.stdtrit(freedom, 1 - TAIL) * error
    half = np.where(error > 0, half, np.nan)
    return point - half, point + half


def bootstraps(values, name, num, generator):
    """Percentile, BCa and studentised intervals from the same resamples: `{contender: (low[T], high[T])}`."""
    statistic = STATISTICS[name]
    parts = []
    for chunk in np.array_split(values, max(1, len(values) // CHUNK)):
        point, samples = statistic(chunk, axis=-1), _resampled(chunk, num, generator)
        found = np.sort(statistic(samples, axis=-1), axis=-1)
        equal = np.ptp(chunk, axis=-1) == 0
        row = {'percentile': _quantiles(found, TAIL, 1 - TAIL), 'BCa': _bca(chunk, statistic, point, found)}
        if name != 'median':
            row['bootstrap-t'] = _studentised(chunk, name, point, samples)
        parts.append({key: np.where(equal, np.nan, np.stack(ends)) for key, ends in row.items()})
    return {key: tuple(np.concatenate([part[key] for part in parts], axis=-1)) for key in parts[0]}


def _quantiles(found, low, high):
    at = np.clip(np.stack(np.broadcast_arrays(low, high, found[:, 0])[:2]), 0, 1) * (found.shape[1] - 1)
    return [np.take_along_axis(found, np.rint(a).astype(int)[:, None], axis=1)[:, 0] for a in at]


def _bca(values, statistic, point, found):
    """Efron & Tibshirani 1993, ch. 14: bias from the share below the point, acceleration by the jackknife."""
    below = (found < point[:, None]).mean(1) + (found == point[:, None]).mean(1) / 2
    bias = special.ndtri(np.clip(below, 0.5 / found.shape[1], 1 - 0.5 / found.shape[1]))
    size = values.shape[-1]
    left = np.stack([statistic(np.delete(values, i, axis=-1), axis=-1) for i in range(size)], axis=-1)
    gaps = left.mean(-1, keepdims=True) - left
    square = (gaps**2).sum(-1)
    speed = (gaps**3).sum(-1) / (6 * np.where(square > 0, square, 1) ** 1.5)
    ends = [special.ndtr(bias + (bias + z) / (1 - speed * (bias + z))) for z in special.ndtri([TAIL, 1 - TAIL])]
    return _quantiles(found, *ends)


def _studentised(values, name, point, samples):
    error, _ = _deviation(values, name)
    errors, _ = _deviation(samples, name)
    # A resample of equal scores has no deviation: its ratio is unbounded, as in the textbooks' rule.
    gaps = STATISTICS[name](samples, axis=-1) - point[:, None]
    with np.errstate(divide='ignore', invalid='ignore'):
        ratios = np.sort(np.where(errors > 0, gaps / errors, np.sign(gaps) * np.inf), axis=-1)
    with np.errstate(invalid='ignore'):
        low, high = _quantiles(np.nan_to_num(ratios, posinf=1e6, neginf=-1e6), TAIL, 1 - TAIL)
    return point - high * error, point - low * error


def order(values, name, **_):
    """The widest pair of order statistics whose tails are small enough; none where even the ends are not."""
    size = values.shape[-1]
    rank = int(np.searchsorted(special.bdtr(np.arange(size), size, 0.5), TAIL, side='right')) - 1
    ordered = np.sort(values, axis=-1)
    if rank < 0:
        return np.full((2, len(values)), np.nan)
    return ordered[:, rank], ordered[:, size - 1 - rank]


def binomial(values, name, **_):
    """Clopper & Pearson."""
    size, hits = values.shape[-1], values.sum(-1)
    low = np.where(hits == 0, 0.0, special.betaincinv(np.maximum(hits, 0.5), size - hits + 1, TAIL))
    high = np.where(hits == size, 1.0, special.betaincinv(hits + 1, np.maximum(size - hits, 0.5), 1 - TAIL))
    return low, high


def gaffke(values, name, *, bounds, generator, num=2000, **_):
    """Quantiles of the mean under Dirichlet weights on the scores and one end of the range."""
    weights = generator.dirichlet(np.ones(values.shape[-1] + 1), num)
    ends = []
    for end, quantile in zip(bounds, (TAIL, 1 - TAIL), strict=True):
        means = values @ weights[:, :-1].T + end * weights[:, -1]
        ends.append(np.quantile(means, quantile, axis=-1))
    return ends


def ours(values, name, bounds, paired):
    """The public function, trial by trial."""
    if paired:
        found = [intervals.paired_difference(row, np.zeros_like(row), bounds=bounds and (0.0, 1.0)) for row in values]
    else:
        found = [intervals.interval(row, name, bounds=bounds) for row in values]
    return np.array([f.low for f in found]), np.array([f.high for f in found])


def contenders(values, name, bounds, num, generator, paired=False):
    """`{contender: (low, high)}` on the same scores."""
    found = bootstraps(values, name, num, generator)
    found['order statistics' if name == 'median' else 't'] = (order if name == 'median' else student)(values, name)
    if name == 'mean' and bounds is not None:
        found['t, clipped'] = tuple(np.clip(end, *bounds) for end in found['t'])
        found['Gaffke'] = gaffke(values, name, bounds=bounds, generator=generator)
        if not paired and np.isin(values, (0.0, 1.0)).all():
            found['exact binomial'] = binomial(values, name)
    found['ours'] = ours(values, name, bounds, paired)
    return found


def _measured(found, true):
    """`{contender: {coverage, width, given}}`; an end may lie on the true value up to rounding."""
    measured = {}
    for contender, (low, high) in found.items():
        given = np.isfinite(low) & np.isfinite(high)
        covers = given & (low <= true + 1e-9) & (true <= high + 1e-9)
        width = float(np.median((high - low)[given])) if given.any() else None
        width = None if width is None else float(f'{width:.4g}')
        measured[contender] = {'coverage': round(float(covers.mean()), 4), 'width': width, 'given': round(float(given.mean()), 4)}
    return measured


def _pair(name, shape, generator):
    """`(differences, true mean, bounds)` of two arms on the same seeds."""
    draw, rates = PAIRS[name]
    if rates is None:
        return draw(generator, shape) - draw(generator, shape), 0.0, None
    ranks = generator.random(shape)  # the same seed is easy, or hard, for both
    own = [np.where(generator.random(shape) < 0.5, ranks, generator.random(shape)) for _ in rates]
    if np.ndim(rates[0]) == 0:
        x, y = ((rank < rate) * 1.0 for rank, rate in zip(own, rates, strict=True))
        return x - y, rates[0] - rates[1], (-1.0, 1.0)
    chances = [special.betaincinv(a, b, rank) for (a, b), rank in zip(rates, own, strict=True)]
    x, y = (generator.binomial(50, chance) / 50 for chance in chances)
    return x - y, rates[0][0] / sum(rates[0]) - rates[1][0] / sum(rates[1]), (-1.0, 1.0)


def measure(trials, num, seed=0):
    """All rows: one for each statistic, distribution and number of seeds."""
    rows = []
    for statistic in STATISTICS:
        for name, source in SOURCES.items():
            if statistic != 'mean' and name.startswith('0/1'):
                continue  # they jump between 0 and 1 there
            generator = np.random.default_rng([seed, len(rows)])
            true = truth(source, statistic, generator)
            for size in SIZES:
                found = contenders(source.draw(generator, (trials, size)), statistic, source.bounds, num, generator)
                rows.append({'statistic': statistic, 'scores': name, 'seeds': size, 'intervals': _measured(found, true)})
    for name in PAIRS:
        generator = np.random.default_rng([seed, len(rows)])
        for size in SIZES:
            values, true, bounds = _pair(name, (trials, size), generator)
            found = contenders(values, 'mean', bounds, num, generator, paired=True)
            rows.append({'statistic': 'mean', 'scores': name, 'seeds': size, 'intervals': _measured(found, true)})
    return rows


def table(rows, statistic, key='coverage'):
    """Markdown: a row for each distribution and contender, a column for each number of seeds."""
    chosen = [row for row in rows if row['statistic'] == statistic]
    lines = ['| scores | interval | ' + ' | '.join(f'{size} seeds' for size in SIZES) + ' |', '|---' * (2 + len(SIZES)) + '|']
    for scores in dict.fromkeys(row['scores'] for row in chosen):
        own = {row['seeds']: row['intervals'] for row in chosen if row['scores'] == scores}
        for contender in own[SIZES[0]]:
            cells = ' | '.join(_cell(own[size][contender], key) for size in SIZES)
            lines.append(f'| {scores} | {"**ours**" if contender == "ours" else contender} | {cells} |')
    return '\n'.join(lines)


def _cell(measured, key):
    if not measured['given']:
        return 'none'
    if key == 'coverage':
        return f'{100 * measured[key]:.0f}'
    return f'{measured[key]:.2f}' if measured[key] < 1000 else 'over 1000'


def main():
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--trials', type=int, default=2000)
    parser.add_argument('--num', type=int, default=1000, help='bootstrap samples a trial')
    parser.add_argument('--out', type=Path, default=RESULT)
    parser.add_argument('--table', action='store_true', help='print the tables of a measurement that is there')
    arguments = parser.parse_args()
    if not arguments.table:
        rows = measure(arguments.trials, arguments.num)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        writers.write_json(arguments.out, {'trials': arguments.trials, 'bootstrap_samples': arguments.num, 'rows': rows})
    rows = writers.read_json(arguments.out)['rows']
    for statistic in STATISTICS:
        for key, unit in (('coverage', ' in %'), ('width', ', median')):
            print(f'\n{statistic}: {key}{unit}\n\n{table(rows, statistic, key)}')


if __name__ == '__main__':
    main()
