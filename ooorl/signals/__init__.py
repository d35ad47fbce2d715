"""Signals: what scores transitions, for their novelty or for how likely they cannot be taken back."""

from ooorl.signals.familiarity import ConfidenceConfig, NeighbourConfig, confidence_minimisation, nearest_neighbour
from ooorl.signals.novelty import (
    DisagreementConfig,
    RNDConfig,
    ensemble_disagreement,
    rnd,
    state_action_counts,
)
from ooorl.signals.reversibility import (
    ClassifierConfig,
    Detector,
    PrecedenceConfig,
    ReachabilityConfig,
    precedence,
    reset_reachability,
    reversibility_classifier,
    verdict,
)

__all__ = [
    'ClassifierConfig',
    'ConfidenceConfig',
    'Detector',
    'DisagreementConfig',
    'NeighbourConfig',
    'PrecedenceConfig',
    'RNDConfig',
    'ReachabilityConfig',
    'confidence_minimisation',
    'ensemble_disagreement',
    'nearest_neighbour',
    'precedence',
    'reset_reachability',
    'reversibility_classifier',
    'rnd',
    'state_action_counts',
    'verdict',
]
