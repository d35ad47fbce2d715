"""Signals: what scores transitions for their novelty."""

from ooorl.signals.novelty import (
    DisagreementConfig,
    RNDConfig,
    ensemble_disagreement,
    rnd,
    state_action_counts,
)

__all__ = ['DisagreementConfig', 'RNDConfig', 'ensemble_disagreement', 'rnd', 'state_action_counts']
