"""The sub-tables `bonus` and `cautious` of an agent: their settings, and the agents that they make."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from ooorl import signals, wrap
from ooorl.errors import UsageError
from ooorl.signals.calibration import tallied
from ooorl.signals.fading import fading
from ooorl.types import Agent, Spec
from ooorl.validation import check_choice, check_not_negative, check_unit


@dataclass(frozen=True, kw_only=True)
class BonusConfig:
    """Keys of sub-table `bonus` beside those of the signal."""

    signal: str = 'rnd'  # rnd, counts or disagreement
    scale: float = 10.0  # of the bonus in the Bellman target
    scale_end: float = 1.0  # share of it that is left at the end of each phase, to which it falls in a line

    def __post_init__(self):
        check_not_negative(scale=self.scale)
        check_unit(scale_end=self.scale_end)


@dataclass(frozen=True, kw_only=True)
class CautiousConfig:
    """Keys of sub-table `cautious` beside those of the detector."""

    signal: str = 'classifier'  # classifier, precedence, reachability, or neighbour, which knows of novelty only
    floor: float = -10.0  # value of what cannot be taken back, in its reward units; (R_min - eps) / (1 - gamma) is below all
    labels: str = 'none'  # 'environment': every row is labelled by the environment's own test, which is privileged knowledge

    def __post_init__(self):
        check_choice(('none', 'environment'), labels=self.labels)


@dataclass(frozen=True, kw_only=True)
class CountsConfig:
    """Signal 'counts': see `signals.state_action_counts`."""

    low: tuple[float, ...]  # of each counted column; what lies outside falls into the outermost cell
    high: tuple[float, ...]  # likewise
    observation_bins: tuple[int, ...]  # cells along each counted column
    action_bins: tuple[int, ...]  # cells along each action dimension
    observation_columns: tuple[int, ...] | None = None  # which columns are counted; absent: the first ones


def _counts(spec, config):
    columns = config.observation_columns or range(len(config.low))
    if len(config.action_bins) != spec.action_dim or (columns and not 0 <= min(columns) <= max(columns) < spec.observation_dim):
        raise UsageError(
            f'counts needs action_bins for {spec.action_dim} action dimensions and columns below {spec.observation_dim}; '
            f'got {len(config.action_bins)} and {list(columns)}'
        )
    return signals.state_action_counts(**dataclasses.asdict(config))


SIGNALS = {'rnd': signals.RNDConfig, 'disagreement': signals.DisagreementConfig, 'counts': CountsConfig}
DETECTORS = {
    'classifier': signals.ClassifierConfig,
    'precedence': signals.PrecedenceConfig,
    'reachability': signals.ReachabilityConfig,
    'neighbour': signals.NeighbourConfig,
}
BUILDERS = {
    'rnd': signals.rnd,
    'disagreement': signals.ensemble_disagreement,
    'counts': _counts,
    'classifier': signals.reversibility_classifier,
    'precedence': signals.precedence,
    'reachability': signals.reset_reachability,
    'neighbour': signals.nearest_neighbour,
}


def _signal(table, spec, kinds):
    kind = kinds[table['signal']]
    own = {field.name for field in dataclasses.fields(kind)}
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items() if key in own}
    return BUILDERS[table['signal']](spec, kind(**lists))


def with_bonus(agent: Agent, table: Mapping, spec: Spec) -> Agent:
    """The agent with the bonus that a resolved table says."""
    signal, end = _signal(table, spec, SIGNALS), table.get('scale_end', 1.0)
    return wrap.bonus(agent, signal if end == 1.0 else fading(signal, end), scale=table['scale'])


def detector(table: Mapping, spec: Spec) -> signals.Detector:
    """The detector of a resolved sub-table `cautious`."""
    return tallied(_signal(table, spec, DETECTORS))


def with_caution(agent: Agent, table: Mapping, spec: Spec) -> Agent:
    """The agent with the caution that a resolved table says."""
    return wrap.cautious(agent, detector(table, spec), floor=table['floor'])


def with_labels(agent: Agent, table: Mapping, irreversible) -> Agent:
    """The agent that is told the truth about every row, where its sub-table `cautious` asks for that; outermost.

    Raises:
      UsageError: if it asks and there is no environment that could tell.
    """
    if table.get('cautious', {}).get('labels') != 'environment':
        return agent
    if irreversible is None:
        raise UsageError(
            "cautious.labels = 'environment' needs a compiled environment that knows what is irreversible; this one does not; "
            "use 'none' and a detector that needs no labels"
        )
    return wrap.labelled(agent, irreversible)
