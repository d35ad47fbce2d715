"""Config tables of runs that take seconds, and how tests change and write them."""

import tomllib

import tomli_w

TINY = {
    'name': 'tiny',
    'run': {'scheme': 'ooo', 'seeds': '0:2', 'updates_per_round': 5, 'seed_group': 2},
    'environment': {'id': 'ooorl/UMaze-v0', 'num_envs': 2, 'settings': {'horizon': 12}},
    'evaluation': {'num_episodes': 3},
    'dataset': {'scripted': 'u_maze', 'settings': {'num_episodes': 4}},
    'ooo': {'pretrain_updates': 10, 'num_env_steps': 20, 'explore_updates': 10, 'retrain_updates': 10},
    'explore': {'agent': 'iql', 'hidden': [8], 'sampling': {'batch_size': 8}},
    'exploit': {'agent': 'iql', 'hidden': [8], 'sampling': {'batch_size': 8}, 'bounds': {}},
    'report': {'map_columns': [0, 1]},
}
OFFLINE = {
    'name': 'offline',
    'run': {'scheme': 'offline', 'updates_per_round': 5},
    'offline': {'num_updates': 10},
    'agent': {'agent': 'iql', 'hidden': [8], 'sampling': {'batch_size': 8}},
}
# A cloned flow, for runs that go on from it.
CLONED_FLOW = OFFLINE | {
    'environment': TINY['environment'],
    'evaluation': {'num_episodes': 0},
    'dataset': TINY['dataset'],
    'offline': {'num_updates': 5},
    'agent': {
        'agent': 'bc', 'normalise_observation': True, 'sampling': {'batch_size': 8},
        'policy': {'kind': 'flow', 'hidden': [8], 'num_steps': 2, 'ema_rate': 0.5},
    },
}  # fmt: skip


def changed(table, **changes):
    """A copy of a config with `section__key=value` changed; None removes."""
    table = tomllib.loads(tomli_w.dumps(table))
    for name, value in changes.items():
        *sections, key = name.split('__')
        inner = table
        for section in sections:
            inner = inner.setdefault(section, {})
        if value is None:
            del inner[key]
        else:
            inner[key] = value
    return table


def written(table, name='c.toml'):
    with open(name, 'w') as file:
        file.write(tomli_w.dumps(table))
    return name
