"""Names of OGBench's data sets: those that its own scripted controllers make, with the published settings, and the others."""

from ooorl.catalogue.ogbench import FAMILIES, environment
from ooorl.envs.d4rl.recipes import Recipe


def _options(family, kind):
    options = {'episode_rows': FAMILIES[family].data[kind][0]}
    if family.startswith('pointmaze'):
        return {**options, 'noise': 0.5}
    if kind == 'play':
        return {**options, 'noise': 0.1, 'noise_smoothing': 0.5, 'p_random_action': 0.0}
    return {**options, 'noise': 0.1, 'min_norm': 0.4, 'p_random_action': 0.2 if family.startswith('puzzle') else 0.1}


RECIPES: dict[str, Recipe] = {
    f'{family}-{kind}': Recipe(
        kind='oracle', environment=environment(family, 0), family=family, data=kind, options=_options(family, kind)
    )
    for family, facts in FAMILIES.items()
    for kind in facts.data
    if facts.scripted
}

# Made by trained controllers, which the package does not hold.
TRAINED = tuple(f'{family}-{kind}' for family, facts in FAMILIES.items() for kind in facts.data if not facts.scripted)
