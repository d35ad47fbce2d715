# ruff: noqa: E501 - an edit stays on one line, as the line that it changes does
"""Wrong changes of runner/."""

from mutant_table.entry import mutants

TABLE = [
    *mutants(
        'runner/config.py', ('runner/test_online_settings.py',),
        ('sub-tables are replaced', '{**merged.get(key, {}), **value} if isinstance(value, Mapping) else value', 'value'),
        ('any scheme', "if scheme != 'finetune':\n        raise UsageError(f\"[agent.online]", "if False:\n        raise UsageError(f\"[agent.online]"),
    ),
]
