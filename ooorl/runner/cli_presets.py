"""The verb of the command line that says what presets hold, and why: explain."""


def add_parsers(commands) -> None:
    """Adds `explain` to the subparsers of the command line."""
    explain = commands.add_parser('explain', help='what a preset sets, and where each value comes from')
    explain.add_argument('preset', nargs='?', metavar='PRESET', help='iql, or a variant, iql@corl; all of them where not said')
    explain.add_argument('key', nargs='?', default='', metavar='KEY', help='one setting: agent.expectile, or expectile')
    explain.add_argument('--dataset', metavar='ID|PATH', help='as it is for this task')
    explain.add_argument('--env', metavar='ID', help='as it is for this environment')
    explain.add_argument('--family', help='as it is for this family of tasks')
    explain.add_argument('--like', metavar='ID', help='as it is for this task of the catalogue')
    explain.set_defaults(command=_explain)


def _explain(arguments):
    from ooorl.runner import presets

    if arguments.preset is None:
        for name in presets.names():
            held = presets.read(name)
            print(f'{name}: {held["about"]}')
            print(f'  variants {", ".join(held["variants"])} (default {held["default"]}); for {", ".join(held["families"])}')
            for variant, further in held.get('also', {}).items():
                print(f'  {name}@{variant} also for {", ".join(further)}')
        return
    task = None
    if arguments.dataset or arguments.env or arguments.family or arguments.like:
        task = presets.task_of(arguments.dataset, arguments.env, arguments.family, arguments.like)
    for key, value, source in presets.explained(arguments.preset, task, arguments.key):
        print(f'{key} = {value}')
        print(f'    {source}')
