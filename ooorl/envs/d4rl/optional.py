"""Packages and model files that only some environments need, with a plain sentence where they are absent."""

import importlib.util
from pathlib import Path

from ooorl.errors import UsageError


def package_folder(package: str, extra: str) -> Path:
    """The folder of an installed package, found without importing it.

    Raises:
      UsageError: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        distribution = package.replace("_", "-")
        raise UsageError(f"this environment needs {distribution}: pip install 'ooorl[{extra}]'")
    return Path(next(iter(spec.submodule_search_locations)))


def gymnasium_model(name: str) -> str:
    """The path of a MuJoCo model that gymnasium packages."""
    return str(package_folder("gymnasium", "mujoco") / "envs" / "mujoco" / "assets" / name)


def robotics_asset(*parts: str) -> str:
    """The path of a file among the assets that gymnasium-robotics packages."""
    folder = package_folder("gymnasium_robotics", "robotics")
    return str(folder.joinpath("envs", "assets", *parts))
