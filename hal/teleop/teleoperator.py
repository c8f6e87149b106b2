"""The Teleoperator interface, a person's hand as the source of actions, and its config registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar

from tactus.hal.config import Registry

if TYPE_CHECKING:
    import numpy as np

    from tactus.hal.spec import RobotSpec


class Teleoperator(ABC):
    """Decides what a robot does while a person moves something: a leader arm, keys.

    Order of calls: connect, then per episode reset and any number of decide, then close.
    """

    hint: str = ""
    """How it is used, for the person; known once it is connected."""

    @abstractmethod
    def connect(self, robot: RobotSpec) -> None:
        """Claim devices. Raises RobotError if they are missing, or cannot drive this robot."""

    @abstractmethod
    def reset(self, state: np.ndarray) -> None:
        """An episode begins. state: where the robot's action dimensions stand, in action units."""

    @abstractmethod
    def decide(self) -> np.ndarray | None:
        """The action for now, the robot's action shape and dtype; None when the episode is over."""

    def events(self) -> list[str]:
        """What a person should be told, since the last call; one line each, oldest first."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Release everything; may be called more than once."""


class TeleoperatorConfig(Registry):
    """Base of all teleoperators' configs: `teleop.type` picks the subclass."""

    entry_point: ClassVar[str]
    """module:class of the Teleoperator, which is made with this config as its one argument"""

    def make(self) -> Teleoperator:
        """Build the teleoperator this config describes."""
        return resolve_name(self.entry_point)(self)

    @classmethod
    def implied_type(cls, keys: Mapping[str, Any]) -> str | None:
        """An arm is a leader."""
        return "leader" if "arm" in keys else None
