"""LeRobot's registries of robots and cameras: find a type by its name, build it from keyword arguments."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Literal

import draccus
from draccus.utils import DecodingError

from tactus.hal.robot import RobotError

Kind = Literal["robots", "cameras"]
_BASES = {"robots": "RobotConfig", "cameras": "CameraConfig"}
_MAKERS = {"robots": "make_robot_from_config", "cameras": "make_cameras_from_configs"}


def build(kind: Kind, name: str, arguments: dict[str, Any]) -> Any:
    """LeRobot's own object for its type `name`, not yet connected.

    Raises RobotError: LeRobot or what this type needs is not installed, no such type (lists those there are), an
    argument it does not have or of the wrong kind.
    """
    base = _known(kind, name)
    for camera in arguments.get("cameras", {}).values():
        if isinstance(camera, dict) and "type" in camera:
            _known("cameras", str(camera["type"]))
    try:
        config = draccus.decode(base, {"type": name, **arguments})
        module = importlib.import_module(f"lerobot.{kind}.utils")
        if kind == "cameras":
            return getattr(module, _MAKERS[kind])({"camera": config})["camera"]
        return getattr(module, _MAKERS[kind])(config)
    except (DecodingError, TypeError, ValueError) as error:
        raise RobotError(f"LeRobot's {name} does not take these args: {_root_cause(error)}") from error
    except ImportError as error:
        raise RobotError(f"LeRobot's {name} needs a package that is not installed: {error}") from error


def _known(kind: Kind, name: str) -> Any:
    """LeRobot's config registry, once `name` is in it; types enter it when their packages are imported."""
    try:
        package = importlib.import_module(f"lerobot.{kind}")
        base = getattr(
            importlib.import_module(f"lerobot.{kind}.{'config' if kind == 'robots' else 'configs'}"),
            _BASES[kind],
        )
    except ImportError as error:
        raise RobotError(f"LeRobot cannot be imported ({error}); `pip install 'tactus[policy]'`") from error
    unavailable = {}
    for module in pkgutil.iter_modules(package.__path__):
        if name in base.get_known_choices():
            return base
        if module.ispkg:
            try:
                importlib.import_module(f"lerobot.{kind}.{module.name}")
            except ImportError as error:
                unavailable[module.name] = str(error)
    if name not in base.get_known_choices():
        importlib.import_module("lerobot.utils.import_utils").register_third_party_plugins()
    if name not in base.get_known_choices():
        missing = "".join(f"; {package} could not be imported: {why}" for package, why in unavailable.items())
        raise RobotError(
            f"LeRobot has no {kind[:-1]} type {name!r}; it has {', '.join(sorted(base.get_known_choices()))}{missing}"
        )
    return base


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)
