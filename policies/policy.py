"""The Policy interface and its config registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar

from tactus.hal.config import Registry, expanded
from tactus.hal.json_file import read_json
from tactus.hal.spec import SpecError

if TYPE_CHECKING:
    import numpy as np

    from tactus.hal.spec import Chunk, Observation, PolicySpec
    from tactus.policies.flow_model import FlowModel


class PolicyError(RuntimeError):
    """A request this policy cannot answer; the message is for the person at the robot."""


@dataclass(frozen=True)
class Session:
    """One robot's episode. All noise for it comes from `seed`, never from a generator shared with others.

    seed: the run's seed + the episode's number, so that every episode has noise of its own.
    explore: whether a learner wants to learn from it; most policies do not care.
    """

    id: str
    seed: int
    task: str
    explore: bool = False


@dataclass(frozen=True)
class Prefix:
    """What the robot will still do while it waits, and would do after that: real-time chunking (arXiv 2506.07339).

    actions: [L, R], the last merged chunk's `raw` from the observation's tick on; L may be 0.
    delay: how many of them will have been executed when the new chunk arrives, in ticks.

        tick         k ...... k+d ...... k+L ...... k+H
        old chunk    committed | soft     |
        new chunk    the same  | drawn to | free
    """

    actions: np.ndarray
    delay: int


@dataclass(frozen=True)
class Request:
    """One observation that wants a chunk.

    observation: the policy's inputs; with several observation offsets, stacked on a leading time axis.
    ticks_left: ticks the robot can still act before its queue runs dry; 0 if it is waiting.
    prefix: for policies that take one, unless this is an episode's first chunk.
    """

    session: str
    observation: Observation
    ticks_left: int = 0
    prefix: Prefix | None = None


class Policy(ABC):
    """Observations in, action chunks out. It knows neither time, sockets nor robots.

    One thread calls it. `reset` opens an episode of a session before that session's first request;
    sessions do not influence each other.
    """

    max_batch: int = 1
    """How many sessions' requests `infer` takes at once."""
    remembers: bool = True
    """Whether an answer depends on what the episode's earlier requests were, noise aside: a plan, an ensemble."""
    flow: FlowModel | None = None
    """How a flow policy is seen, by its noise and its velocity; None for one that is none."""

    @property
    @abstractmethod
    def spec(self) -> PolicySpec:
        """What it takes and gives; constant for the life of the object."""

    @abstractmethod
    def reset(self, session: Session) -> None:
        """Forget the session's last episode and begin a new one."""

    @abstractmethod
    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        """One chunk per request, in order: `start` is the observation's tick, `actions` [horizon, A]. Arrays that are
        observed may be kept, and are not writeable."""

    def end(self, session: str) -> None:  # noqa: B027 - most policies keep nothing
        """The robot has gone: drop what is kept for it."""

    def noise(self, session: str) -> bytes:
        """Where the noise of an open session stands, for `set_noise` of another policy; empty if there is none."""
        return b""

    def as_raw(self, actions: np.ndarray) -> np.ndarray:
        """Executed actions [L, A] in the form of Chunk.raw, to be a prefix. Raises SpecError from a policy that cannot
        say: it begins anew where it ought to continue them."""
        raise SpecError(f"{self.spec.name} does not say what executed actions are in its own form")

    def weights(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the weights that `update` takes, by name; empty for a policy that takes no new ones."""
        return {}

    def update(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """New weights, float32, all of `weights`: for episodes that begin from now on. Those that are open go on with
        what they began with: no robot executes half of one and half of another."""
        raise PolicyError("this policy takes no new weights")

    def set_noise(self, session: str, state: bytes) -> None:  # noqa: B027 - most policies draw none
        """Have an open session draw the noise from there on that the policy of `noise` drew next."""


class PolicyConfig(Registry):
    """Base of all policies' configs: `policy.type` picks the subclass, which builds its Policy."""

    entry_point: ClassVar[str]
    """module:class of the Policy, which is made with this config as its one argument"""

    def make(self) -> Policy:
        """Build the policy this config describes. Imports what it needs."""
        return resolve_name(self.entry_point)(self)

    @classmethod
    def implied_type(cls, keys: Mapping[str, Any]) -> str | None:
        """A path alone is that of recorded actions (.npz), of a flow policy of ours, or of a LeRobot checkpoint."""
        path = str(keys.get("path", ""))
        if not path or path.endswith(".npz"):
            return "replay" if path else None
        try:
            return "flow" if read_json(expanded(path) / "config.json", dict).get("type") == "flow" else "lerobot"
        except ValueError:  # which says so when it is loaded
            return "lerobot"
