"""The Governor's safety thread: carries out stops, and watches the control loop and the motors' health.

A thread of its own, so that neither a signal amid a transaction nor a hanging control loop keeps a robot from stopping.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tactus.hal.governor.config import GovernorConfig, Stop
from tactus.hal.governor.drive import Drive, Pose
from tactus.hal.governor.guardian_process import GuardianProcess
from tactus.hal.governor.health_monitor import HealthMonitor, HealthProblem
from tactus.hal.governor.throttled_events import ThrottledEvents
from tactus.hal.hardware import Hardware
from tactus.hal.robot import RobotError

LOOK_EVERY_S = 0.05
LOCK_S = 0.1
FINDING_EVERY_S = 10.0
"""A motor that is warm stays so for a while: it is not told of every second."""
STARVED, FAULT, CLOSED, ESTOP = 1, 2, 3, 4
"""Kinds of halt, the graver above. STARVED lasts until the next episode, the others until the next `connect`."""
DESCRIPTIONS: Mapping[Stop, str] = {"off": "torque off", "hold": "holding still", "park": "parking, then torque off"}


@dataclass(frozen=True)
class Halt:
    """Why nothing is sent any more, and how that ends."""

    reason: str
    how: Stop


class Supervisor:
    """Supervises one connection. armed: whether the control loop is expected to call; heard_s: when it last did."""

    def __init__(
        self,
        hardware: Hardware,
        drive: Drive,
        config: GovernorConfig,
        park_pose: Pose,
        events: ThrottledEvents,
        clock: Callable[[], float],
        guardian: GuardianProcess | None,
    ) -> None:
        self._hardware = hardware
        self._drive = drive
        self._config = config
        self._park_pose = park_pose
        self._events = events
        self._clock = clock
        self._guardian = guardian
        self._monitor = HealthMonitor(config.vitals)
        self._tasks: queue.SimpleQueue[str] = queue.SimpleQueue()  # its put may be called in a signal handler
        self._halts: dict[int, Halt] = {}
        self._settled: Halt | None = None
        self._settling = threading.Lock()  # held while a halt is carried out
        self._hurry = self._silent = False
        self.armed = False
        self.heard_s = self._look_s = clock()
        self._error: Exception | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="safety supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def halt(self, kind: int, reason: str, how: Stop) -> None:
        """Returns at once; of two of a kind the first stays. From any thread, and from a signal handler."""
        self._halts.setdefault(kind, Halt(reason, how))
        self._tasks.put("halt")

    def fault(self, reason: str) -> None:
        """The run is over, by on_stop."""
        self.halt(FAULT, reason, self._config.on_stop)

    def check(self) -> None:
        """Raises RobotError with the reason if the run is over."""
        for kind in (ESTOP, FAULT):
            if kind in self._halts:
                raise RobotError(self._halts[kind].reason)

    @property
    def starved(self) -> bool:
        return STARVED in self._halts

    def begin_episode(self) -> None:
        """What was starved no longer is. Waits for a parking under way."""
        with self._settling:
            if self._halts.pop(STARVED, None) is not None:
                self._settled = None
            self._silent = False

    def heard(self, now_s: float) -> None:
        """The control loop is there; the rest of its tick is a good time to look at the motors."""
        self.heard_s = now_s
        if now_s >= self._look_s:
            self._tasks.put("look")

    def close(self) -> None:
        """End the motion by on_stop, close the hardware and end the guardian, whatever happened before.

        An interrupt cuts parking short, and is raised in the end. Raises RobotError if torque may still be on: the
        guardian is then left to try.
        """
        interrupt: BaseException | None = None
        asked = False
        while not self._done.is_set():
            try:
                if not asked:
                    self.halt(CLOSED, "closed", self._config.on_stop)
                    self._tasks.put("close")
                    asked = True
                self._done.wait(0.1)  # Thread.join, interrupted, takes a running thread for one that has ended
            except (KeyboardInterrupt, SystemExit) as error:
                self._hurry, interrupt = True, error
        if interrupt is not None:
            raise interrupt
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        task = ""
        while task != "close":
            try:
                task = self._tasks.get(timeout=LOOK_EVERY_S)
            except queue.Empty:
                task = ""
            try:
                self._settle()
                self._listen()
                # within an episode the control loop says when, so as not to be disturbed
                if task == "look" or self._clock() >= self._look_s + LOOK_EVERY_S * (4 if self.armed else 0):
                    self.look()
            except Exception as error:  # noqa: BLE001 - a supervisor that dies unnoticed is worse than none
                self.fault(f"the safety layer failed: {type(error).__name__}: {error}")
        try:
            self._finish()
        finally:
            self._done.set()

    def _listen(self) -> None:
        if not self.armed or self._halts:
            return
        silent_s = self._clock() - self.heard_s
        if silent_s < self._config.watchdog_s:
            self._silent = False
        elif not self._silent:
            self._silent = True
            line = f"the control loop has been silent for {silent_s:.1f} s; the servos hold the last command"
            self._events.count("silent", line, self._clock())
        elif silent_s >= self._config.watchdog_off_s:
            self.fault(f"the control loop was silent for {silent_s:.1f} s")

    def look(self) -> list[HealthProblem]:
        """Check the motors' health; what is grave, and still so when read once more, ends the run."""
        now_s = self._clock()
        self._look_s = now_s + self._config.health_s
        if self._guardian is not None and not self._guardian.alive:
            self._guardian = None
            self._events.say("the guardian process is gone: if this one is killed now, torque stays on")
        if CLOSED in self._halts:
            return []
        try:
            findings = self._monitor.check(self._hardware.health(), now_s)
            if any(finding.stop for finding in findings):
                # a checksum of one byte lets one damaged packet in 256 through: what it says is not said twice
                again = {finding.about for finding in self._monitor.check(self._hardware.health(), self._clock())}
                findings = [finding for finding in findings if finding.about in again or not finding.stop]
        except RobotError as error:
            self._events.count("health unread", f"health cannot be read: {error}", now_s)
            return []
        for finding in findings:
            self._events.count(finding.about, finding.text, now_s, FINDING_EVERY_S)
            if finding.stop:
                self.fault(finding.text)
        return findings

    def _gravest(self) -> Halt | None:
        return self._halts[max(self._halts)] if self._halts else None

    def _settle(self) -> None:
        """Carry out the gravest halt, once; a graver one that comes meanwhile takes its place."""
        with self._settling:
            while (halt := self._gravest()) is not None and halt is not self._settled:
                self._settled = halt
                if halt.reason != "closed":
                    self._events.say(f"{halt.reason}; {DESCRIPTIONS[halt.how]}")
                if self._drive.torque:
                    self._carry_out(halt)

    def _carry_out(self, halt: Halt) -> None:
        if halt.how == "park":
            self._park(halt)
            if self._gravest() is not halt:
                return
        locked = self._drive.lock.acquire(timeout=LOCK_S)  # a command that hangs must not keep the torque on
        try:
            if halt.how != "hold":
                self._drive.torque_off()
            elif halt.reason != "closed":
                self._drive.freeze()
        except RobotError as error:
            self._events.say(f"not stopped: {error}")
        finally:
            if locked:
                self._drive.lock.release()

    def _park(self, halt: Halt) -> None:
        def check() -> None:
            if self._hurry or self._gravest() is not halt:
                raise RobotError("there was no time")

        try:
            missing = self._drive.go(self._park_pose, self._config.ramp_velocity, self._config.tolerance, check)
        except RobotError as error:
            missing = str(error)
        if missing and self._gravest() is halt:
            self._events.say(f"not parked: {missing}")

    def _finish(self) -> None:
        """Each of what closing means, whatever the others come to."""
        gravest = self._gravest()
        if self._drive.torque and gravest is not None and gravest.how != "hold":
            try:
                self._drive.torque_off()
            except Exception as error:  # noqa: BLE001 - the others are still to be closed
                self._error = RobotError(f"torque may still be on: {error}; cut the power")
        try:
            self._hardware.close()
        except Exception as error:  # noqa: BLE001 - the guardian is still to be told
            self._error = self._error or error
        if self._guardian is not None:
            self._guardian.abandon() if self._error else self._guardian.disarm()
