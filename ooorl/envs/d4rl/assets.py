"""Model files that other packages bring, found without running those packages' code."""

import importlib.util
from pathlib import Path

from ooorl.errors import UsageError


def _assets(package: str, *parts: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("this environment needs gymnasium-robotics: pip install 'ooorl[robotics]'")
    return Path(next(iter(spec.submodule_search_locations))).joinpath('envs', *parts)


def gymnasium_model(name: str) -> str:
    """The path of a MuJoCo model that gymnasium packages."""
    return str(_assets('gymnasium', 'mujoco', 'assets', name))


def robotics_asset(*parts: str) -> str:
    """The path of a file among the assets that gymnasium-robotics packages.

    Raises:
      UsageError: gymnasium-robotics is not installed.
    """
    return str(_assets('gymnasium_robotics', 'assets', *parts))
