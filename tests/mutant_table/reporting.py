# ruff: noqa: E501 - an edit stays on one line, as the line that it changes does
"""Wrong changes of reporting/."""

from mutant_table.entry import mutants

TABLE = [
    *mutants(
        'reporting/stats.py', ('reporting/test_stats.py',),
        ('the same seeds for all tasks', 'rows = generator.integers(len(scores), size=(num, *scores.shape))',
         'rows = np.broadcast_to(generator.integers(len(scores), size=(num, len(scores), 1)), (num, *scores.shape))'),
        ('seeds of all tasks mixed', 'np.take_along_axis(scores[None], rows, axis=1)', 'scores.reshape(-1)[rows * scores.shape[1]]'),
        ('one seed is never drawn', 'generator.integers(len(scores), size=(num, *scores.shape))', 'generator.integers(len(scores) - 1, size=(num, *scores.shape))'),
        ('ties count whole', '+ 1).mean((-2, -1)) / 2', '> -1).mean((-2, -1))'),
        ('improvement reversed', 'left[..., :, None, task] - right[..., None, :, task]', 'right[..., None, :, task] - left[..., :, None, task]'),
        ('at and above the threshold', 'fraction = np.array([(scores > threshold).mean()', 'fraction = np.array([(scores >= threshold).mean()'),
        ('failed runs are left out', 'scores = np.where(np.isfinite(scores), scores, -np.inf)', 'scores = np.where(np.isfinite(scores), scores, np.inf)'),
        ('regret by the left ends', '(shortfall[..., 1:] + shortfall[..., :-1]) / 2 * gaps', 'shortfall[..., :-1] * gaps'),
        ('regret without weights', '/ 2 * gaps).sum(-1) / gaps.sum()', '/ 2).mean(-1)'),
        ('few seeds are enough', 'if num < 3:', 'if num < 2:'),
        ('equal values get an interval', 'if (np.ptp(scores, axis=0) == 0).all():', 'if False:'),
    ),
    *mutants(
        'reporting/intervals.py', ('reporting/test_intervals.py',),
        ('a quarter of both ends together', 'cut = size // 4\n    middle', 'cut = size // 8\n    middle'),
        ('a quarter rounded up', 'cut = size // 4\n    middle', 'cut = -(-size // 4)\n    middle'),
        ('one degree of freedom more', 'special.stdtrit(kept - 1,', 'special.stdtrit(kept,'),
        ('one tail', '(1 + level) / 2) * winsorised', 'level) * winsorised'),
        ('deviation without its root', 'np.sqrt(size / (kept * (kept - 1)))', '(size / (kept * (kept - 1)))'),
        ('deviation of the untrimmed', '* winsorised.std()', '* ordered.std()'),
        ('not cut at the range', '*(bounds or (-np.inf, np.inf)))', '*(-np.inf, np.inf))'),
        ('binomial: lower tail', 'special.betaincinv(hits, num - hits + 1, tail)', 'special.betaincinv(hits, num - hits, tail)'),
        ('binomial: both tails in one', 'tail = np.clip((values - low) / (high - low), 0, 1), (1 - level) / 2', 'tail = np.clip((values - low) / (high - low), 0, 1), 1 - level'),
        ('bounded: the upper end without its weight', 'np.quantile(means + weights[:, -1], 1 - tail)', 'np.quantile(means, 1 - tail)'),
        ('bounded: not ordered', '@ np.sort(place)', '@ place', 'weights are exchangeable: only digits differ'),
        ('median: one score further in', '[num_outside - 1, size - num_outside]', '[num_outside, size - num_outside - 1]'),
        ('median: one tail', 'int((tails <= (1 - level) / 2).sum())', 'int((tails <= 1 - level).sum())'),
        ('difference reversed', 'interval(x - y,', 'interval(y - x,'),
        ('difference within the range of one side', '(-width, width))', 'bounds)'),
        ('two seeds are enough', 'if len(values) < 3:', 'if len(values) < 2:'),
        ('a missing seed is left out', 'if not np.isfinite(values).all():', 'if not np.isfinite(values).any():'),
        ('nearly yes or no by one score', '<= NEAR + 1e-6).all()', '<= NEAR + 1e-6).any()'),
    ),
]
