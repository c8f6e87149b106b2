"""Whether a robot and a policy speak of the same things: every difference, in words, before anything moves."""

from __future__ import annotations

from hal.spec import Feature, PolicySpec, RobotSpec


def mismatches(robot: RobotSpec, policy: PolicySpec) -> list[str]:
    """Every reason why this policy cannot drive this robot; empty if it can.

    A policy may read fewer observations than the robot has. Names and modes are compared where both state
    them; bounds are the robot's own affair.
    """
    found = []
    for name, wanted in policy.inputs.items():
        given = robot.observations.get(name)
        if given is None:
            known = ", ".join(sorted(robot.observations)) or "nothing"
            found.append(f"{name}: the policy needs it, the robot observes {known}")
        else:
            found += _differences(name, given, wanted)
    found += _differences("action", robot.action, policy.action)
    if policy.fps is not None and policy.fps != robot.fps:
        found.append(f"fps: robot {robot.fps:g}, policy {policy.fps:g}")
    return found


def _differences(name: str, robot: Feature, policy: Feature) -> list[str]:
    found = []
    for key in ("shape", "dtype"):
        ours, theirs = getattr(robot, key), getattr(policy, key)
        if ours != theirs:
            found.append(f"{name}: {key}: robot {_text(ours)}, policy {_text(theirs)}")
    if robot.shape != policy.shape:
        return found
    width = robot.shape[0] if robot.shape else 1
    if _each(robot.unit, width) != _each(policy.unit, width):
        found.append(f"{name}: unit: robot {_text(robot.unit)}, policy {_text(policy.unit)}")
    for key in ("names", "mode"):
        ours, theirs = getattr(robot, key), getattr(policy, key)
        if ours and theirs and ours != theirs:
            where = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
            pairs = ", ".join(f"[{i}] {ours[i]} / {theirs[i]}" for i in where[:8])
            found.append(f"{name}: {key}: robot / policy differ at {pairs}{' …' if len(where) > 8 else ''}")
    return found


def _each(unit: str | tuple[str, ...], width: int) -> tuple[str, ...]:
    return (unit,) * width if isinstance(unit, str) else unit


def _text(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
