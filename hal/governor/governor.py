"""The safety layer in front of every robot with torque: nothing reaches its motors but through here.

follow   usable? finite, young enough, decided by somebody      no: the last command again, later on_starved
         within the bounds, within the velocity limit from the last command?      no: as far as allowed
reset    torque on where the robot stands, then slowly to the start pose; a first action far away: slowly
stop, a fault, a silent control loop, close       carried out by a thread of its own (tactus.hal.governor.supervisor)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from tactus.hal.governor.config import GovernorConfig
from tactus.hal.governor.drive import Drive, Pose
from tactus.hal.governor.guardian_process import GuardianProcess
from tactus.hal.governor.limiter import unusable
from tactus.hal.governor.supervisor import ESTOP, STARVED, Supervisor
from tactus.hal.governor.throttled_events import ThrottledEvents
from tactus.hal.hardware import Hardware
from tactus.hal.robot import Command, RobotError
from tactus.hal.spec import Observation, RobotSpec, SpecError
from tactus.hal.wrappers.wrapper import RobotWrapper


class Governor(RobotWrapper):
    """A Robot that passes on to `hardware` only what is safe. Raises SpecError if config names joints it does not have.

    `follow` returns what was really sent; why that is not what was asked for stands in `events` and `counters`. After
    a stop or a fault it raises RobotError, and only a new `connect` ends that. clock, sleep: monotonic seconds.
    """

    def __init__(
        self,
        hardware: Hardware,
        config: GovernorConfig,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(hardware)
        self.hardware = hardware
        self._config = config
        self._clock = clock
        spec = hardware.spec
        self._spec = replace(spec, details={**spec.details, "dry_run": "nothing is sent"}) if config.dry_run else spec
        self._start_pose = _pose("start_pose", config.start_pose, spec.action.names)
        self._park_pose = _pose("park_pose", config.park_pose, spec.action.names)
        self._events = ThrottledEvents()
        self._drive = Drive(hardware, self._events, clock, sleep, config.dry_run, config.vitals.may_strain)
        self._supervisor: Supervisor | None = None
        self._unusable_s: float | None = None
        self._first = self._slow = False
        self._stopped = ""

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    def connect(self) -> None:
        """Connect the hardware, check limits, poses and health, start the guardian; torque stays off.

        Raises RobotError with everything closed again.
        """
        if self._supervisor is not None:
            self.close()
        self._stopped = ""
        self._events.counts.clear()
        self._drive.forget()
        guardian = None
        try:
            self.hardware.connect()
            self._drive.learn_limits()
            self._drive.check_pose("governor.start_pose", self._start_pose)
            self._drive.check_pose("governor.park_pose", self._park_pose)
            guardian = self._start_guardian()
            supervisor = Supervisor(
                self.hardware,
                self._drive,
                self._config,
                self._park_pose,
                self._events,
                self._clock,
                guardian,
            )
            grave = [finding.text for finding in supervisor.look() if finding.stop]
            if grave:
                raise RobotError(f"{'; '.join(grave)}; torque stays off")
            self._supervisor = supervisor
            if self._stopped:
                self._supervisor = None
                raise RobotError(f"emergency stop: {self._stopped}; torque stays off")
        except BaseException:
            self.hardware.close()
            if guardian is not None:
                guardian.disarm()
            raise
        supervisor.start()

    def _start_guardian(self) -> GuardianProcess | None:
        order = self.hardware.guardian()
        if order is None or not self._config.guardian or self._config.dry_run:
            return None
        if self._config.on_stop == "hold":
            self._events.say("on_stop is hold: torque stays on also if this process is killed")
            return None
        return GuardianProcess.start(order)

    def reset(self, episode: int, seed: int) -> None:
        """Torque on where the robot stands, then to the start pose if there is one.

        Raises RobotError, and the run is over, if a joint is far outside its range or does not arrive.
        """
        supervisor = self._connected()
        supervisor.armed = False
        supervisor.begin_episode()
        supervisor.check()
        self._unusable_s, self._first, self._slow = None, True, False
        try:
            self.hardware.reset(episode, seed)
            self._drive.take_over(self._config.outside, supervisor.check)
            if self._start_pose:
                config = self._config
                missing = self._drive.go(self._start_pose, config.ramp_velocity, config.tolerance, supervisor.check)
                if missing:
                    raise RobotError(f"start pose: {missing}; is it blocked, or overloaded?")
        except RobotError as error:
            supervisor.fault(str(error))
            raise

    def observe(self) -> Observation:
        supervisor = self._connected()
        supervisor.heard_s = self._clock()
        try:
            return self.hardware.observe()
        except RobotError as error:
            supervisor.fault(str(error))
            raise

    def follow(self, command: Command) -> np.ndarray:
        """Send what may be sent of a command, and return that.

        Raises SpecError for another shape or dtype; RobotError after a stop or a fault, and before the first reset.
        """
        supervisor = self._connected()
        self._spec.action.check("action", command.action)
        with self._drive.lock:
            supervisor.check()
            if self._drive.last is None:
                raise RobotError("an action before the first reset; torque is off")
            now_s = self._clock()
            supervisor.armed = True
            target = self._target(command, now_s, supervisor)
            sent = self._drive.last if supervisor.starved else self._send(target, now_s, supervisor)
        supervisor.heard(now_s)
        return sent

    def _send(self, target: np.ndarray, now_s: float, supervisor: Supervisor) -> np.ndarray:
        try:
            sent = self._drive.step(target, now_s, self._config.ramp_velocity if self._slow else 1.0)
        except RobotError as error:
            supervisor.fault(str(error))
            raise
        self._slow = self._slow and not self._drive.near(target)
        return sent

    def _target(self, command: Command, now_s: float, supervisor: Supervisor) -> np.ndarray:
        """Where to go: the action, or where the robot was last sent if that is nothing to follow."""
        assert self._drive.last is not None
        config = self._config
        reason = unusable(command, config.max_action_age_s)
        if not reason:
            self._unusable_s = None
            if self._first:
                self._first = False
                self._slow = self._far(command.action, now_s)
            return command.action
        reasons = {
            "starved": "no action for this tick",
            "not finite": "the action is not finite",
            "too old": f"the action is {command.age_s:.1f} s old, the limit is {config.max_action_age_s:g}",
        }
        self._events.count(reason, f"{reasons[reason]}; holding the last command", now_s)
        self._unusable_s = now_s if self._unusable_s is None else self._unusable_s
        held_s = now_s - self._unusable_s
        if config.on_starved != "hold" and held_s >= config.starved_hold_s and not supervisor.starved:
            supervisor.halt(STARVED, f"no usable action for {held_s:.1f} s", config.on_starved)
        return self._drive.last

    def _far(self, action: np.ndarray, now_s: float) -> bool:
        """The gate: whether an episode's first action is too far away to be gone to quickly."""
        limits = self._drive.limits
        away = np.abs(np.clip(action, limits.low, limits.high) - self._drive.last)
        worst = int(np.argmax(away))
        if self._config.gate is None or away[worst] <= self._config.gate:
            return False
        name = self._drive.names[worst]
        line = f"the first action is {away[worst]:.1f} away at {name}; going there slowly"
        self._events.count("gate", line, now_s)
        return True

    def release(self, reason: str) -> None:
        """Torque off until the next `reset`, for a hand to move it; returns at once."""
        self._connected().halt(STARVED, reason, "off")

    def rest(self) -> None:
        if self._supervisor is not None:
            self._supervisor.armed = False
        self.hardware.rest()

    def stop(self, reason: str) -> None:
        supervisor = self._supervisor
        if supervisor is None:
            self._stopped = reason  # for a connect that is under way
        else:
            supervisor.halt(ESTOP, f"emergency stop: {reason}", self._config.on_estop)

    def events(self) -> list[str]:
        return [*self.hardware.events(), *self._events.take()]

    def counters(self) -> dict[str, float]:
        counts = {f"governor.{about.replace(' ', '_')}": float(n) for about, n in [*self._events.counts.items()]}
        return {**self.hardware.counters(), **counts}

    def close(self) -> None:
        """Apply on_stop and release everything; after an emergency stop it stays at on_estop.

        Raises RobotError if torque may still be on, and KeyboardInterrupt if one came meanwhile, when all is done.
        """
        if self._supervisor is None:
            self.hardware.close()
            return
        try:
            self._supervisor.close()
        finally:
            self._supervisor = None

    def _connected(self) -> Supervisor:
        if self._supervisor is None:
            raise RobotError(f"{self._spec.name} is not connected")
        return self._supervisor


def _pose(key: str, pose: Mapping[str, float], names: tuple[str, ...]) -> Pose:
    """Positions by joint index; raises SpecError for a joint that is not there."""
    known = {name.removesuffix(".pos"): index for index, name in enumerate(names)}
    for name in pose:
        if name.removesuffix(".pos") not in known:
            raise SpecError(f"governor.{key}: there is no joint {name!r}; known: {', '.join(known)}")
    return {known[name.removesuffix(".pos")]: float(position) for name, position in pose.items()}
