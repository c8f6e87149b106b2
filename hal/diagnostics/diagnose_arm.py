"""Findings about an arm: its bus, voltages, temperatures, errors, torque, calibration, positions. Pure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tactus.hal.arm.joints import turning
from tactus.hal.diagnostics.arm import ArmFacts
from tactus.hal.diagnostics.diagnose_bus import (
    diagnose_firmware,
    diagnose_latency,
    diagnose_motors,
    diagnose_return_delay,
)
from tactus.hal.diagnostics.finding import Finding, listed
from tactus.hal.servo.bus import Motor
from tactus.hal.servo.calibration import REGISTERS, differences, whole_turns

NOMINAL_V = {"xl330-m288": 5.0, "xl330-m077": 5.0, "xc330-t181": 11.1, "xc330-t288": 11.1}
"""Supply that a model is made for; 12 V for Dynamixels that are not listed. An STS3215 comes for 7.4 V or for 12 V."""
BUILT_FOR_12_V = 110
"""A Feetech servo whose Max_Voltage_Limit (0.1 V) is above this is set up for 12 V; one for 7.4 V leaves the factory
with 80."""
WEAK_V = 9.0


def diagnose_arm(part: str, facts: ArmFacts, keys: str = "") -> list[Finding]:
    """All findings about one arm. part: how it is called in the config. keys: the command-line keys that name it, for
    the commands that are proposed."""
    findings = diagnose_motors(facts)
    if facts.registers:
        for diagnose in (diagnose_firmware, _voltages, _temperatures, _errors, _torque):
            findings += diagnose(facts)
    findings += [*_calibration(facts, keys), *_units(facts)]
    if facts.registers:
        findings += [*_positions(facts), *diagnose_return_delay(facts), *diagnose_latency(facts)]
    return [replace(finding, part=part) for finding in findings]


def _voltages(facts: ArmFacts) -> list[Finding]:
    volts = facts.values("Present_Voltage", "Present_Input_Voltage")
    least, most = facts.values("Min_Voltage_Limit"), facts.values("Max_Voltage_Limit")
    findings = []
    wrong: dict[tuple[str, str], dict[str, str]] = {}
    for name, value in volts.items():
        if name not in least or name not in most or least[name] <= value <= most[name]:
            continue
        limits = f"{least[name] / 10:.1f} to {most[name] / 10:.1f} V, as the servo is set"
        fix = "check the power supply, its plug and its cable: is it strong enough?"
        if value > most[name]:
            fix = f"unplug the power: this is a supply for stronger servos; these take {_nominal(facts, name, most)}"
        wrong.setdefault((limits, fix), {})[name] = f"{value / 10:.1f} V"
    findings += [Finding("", "voltage", "fault", listed(who, facts.joints), *why) for why, who in wrong.items()]
    if wrong or not volts:
        return findings
    weak = {
        name: f"{value / 10:.1f} V"
        for name, value in volts.items()
        if facts.protocol == "feetech" and most.get(name, 0) > BUILT_FOR_12_V and value < WEAK_V * 10
    }
    if weak:
        most_v = max(most[name] for name in weak) / 10
        found = f"{listed(weak, facts.joints)}, and the servos are set for up to {most_v:.1f} V"
        fix = "servos for 12 V are weak on less; if they are for 7.4 V, set their Max_Voltage_Limit to 80"
        return [Finding("", "voltage", "note", found, "12 V for 12 V servos", fix)]
    each = {name: f"{value / 10:.1f} V" for name, value in volts.items()}
    return [Finding("", "voltage", "ok", listed(each, facts.joints))]


def _nominal(facts: ArmFacts, name: str, most: dict[str, int]) -> str:
    if facts.protocol == "feetech":
        return "12 V" if most[name] > BUILT_FOR_12_V else "7.4 V"
    return f"{NOMINAL_V.get(facts.joints[name].model, 12.0):g} V"


def _temperatures(facts: ArmFacts) -> list[Finding]:
    found = facts.values("Present_Temperature")
    limits = facts.values("Max_Temperature_Limit", "Temperature_Limit")
    vitals = facts.governor.vitals
    warn_c, stop_c = vitals.temperature_warn_c or np.inf, vitals.temperature_stop_c or np.inf
    hot = {name: f"{value} °C" for name, value in found.items() if value >= min(stop_c, limits.get(name, np.inf))}
    warm = {name: f"{value} °C" for name, value in found.items() if value >= warn_c and name not in hot}
    fix = "let it cool; does something block the joint, or does the arm hold its weight for long?"
    findings = []
    if hot:
        findings.append(Finding("", "temperature", "fault", listed(hot, facts.joints), f"below {stop_c:g} °C", fix))
    if warm:
        findings.append(Finding("", "temperature", "note", listed(warm, facts.joints), f"below {warn_c:g} °C", fix))
    if not findings and found:
        findings.append(Finding("", "temperature", "ok", f"{min(found.values())} to {max(found.values())} °C"))
    return findings


def _errors(facts: ArmFacts) -> list[Finding]:
    if not facts.errors:
        return [Finding("", "errors", "ok", "no motor reports one")]
    fix = "mend the cause, then switch the motors' power off and on"
    found = "; ".join(f"{name}: {words}" for name, words in facts.errors.items())
    return [Finding("", "errors", "fault", found, "none", fix)]


def _torque(facts: ArmFacts) -> list[Finding]:
    on = [name for name, value in facts.values("Torque_Enable").items() if value]
    if not on:
        return [Finding("", "torque", "ok", "off")]
    fix = "if no program is to hold the arm: hold it by hand, and switch the motors' power off"
    return [Finding("", "torque", "note", f"on: {', '.join(on)}", "off", fix)]


def _calibration(facts: ArmFacts, keys: str) -> list[Finding]:
    if facts.calibration is None:
        fix = "give this arm's file, or a name that is free and then tactus calibrate"
        if not facts.calibration_kept:
            fix = f"tactus calibrate {keys}".strip()
        return [Finding("", "calibration", "fault", facts.no_calibration, "LeRobot's JSON", fix)]
    known = {name: joint for name, joint in facts.calibration.items() if _told(facts, name)}
    if not known:
        return []
    file = facts.calibration_path
    if differing := differences(known, {register: facts.registers[register] for register in REGISTERS}):
        more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
        fix = f"if the file is this arm's: tactus calibrate --from={file} {keys}".strip()
        found = f"{file}: {'; '.join(differing[:3])}{more}"
        return [Finding("", "calibration", "fault", found, "file and servos agree", fix)]
    motors = {name: Motor(joint.id, joint.model) for name, joint in facts.joints.items()}
    odd = whole_turns(known, motors, turning(facts.joints))
    return [
        Finding("", "calibration", "ok", f"{file}, and the servos hold it"),
        *(Finding("", "calibration", "note", line, "", f"tactus calibrate {keys}".strip()) for line in odd),
    ]


def _units(facts: ArmFacts) -> list[Finding]:
    """LeRobot changed its default for these arms, and neither policies nor datasets say which they were made with."""
    units = {joint.unit for joint in facts.joints.values()} - {"range_0_100"}
    if not units:
        return []
    found = f"joints in {', '.join(sorted(units))}"
    older = {"feetech": "from before LeRobot used degrees", "dynamixel": "in LeRobot's own unit for Koch arms"}
    fix = f"a policy {older[facts.protocol]} needs --robot.unit=range_m100_100" if "degrees" in units else ""
    return [Finding("", "units", "ok", found, "", fix)]


def _told(facts: ArmFacts, name: str) -> bool:
    return all(name in facts.registers.get(register, ()) for register in REGISTERS)


def _positions(facts: ArmFacts) -> list[Finding]:
    if facts.calibration is None:
        return []
    positions = facts.values("Present_Position")
    far, near = {}, {}
    for name, value in positions.items():
        joint = facts.calibration[name]
        beyond = max(joint.range_min - value, value - joint.range_max)
        if beyond > 0:
            words = f"at {value}, range {joint.range_min} to {joint.range_max}"
            (far if beyond > facts.governor.outside * (joint.range_max - joint.range_min) else near)[name] = words
    findings = []
    if far:
        fix = "move it by hand into its range, or calibrate again: its horn may have slipped"
        findings.append(Finding("", "positions", "fault", listed(far), "inside the calibrated range", fix))
    if near:
        fix = "nothing: the start brings it inside"
        findings.append(Finding("", "positions", "note", listed(near), "inside the calibrated range", fix))
    if not findings and positions:
        findings.append(Finding("", "positions", "ok", "every joint is inside its range"))
    return findings
