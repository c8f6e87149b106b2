"""Findings about an arm's bus: which motors answer, their firmware, delays, lost answers. Pure."""

from __future__ import annotations

import numpy as np

from tactus.hal.diagnostics.arm import ArmFacts
from tactus.hal.diagnostics.finding import Finding, listed
from tactus.hal.servo.registers import MODELS, model_named

DELAY_UNIT_US = 2
SLOW_READ_MS = 10.0
"""A sync read of six motors at 1 Mbaud takes 2 to 4 ms; an FTDI adapter with its factory setting makes it 17."""


def diagnose_motors(facts: ArmFacts) -> list[Finding]:
    """Ids found and expected, models, and what `ServoBus.check` complains about besides."""
    names = list(facts.joints)
    wanted = {joint.id: name for name, joint in facts.joints.items()}
    expected = ", ".join(f"{name} {joint.id}" for name, joint in facts.joints.items())
    silent = [name for name, joint in facts.joints.items() if joint.id not in facts.answering]
    extra = {motor_id: number for motor_id, number in facts.answering.items() if motor_id not in wanted}
    strangers = ", ".join(f"{motor_id} ({model_named(number)})" for motor_id, number in extra.items())
    findings = []
    if len(silent) == len(names):
        findings.append(_none_answers(facts, strangers, expected))
    elif silent:
        first = names.index(silent[0])
        from_where = names[first - 1] if first else "the adapter"
        found = f"{silent[0]} (id {facts.joints[silent[0]].id}) does not answer at {facts.baudrate} baud"
        found += f"; silent too: {', '.join(silent[1:])}" if silent[1:] else ""
        found += f"; ids that belong to no joint: {strangers}" if strangers else ""
        fix = f"check the cable from {from_where} to {silent[0]}, and its id"
        findings.append(Finding("", "motors", "fault", found, expected, fix))
    elif extra:
        fix = "does the joint table lack a joint, or has another arm been plugged in too?"
        findings.append(Finding("", "motors", "note", f"ids that belong to no joint: {strangers}", expected, fix))
    for name, joint in facts.joints.items():
        number = facts.answering.get(joint.id)
        if number is not None and number != MODELS[joint.model].number:
            fix = "correct the model in the joint table, or the ids if motors are exchanged"
            found = f"{name} (id {joint.id}) is a {model_named(number)}"
            findings.append(Finding("", "motors", "fault", found, joint.model, fix))
    if facts.trouble and not any(finding.level == "fault" for finding in findings):
        findings.append(Finding("", "motors", "fault", facts.trouble))
    findings += [Finding("", "motors", "note", line) for line in facts.warnings]
    if not any(finding.level == "fault" for finding in findings):
        models = listed({name: joint.model for name, joint in facts.joints.items()}, facts.joints)
        findings.insert(0, Finding("", "motors", "ok", f"{len(names)} answer at {facts.baudrate} baud: {models}"))
    return findings


def _none_answers(facts: ArmFacts, strangers: str, expected: str) -> Finding:
    if strangers:
        fix = "correct the ids in the joint table, or those of the motors; is it another arm's port?"
        return Finding("", "motors", "fault", f"other ids answer: {strangers}", expected, fix)
    if facts.elsewhere:
        group = facts.elsewhere[0]
        fix = f"baudrate: {group.baudrate}, or the motors' Baud_Rate set to {facts.baudrate}"
        if group.protocol != facts.protocol:
            fix = f"another type or bus: {group.protocol}, with baudrate: {group.baudrate}"
        return Finding(
            "", "motors", "fault", f"no motor answers at {facts.baudrate} baud; found {group}", expected, fix
        )
    first, joint = next(iter(facts.joints.items()))
    fix = f"is the motors' power on, and the cable from the adapter to {first} (id {joint.id}) plugged in?"
    return Finding("", "motors", "fault", "no motor answers, at no baud rate, in neither protocol", expected, fix)


def diagnose_firmware(facts: ArmFacts) -> list[Finding]:
    """Motors of one model should have one version."""
    findings = []
    for model in dict.fromkeys(joint.model for joint in facts.joints.values()):
        same = {name: v for name, v in facts.firmware.items() if facts.joints[name].model == model}
        whole = [name for name, joint in facts.joints.items() if joint.model == model]
        if len(set(same.values())) > 1:
            fix = "update them to the same, with the maker's tool"
            findings.append(Finding("", "firmware", "note", f"{model}: {listed(same)}", "one version", fix))
        elif same:
            findings.append(Finding("", "firmware", "ok", f"{model}: {listed(same, whole)}"))
    return findings


def diagnose_return_delay(facts: ArmFacts) -> list[Finding]:
    """What waiting before each answer costs: in a sync read motors wait one after the other."""
    waits = {name: DELAY_UNIT_US * value for name, value in facts.values("Return_Delay_Time").items() if value}
    if not waits:
        return [Finding("", "return delay", "ok", "motors answer at once")]
    each = listed({name: f"{us} µs" for name, us in waits.items()}, facts.joints)
    found = f"{each}: {sum(waits.values()) / 1000:.1f} ms a read"
    set_anyway = all(facts.joints[name].registers.get("Return_Delay_Time") == 0 for name in waits)
    fix = "nothing: tactus run sets it when it connects" if set_anyway else "set Return_Delay_Time to 0"
    return [Finding("", "return delay", "note", found, "0", fix)]


def diagnose_latency(facts: ArmFacts) -> list[Finding]:
    """How long reads took, and how many answers were lost."""
    if not facts.read_ms:
        return []
    p50, p95 = np.percentile(facts.read_ms, [50, 95])
    found = f"read of all motors p50 {p50:.1f}, p95 {p95:.1f} ms, {len(facts.read_ms)} times"
    found += f"; {facts.retries} answers asked for again, {facts.failures} never came"
    if facts.failures:
        fix = "check cables and plugs; is the supply strong enough?"
        return [Finding("", "bus", "fault", found, "no answer lost", fix)]
    if facts.retries:
        fix = "check cables and plugs; is the line long, or beside a motor's power cable?"
        return [Finding("", "bus", "note", found, "no answer lost", fix)]
    if p50 > SLOW_READ_MS and facts.baudrate >= 1_000_000:
        fix = "an adapter that keeps bytes for 16 ms, or a USB hub: set its latency timer to 1 ms"
        return [Finding("", "bus", "note", found, f"below {SLOW_READ_MS:g} ms", fix)]
    return [Finding("", "bus", "ok", found)]
