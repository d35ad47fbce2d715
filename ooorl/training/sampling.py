"""How a batch is drawn, as settings."""

from collections.abc import Mapping
from dataclasses import dataclass

from ooorl.errors import UsageError
from ooorl.validation import check_choice, check_not_negative, check_positive, check_unit

STORES = ('dataset', 'online')  # what a phase can draw from
WEIGHTINGS = ('none', 'return', 'advantage', 'top')  # see `ooorl.training.selection`


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a batch is drawn."""

    batch_size: int = 256  # rows of a batch
    mix: Mapping[str, float] | str = 'union'  # 'union', 'growing', or fixed shares {'dataset': 0.5, 'online': 0.5}
    mix_end: Mapping[str, float] | None = None  # what fixed shares come to, in a line, while collection fills the store
    success_rows: int = 0  # so many rows of each batch come from successes (none stored: from the mix)
    success_reward: float = 1.0  # a raw reward at least this high is a success
    success_unit: str = 'trajectory'  # draw from the whole 'trajectory' that succeeds, or only the 'transition'
    success_mix: Mapping[str, float] | str = 'union'  # shares of the sources in success rows; 'union': as many as each holds
    weighting: str = 'none'  # of whole episodes: 'return', 'advantage' or 'top'; for phases that collect nothing
    weight_share: float = 0.5  # share of the other rows that is drawn by weight; what is left follows mix
    weight_temperature: float = 0.1  # of 'return' and 'advantage', in units of the range of scores
    top_share: float = 0.1  # of the episodes, by return, that 'top' draws from
    gamma: float = 0.99  # discount of return_to_go
    failure_returns: bool = False  # an episode without success counts as failing for ever: r_last / (1 - gamma)

    def __post_init__(self):
        check_positive(batch_size=self.batch_size)
        check_not_negative(success_rows=self.success_rows)
        check_unit(gamma=self.gamma)
        check_choice(('trajectory', 'transition'), success_unit=self.success_unit)
        if self.success_rows > self.batch_size:
            raise UsageError(f'success_rows must be at most batch_size, {self.batch_size}; got {self.success_rows}')
        if self.failure_returns and self.gamma == 1:
            raise UsageError('failure_returns needs gamma below 1, which sums up failing for ever; got 1; lower it')
        check_choice(WEIGHTINGS, weighting=self.weighting)
        check_unit(weight_share=self.weight_share, top_share=self.top_share)
        check_positive(weight_temperature=self.weight_temperature, top_share=self.top_share)
        _check_mix('mix', self.mix, ('union', 'growing'))
        _check_mix('success_mix', self.success_mix, ('union',))
        if self.mix_end is not None:
            _check_mix('mix_end', self.mix_end, ())
            if isinstance(self.mix, str):
                raise UsageError(f'mix_end needs shares in mix to come from; got mix = {self.mix!r}; give shares there, too')


def _check_mix(name, mix, words):
    if isinstance(mix, str):
        check_choice(words, **{name: mix})
    elif set(mix) - set(STORES):
        raise UsageError(f'{name} gives shares to {" and ".join(STORES)}; got {", ".join(map(str, mix))}; rename')
    elif not all(isinstance(share, int | float) for share in mix.values()):
        raise UsageError(f'the shares of {name} must be numbers; got {dict(mix)}')
    elif not abs(sum(mix.values()) - 1.0) <= 1e-6 or min(mix.values()) < 0:
        raise UsageError(f'the shares of {name} must be 0 or more and sum to 1; got {dict(mix)}')
