"""The Robot interface, its config registry, and what an episode ends with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import draccus
import numpy as np

from hal.spec import Observation, RobotSpec


@dataclass(frozen=True)
class Scene:
    """What episode i will be: the instruction, the group it is counted under, and its particulars."""

    task: str = ""
    group: str = ""
    labels: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a simulated episode stands. `done` ends it, `success` may become true before that."""

    success: bool
    done: bool
    reward: float


class Robot(ABC):
    """A thing that is observed and acted on at a fixed rate. It knows neither time, sockets nor policies.

    Order of calls: connect, then per episode reset and any number of observe/act, then close. `spec` and
    `scene` can be read before `connect`; `close` may be called at any time and more than once.
    """

    @property
    @abstractmethod
    def spec(self) -> RobotSpec:
        """What it gives and takes; constant for the life of the object."""

    @abstractmethod
    def connect(self) -> None:
        """Claim devices or build the simulator; raises if the real one cannot be had."""

    def scene(self, episode: int) -> Scene:
        """What `reset(episode)` will set up. Pure: episode i is the same whoever asks, in any order."""
        return Scene(group=self.spec.name)

    @abstractmethod
    def reset(self, episode: int, seed: int) -> None:
        """Put the robot at the start of episode `episode`; equal arguments give equal bits in a simulator.

        seed: the run's; each robot derives the episode's own from it, as LeRobot's evaluation does.
        """

    @abstractmethod
    def observe(self) -> Observation:
        """The arrays of `spec.observations` now. Cost lives here (cameras, rendering), not in `act`."""

    @abstractmethod
    def act(self, action: np.ndarray) -> np.ndarray:
        """Send one action (`spec.action`'s shape and dtype) and return what was really sent, after limits."""

    def outcome(self) -> Outcome | None:
        """How the episode stands; None where nobody can tell (hardware)."""
        return None

    @property
    def renders(self) -> int:
        """Camera images a simulator has rendered since `connect`; 0 for anything that does not render."""
        return 0

    @abstractmethod
    def close(self) -> None:
        """Release everything."""

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class RobotConfig(draccus.ChoiceRegistry):
    """Base of all backends' configs: `robot.type` picks the subclass, which builds its Robot."""

    def make(self) -> Robot:
        """Build the robot this config describes. Imports the backend's packages."""
        raise TypeError(f"{type(self).__name__} is not a backend; set robot.type")
