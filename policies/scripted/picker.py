"""A scripted SO-101 policy that picks a cube up and puts it into a bin: it needs the cube's pose, or looks for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tactus.hal.spec import ENVIRONMENT_STATE, IMAGES, STATE, Chunk, Feature, PolicySpec, image
from tactus.policies.policy import Request
from tactus.policies.scripted.config import PickerConfig
from tactus.policies.scripted.picker_motion import Builder, Plan, Unreachable
from tactus.policies.scripted.picker_plan import carry, home, pick
from tactus.policies.scripted.picker_scene import LIFTED_M, Scene, fault, reached, see
from tactus.policies.scripted.picker_vision import UNKNOWN, estimate
from tactus.policies.scripted.policy import ScriptedPolicy

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
TOP = f"{IMAGES}top"
FPS = 30.0


@dataclass
class _Memory:
    """A session's plan. start: the tick of its first action; index: of the action given last; cube: where it was
    planned to be grasped; poses: of cube and bin, as they were told or found last."""

    plan: Plan | None = None
    start: int = 0
    index: int = 0
    cube: np.ndarray | None = None
    poses: np.ndarray = field(default_factory=UNKNOWN.copy)


class PickerPolicy(ScriptedPolicy[_Memory]):
    """Plans a whole attempt ahead and hands it out in chunks, so that chunks agree whatever the latency; looks at each
    observation whether the attempt still holds, and plans anew from the commands under way if not."""

    def __init__(self, config: PickerConfig) -> None:
        inputs = {STATE: STATE_FEATURE}
        inputs |= {TOP: image(*config.image_size)} if config.vision else {ENVIRONMENT_STATE: ENVIRONMENT_FEATURE}
        super().__init__(PolicySpec("picker", inputs, ACTION, config.horizon, fps=FPS), _Memory)
        self._vision = config.vision
        self._commit = config.commit
        self._follows_arm = config.pace == "arm"

    def _chunk(self, request: Request, memory: _Memory) -> Chunk:
        observation = request.observation
        index = observation.tick - memory.start
        joints = np.asarray(observation.arrays[STATE], np.float64)
        if self._follows_arm and memory.plan is not None and index >= 0:
            index = reached(memory.plan, memory.index, index, joints)
            memory.start = observation.tick - index
        if self._vision:
            memory.poses = estimate(observation.arrays[TOP], joints, _closing(memory.plan, index), memory.poses)
        else:
            memory.poses = np.asarray(observation.arrays[ENVIRONMENT_STATE], np.float64)
        seen = see(joints, memory.poses)
        if memory.plan is None or index < 0:
            _renew(memory, seen, np.zeros((0, 6), np.float32), observation.tick)
        elif why := fault(memory.plan, index, memory.cube, seen):
            kept = memory.plan.actions[index : index + min(self._commit, request.ticks_left)]
            _renew(memory, seen, kept, observation.tick, why)
        assert memory.plan is not None
        memory.index = observation.tick - memory.start
        rows = np.arange(self._spec.horizon) + observation.tick - memory.start
        return Chunk(observation.tick, memory.plan.actions[np.minimum(rows, len(memory.plan.actions) - 1)])


def _closing(plan: Plan | None, index: int) -> bool:
    """Whether the jaws have been told to hold something."""
    return plan is not None and plan.mark("close") <= index < plan.mark("open")


def _renew(memory: _Memory, seen: Scene, kept: np.ndarray, tick: int, why: str = "") -> None:
    """Replace the plan by `kept`, its actions from `tick` on that stay, and what to do after them."""
    start = kept[-1] if len(kept) else seen.joints
    speed = kept[-1] - kept[-2] if len(kept) > 1 else np.zeros(6)
    new, cube = _decide(start, speed, seen, why == "astray")
    marks = {phase: at + len(kept) for phase, at in new.marks.items()}
    memory.plan = Plan(np.concatenate([kept, new.actions]), marks)
    memory.start, memory.cube = tick, cube


def _decide(start: np.ndarray, speed: np.ndarray, seen: Scene, astray: bool) -> tuple[Plan, np.ndarray | None]:
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
            pass  # home is where to wait until the cube is put within reach
    return home(begin()), None
