"""Code of somebody else's, to be named as MODULE:CLASS or as gymnasium's module:Env-v0; it fails where it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from tactus import (
    Chunk,
    Feature,
    Observation,
    Outcome,
    Policy,
    PolicyConfig,
    PolicySpec,
    Request,
    Robot,
    RobotConfig,
    RobotSpec,
    Session,
    image,
)
from tactus.hal.teleop import Teleoperator, TeleoperatorConfig

STATE, IMAGE = "observation.state", "observation.images.top"
FEATURES = {STATE: Feature((3,), "float32", names=("x", "y", "z")), IMAGE: image(4, 6)}
ACTION = Feature((3,), "float32", mode=("delta",) * 3)
TICKS = 8


def _exit() -> None:
    raise SystemExit(0)


RAISES: dict[str, Callable[[], Any]] = {
    "ZeroDivisionError": lambda: 1 / 0,
    "ValueError": lambda: np.zeros(3) + np.zeros(4),
    "KeyError": lambda: {}["left"],
    "FileNotFoundError": lambda: Path("/nowhere/at/all").read_text(),
    "SystemExit": _exit,
    "AssertionError": lambda: np.testing.assert_equal(1, 2, "on two\nlines"),
}


class Stranger(Robot):
    """Raises `raises` in the call `at`, from episode 1 on, or at once if nothing comes before it."""

    def __init__(self, config: StrangerConfig) -> None:
        self._config, self._episode, self._ticks = config, 1, 0
        self._fail("making it")
        self._episode = 0

    def _fail(self, call: str) -> None:
        if call == self._config.at and (self._episode or call in ("connect", "scene", "close")):
            RAISES[self._config.raises]()

    @property
    def spec(self) -> RobotSpec:
        return RobotSpec("stranger", 50.0, FEATURES, ACTION)

    def connect(self) -> None:
        self._fail("connect")

    def reset(self, episode: int, seed: int) -> None:
        self._episode, self._ticks = episode, 0
        self._fail("reset")

    def observe(self) -> Observation:
        self._fail("observe")
        arrays: dict[str, np.ndarray] = {STATE: np.zeros(3, np.float32), IMAGE: np.zeros((4, 6, 3), np.uint8)}
        return Observation(arrays, dict.fromkeys(arrays, 1))

    def act(self, action: np.ndarray) -> np.ndarray:
        self._fail("act")
        self._ticks += 1
        return action

    def events(self) -> list[str]:
        self._fail("events")
        return []

    def counters(self) -> dict[str, float]:
        self._fail("counters")
        return {}

    def outcome(self) -> Outcome:
        self._fail("outcome")
        return Outcome(False, self._ticks == TICKS, 0.0)

    def rest(self) -> None:
        self._fail("rest")

    def close(self) -> None:
        self._fail("close")


class StrangerConfig(RobotConfig):
    """A robot that fails."""

    at: str = ""
    """the call that raises"""
    raises: str = "ZeroDivisionError"
    """what it raises"""

    entry_point = "strangers:Stranger"


class Failing:
    """Raises in the call that its config names."""

    def __init__(self, config: StrangerPolicyConfig | StrangerTeleopConfig) -> None:
        self._config = config
        self._fail("making it")

    def _fail(self, call: str) -> None:
        if call == self._config.at:
            RAISES[self._config.raises]()


class StrangerPolicy(Failing, Policy):
    """Raises in the call `at`."""

    @property
    def spec(self) -> PolicySpec:
        self._fail("spec")
        return PolicySpec("stranger", {STATE: Feature((3,), "float32")}, Feature((3,), "float32"), 4)

    def reset(self, session: Session) -> None:
        self._fail("reset")

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        self._fail("infer")
        return [Chunk(request.observation.tick, np.zeros((4, 3), np.float32)) for request in requests]

    def end(self, session: str) -> None:
        self._fail("end")


class StrangerPolicyConfig(PolicyConfig):
    """A policy that fails."""

    at: str = ""
    """the call that raises"""
    raises: str = "ZeroDivisionError"
    """what it raises"""

    entry_point = "strangers:StrangerPolicy"


class StrangerHand(Failing, Teleoperator):
    """Raises in the call `at`."""

    def connect(self, robot: RobotSpec) -> None:
        self._fail("connect")

    def reset(self, state: np.ndarray) -> None:
        self._fail("reset")

    def decide(self) -> np.ndarray:
        self._fail("decide")
        return np.zeros(3, np.float32)

    def close(self) -> None:
        self._fail("close")


class StrangerTeleopConfig(TeleoperatorConfig):
    """A hand that fails."""

    at: str = ""
    """the call that raises"""
    raises: str = "ZeroDivisionError"
    """what it raises"""

    entry_point = "strangers:StrangerHand"


BOX = spaces.Box(-1, 1, (3,))
SPACES: dict[str, spaces.Space[Any]] = {
    "box": BOX,
    "discrete": spaces.Discrete(4),
    "several discrete": spaces.MultiDiscrete([3, 4]),
    "binary": spaces.MultiBinary(4),
    "tuple": spaces.Tuple((BOX, spaces.Discrete(2))),
    "text": spaces.Text(4),
    "sequence": spaces.Sequence(BOX),
    "graph": spaces.Graph(BOX, None),
    "dict with discrete": spaces.Dict({"agent_pos": BOX, "n": spaces.Discrete(3)}),
    "dict in a dict": spaces.Dict({"agent_pos": BOX, "other": spaces.Dict({"b": BOX})}),
    "grey": spaces.Box(0, 255, (8, 8, 1), np.uint8),
    "channels first": spaces.Box(0, 255, (3, 8, 8), np.uint8),
    "floating picture": spaces.Box(0, 1, (8, 8, 3), np.float32),
}


class Env(gymnasium.Env[Any, Any]):
    """A gymnasium environment. space: of SPACES. at: the call that raises, or the rule that it breaks."""

    metadata = {"render_modes": [], "render_fps": 50}

    def __init__(self, space: str = "box", at: str = "") -> None:
        self.observation_space, self.action_space = SPACES[space], spaces.Box(-1, 1, (3,))
        self._at, self._ticks = at, 0
        if at == "making it":
            RAISES["ZeroDivisionError"]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self._at == "reset":
            RAISES["KeyError"]()
        self._ticks = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        self._ticks += 1
        if self._at == "act":
            RAISES["ValueError"]()
        state = np.zeros(4 if self._at == "another width" and self._ticks > 3 else 3, np.float32)
        if self._at == "act, and answers with two":
            return state, 0.0
        return state, 0.0, False, self._ticks == TICKS, None if self._at == "act, without info" else {}


gymnasium.register("Stranger-v0", "strangers:Env", disable_env_checker=True)
