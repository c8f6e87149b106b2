"""Commands the motors within their limits of position and speed: single steps, and slow motions to a pose."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping

import numpy as np

from tactus.hal.governor.limiter import limited, placed
from tactus.hal.governor.throttled_events import ThrottledEvents
from tactus.hal.hardware import Hardware, Limits
from tactus.hal.robot import RobotError

PERIODS = 2.0
"""Control periods that the velocity limit reckons with at most: a pause does not license a jump."""
SETTLE_S = 1.0
TRIES = 3

Pose = Mapping[int, float]
"""Positions by joint index, in action units."""
Check = Callable[[], None]
"""Called before every step; raises RobotError where the motion must end."""


class Drive:
    """Commands `hardware` through limits. dry: nothing is written, only reported.

    `lock` is held from the check to the end of a write, so that a stop does not overtake a command halfway.
    """

    def __init__(
        self,
        hardware: Hardware,
        events: ThrottledEvents,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        dry: bool,
        may_press: Collection[str] = (),
    ) -> None:
        self._hardware = hardware
        self._events = events
        self._clock = clock
        self._sleep = sleep
        self._dry = dry
        self.names = hardware.spec.action.names
        self._may_press = {index for index, name in enumerate(self.names) if name.removesuffix(".pos") in may_press}
        self._dtype = np.dtype(hardware.spec.action.dtype)
        self.period_s = 1 / hardware.spec.fps
        self.lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """As before anything was commanded."""
        self.last: np.ndarray | None = None
        """The last command, of the action's dtype, within the limits; None before `take_over`."""
        self.torque = False
        """Whether a motor may have torque."""
        self._sent_s = self._clock()

    def learn_limits(self) -> None:
        """Ask the hardware for its limits. Raises RobotError naming a joint whose limits are none."""
        self.limits: Limits = self._hardware.limits
        rows = zip(self.names, self.limits.low, self.limits.high, self.limits.velocity, strict=True)
        for name, low, high, velocity in rows:
            if not (np.isfinite([low, high, velocity]).all() and low < high and velocity > 0):
                raise RobotError(f"{name}: limits {low:g} to {high:g} at {velocity:g} per s are none: calibrate again")

    def check_pose(self, key: str, pose: Pose) -> None:
        """Raises RobotError naming the joint that the pose takes out of its range."""
        for index, position in pose.items():
            low, high = self.limits.low[index], self.limits.high[index]
            if not low <= position <= high:
                raise RobotError(f"{key}: {self.names[index]} at {position:g} is outside its range {low:g} to {high:g}")

    def take_over(self, outside: float, check: Check) -> None:
        """The measured position becomes the last command, and torque comes on there.

        Raises RobotError if a joint is farther outside its range than the share `outside` of it.
        """
        measured = self._hardware.measure()
        low, high = self.limits.low, self.limits.high
        beyond = np.maximum(low - measured, measured - high) / (high - low)
        worst = int(np.argmax(beyond))
        if not beyond[worst] <= outside:
            raise RobotError(
                f"{self.names[worst]} is at {measured[worst]:.1f}, far outside its range {low[worst]:.1f} to "
                f"{high[worst]:.1f}: move it by hand, or calibrate again"
            )
        with self.lock:
            check()
            self.last, self._sent_s = placed(measured, self.limits, self._dtype), self._clock()
            if not self._dry:
                self.torque = True  # before it is: an interrupt may leave some of the motors on
                self._hardware.set_torque(True)

    def step(self, target: np.ndarray, now_s: float, share: float = 1.0) -> np.ndarray:
        """Send one command: `target`, or as far towards it as the limits let it. The caller holds the lock.

        share: of the velocity limit; only at all of it is being too fast worth telling. Returns what was sent.
        """
        assert self.last is not None, "take_over first"
        elapsed_s = min(max(now_s - self._sent_s, 0.0), PERIODS * self.period_s)
        step = limited(target, self.last, self.limits, elapsed_s * share)
        # a step soon after a late one is short whatever was asked for, and made up for by the next
        tell_fast = share == 1.0 and elapsed_s > self.period_s / 2
        for about, joints in (("outside", step.outside), ("too fast", step.fast if tell_fast else None)):
            if joints is not None and joints.any():
                self._events.count(about, self._explain(about, joints, target, step.sent), now_s)
        self.last, self._sent_s = step.sent, now_s
        if self._dry:
            pairs = ", ".join(f"{name}={x:.1f}" for name, x in zip(self.names, step.sent, strict=True))
            self._events.count("dry run", f"dry run: would send {pairs}", now_s)
            return step.sent
        # less than the command, e.g. while a cable is out: the next step is from what the motors really go to
        self.last = placed(self._hardware.act(step.sent), self.limits, self._dtype)
        return self.last

    def _explain(self, about: str, joints: np.ndarray, target: np.ndarray, sent: np.ndarray) -> str:
        worst = int(np.argmax(np.where(joints, np.abs(target.astype(np.float64) - sent), -1.0)))
        limits = self.limits
        limit = f"{limits.low[worst]:.1f} to {limits.high[worst]:.1f}"
        limit = limit if about == "outside" else f"{limits.velocity[worst]:g} per s"
        asked = f"{target[worst]:.1f}" if abs(target[worst]) < 1e6 else f"{target[worst]:.3g}"
        return f"{self.names[worst]}: asked for {asked}, {about}; sent {sent[worst]:.1f} (limit {limit})"

    def near(self, target: np.ndarray) -> bool:
        """Whether the velocity limit lets the last command reach `target` within one control period."""
        away = np.abs(np.clip(target, self.limits.low, self.limits.high) - self.last)
        return bool((away <= self.limits.velocity * self.period_s).all())

    def go(self, pose: Pose, share: float, tolerance: float, check: Check) -> str:
        """Step by step to a pose at a share of the velocity limit, all joints arriving together.

        Returns which joint has not come within `tolerance` SETTLE_S later, in words; empty if all have. A joint of
        `may_press` need not: a gripper may still have something in it.
        """
        assert self.last is not None, "take_over first"
        if self._dry:
            self._events.say("dry run: would now go slowly to a pose")
            return ""
        begin = self.last.astype(np.float64)
        end = np.array([pose.get(index, position) for index, position in enumerate(begin)])
        duration_s = (np.abs(end - begin) / (self.limits.velocity * share)).max()
        steps = int(np.ceil(duration_s / self.period_s)) + 1
        for step in range(1, steps + 1):
            self._sleep(self.period_s)
            target = end if step >= steps - 1 else begin + (end - begin) * (step / (steps - 1))
            with self.lock:
                check()
                self.step(target, self._clock())
        return self._missing(pose, tolerance, check)

    def _missing(self, pose: Pose, tolerance: float, check: Check) -> str:
        pose = {index: position for index, position in pose.items() if index not in self._may_press}
        until_s = self._clock() + SETTLE_S
        while pose:
            check()
            measured = self._hardware.measure()
            index = max(pose, key=lambda index: abs(measured[index] - pose[index]))
            if abs(measured[index] - pose[index]) <= tolerance:
                break
            if self._clock() >= until_s:
                return f"{self.names[index]} is at {measured[index]:.1f}, not at {pose[index]:g} ± {tolerance:g}"
            self._sleep(self.period_s)
        return ""

    def torque_off(self) -> None:
        """Every motor's; raises RobotError if one could not be switched off in TRIES attempts."""
        for left in reversed(range(TRIES)):
            try:
                self._hardware.set_torque(False)
                self.torque = False
                return
            except RobotError:
                if not left:
                    raise

    def freeze(self) -> None:
        """What is moving stops where it is, with torque."""
        self._hardware.set_torque(True)
