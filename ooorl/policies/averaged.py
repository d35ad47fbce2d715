"""A policy that acts with a slow average of the parameters it fits."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ooorl.types import Params, Policy
from ooorl.validation import check_share


class Averaged(NamedTuple):
    """Parameters being fitted, and their exponential moving average."""

    fitted: Params
    slow: Params


def fitted_of(tree: Params) -> Params:
    """Parameters, or gradients of them, without their slow copies: what an optimiser needs to know."""
    return jax.tree.map(lambda node: node.fitted if _is_averaged(node) else node, tree, is_leaf=_is_averaged)


def with_fitted(params: Params, fitted: Params) -> Params:
    """Parameters with their slow copies as they are and the fitted ones, in the form of `fitted_of`, replaced."""

    def replaced(old, new):
        return Averaged(new, old.slow) if _is_averaged(old) else new

    return jax.tree.map(replaced, params, fitted, is_leaf=_is_averaged)


def _is_averaged(node) -> bool:
    return isinstance(node, Averaged)


def averaged(policy: Policy, rate: float, *, lags: bool = False) -> Policy:
    """The policy with a slow copy of its parameters, which is what acts.

        slow <- (1 - rate) * slow + rate * fitted        after every step of the optimiser

    fitted being the parameters after that step, or if it `lags` those before, as in code that moves all slow copies first.

    Losses and Bellman targets read the fitted parameters, `deployed(params)` puts the slow ones in their place. The optimisers
    of `agents.steps` do not see the slow copy; whatever another one does to it (weight decay) is undone.

    Raises:
      UsageError: if the rate does not lie in (0, 1].
    """
    check_share(ema_rate=rate)

    def init(key):
        fitted = policy.init(key)
        # A copy, so that the state can be donated.
        return Averaged(fitted, jax.tree.map(jnp.copy, fitted))

    def after_update(before, after):
        fitted = policy.after_update(before.fitted, after.fitted)
        towards = before.fitted if lags else fitted
        return Averaged(fitted, jax.tree.map(lambda new, old: rate * new + (1.0 - rate) * old, towards, before.slow))

    def of_fitted(function):
        return function and (lambda params, *args: function(params.fitted, *args))

    names = ('facts', 'sample', 'mode', 'loss', 'decode', 'denoise', 'log_prob', 'sample_and_log_prob')
    functions = {name: of_fitted(getattr(policy, name)) for name in names if hasattr(policy, name)}
    return replace(
        policy, **functions, init=init, after_update=after_update, deployed=lambda params: Averaged(params.slow, params.slow)
    )
