"""The twin as a process: one loop that owns the ports, the control socket, the servos and the physics."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from hal.robot import RobotError
from hal.twin.arm import EmulatedArm
from hal.twin.cameras import Cameras
from hal.twin.config import TwinConfig
from hal.twin.control import NAME
from hal.twin.faults import CONDITIONS, EVENTS, KINDS, Fault, Faults
from hal.twin.joints import Simulation
from hal.twin.kinematic import KinematicWorld
from hal.twin.server import ControlServer
from hal.twin.wire import SerialPort
from hal.twin.writes import WriteLog

TICK_S = 0.005
"""Servos and physics move on at least this often."""
BROWN_OUT_S = 0.3
POSES = "poses"
"""File in the folder through which the cameras' process sees what the physics does."""


class Twin:
    """Built from a config: takes its folder, builds its world, and is ready. `run` returns when it was stopped."""

    def __init__(self, config: TwinConfig) -> None:
        self.config = config
        self.folder = Path(config.folder).absolute()
        (self.folder / "ports").mkdir(parents=True, exist_ok=True)
        self.server = ControlServer(self.folder)
        self.world = _world(config, self.folder)
        self.faults = Faults()
        self.log = WriteLog(self.folder / "writes.jsonl")
        self.arms = {
            name: EmulatedArm(name, arm, self.world.arms[name], self.faults, self.log.of(name))
            for name, arm in config.arms.items()
        }
        latency_s = config.usb_latency_ms / 1e3
        self.ports = {
            name: SerialPort(self.folder / "ports" / name, arm.bus, latency_s) for name, arm in self.arms.items()
        }
        for arm in self.arms.values():
            arm.bus.sense = self._sense
        self.cameras: Cameras | None = None
        self._replug_s: dict[str, float] = {}
        self._moved_s = 0.0
        self._running = True

    def start_cameras(self) -> None:
        """Raises RobotError if they do not come up."""
        if self.config.world == "table" and self.config.cameras.names:
            self.cameras = Cameras(self.config.cameras, _order(self.config), self.config.model, self.folder / POSES)

    def describe(self) -> dict[str, Any]:
        """The content of twin.json."""
        arms = {}
        for name, arm in self.arms.items():
            calibration = arm.write_calibration(self.folder / "calibration")
            arms[name] = {
                "port": str(self.ports[name].link),
                "kind": arm.config.kind,
                "protocol": arm.config.protocol,
                "role": arm.config.role,
                "baudrate": arm.config.baudrate,
                "calibration": str(calibration) if calibration else None,
                "motors": {servo.name: {"id": servo.id, "model": servo.model} for servo in arm.servos},
            }
        ports = {name: arm["port"] for name, arm in arms.items()}
        return {
            "pid": os.getpid(),
            "world": self.config.world,
            "control": str(self.folder / NAME),
            "writes": str(self.folder / "writes.jsonl"),
            "ports": ports,
            "cameras": self.cameras.urls if self.cameras else {},
            "arms": arms,
        }

    def stop(self) -> None:
        """End `run` soon; for signal handlers."""
        self._running = False

    def run(self, watched: dict[int, str] | None = None) -> str:
        """Serve until `stop`, or until one of the watched file descriptors becomes readable; returns why."""
        watched = watched or {}
        tick_s = time.monotonic()
        while self._running:
            masters = {port.master: port for port in self.ports.values() if port.plugged}
            wake_s = min(tick_s, *(port.adapter.next_s for port in self.ports.values()))
            fds = [*masters, *self.server.fds, *watched]
            readable = select.select(fds, (), (), max(0.0, wake_s - time.monotonic()))[0]
            now_s = time.monotonic()
            for fd in readable:
                if fd in masters and masters[fd].plugged:
                    masters[fd].receive(now_s)
                elif fd in watched:
                    return watched[fd]
                elif fd not in masters:
                    self.server.serve(fd, self.answer)
            for port in self.ports.values():
                port.deliver(now_s)
            if now_s >= tick_s:
                tick_s = max(tick_s + TICK_S, now_s)
                self._tick(now_s)
        return "stopped"

    def close(self) -> None:
        """Take cameras, ports, socket and twin.json away; the log stays."""
        if self.cameras:
            self.cameras.close()
        for port in self.ports.values():
            port.unplug()
        self.server.close()
        self.log.close()
        (self.folder / "twin.json").unlink(missing_ok=True)

    def _sense(self, now_s: float) -> None:
        if now_s - self._moved_s >= 0.5e-3:
            self._move(now_s)

    def _move(self, now_s: float) -> None:
        self._moved_s = now_s
        self.world.advance(now_s)
        for arm in self.arms.values():
            arm.sense()

    def _tick(self, now_s: float) -> None:
        for fault in self.faults.expired(now_s):
            self._end(fault)
        for name, when_s in [*self._replug_s.items()]:
            if when_s <= now_s:
                del self._replug_s[name]
                self.ports[name].plug()
        self._move(now_s)
        for arm in self.arms.values():
            arm.control(now_s)
        self.log.flush(now_s)

    def _end(self, fault: Fault) -> None:
        self.faults.remove([fault])
        if not any(f.kind == fault.kind and f.arm == fault.arm and f.motor == fault.motor for f in self.faults.active):
            self.arms[fault.arm].set_condition(fault, False)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out a control request. Raises RobotError for one that cannot be."""
        handlers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "fault": self._fault,
            "clear": self._clear,
            "state": self._state,
        }
        if self.cameras:
            handlers["camera_fault"] = self.cameras.fault
        known = handlers.get(str(request.get("do")))
        if known:
            return known(request)
        handle = getattr(self.world, "handle", None)
        answer = handle(request) if handle else None
        if answer is None:
            raise RobotError(
                f"do: found {request.get('do')!r}; accepted: {', '.join(handlers)}, and what world={self.config.world} "
                "answers (table: reset, outcome, scene, hand; kinematic: hand)"
            )
        return answer

    def _fault(self, request: dict[str, Any]) -> dict[str, Any]:
        unknown = {*request} - {"do", *_FAULT_KEYS}
        if unknown:
            raise RobotError(f"fault: unknown {', '.join(sorted(unknown))}; accepted: {', '.join(_FAULT_KEYS)}")
        kind, name = str(request.get("kind")), str(request.get("arm", next(iter(self.arms))))
        if kind not in KINDS:
            raise RobotError(f"fault kind: found {kind!r}; accepted: {', '.join(KINDS)}")
        if name not in self.arms:
            raise RobotError(f"fault arm: found {name!r}; accepted: {', '.join(self.arms)}")
        arm, now_s = self.arms[name], time.monotonic()
        duration_s = request.get("duration_s")
        if kind in EVENTS:
            if kind == "brown_out":
                arm.brown_out(BROWN_OUT_S if duration_s is None else float(duration_s))
            elif kind == "replug":
                self.ports[name].plug()
            else:
                self.ports[name].unplug()
                if duration_s is not None:
                    self._replug_s[name] = now_s + float(duration_s)
            return {}
        if kind in CONDITIONS and {"probability", "count"} & {*request}:
            raise RobotError(f"fault {kind}: it lasts; accepted: duration_s, not probability or count")
        fault = Fault(
            kind,
            name,
            self._motor(arm, request.get("motor")),
            float(request.get("probability", 1.0)),
            math.inf if duration_s is None else now_s + float(duration_s),
            None if request.get("count") is None else int(request["count"]),
            float(request.get("delay_ms", 20.0)),
            int(request.get("value", 0)),
        )
        fault.random.seed(request.get("seed", 0))
        number = self.faults.add(fault)
        arm.set_condition(fault, True)
        return {"fault": number}

    def _motor(self, arm: EmulatedArm, motor: object) -> int | None:
        if motor in (None, "all"):
            return None
        for servo in arm.servos:
            if motor in (servo.id, servo.name):
                return servo.id
        known = ", ".join(f"{servo.id} ({servo.name})" for servo in arm.servos)
        raise RobotError(f"fault motor: found {motor!r}; accepted: all, {known}")

    def _clear(self, request: dict[str, Any]) -> dict[str, Any]:
        number = request.get("fault")
        ended = [fault for fault in self.faults.active if number in (None, fault.number)]
        if number is not None and not ended:
            raise RobotError(f"clear: no fault number {number} is in force")
        for fault in ended:
            self._end(fault)
        return {"cleared": len(ended)}

    def _state(self, request: dict[str, Any]) -> dict[str, Any]:
        self._move(time.monotonic())
        report = getattr(self.world, "state", None)
        return {
            "t": time.monotonic(),
            "arms": {name: {"plugged": self.ports[name].plugged, **arm.state()} for name, arm in self.arms.items()},
            "faults": [{"fault": f.number, "kind": f.kind, "arm": f.arm, "motor": f.motor} for f in self.faults.active],
            "scene": report() if report else None,
        }


_FAULT_KEYS = ("kind", "arm", "motor", "probability", "duration_s", "count", "delay_ms", "value", "seed")


def _world(config: TwinConfig, folder: Path) -> Simulation:
    if config.world == "kinematic":
        return KinematicWorld(list(config.arms))
    try:
        from hal.twin.world import World
    except ModuleNotFoundError as error:
        raise RobotError(
            f"world=table needs {error.name}: pip install mujoco; or --world=kinematic, which has no physics"
        ) from error
    return World(_order(config), config.model, folder / POSES)


def _order(config: TwinConfig) -> list[str]:
    """Arms as they stand, the first one at the cube and the bin: leaders last."""
    return sorted(config.arms, key=lambda name: config.arms[name].role == "leader")


def _hurry() -> str:
    """Servos and adapters are processors of their own on a real arm: ask not to wait for this machine's others."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        return "normal; late answers are possible while the machine is busy (real-time was not permitted)"
    return "real-time"


def run(config: TwinConfig) -> int:
    """Be a twin until a signal, or the end of the parent. Returns the exit status."""
    watched: dict[int, str] = {}
    if config.parent is not None:
        try:
            watched[os.pidfd_open(config.parent)] = f"process {config.parent} has ended"
        except ProcessLookupError:
            raise RobotError(f"parent: there is no process {config.parent}") from None
    twin = Twin(config)

    def stop(signum: int, frame: FrameType | None) -> None:
        twin.stop()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)
    try:
        twin.start_cameras()
        if twin.cameras:
            watched[twin.cameras.ended()] = "the cameras' process has ended"
        about = twin.describe()
        print(f"priority: {_hurry()}")
        file = twin.folder / "twin.json"
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(about, indent=2))
        fresh.replace(file)
        for name, arm in about["arms"].items():
            print(f"port {name}: {arm['port']} ({arm['kind']}, {arm['protocol']}, {arm['baudrate']} bit/s)")
        for name, url in about["cameras"].items():
            print(f"camera {name}: {url}")
        print("twin: ready", flush=True)
        why = twin.run(watched)
        if why != "stopped":
            print(f"twin: {why}", file=sys.stderr)
    finally:
        twin.close()
    return 0
