"""The twin itself: one loop that owns the ports, the control socket, the servos and the physics."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tactus.hal.robot import RobotError
from tactus.hal.twin.arm import EmulatedArm
from tactus.hal.twin.cameras import Cameras
from tactus.hal.twin.config import TwinConfig
from tactus.hal.twin.control import NAME, Answer, ControlServer
from tactus.hal.twin.faults import Fault, Faults
from tactus.hal.twin.kinematic_world import KinematicWorld
from tactus.hal.twin.serial_port import SerialPort
from tactus.hal.twin.simulation import Simulation
from tactus.hal.twin.write_log import WriteLog

TICK_S = 0.005
"""Servos and physics move on at least this often."""
POSES = "poses"
"""File in the folder through which the cameras' process sees what the physics does."""


class Twin:
    """A running twin. Takes its folder, builds its world and its ports. `run` returns when it was stopped."""

    def __init__(self, config: TwinConfig) -> None:
        self.config = config
        self.folder = Path(config.folder).absolute()
        (self.folder / "ports").mkdir(parents=True, exist_ok=True)
        self.server = ControlServer(self.folder)
        try:
            self.world = _world(config, self.folder)
        except BaseException:
            self.server.close()
            raise
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
        self.replug_s: dict[str, float] = {}
        self._moved_s = 0.0
        self._running = True

    def start_cameras(self) -> None:
        """Raises RobotError if they do not come up."""
        if self.config.world == "table" and self.config.cameras.names:
            self.cameras = Cameras(self.config.cameras, _order(self.config), self.config.model, self.folder / POSES)

    def describe(self) -> dict[str, Any]:
        """The content of twin.json; writes the calibration files that it names."""
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
        return {
            "pid": os.getpid(),
            "world": self.config.world,
            "control": str(self.folder / NAME),
            "writes": str(self.folder / "writes.jsonl"),
            "ports": {name: arm["port"] for name, arm in arms.items()},
            "cameras": self.cameras.urls if self.cameras else {},
            "arms": arms,
        }

    def stop(self) -> None:
        """End `run` soon; for signal handlers."""
        self._running = False

    def run(self, watched: Mapping[int, str], answer: Answer) -> str:
        """Serve until `stop`, or until one of the watched file descriptors becomes readable; returns why.

        answer: what the control socket's requests are answered with, as `ControlRequests.answer` does.
        """
        tick_s = time.monotonic()
        while self._running:
            masters = {port.master: port for port in self.ports.values() if port.plugged}
            wake_s = min(tick_s, *(port.adapter.next_s for port in self.ports.values()))
            fds = [*masters, *self.server.fds, *watched]
            readable = select.select(fds, (), (), max(0.0, wake_s - time.monotonic()))[0]
            now_s = time.monotonic()
            for fd in readable:
                if fd in watched:
                    return watched[fd]
                if fd not in masters:
                    self.server.serve(fd, answer)
                elif masters[fd].master == fd:  # not pulled out by a request just now
                    masters[fd].receive(now_s)
            for port in self.ports.values():
                port.deliver(now_s)
            if now_s >= tick_s:
                tick_s = max(tick_s + TICK_S, now_s)
                self._tick(now_s)
        return "stopped"

    def close(self) -> None:
        """Take cameras, ports and socket away; the log stays."""
        if self.cameras:
            self.cameras.close()
        for port in self.ports.values():
            port.unplug()
        self.server.close()
        self.log.close()
        (self.folder / POSES).unlink(missing_ok=True)

    def move(self, now_s: float) -> None:
        """Bring the physics, and what servos feel of it, up to now."""
        self._moved_s = now_s
        self.world.advance(now_s)
        for arm in self.arms.values():
            arm.sense()

    def end(self, fault: Fault) -> None:
        """It is over; a condition of a motor stays while another fault asks for it."""
        self.faults.remove([fault])
        for other in self.faults.active:
            if other.kind == fault.kind and other.arm == fault.arm and other.motor in (None, fault.motor):
                return
        self.arms[fault.arm].set_condition(fault, False)
        for other in self.faults.active:
            if other.kind == fault.kind and other.arm == fault.arm:
                self.arms[other.arm].set_condition(other, True)

    def _sense(self, now_s: float) -> None:
        if now_s - self._moved_s >= 0.5e-3:
            self.move(now_s)

    def _tick(self, now_s: float) -> None:
        for fault in self.faults.expired(now_s):
            self.end(fault)
        for name, when_s in [*self.replug_s.items()]:
            if when_s <= now_s:
                del self.replug_s[name]
                self.ports[name].plug()
        self.move(now_s)
        for arm in self.arms.values():
            arm.control(now_s)
        self.log.flush(now_s)


def _world(config: TwinConfig, folder: Path) -> Simulation:
    if config.world == "kinematic":
        return KinematicWorld(list(config.arms))
    try:
        from tactus.hal.twin.table_world import TableWorld
    except ModuleNotFoundError as error:
        raise RobotError(
            f"world=table needs {error.name}: pip install mujoco; or --world=kinematic, which has no physics"
        ) from error
    return TableWorld(_order(config), config.model, folder / POSES)


def _order(config: TwinConfig) -> list[str]:
    """Arms as they stand, the first one at the cube and the bin: leaders last."""
    return sorted(config.arms, key=lambda name: config.arms[name].role == "leader")
