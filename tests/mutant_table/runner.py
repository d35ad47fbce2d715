# ruff: noqa: E501 - an edit stays on one line, as the line that it changes does
"""Wrong changes of runner/."""

from mutant_table.entry import mutants

TABLE = [
    *mutants(
        'runner/config.py', ('runner/test_online_settings.py',),
        ('sub-tables are replaced', '{**merged.get(key, {}), **value} if isinstance(value, Mapping) else value', 'value'),
        ('any scheme', "if scheme != 'finetune':\n        raise UsageError(f\"[agent.online]", "if False:\n        raise UsageError(f\"[agent.online]"),
    ),
    *mutants(
        'runner/cli.py', ('runner/test_cli.py::test_a_signal_that_a_callback_of_the_garbage_collector_swallows_is_raised_again',),
        ('a signal is raised once', 'signal.setitimer(signal.ITIMER_REAL, 1.0)', 'pass'),
    ),
    *mutants(
        'runner/steering.py', ('runner/test_steering.py',),
        ('what is deployed goes beyond the bound', 'policy.decode(observation, policy.bound * act', 'policy.decode(observation, act'),
        ('another policy is taken on resuming', "not in ('', digest)", "in ('x',)"),
    ),
    *mutants(
        'runner/head_support.py', ('runner/test_head_support.py',),
        ('only the lower end', 'or high > head[\'high\'] + slack', 'and high > head[\'high\'] + slack'),
        ('raw rewards', "units.get('scale', 1.0) * reward", '1.0 * reward'),
        ('unbounded', "np.clip(returns, bounds.get('low', -np.inf), bounds.get('high', np.inf))", 'returns'),
    ),
]
