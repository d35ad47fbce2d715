"""One recipe for every cell: a TOML file whose tables are laid over a cell's config.

    [exploit]          replaces the exploiter; of the cell's own table stay what belongs to the problem (KEPT)
    [exploit.sampling] changes single keys of how it draws batches
    [ooo]              `updates`: times the cell's `retrain_updates`
    [bonus.<signal>]   changes single keys of the explorer's bonus, in cells with this signal
"""

import copy
import tomllib
from collections.abc import Mapping
from pathlib import Path

from ooorl.errors import UsageError

KEPT = ('gamma', 'polyak', 'learning_rate', 'hidden', 'reward', 'bounds', 'sampling')
TABLES = ('exploit', 'ooo', 'bonus')


def read(path: Path) -> dict:
    """The tables of a recipe.

    Raises:
      UsageError: if there are others.
    """
    recipe = tomllib.loads(Path(path).read_text(encoding='utf-8'))
    unknown = [name for name in recipe if name not in TABLES]
    if unknown or set(recipe.get('ooo', {})) - {'updates'}:
        raise UsageError(f'a recipe has the tables {", ".join(TABLES)}, and in ooo the key updates; got {list(recipe)}')
    return recipe


def applied(table: Mapping, recipe: Mapping) -> dict:
    """The config of a cell with a recipe laid over it."""
    table = copy.deepcopy(dict(table))
    own, new = table['exploit'], copy.deepcopy(recipe.get('exploit', {}))
    sampling = {**own.get('sampling', {}), **new.pop('sampling', {})}
    kept = {key: own[key] for key in KEPT if key in own} if 'agent' in new else own
    table['exploit'] = {**kept, **new, 'sampling': sampling}
    table['ooo']['retrain_updates'] = round(recipe.get('ooo', {}).get('updates', 1) * table['ooo']['retrain_updates'])
    bonus = table['explore'].get('bonus', {})
    bonus.update(recipe.get('bonus', {}).get(bonus.get('signal'), {}))
    return table
