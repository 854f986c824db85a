"""Paths of the shipped bundles, recipes and configuration."""

import sys
from pathlib import Path


def shipped_file(relative: str) -> Path:
    """A shipped file: in the ament share folder, else `sys.prefix/share/ser_ros`, else the checkout.

    Returns the checkout's path if none of them has it, so that the caller's error can name it.
    """
    candidates = [Path(sys.prefix, 'share', 'ser_ros'), Path(__file__).resolve().parents[1]]
    try:
        from ament_index_python.packages import get_package_share_directory

        candidates.insert(0, Path(get_package_share_directory('ser_ros')))
    # There is no ROS, or it is not sourced, or it does not have this package.
    except (ImportError, LookupError, OSError):
        pass
    paths = [candidate / relative for candidate in candidates]
    return next((path for path in paths if path.exists()), paths[-1])


def shipped_bundles() -> list[str]:
    """Names of the bundles that come with the package."""
    return sorted(path.stem for path in shipped_file('bundles').glob('*.safetensors'))


def shipped_recipes() -> list[str]:
    """Names of the training recipes that come with the package, such as `research/vgg`."""
    folder = shipped_file('config/recipes')
    names = [p.relative_to(folder).with_suffix('').as_posix() for p in folder.rglob('*.yaml')]
    return sorted(name for name in names if not name.endswith('base'))
