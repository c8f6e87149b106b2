"""The Teleoperator interface, a person's hand as the source of actions, and its config registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar

from tactus.hal.config import Registry

if TYPE_CHECKING:
    import numpy as np

    from tactus.hal.spec import Observation, RobotSpec


class Teleoperator(ABC):
    """Decides what a robot does while a person moves something: a leader arm, keys.

    Order of calls: connect, then per episode reset and any number of decide, then close. Beside a policy: `look` and
    `wants` in every tick, `follow` in those that the policy drives; reset when the person takes over, then decide.
    """

    hint: str = ""
    """How it is used, for the person; known once it is connected."""

    @abstractmethod
    def connect(self, robot: RobotSpec) -> None:
        """Claim devices. Raises RobotError if they are missing, or cannot drive this robot."""

    @abstractmethod
    def reset(self, state: np.ndarray) -> None:
        """An episode, or the person's part of it, begins. state: where the robot's action dimensions stand, in action
        units."""

    @abstractmethod
    def decide(self) -> np.ndarray | None:
        """The action for now, the robot's action shape and dtype; None when the episode is over."""

    def look(self, observe: Callable[[], Observation]) -> None:  # noqa: B027 - a hand has no eyes
        """A tick begins, and this is what is to be seen of the robot."""

    def wants(self) -> bool | None:
        """Beside a policy: True to take over, False to hand back, None to leave it as it is."""
        return None

    def follow(self, action: np.ndarray) -> None:  # noqa: B027 - most have no motors
        """The policy drives, and has commanded this: what has motors goes there too, so that a hand takes over where
        the robot is."""

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
    wall_time: ClassVar[bool] = True
    """whether it lives in the world's time, as a hand does: it can do nothing on a virtual clock"""

    def make(self) -> Teleoperator:
        """Build the teleoperator this config describes."""
        return resolve_name(self.entry_point)(self)

    @classmethod
    def implied_type(cls, keys: Mapping[str, Any]) -> str | None:
        """An arm is a leader."""
        return "leader" if "arm" in keys else None
