"""`tactus doctor`: look at everything a config names, or at what is plugged in; nothing moves, no torque changes.

With a policy, that is judged too (runtime/diagnosis/): alone, on the robot, and beside the data of its training.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tactus.hal.arm import ArmConfig, KochConfig, KochLeaderConfig, So100Config
from tactus.hal.camera import CameraConfig
from tactus.hal.camera.source import video_devices
from tactus.hal.diagnostics.arm import ArmFacts, measure_arm
from tactus.hal.diagnostics.camera import CameraFacts, diagnose_camera, diagnose_devices, measure_cameras
from tactus.hal.diagnostics.diagnose_arm import diagnose_arm
from tactus.hal.diagnostics.finding import Finding
from tactus.hal.diagnostics.ports import diagnose_port, inspect_port
from tactus.hal.diagnostics.rate import diagnose_rate, propose_rate
from tactus.hal.diagnostics.scan import diagnose_scan, discover
from tactus.hal.rig import RigConfig
from tactus.hal.robot import RobotConfig, RobotError
from tactus.hal.servo.port import find_ports
from tactus.hal.teleop.config import LeaderConfig
from tactus.policies.policy import PolicyConfig
from tactus.runtime.commands.arguments import FILE, is_given
from tactus.runtime.commands.config import Doctor as DoctorConfig
from tactus.runtime.commands.episodes import FAILED, INTERRUPTED, USAGE
from tactus.runtime.diagnosis.dataset_facts import dataset_facts
from tactus.runtime.diagnosis.dataset_findings import diagnose_dataset
from tactus.runtime.diagnosis.policy_facts import policy_facts
from tactus.runtime.diagnosis.policy_findings import diagnose_policy
from tactus.runtime.diagnosis.robot_facts import RobotFacts, robot_facts

MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "fault": "[bold red]fault[/]"}
LEADER = "teleop.arm"
KINDS = {
    kind: (config.bus, {joint.id: joint.model for joint in config.joints.values()})
    for kind, config in (("so100", So100Config()), ("koch", KochConfig()), ("koch_leader", KochLeaderConfig()))
}


class Doctor:
    """Collects findings and measurements, part by part."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.findings: list[Finding] = []
        self.arms: dict[str, ArmFacts] = {}
        self.cameras: dict[str, CameraFacts] = {}

    def machine(self) -> None:
        """What is plugged in."""
        ports = find_ports()
        for path in ports:
            self.findings += diagnose_port("machine", inspect_port(path))
        if not ports:
            fix = "is the adapter plugged in, and is its cable one that carries data?"
            self.findings.append(Finding("machine", "port", "note", "no serial port", "", fix))
        self.findings += diagnose_devices(video_devices())

    def scan(self, ports: Iterable[str]) -> None:
        """Who answers on these ports, at any baud rate, in either protocol."""
        for port in ports:
            seen = diagnose_port(port, inspect_port(port))
            if any(finding.level == "fault" for finding in seen):
                self.findings += seen
                continue
            with self._console.status(f"{port}: asking at every baud rate"):
                try:
                    self.findings += diagnose_scan(port, list(discover(port)), KINDS)
                except RobotError as error:
                    self.findings.append(Finding(port, "scan", "fault", str(error)))

    def arm(self, part: str, config: ArmConfig, keys: str) -> None:
        if config.port is None and part.startswith(LEADER):
            fix = f"--{part}.port=…, if there is a leader arm"
            self.findings.append(Finding(part, "port", "note", "not given: not looked at", "", fix))
            return
        try:
            config.make_bus()  # complains of a config that cannot be
            seen = diagnose_port(part, inspect_port(str(config.port)))
            self.findings += seen
            if any(finding.level == "fault" for finding in seen):
                return
            with self._console.status(f"{part}: asking its motors"):
                self.arms[part] = measure_arm(config)
            self.findings += diagnose_arm(part, self.arms[part], keys)
        except RobotError as error:
            self.findings.append(Finding(part, "port", "fault", str(error)))

    def watch(self, cameras: Mapping[str, CameraConfig]) -> None:
        with self._console.status(f"watching {', '.join(cameras)}"):
            self.cameras = measure_cameras(cameras)
        for part, facts in self.cameras.items():
            self.findings += diagnose_camera(part, facts)

    def policy(self, config: PolicyConfig, robot: RobotConfig | None, dataset_root: str | None) -> None:
        """robot: the one it is to drive; looked through where there are data to compare with, and it has no fault."""
        whole = not any(finding.level == "fault" for finding in self.findings)
        observed = whole and dataset_root is not None
        body, data = RobotFacts(), None
        if robot is not None:
            with self._console.status("looking through the robot" if observed else "asking the robot's spec"):
                body = robot_facts(robot, observed)
            if body.error and whole:  # else it is only what was found already
                self.findings.append(Finding("robot", "observation", "fault", body.error))
        with self._console.status(f"loading {config.get_choice_name(type(config))}"):
            facts = policy_facts(config, body.task if body.spec else None)
        self.findings += diagnose_policy(facts, body.spec, body.task, body.size_keys)
        if dataset_root is not None:
            with self._console.status(f"reading {dataset_root}"):
                data = dataset_facts(Path(dataset_root))
            self.findings += diagnose_dataset(facts, data, body.spec, body.seen)

    def rate(self, fps: float, key: str) -> None:
        self.findings += diagnose_rate(fps, self._busy_ms, self._camera_fps, key)

    @property
    def _busy_ms(self) -> dict[str, float]:
        return {part: facts.busy_ms for part, facts in self.arms.items() if facts.read_ms and not facts.failures}

    @property
    def _camera_fps(self) -> dict[str, float]:
        return {part: facts.fps for part, facts in self.cameras.items() if facts.fps}

    def report(self) -> dict[str, Any]:
        """All of it, for programs."""
        arms = {part: _measured(facts) for part, facts in self.arms.items()}
        cameras = {
            part: {"fps": round(facts.fps, 2), **_percentiles("age", facts.ages_ms)}
            for part, facts in self.cameras.items()
        }
        return {
            "faults": sum(finding.level == "fault" for finding in self.findings),
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "arms": arms,
            "cameras": cameras,
            "proposed_fps": propose_rate(self._busy_ms, self._camera_fps),
        }


def main(config: DoctorConfig, arguments: list[str]) -> int:
    """Exit status 1 if there is a fault."""
    configured = any(is_given(arguments, key) for key in ("robot", "teleop", FILE))
    judged = is_given(arguments, "policy")  # one in a file is for the policy node's machine, which may be another
    if config.dataset_root is not None and not judged:
        print("tactus doctor: dataset_root: is for a policy; give --policy.path too", file=sys.stderr)
        return USAGE
    console = Console(highlight=False)
    doctor = Doctor(console)
    try:
        arms, cameras, others = _parts(config) if configured else ({}, {}, {})
        if config.scan or not (configured or judged):
            doctor.machine()
        if config.scan:
            doctor.scan(dict.fromkeys([*find_ports(), *(str(arm.port) for arm in arms.values() if arm.port)]))
        for part, arm in arms.items():
            doctor.arm(part, arm, _keys(config, part, arm))
        if cameras:
            doctor.watch(cameras)
        fps, key = _rate(config.robot)
        if configured and fps:
            doctor.rate(fps, key)
        if config.policy is not None and judged:
            robot = config.robot if is_given(arguments, "robot") or is_given(arguments, FILE) else None
            doctor.policy(config.policy, robot, config.dataset_root)
        else:
            unseen = [Finding(part, "part", "note", f"{kind}: not looked at") for part, kind in others.items()]
            doctor.findings += unseen
    except KeyboardInterrupt:
        print("tactus doctor: interrupted", file=sys.stderr)
        return INTERRUPTED
    report = doctor.report()
    _show(console, doctor.findings)
    if config.json is not None:
        try:
            Path(config.json).write_text(json.dumps(report, indent=2) + "\n")
        except OSError as error:
            print(f"tactus doctor: json: cannot write {config.json}: {error.strerror}", file=sys.stderr)
            return 1
    return FAILED if report["faults"] else 0


def _parts(config: DoctorConfig) -> tuple[dict[str, ArmConfig], dict[str, CameraConfig], dict[str, str]]:
    """Arms, cameras, and the types of what is neither, by the name of the part."""
    robot = config.robot
    parts = dict(robot.parts) if isinstance(robot, RigConfig) else {"robot": robot}
    if isinstance(config.teleop, LeaderConfig):
        led = config.teleop.arm
        parts |= (
            {f"{LEADER}.parts.{n}": p for n, p in led.parts.items()} if isinstance(led, RigConfig) else {LEADER: led}
        )
    arms = {name: part for name, part in parts.items() if isinstance(part, ArmConfig)}
    cameras = {name: part for name, part in parts.items() if isinstance(part, CameraConfig)}
    others = {
        name: RobotConfig.get_choice_name(type(part)) for name, part in parts.items() if name not in arms | cameras
    }
    return arms, cameras, others


def _keys(config: DoctorConfig, part: str, arm: ArmConfig) -> str:
    """What names this arm to `tactus calibrate`."""
    kind = arm.get_choice_name(type(arm))
    if arm.joints != type(arm)().joints:
        return f"--part={part} with the config file" if isinstance(config.robot, RigConfig) else "with the config file"
    calibration = f" --robot.calibration={arm.calibration}" if arm.calibration else ""
    calibration = f" --robot.id={arm.id}" if arm.id and not arm.calibration else calibration
    return f"--robot.type={kind} --robot.port={arm.port}{calibration}"


def _rate(robot: RobotConfig) -> tuple[float | None, str]:
    """The control rate and the key that sets it."""
    if isinstance(robot, ArmConfig):
        return robot.fps, "--robot.fps"
    if isinstance(robot, RigConfig):
        for name, part in robot.parts.items():
            if isinstance(part, ArmConfig):
                return part.fps, f"--robot.parts.{name}.fps"
    return None, ""


def _measured(facts: ArmFacts) -> dict[str, Any]:
    return {
        "port": facts.port,
        "motors": {str(motor_id): number for motor_id, number in facts.answering.items()},
        "registers": facts.registers,
        "firmware": facts.firmware,
        **_percentiles("read", facts.read_ms),
        "write_ms": round(facts.write_ms, 3),
        "retries": facts.retries,
        "failures": facts.failures,
    }


def _percentiles(name: str, values: tuple[float, ...]) -> dict[str, float]:
    if not values:
        return {}
    p50, p95 = np.percentile(values, [50, 95])
    return {f"{name}_p50_ms": round(float(p50), 3), f"{name}_p95_ms": round(float(p95), 3)}


def _show(console: Console, findings: list[Finding]) -> None:
    table = Table("part", "", "", Column("found", overflow="fold"), box=None, pad_edge=False)
    for finding in findings:
        lines = [finding.found]
        if finding.expected and finding.level != "ok":
            lines.append(f"expected: {finding.expected}")
        if finding.fix:
            lines.append(f"→ {finding.fix}")
        table.add_row(finding.part, MARKS[finding.level], finding.about, Text("\n".join(lines)))
    console.print(table)
    counts = {level: sum(finding.level == level for finding in findings) for level in MARKS}
    console.print(f"{counts['fault']} faults, {counts['note']} notes, {counts['ok']} ok")
