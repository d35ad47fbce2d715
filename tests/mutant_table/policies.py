# ruff: noqa: E501 - an edit stays on one line, as the line that it changes does
"""Wrong changes of policies/."""

from mutant_table.entry import mutants

TABLE = [
    *mutants(
        'policies/edited.py', ('agents/test_expo.py',),
        ('edits are not bounded by the box', 'jnp.clip(action + config.edit_scale * moves[0], -1.0, 1.0)', 'action + config.edit_scale * moves[0]'),
        ('the density of something else', 'log_prob[0]\n', '0.0 * log_prob[0]\n'),
        ('edits of another draw', 'plain[:num_edited], edit_key', 'plain[:num_edited] * 0.0, edit_key'),
        ('one key for draw and edit', 'base.sample(params.base, observation, base_key, num)', 'base.sample(params.base, observation, edit_key, num)'),
        ('only edits', 'jnp.concatenate([plain, edited]) if config.keep_plain else edited', 'edited'),
        ('acts with the fitted base', 'params._replace(base=base.deployed(params.base))', 'params'),
    ),
    *mutants(
        'policies/opaque.py', ('policies/test_opaque.py', 'runner/test_build_policies.py'),
        ('normalised observations', 'spec.observation_dim) * std + mean', 'spec.observation_dim)'),
        ('units of actions', '2.0 * (action - low) / (high - low) - 1.0 if boxed', 'action if boxed'),
    ),
]
