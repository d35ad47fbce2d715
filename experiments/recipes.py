"""One recipe for every cell: a TOML file whose tables are laid over a cell's config.

    [exploit]          changes the exploiter's keys; where it names another agent, what belongs to the problem stays (KEPT), and
                       `otherwise` holds further keys for that case
    [exploit.sampling] keys of how it draws batches, where the cell does not have them
    [climb]            a second exploiter, like [exploit]: the arm `climb`
    [ooo]              `updates`: times the cell's `retrain_updates`; `episodes`: of the trial by which the arm `chosen` picks
    [bonus.<signal>]   changes single keys of the explorer's bonus, in cells with this signal
"""

import copy
import tomllib
from collections.abc import Mapping
from pathlib import Path

from ooorl.errors import UsageError

KEPT = ('gamma', 'polyak', 'learning_rate', 'hidden', 'normalise_observation', 'reward', 'bounds', 'sampling', 'backup_steps')
TABLES = ('exploit', 'climb', 'ooo', 'bonus')


def read(path: Path) -> dict:
    """The tables of a recipe.

    Raises:
      UsageError: if there are others.
    """
    recipe = tomllib.loads(Path(path).read_text(encoding='utf-8'))
    unknown = [name for name in recipe if name not in TABLES]
    if unknown or set(recipe.get('ooo', {})) - {'updates', 'episodes'}:
        raise UsageError(f'a recipe has tables {", ".join(TABLES)}, ooo with the keys updates and episodes; got {list(recipe)}')
    return recipe


def applied(table: Mapping, recipe: Mapping, exploiter: str = 'exploit') -> dict:
    """The config of a cell with a recipe laid over it, with one of the recipe's exploiters."""
    table = copy.deepcopy(dict(table))
    own, new = table['exploit'], copy.deepcopy(recipe.get(exploiter, {}))
    sampling = {**new.pop('sampling', {}), **own.get('sampling', {})}
    same, other = new.get('agent', own['agent']) == own['agent'], new.pop('otherwise', {})
    kept = own if same else {**{key: own[key] for key in KEPT if key in own}, **other}
    table['exploit'] = {**kept, **new, 'sampling': sampling}
    table['ooo']['retrain_updates'] = round(recipe.get('ooo', {}).get('updates', 1) * table['ooo']['retrain_updates'])
    bonus = table['explore'].get('bonus', {})
    bonus.update(recipe.get('bonus', {}).get(bonus.get('signal'), {}))
    return table
