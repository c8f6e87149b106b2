"""Findings about a policy, alone and on a robot: statistics, units, names, sizes, rates. Facts in, findings out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from tactus.hal.diagnostics.finding import Finding, Level
from tactus.hal.spec import Feature, RobotSpec
from tactus.runtime.diagnosis.policy_facts import PolicyFacts, Saved, Tokenizer
from tactus.runtime.wire.handshake import mismatches, notes

PART = "policy"
IDENTITY = "IDENTITY"
SLACK = 1.05
"""How far beyond ±1 something normalised may lie."""
TURN_RAD = 2 * math.pi
SHARES = 100.5
"""Beyond this a number is no share of a range, in percent."""
NARROW, NEARLY = 0.05, 0.8
"""A range that takes less of the robot's than the first, in so many dimensions as the second, is of another scale."""


def diagnose_policy(
    policy: PolicyFacts,
    robot: RobotSpec | None,
    task: str = "",
    size_keys: Mapping[str, str] = MappingProxyType({}),
) -> list[Finding]:
    """task: what the robot asks for. size_keys: camera -> keys that set the size of its picture, with {h} and {w}."""
    return [
        *_loads(policy),
        *(_statistics(policy.saved) if policy.saved else ()),
        *(_normalisers(policy.saved) if policy.saved else ()),
        *_resolution(policy, robot, size_keys),
        *(_handshake(robot, policy) if robot and policy.spec else ()),
        *_rate(policy, robot),
        *_action(policy, robot),
        *(_tokenizer(policy.saved.tokenizer, robot, task) if policy.saved and policy.saved.tokenizer else ()),
        *_chunk(policy),
    ]


def finding(about: str, level: Level, found: str, expected: str = "", fix: str = "") -> Finding:
    """About the policy."""
    return Finding(PART, about, level, found, expected, fix)


def _loads(policy: PolicyFacts) -> Iterator[Finding]:
    if policy.missing:
        found = f"{policy.kind}: not looked at, it needs {policy.missing}, which is not installed here"
        yield finding(
            "checkpoint", "note", found, "", "judge it where the policy node runs, or pip install 'tactus[policy]'"
        )
        return
    if not policy.error:
        assert policy.spec is not None
        inputs = ", ".join(policy.spec.inputs) or "nothing"
        yield finding("checkpoint", "ok", f"{policy.spec.name} loads; reads {inputs}")
        return
    about = "statistics" if policy.error.startswith("normalisation statistics") else "checkpoint"
    named = re.search(r"--policy\.\w+=\S+", policy.error)
    key = re.search(r"\bpolicy\.(\w+)", policy.error)
    fix = named[0] if named else f"--policy.{key[1]}=…" if key else ""
    if about == "statistics":
        fix = "take policy_preprocessor.json, policy_postprocessor.json and their .safetensors from its training"
    yield finding(about, "fault", policy.error, "a checkpoint that loads whole", fix)


def _names(name: str, count: int) -> list[str]:
    return [f"{name}[{i}]" for i in range(count)]


def some(names: Sequence[str], most: int = 6) -> str:
    """The first few, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def span(low: np.ndarray, high: np.ndarray) -> str:
    """From the least to the most of all dimensions."""
    return f"{np.min(low):.4g} to {np.max(high):.4g}" if len(low) else "nothing"


def _statistics(saved: Saved) -> Iterator[Finding]:
    told = []
    for name, feature in {**saved.config.get("input_features", {}), **saved.config.get("output_features", {})}.items():
        found = saved.range_of(name)
        if found is None or feature.get("type") == "VISUAL":
            continue
        low, high = found
        told.append(f"{name} {span(low, high)} in {len(low)}")
        still = [each for each, width in zip(_names(name, len(low)), high - low, strict=True) if not width > 0]
        if still and name != "action" and _mode(saved, feature.get("type", "")) != IDENTITY:
            yield finding(
                "statistics",
                "note",
                f"{some(still)} never moved in training: any other value there becomes a huge number",
                "an input that varies, or one that is not read",
                "hold it where it was in training, or train without it",
            )
    if told:
        yield finding("statistics", "ok", "; ".join(told))


def _mode(saved: Saved, kind: str) -> str:
    return str((saved.before.modes or {}).get(kind, IDENTITY))


def _normalisers(saved: Saved) -> Iterator[Finding]:
    """Whether what the postprocessor does undoes what was done in training."""
    wanted = str(saved.config.get("normalization_mapping", {}).get("ACTION", IDENTITY))
    trained = None if saved.before.modes is None else str(saved.before.modes.get("ACTION", IDENTITY))
    undone = IDENTITY if saved.after.modes is None else str(saved.after.modes.get("ACTION", IDENTITY))
    copy = "copy policy_postprocessor.json and its .safetensors from the run that trained it"
    told = {"config.json": wanted, "policy_preprocessor.json": trained or wanted}
    other = {file: mode for file, mode in told.items() if mode != undone}
    known = saved.range_of("action")
    if undone == IDENTITY and other:
        file, mode = next(iter(other.items()))
        found = f"the un-normaliser does nothing to actions, and {file} says that training normalised them ({mode})"
        yield finding("un-normaliser", "fault", found, f"{mode} in policy_postprocessor.json", copy)
    elif other:
        file, mode = next(iter(other.items()))
        found = f"actions are un-normalised by {undone}, {file} says {mode}"
        yield finding("un-normaliser", "fault", found, "one and the same", copy)
    elif undone == IDENTITY and known is not None and _beyond(known, SLACK):
        found = f"actions are not un-normalised (IDENTITY), and in training they were {span(*known)}"
        yield finding(
            "un-normaliser",
            "note",
            found,
            "a policy that was trained on actions as they are; else actions within ±1",
            "look at what it predicts before torque is on: --robot.governor.dry_run=true",
        )
    elif differing := _differing(saved, "action"):
        found = f"the statistics of action in the preprocessor are not those in the postprocessor: {differing}"
        yield finding("un-normaliser", "fault", found, "the same file twice", copy)
    else:
        yield finding("un-normaliser", "ok", f"{undone} for actions, as in training")
    for kind in ("STATE", "VISUAL"):
        wanted = str(saved.config.get("normalization_mapping", {}).get(kind, IDENTITY))
        of_kind = any(f.get("type") == kind for f in saved.config.get("input_features", {}).values())
        if of_kind and saved.before.modes is not None and _mode(saved, kind) != wanted:
            found = f"{kind} is normalised by {_mode(saved, kind)}, config.json says {wanted}"
            yield finding("normaliser", "fault", found, "one and the same", copy.replace("post", "pre"))


def _differing(saved: Saved, name: str) -> str:
    before, after = saved.before.statistics.get(name, {}), saved.after.statistics.get(name, {})
    for key in sorted({*before} & {*after}):
        one, other = np.ravel(before[key]), np.ravel(after[key])
        if one.shape != other.shape or not np.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True):
            return f"{key} {one.ravel()[0]:.4g} and {other.ravel()[0]:.4g} in the first dimension"
    return ""


def _beyond(ends: tuple[np.ndarray, np.ndarray], limit: float) -> bool:
    return bool(np.max(np.abs(np.concatenate(ends)), initial=0) > limit)


def _resolution(policy: PolicyFacts, robot: RobotSpec | None, size_keys: Mapping[str, str]) -> Iterator[Finding]:
    """The way of a picture's size from the camera to the model."""
    if policy.spec is None:
        return
    for name, feature in policy.spec.inputs.items():
        if not feature.is_image:
            continue
        seen = robot.observations.get(name) if robot else None
        chain: list[Stage] = [("camera", seen.shape[:2], "")] if seen is not None and seen.is_image else []
        chain.append(("checkpoint", feature.shape[:2], ""))
        chain += model_stages(policy.saved.config) if policy.saved else []
        text = " → ".join(f"{h}x{w}{f' ({how})' if how else ''}" for _, (h, w), how in chain)
        keys = size_keys.get(name, size_keys.get("*", "")).format(h=feature.shape[0], w=feature.shape[1])
        if seen is None or not seen.is_image or seen.shape == feature.shape:
            yield finding("resolution", "ok", f"{name}: {text}{_scaled(chain)}")
            continue
        (height, width), (wanted_h, wanted_w) = seen.shape[:2], feature.shape[:2]
        told = []
        if not math.isclose(width / height, wanted_w / wanted_h, rel_tol=0.02):
            told.append(f"the aspect ratio changes from {width / height:.2f} to {wanted_w / wanted_h:.2f}")
        if wanted_h > height or wanted_w > width:
            told.append(f"scaled up {max(wanted_h / height, wanted_w / width):.2g} times: no detail is gained")
        if told:
            fix = keys or f"a camera that gives {wanted_h}x{wanted_w}"
            yield finding("resolution", "note", f"{name}: {text}: {'; '.join(told)}", "the size of training", fix)


Stage = tuple[str, tuple[int, ...], str]
"""Of a picture on its way: whose, (height, width), and how it is made."""


def model_stages(config: Mapping[str, Any]) -> list[Stage]:
    """What the model itself makes of a picture's size, by the keys that LeRobot's policies have for it."""
    stages: list[Stage] = []
    for key, how in (
        ("resize_imgs_with_padding", "padded"),
        ("image_resolution", "padded"),
        ("resize_shape", "stretched"),
        ("image_resize_shape", "stretched"),
        ("crop_shape", "the middle of it"),
        ("image_crop_shape", "the middle of it"),
    ):
        if size := config.get(key):
            stages.append(("model", (int(size[0]), int(size[1])), how))
    return stages


def _scaled(chain: Sequence[Stage]) -> str:
    (_, (first_h, first_w), _), (_, (last_h, last_w), how) = chain[0], chain[-1]
    scale = min(last_h / first_h, last_w / first_w)
    return f", scaled up {scale:.2g} times as in training" if how == "padded" and scale > 1 else ""


def _handshake(robot: RobotSpec, policy: PolicyFacts) -> Iterator[Finding]:
    """What a policy node would refuse this robot for, and what it would only note."""
    assert policy.spec is not None
    lines = mismatches(robot, policy.spec)
    advice = [line for line in lines if "give the policy node --" in line]
    keys = " or ".join(re.sub(r".*give the policy node ", "", line) for line in advice)
    faults = [line for line in lines if line not in advice]
    for line in faults:
        name, _, rest = line.partition(": ")
        found, _, hint = rest.partition("; ")
        about = "cameras" if name.startswith("observation.image") and "needs it" in rest else name
        fix = keys if "needs it" in rest else hint
        if name == "fps" and policy.spec.fps is not None:
            fix = f"--robot.fps={policy.spec.fps:g}"
        yield finding(
            about, "fault", f"{name}: {found}" if about != name else found, "what the policy was made for", fix
        )
    cameras = [name for name, feature in policy.spec.inputs.items() if feature.is_image]
    if cameras and not any(line.split(":")[0] in cameras for line in faults):
        yield finding("cameras", "ok", f"the robot has {', '.join(cameras)}")
    if _unit_fault(policy, robot) is None:
        for note in notes(robot, policy.spec):
            found, _, fix = note.partition(": a policy from")
            yield finding(
                "action",
                "note",
                found.removeprefix("action: "),
                "degrees, as the robot's",
                f"--robot.unit=range_m100_100, if it is a policy from{fix.partition(' needs')[0]}",
            )


def _rate(policy: PolicyFacts, robot: RobotSpec | None) -> Iterator[Finding]:
    stated = policy.spec.fps if policy.spec else None
    trained = stated or (policy.saved.fps if policy.saved else None)
    if policy.saved is None or robot is None or stated is not None:
        return
    if trained is None:
        yield finding("fps", "ok", f"not stated; the robot runs at {robot.fps:g} Hz; --policy.fps=… has it compared")
        return
    yield rate_finding(trained, robot.fps, "train_config.json")


def rate_finding(trained: float, robot: float, source: str) -> Finding:
    """The rate of training against the robot's."""
    if math.isclose(trained, robot, rel_tol=0.02):
        return finding("fps", "ok", f"{robot:g} Hz, as in training ({source})")
    found = (
        f"trained at {trained:g} Hz ({source}), the robot runs at {robot:g} Hz: {robot / trained:.2g} times the speed"
    )
    return finding("fps", "fault", found, f"{trained:g} Hz", f"--robot.fps={trained:g}")


def _ends(policy: PolicyFacts, width: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Of actions in training, in the units that the robot is sent; None where nobody knows."""
    if policy.spec and policy.spec.action.low and len(policy.spec.action.low) == width:
        return np.array(policy.spec.action.low), np.array(policy.spec.action.high)
    found = policy.saved.range_of("action") if policy.saved and not policy.saved.relative else None
    return found if found is not None and len(found[0]) == width else None


def _action(policy: PolicyFacts, robot: RobotSpec | None) -> Iterator[Finding]:
    if policy.saved and policy.saved.relative:
        found = "relative to the observed state; its postprocessor makes targets of them"
        if robot and robot.action.mode and all(mode == "delta" for mode in robot.action.mode if mode != "binary"):
            yield finding(
                "action", "fault", f"{found}, and the robot takes increments", "a robot that takes positions", ""
            )
            return
        yield finding("action", "ok", found)
    if robot is None or (ends := _ends(policy, math.prod(robot.action.shape))) is None:
        return
    unit = _unit_fault(policy, robot)
    if unit is not None:
        yield unit
        return
    faults = [*_scale(ends, robot.action), *_convention(policy, ends, robot)]
    yield from faults or [finding("action", "ok", f"in training {span(*ends)}, which this robot takes")]


def _unit_fault(policy: PolicyFacts, robot: RobotSpec) -> Finding | None:
    """Degrees, radians and shares of a range, told apart by how far they reach."""
    ends, units = _ends(policy, math.prod(robot.action.shape)), robot.action.units
    if ends is None or not units:
        return None
    reach = np.maximum(np.abs(ends[0]), np.abs(ends[1]))
    of = {unit: reach[[i for i, each in enumerate(units) if each == unit]] for unit in {*units}}
    told = f"in training actions were {span(*ends)}"
    if "deg" in of and len(of["deg"]) > 1 and of["deg"].max() <= TURN_RAD:
        if of["deg"].max() <= SLACK:
            found = f"{told}, within ±1: normalised numbers, and {robot.name} takes degrees"
            return finding("action", "fault", found, "degrees", "un-normalise them: the un-normaliser of another run?")
        found = f"{told}: radians, and {robot.name} takes degrees"
        return finding("action", "fault", found, "degrees", "a robot in radians, or a policy trained in degrees")
    if "rad" in of and of["rad"].max() > TURN_RAD * SLACK:
        what = "±100 normalised" if 90 < of["rad"].max() <= SHARES else "degrees"
        found = f"{told}: {what}, and {robot.name} takes radians"
        return finding("action", "fault", found, "radians", "a policy trained in radians, or a robot in degrees")
    shares = [unit for unit in of if unit in ("%", "±100 %", "percent")]
    if shares and max(of[unit].max() for unit in shares) > SHARES:
        found = f"{told}: degrees, and {robot.name} takes shares of each joint's range"
        return finding("action", "fault", found, "-100 to 100", "--robot.unit=degrees")
    return None


def _scale(ends: tuple[np.ndarray, np.ndarray], action: Feature) -> Iterator[Finding]:
    """The range of training against the robot's limits."""
    if not (action.low and action.high):
        return
    low, high = np.array(action.low), np.array(action.high)
    width, trained = high - low, ends[1] - ends[0]
    switches = np.array([mode == "binary" for mode in action.mode] or [False] * len(low))
    counted = ~switches & np.isfinite(width) & (width > 0)
    if not counted.any():
        return
    limits = (
        f"{span(low[counted], high[counted])}{f' {action.units[0]}' if action.units and action.units[0] != '1' else ''}"
    )
    share, told = (
        trained[counted] / width[counted],
        f"in training actions were {span(ends[0][counted], ends[1][counted])}",
    )
    beyond = np.maximum(low - ends[0], ends[1] - high)[counted] / width[counted]
    names = [name for name, each in zip(action.names or _names("action", len(low)), counted, strict=True) if each]

    def past(limit: float) -> str:
        return some([name for name, each in zip(names, beyond, strict=True) if each > limit])

    within_one = np.abs(np.concatenate([ends[0][counted], ends[1][counted]])).max() <= SLACK
    if np.mean(share < NARROW) >= NEARLY:
        what = "normalised numbers (±1)" if within_one else "another unit"
        found = f"{told}, this robot takes {limits}: {what}; it would hardly move"
        yield finding(
            "action", "fault", found, "the robot's own unit", "un-normalise them, or choose the policy of this robot"
        )
    elif np.any(beyond > 1.0):
        found = f"{told}, this robot takes {limits}: another unit; far beyond in {past(1.0)}"
        yield finding(
            "action", "fault", found, "the robot's own unit", "the policy of this robot, or statistics of this robot"
        )
    elif np.any(beyond > 0.1):
        found = f"{told}, this robot takes {limits}: {past(0.1)} will be cut"
        yield finding(
            "action", "note", found, "a range within the limits", "the calibration of training, or wider limits"
        )


def _convention(policy: PolicyFacts, ends: tuple[np.ndarray, np.ndarray], robot: RobotSpec) -> Iterator[Finding]:
    """Increments or targets, by whether actions lie where the state lies."""
    state = policy.saved.range_of("observation.state") if policy.saved else None
    modes = robot.action.mode
    if state is None or not modes or len(state[0]) != len(ends[0]):
        return
    counted = np.array([mode != "binary" for mode in modes])
    low, high = np.maximum(ends[0], state[0])[counted], np.minimum(ends[1], state[1])[counted]
    action_width, state_width = (ends[1] - ends[0])[counted], (state[1] - state[0])[counted]
    overlap = np.maximum(high - low, 0) / np.maximum(np.maximum(action_width, state_width), 1e-9)
    centre = np.abs(ends[0] + ends[1])[counted] / 2
    small = (action_width < 0.3 * state_width) & (centre < action_width)
    told = f"in training actions were {span(*ends)} and the state {span(*state)}"
    if all(m == "absolute" for m in modes if m != "binary") and np.mean(small) >= NEARLY:
        found = f"{told}: increments, and {robot.name} takes positions"
        yield finding(
            "action",
            "fault",
            found,
            "positions, near the state's",
            "a robot that takes increments, or a policy trained on positions",
        )
    elif all(m == "delta" for m in modes if m != "binary") and np.mean(overlap > 0.6) >= NEARLY and _beyond(ends, 0.2):
        found = f"{told}: positions, and {robot.name} takes increments"
        yield finding(
            "action",
            "fault",
            found,
            "increments, around 0",
            "a robot that takes positions, or a policy trained on increments",
        )


def _tokenizer(tokenizer: Tokenizer, robot: RobotSpec | None, task: str) -> Iterator[Finding]:
    about = "tokenizer"
    if tokenizer.error:
        found = f"{tokenizer.name} cannot be loaded without a network: {tokenizer.error}"
        yield finding(about, "fault", found, "a tokenizer on this machine", "--policy.tokenizer=DIR")
    elif robot is not None and not task.strip():
        found = "the policy reads an instruction, and the robot gives none"
        yield finding(about, "note", found, "the sentence of training", "--robot.task='pick up the cube'")
    elif tokenizer.tokens is not None and tokenizer.tokens > tokenizer.longest:
        found = f"the task has {tokenizer.tokens} tokens, of which {tokenizer.longest} are kept: {task!r:.80}"
        yield finding(about, "note", found, f"at most {tokenizer.longest}", "--robot.task='…', shorter")
    else:
        told = "" if tokenizer.tokens is None else f", {tokenizer.tokens} of at most {tokenizer.longest} tokens"
        yield finding(about, "ok", f"{tokenizer.name}{told}")


def _chunk(policy: PolicyFacts) -> Iterator[Finding]:
    if policy.saved is None:
        return
    config = policy.saved.config
    history = int(config.get("n_obs_steps") or 1)
    if history > 1:
        yield finding("history", "ok", f"{history} observations a request, one tick apart; the robot node keeps them")
    chunk = config.get("chunk_size") or config.get("action_chunk_size")
    if chunk is None and config.get("horizon"):
        chunk = config["horizon"] - history + 1
    steps = policy.asked or config.get("n_action_steps")
    ensembled = config.get("temporal_ensemble_coeff") is not None
    if chunk and steps and steps > chunk:
        found = f"n_action_steps {steps}, and a chunk has {chunk} actions"
        yield finding("chunk", "fault", found, f"1 to {chunk}", f"--policy.n_action_steps={chunk}")
    elif ensembled and steps and steps != 1:
        found = f"temporal ensembling (temporal_ensemble_coeff) with n_action_steps {steps}"
        yield finding("chunk", "fault", found, "a chunk at every tick", "--policy.n_action_steps=1")
    elif chunk and steps:
        yield finding("chunk", "ok", f"{steps} of {chunk} actions are executed{', ensembled' if ensembled else ''}")
