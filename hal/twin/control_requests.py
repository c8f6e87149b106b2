"""Carries out what a client of the control socket asks of a twin: faults, their end, its state.

    {"do": "fault", "kind": …, "arm": name, "motor": id, name or "all", "probability", "duration_s", "count",
     "delay_ms", "value", "seed"}      → {"fault": number}; kinds and their meaning: hal/twin/faults.py
    {"do": "clear", "fault": number}   one fault, or all without a number
    {"do": "state"}                    arms (plugged, angles, torque, errors, registers), faults in force, scene
    {"do": "camera_fault", "camera": name, "kind": "freeze", "stop" or "start"}
    {"do": "hand", "arm": name, "angles_rad": {joint: rad}}   a person moves limp joints; {} lets go

and what the world answers besides: reset, outcome, scene.
"""

from __future__ import annotations

import math
import time
from typing import Any

from tactus.hal.robot import RobotError
from tactus.hal.twin.arm import EmulatedArm
from tactus.hal.twin.faults import CONDITIONS, EVENTS, KINDS, Fault
from tactus.hal.twin.twin import Twin

BROWN_OUT_S = 0.3
FAULT_KEYS = ("kind", "arm", "motor", "probability", "duration_s", "count", "delay_ms", "value", "seed")
EVENT_KEYS = ("kind", "arm", "duration_s")


class ControlRequests:
    """Answers the control socket's requests to one twin."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises RobotError for a request that cannot be met, ValueError or TypeError for a value that is none."""
        match request.get("do"):
            case "fault":
                return self._fault(request)
            case "clear":
                return self._clear(request)
            case "state":
                return self._state()
            case "camera_fault":
                if self._twin.cameras is None:
                    raise RobotError("camera_fault: this twin has no cameras")
                return self._twin.cameras.fault(request)
        handle = getattr(self._twin.world, "handle", None)
        answer = handle(request) if handle else None
        if answer is None:
            raise RobotError(
                f"do: found {request.get('do')!r}; accepted: fault, clear, state, camera_fault, hand"
                + (", reset, outcome, scene" if self._twin.config.world == "table" else "")
            )
        return answer

    def _fault(self, request: dict[str, Any]) -> dict[str, Any]:
        kind, name = str(request.get("kind")), str(request.get("arm", next(iter(self._twin.arms))))
        if kind not in KINDS:
            raise RobotError(f"fault kind: found {kind!r}; accepted: {', '.join(KINDS)}")
        if name not in self._twin.arms:
            raise RobotError(f"fault arm: found {name!r}; accepted: {', '.join(self._twin.arms)}")
        accepted = EVENT_KEYS if kind in EVENTS else FAULT_KEYS
        if kind in CONDITIONS:
            accepted = tuple(key for key in FAULT_KEYS if key not in ("probability", "count", "delay_ms", "seed"))
        if unknown := {*request} - {"do", *accepted}:
            raise RobotError(f"fault {kind}: found {', '.join(sorted(unknown))}; accepted: {', '.join(accepted)}")
        duration_s = None if request.get("duration_s") is None else float(request["duration_s"])
        if kind in EVENTS:
            self._event(kind, name, duration_s)
            return {}
        arm = self._twin.arms[name]
        fault = Fault(
            kind,
            name,
            _motor(arm, request.get("motor")),
            float(request.get("probability", 1.0)),
            math.inf if duration_s is None else time.monotonic() + duration_s,
            None if request.get("count") is None else int(request["count"]),
            float(request.get("delay_ms", 20.0)),
            int(request.get("value", 0)),
        )
        fault.random.seed(request.get("seed", 0))
        number = self._twin.faults.add(fault)
        arm.set_condition(fault, True)
        return {"fault": number}

    def _event(self, kind: str, name: str, duration_s: float | None) -> None:
        port = self._twin.ports[name]
        if kind == "brown_out":
            self._twin.arms[name].brown_out(BROWN_OUT_S if duration_s is None else duration_s)
            return
        self._twin.replug_s.pop(name, None)
        if kind == "replug":
            port.plug()
        else:
            port.unplug()
            if duration_s is not None:
                self._twin.replug_s[name] = time.monotonic() + duration_s

    def _clear(self, request: dict[str, Any]) -> dict[str, Any]:
        number = request.get("fault")
        ended = [fault for fault in self._twin.faults.active if number in (None, fault.number)]
        if number is not None and not ended:
            raise RobotError(f"clear: no fault number {number} is in force")
        for fault in ended:
            self._twin.end(fault)
        return {"cleared": len(ended)}

    def _state(self) -> dict[str, Any]:
        twin = self._twin
        now_s = time.monotonic()
        twin.move(now_s)
        report = getattr(twin.world, "state", None)
        return {
            "t": now_s,
            "arms": {name: {"plugged": twin.ports[name].plugged, **arm.state()} for name, arm in twin.arms.items()},
            "faults": [{"fault": f.number, "kind": f.kind, "arm": f.arm, "motor": f.motor} for f in twin.faults.active],
            "scene": report() if report else None,
        }


def _motor(arm: EmulatedArm, motor: object) -> int | None:
    if motor in (None, "all"):
        return None
    for servo in arm.servos:
        if motor in (servo.id, servo.name):
            return servo.id
    known = ", ".join(f"{servo.id} ({servo.name})" for servo in arm.servos)
    raise RobotError(f"fault motor: found {motor!r}; accepted: all, {known}")
