"""The handshake's comparison of a robot's and a policy's specs: every mismatch, as a line for the user."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal, get_args

from tactus.hal.spec import Feature, PolicySpec, RobotSpec
from tactus.runtime.wire.config import Allowance

IMAGE_SIZE, ROBOT = "image_size", "robot"
ALLOWANCES = get_args(Allowance)
SHARES = 100.5
"""Actions beyond this are no shares of a range, in percent."""
MAX_TEXT = 400
"""Characters of one side's text that a reason repeats."""


def mismatches(
    robot: RobotSpec, policy: PolicySpec, allow: Collection[str] = (), what: Literal["robot", "dataset"] = "robot"
) -> list[str]:
    """Every reason why this policy cannot drive this robot; empty if it can. allow: of ALLOWANCES. what: the spec is
    of: a robot, or one that a dataset was recorded of.

    A policy may read fewer observations than the robot has. Names, units and modes are compared where both
    state them; bounds are the robot's own affair.
    """
    found = []
    if policy.robots and robot.name not in policy.robots and ROBOT not in allow:
        found.append(
            f"robot: the policy was trained on {policy.robot}, this is {robot.name}; "
            "choose another policy, or accept it with --allow robot"
        )
    for name, wanted in policy.inputs.items():
        given = robot.observations.get(name)
        if given is None:
            known = f"{', '.join(sorted(robot.observations)):.{MAX_TEXT}}" or "nothing"
            has = "the robot observes" if what == "robot" else "the dataset has"
            found.append(f"{name}: the policy needs it, {has} {known}")
        else:
            found += differences(name, given, wanted, (what, "policy"), policy.casts, IMAGE_SIZE in allow)
    found += _advice(robot, policy, "give the policy node" if what == "robot" else "give")
    found += differences("action", robot.action, policy.action, (what, "policy"))
    if policy.fps is not None and policy.fps != robot.fps:
        found.append(f"fps: {what} {robot.fps:g}, policy {policy.fps:g}")
    return [reason if reason.isprintable() else ascii(reason)[1:-1] for reason in found]


def unlike(old: PolicySpec, new: PolicySpec) -> list[str]:
    """Why a policy cannot take another's place while robots are driven: they go on asking as they did."""
    found = [f"{name}: {old.name} reads it, {new.name} does not" for name in old.inputs if name not in new.inputs]
    found += [f"{name}: {new.name} reads it, {old.name} does not" for name in new.inputs if name not in old.inputs]
    sides = ("running policy", "new policy")
    for name in (name for name in old.inputs if name in new.inputs):
        found += differences(name, old.inputs[name], new.inputs[name], sides)
    found += differences("action", old.action, new.action, sides)
    for key in ("horizon", "observation_offsets", "takes_prefix"):
        if getattr(old, key) != getattr(new, key):
            found.append(f"{key}: {sides[0]} {getattr(old, key)}, {sides[1]} {getattr(new, key)}")
    return found


def notes(robot: RobotSpec, policy: PolicySpec) -> list[str]:
    """What is worth a look although the two fit together."""
    ends = (*policy.action.low, *policy.action.high)
    if "deg" in robot.action.units and ends and all(abs(end) <= SHARES for end in ends):
        return [
            f"action: in the policy's training data every joint lies within {min(ends):.0f} and {max(ends):.0f}, and "
            f"{robot.name} takes degrees: a policy from before LeRobot used degrees needs range_m100_100 (--robot.unit)"
        ]
    return []


def _advice(robot: RobotSpec, policy: PolicySpec, give: str) -> list[str]:
    """What to give the policy if inputs that the robot lacks are only called otherwise, or cannot be had."""
    absent = [name for name in policy.inputs if name not in robot.observations]
    spare = [name for name in robot.observations if name not in policy.inputs]
    pairs: dict[str, str] = {}
    for name in absent:
        wanted = policy.inputs[name]
        alike = (n for n in spare if n not in pairs and _alike(robot.observations[n], wanted))
        if name in policy.own_names and (one := next(alike, None)):
            pairs[one] = name
    found = []
    if pairs:
        kept = {n: n for n, own in policy.own_names.items() if n in robot.observations and n != own}
        rename = {ours: policy.own_names[name] for ours, name in (kept | pairs).items()}
        text = ", ".join(f"{ours:.{MAX_TEXT}}: {theirs:.{MAX_TEXT}}" for ours, theirs in rename.items())
        found.append(f"if only the names differ, {give} --policy.rename='{{{text}}}'")
    lacking = [name for name in absent if name in policy.can_lack and name not in pairs.values()]
    if lacking and any(name in policy.can_lack for name in policy.inputs if name not in lacking):
        text = ",".join(policy.own_names.get(name, name)[:MAX_TEXT] for name in lacking)
        found.append(
            f"the policy can fill in cameras that are not there, as in its training, at some loss: {give} "
            f"--policy.empty_cameras='[{text}]'"
        )
    return found


def _alike(ours: Feature, theirs: Feature) -> bool:
    return ours.is_image if theirs.is_image else ours.shape == theirs.shape


def differences(
    name: str,
    one: Feature,
    other: Feature,
    sides: tuple[str, str] = ("robot", "policy"),
    casts: bool = False,
    any_size: bool = False,
) -> list[str]:
    """How two features of that name differ, in lines. sides: what the two are called. casts: vectors may differ in
    dtype. any_size: pictures may differ in height and width."""
    here, there = sides
    if any_size and one.is_image and other.is_image:
        one = replace(one, shape=(*other.shape[:2], one.shape[2]))
    if casts and not one.is_image:
        one = replace(one, dtype=other.dtype)
    found = []
    for key in ("shape", "dtype"):
        ours, theirs = getattr(one, key), getattr(other, key)
        if ours != theirs:
            hint = _hint(key, one, other, here) if there == "policy" else ""
            found.append(f"{name}: {key}: {here} {_text(ours)}, {there} {_text(theirs)}{hint}")
    if one.shape != other.shape:
        return found
    if one.units and other.units and one.units != other.units:
        found.append(f"{name}: unit: {here} {_text(one.unit)}, {there} {_text(other.unit)}")
    for key in ("names", "mode"):
        ours, theirs = getattr(one, key), getattr(other, key)
        if ours and theirs and ours != theirs:
            where = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
            pairs = ", ".join(f"[{i}] {ours[i]:.40} / {theirs[i]:.40}" for i in where[:8])
            found.append(f"{name}: {key}: {here} / {there} differ at {pairs}{' …' if len(where) > 8 else ''}")
    return found


def _hint(key: str, ours: Feature, policy: Feature, what: str) -> str:
    if key == "shape" and ours.is_image and policy.is_image and ours.shape[2] == policy.shape[2]:
        give = "give the robot the size that the policy was trained on, or " if what == "robot" else ""
        return f"; {give}accept it with --allow image_size"
    return ""


def _text(value: object) -> str:
    """A size as 480x640x3, units as a list."""
    if isinstance(value, tuple):
        value = ("x" if all(isinstance(each, int) for each in value) else ", ").join(map(str, value))
    text = str(value)
    return f"{text:.{MAX_TEXT}}"
