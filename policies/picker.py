"""A scripted SO-101 policy that picks a cube up and puts it into a bin: it needs the cube's pose, or looks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hal.spec import ENVIRONMENT_STATE, STATE, Chunk, Feature, Observation, PolicySpec, SpecError
from policies.picker_plan import HOME, Builder, Plan, Unreachable, carry, home, pick
from policies.policy import Policy, PolicyConfig, Request, Session
from policies.so101_kinematics import forward

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
NAMES = tuple(f"{joint}.pos" for joint in JOINTS)
UNITS = ("deg",) * 5 + ("%",)
STATE_FEATURE = Feature((6,), "float32", unit=UNITS, names=NAMES)
ENVIRONMENT_FEATURE = Feature(
    (10,),
    "float32",
    unit=("m", "m", "m", "1", "1", "1", "1", "m", "m", "m"),
    names=(*(f"cube.{axis}" for axis in ("x", "y", "z", "qx", "qy", "qz", "qw")), "bin.x", "bin.y", "bin.z"),
)
ACTION = Feature((6,), "float32", unit=UNITS, names=NAMES, mode=("absolute",) * 6)
FPS = 30.0
MOVED_M = 0.008
"""A cube this far from where it was planned to be grasped has been moved."""
HELD_M, LIFTED_M = 0.03, 0.03
"""A cube is held if it is this near to the point between the jaws and, once lifted, its middle this high."""
BIN_M = 0.058
"""Half the width of the bin, inside."""
ASTRAY_DEG = 20.0
"""A joint this far from where the plan had it two ticks ago is not following."""
LAG_TICKS = 2


@PolicyConfig.register_subclass("picker")
@dataclass
class PickerConfig(PolicyConfig):
    """Scripted pick and place for a SO-100/SO-101 and the twin's table; needs the twin's scene in the rig."""

    horizon: int = 30
    """actions per chunk, 1-300"""
    commit: int = 12
    """ticks of the last plan that a new one begins with, as far as the robot still has actions: no less than the
    latency, so that what is executed before a chunk arrives is what it counts on"""

    def __post_init__(self) -> None:
        if not 1 <= self.horizon <= 300:
            raise SpecError(f"policy.horizon: found {self.horizon}; accepted: 1 to 300")
        if self.commit < 0:
            raise SpecError(f"policy.commit: found {self.commit}; accepted: 0 or more")

    def make(self) -> Policy:
        return PickerPolicy(self)


@dataclass
class _Memory:
    """A session's plan. start: the tick of its first action; cube: where it was planned to be grasped."""

    plan: Plan | None = None
    start: int = 0
    cube: np.ndarray | None = None


@dataclass(frozen=True)
class _Seen:
    """One observation, in float64. yaw_rad: along which a side of the cube points."""

    joints: np.ndarray
    cube: np.ndarray
    yaw_rad: float
    bin: np.ndarray

    @property
    def placed(self) -> bool:
        return bool(np.abs(self.cube[:2] - self.bin[:2]).max() < BIN_M and self.cube[2] < self.bin[2] + 0.05)

    @property
    def held(self) -> bool:
        return bool(np.linalg.norm(self.cube - forward(self.joints)[0]) < HELD_M)


class PickerPolicy(Policy):
    """Plans a whole attempt ahead and hands it out in chunks, so that chunks agree whatever the latency; looks at each
    observation whether the attempt still holds, and plans anew from the commands under way if not."""

    def __init__(self, config: PickerConfig) -> None:
        inputs = {STATE: STATE_FEATURE, ENVIRONMENT_STATE: ENVIRONMENT_FEATURE}
        self._spec = PolicySpec("picker", inputs, ACTION, config.horizon, fps=FPS)
        self._commit = config.commit
        self._memories: dict[str, _Memory] = {}

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, session: Session) -> None:
        self._memories[session.id] = _Memory()

    def end(self, session: str) -> None:
        self._memories.pop(session, None)

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        return [self._chunk(request) for request in requests]

    def _chunk(self, request: Request) -> Chunk:
        observation = request.observation
        memory = self._memories.setdefault(request.session, _Memory())
        seen = see(observation)
        index = observation.tick - memory.start
        if memory.plan is None or index < 0:
            _renew(memory, seen, np.zeros((0, 6), np.float32), observation.tick)
        elif why := fault(memory.plan, index, memory.cube, seen):
            kept = memory.plan.actions[index : index + min(self._commit, request.ticks_left)]
            _renew(memory, seen, kept, observation.tick, why)
        assert memory.plan is not None
        rows = np.arange(self._spec.horizon) + observation.tick - memory.start
        return Chunk(observation.tick, memory.plan.actions[np.minimum(rows, len(memory.plan.actions) - 1)])


def see(observation: Observation) -> _Seen:
    """What one observation says; the cube may lie on any of its faces."""
    poses = np.asarray(observation.arrays[ENVIRONMENT_STATE], np.float64)
    x, y, z, w = poses[3:7] / max(float(np.linalg.norm(poses[3:7])), 1e-9)
    sides = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)],
            [2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)],
            [2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    level = sides[int(np.argmin(np.abs(sides[:, 2])))]
    joints = np.asarray(observation.arrays[STATE], np.float64)
    return _Seen(joints, poses[:3], float(np.arctan2(level[1], level[0])), poses[7:10])


def fault(plan: Plan, index: int, cube: np.ndarray | None, seen: _Seen) -> str:
    """Why the plan no longer fits what is seen at its action `index`; empty if it does."""
    expected = plan.actions[min(max(index - LAG_TICKS, 0), len(plan.actions) - 1)]
    if np.abs(seen.joints[:5] - expected[:5]).max() > ASTRAY_DEG:
        return "astray"
    if cube is None:
        return "" if seen.placed or index < len(plan.actions) else "again"
    if index < plan.mark("close"):
        return "moved" if np.linalg.norm(seen.cube[:2] - cube[:2]) > MOVED_M else ""
    if plan.mark("over") <= index < plan.mark("open"):
        return "" if seen.held and seen.cube[2] > LIFTED_M else "lost"
    if index >= plan.mark("home"):
        return "" if seen.placed else "missed"
    return ""


def _renew(memory: _Memory, seen: _Seen, kept: np.ndarray, tick: int, why: str = "") -> None:
    """Replace the plan by `kept`, its actions from `tick` on that stay, and what to do after them."""
    start = kept[-1] if len(kept) else seen.joints
    speed = kept[-1] - kept[-2] if len(kept) > 1 else np.zeros(6)
    new, cube = _decide(start, speed, seen, why == "astray")
    marks = {phase: at + len(kept) for phase, at in new.marks.items()}
    memory.plan = Plan(np.concatenate([kept, new.actions]), marks)
    memory.start, memory.cube = tick, cube


def _decide(start: np.ndarray, speed: np.ndarray, seen: _Seen, astray: bool) -> tuple[Plan, np.ndarray | None]:
    """What to do from the command `start` on, and where the cube is then expected to be grasped, if it is."""

    def begin() -> Builder:
        build = Builder(start, speed, FPS)
        build.brake()
        if astray:
            # the commands go to meet the arm, which did not go where they went; the jaws keep their grip
            build.joints(np.array([*seen.joints[:5], start[5]]))
        return build

    if not seen.placed:
        try:
            if seen.held and seen.cube[2] > LIFTED_M:
                return carry(begin(), seen.bin), seen.cube
            return pick(begin(), seen.cube, seen.yaw_rad, seen.bin), seen.cube
        except Unreachable:
            pass  # home is where to wait until somebody puts the cube within reach
    return home(begin()), None


__all__ = ["ACTION", "ENVIRONMENT_FEATURE", "HOME", "STATE_FEATURE", "PickerConfig", "PickerPolicy"]
