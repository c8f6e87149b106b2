"""The Robot interface, its config registry, and what an episode ends with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

from tactus.hal.config import Registry

if TYPE_CHECKING:
    import numpy as np

    from tactus.hal.spec import Observation, RobotSpec


@dataclass(frozen=True)
class Scene:
    """What episode i will be: the instruction, the group it is counted under, and its particulars; among these
    `init_state`, where episodes begin at one of a list and not where the seed says."""

    task: str = ""
    group: str = ""
    labels: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a simulated episode stands. `done` ends it, `success` may become true before that."""

    success: bool
    done: bool
    reward: float


class RobotError(RuntimeError):
    """A device that is missing, not as configured, or has failed: which part, what was found, what to do."""


@dataclass(frozen=True)
class Command:
    """One tick's order.

    action: `spec.action`'s shape and dtype. age_s: since the observation that it was decided on. starved: nobody
    decided it; it is what standing still means.
    """

    action: np.ndarray
    age_s: float = 0.0
    starved: bool = False


class Robot(ABC):
    """A thing that is observed and acted on at a fixed rate. It knows neither time, sockets nor policies.

    Order of calls: connect, then per episode reset, any number of observe/act, and rest; then close. `spec` and
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

    def follow(self, command: Command) -> np.ndarray:
        """`act`, for robots that care where an action comes from, as a Governor does; returns what was really sent."""
        return self.act(command.action)

    def rest(self) -> None:  # noqa: B027 - a simulator does not care
        """The episode is over: nobody need be heard of before the next `reset`. What holds a position goes on so."""

    def stop(self, reason: str) -> None:  # noqa: B027 - a simulator has nothing to stop
        """Emergency stop, from any thread; what moves stays stopped until it is connected again."""

    def events(self) -> list[str]:
        """What a person should be told, since the last call; one line each, oldest first."""
        return []

    def counters(self) -> Mapping[str, float]:
        """Totals since `connect`, by name and unit (bus.retries, camera.age_p95_ms): for results and diagnosis."""
        return {}

    def live_pictures(self) -> Observation:
        """What its cameras show just now, for people who watch: from any thread, at any time, without anything that
        the control loop uses. No arrays where only `observe` can make them, as a renderer does."""
        from tactus.hal.spec import Observation

        return Observation({})

    def outcome(self) -> Outcome | None:
        """How the episode stands, before `connect` too; None where nobody can tell (hardware)."""
        return None

    @property
    def wall_time(self) -> bool:
        """Whether it lives in the world's time, as hardware does: nothing may drive it on a virtual clock."""
        return False

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


class RobotConfig(Registry):
    """Base of all backends' configs: `robot.type` picks the subclass, which builds its Robot."""

    entry_point: ClassVar[str]
    """module:class of the Robot, which is made with this config as its one argument"""

    def make(self) -> Robot:
        """Build the robot this config describes. Imports the backend's packages."""
        return resolve_name(self.entry_point)(self)
