"""What a run says of itself before it begins: data, agents with all that changes what they see, phases."""


def print_header(prepared, out) -> None:
    """Prints it."""
    from rich.console import Console

    from ooorl.runner import memory
    from ooorl.runner.settings import AGENT_TABLES

    console, setup = Console(highlight=False), prepared.setup
    console.print(f'[bold]{prepared.config["name"]}[/bold] -> {out}, seeds {prepared.config["run"]["seeds"]}')
    if prepared.dataset is not None:
        rows = prepared.dataset.transitions.reward.shape[0]
        console.print(f'data: {prepared.dataset.name}, {rows:,} rows, sha256 {prepared.dataset.sha256[:12]}')
        for note in prepared.dataset.notes:
            console.print(f'  {note}', markup=False)
    elif any(_wants_data(prepared.config.get(name, {})) for name in AGENT_TABLES):
        console.print('data: none; the share that mix gives them goes to what is collected')
    for note in prepared.store_notes:
        console.print(f'store: {note}', markup=False)
    if 'steered' in prepared.config:
        table = prepared.config['steered']
        console.print(f'actions: noise up to {table["bound"]:g} for the policy of {table["run"]}', markup=False)
    for name in AGENT_TABLES:
        if name in prepared.config:
            console.print(f'{name}: {_transforms(prepared.config[name])}')
    steps = sum(phase.num_env_steps for phase in setup.phases)
    if prepared.plan:
        console.print(memory.line(prepared.plan), soft_wrap=True)
    console.print(f'phases: {", ".join(phase.name for phase in setup.phases)}; {steps:,} environment steps a seed')


def _wants_data(table):
    mixes = (table.get(name, {}).get('mix') for name in ('sampling', 'online_sampling'))
    return any(isinstance(mix, dict) and mix.get('dataset', 0) > 0 for mix in mixes)


def _transforms(table):
    parts = [table['agent']]
    if 'policy' in table:
        parts.append(f'{table["policy"]["kind"]} policy')
    if table.get('backup_steps', table['chunk']) > table['chunk']:
        parts.append(f'backups over {table["backup_steps"]} steps')
    if table['chunk'] > 1:
        parts.append(f'chunks of {table["chunk"]} steps, ends {"kept" if table["chunk_ends"] == "keep" else "dropped"}')
    if 'online' in table:
        parts.append('online ' + ' '.join(f'{key}={value}' for key, value in table['online'].items()))
    if 'reranked' in table:
        parts.append(f'best of {table["reranked"]["num_candidates"]} draws')
    if 'reward' in table:
        parts.append(f'reward {table["reward"]["scale"]:g} r {table["reward"]["shift"]:+g}')
    if 'bounds' in table:
        bounds = [f'{table["bounds"][side]:g}' if side in table['bounds'] else 'from data' for side in ('low', 'high')]
        parts.append(f'values from {bounds[0]} to {bounds[1]}'.replace('from from', 'from'))
    if 'bonus' in table:
        parts.append(f'{table["bonus"]["signal"]} bonus x {table["bonus"]["scale"]:g}')
    if table['normalise_observation']:
        parts.append('normalised observations')
    if table.get('terminal_reward') is not None:
        parts.append(f'terminal where reward is {table["terminal_reward"]:g}')
    sampling = table.get('sampling', {})
    if sampling.get('success_rows'):
        parts.append(f'{sampling["success_rows"]} of {sampling["batch_size"]} rows from successes')
    return ', '.join(parts)
