"""Findings about a policy and a robot beside the data of training: the same names, rate and statistics, and is what
this robot sees now within what was seen then? Facts in, findings out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tactus.hal.diagnostics.finding import Finding, Level
from tactus.hal.spec import RobotSpec
from tactus.runtime.diagnosis.dataset_facts import DatasetFacts
from tactus.runtime.diagnosis.pictures import light, likeness, turns
from tactus.runtime.diagnosis.policy_facts import PolicyFacts
from tactus.runtime.diagnosis.policy_findings import PART, rate_finding, some, span

MARGIN = 0.1
"""Share of a dimension's range by which an observation may be outside of it."""
FAR_Z = 6.0
"""Standard deviations, and twice the range, beyond which a number is of another kind."""
BETTER, ALIKE = 0.08, 0.5
"""A turned picture is the right one if it is so much more alike, and so much alike."""
UNRELATED = 0.2
DARKER, FLATTER, BLURRED = 25.0, 2.0, 4.0
"""Grey levels outside of the dataset's range; how many times less or more contrast, sharpness."""

Arrays = Mapping[str, np.ndarray]


def diagnose_dataset(
    policy: PolicyFacts, dataset: DatasetFacts, robot: RobotSpec | None, seen: Sequence[Arrays] = ()
) -> list[Finding]:
    """seen: what the robot observed, by its own names."""
    if dataset.error:
        fix = "--dataset_root=FOLDER of the LeRobotDataset that the policy was trained on"
        return [Finding("dataset", "dataset", "fault", f"{dataset.root}: {dataset.error}", "a LeRobotDataset v3", fix)]
    own = dict(policy.spec.own_names) if policy.spec else {}
    return [
        *_names(policy, dataset, own),
        *_statistics(policy, dataset),
        *([rate_finding(dataset.fps, robot.fps, "the dataset")] if dataset.fps and robot else ()),
        *(_units(dataset, robot) if robot else ()),
        *(_vectors(dataset, seen, own) if seen else ()),
        *(_pictures(dataset, seen, own) if seen else ()),
    ]


def _names(policy: PolicyFacts, dataset: DatasetFacts, own: Mapping[str, str]) -> Iterator[Finding]:
    if policy.spec is None:
        return
    inputs = [own.get(name, name) for name in policy.spec.inputs]
    absent = [name for name in inputs if name not in dataset.shapes]
    if absent:
        found = f"the policy reads {some(absent)}, the dataset has {some([*dataset.shapes])}"
        fix = "--dataset_root=… of the data of this policy, or --policy.rename with the dataset's names"
        yield Finding("dataset", "names", "note", found, "the data that the policy was trained on", fix)
    else:
        yield Finding("dataset", "names", "ok", f"has all that the policy reads: {some(inputs)}")


def _statistics(policy: PolicyFacts, dataset: DatasetFacts) -> Iterator[Finding]:
    """Whether the policy's statistics are of this data."""
    if policy.saved is None:
        return
    other, same = [], []
    for name, rows in dataset.vectors.items():
        ends = policy.saved.range_of(name)
        if ends is None or len(ends[0]) != rows.shape[1] or (name == "action" and policy.saved.relative):
            continue
        low, high = rows.min(axis=0), rows.max(axis=0)
        width = np.maximum(np.maximum(high - low, ends[1] - ends[0]), 1e-9)
        apart = np.maximum(np.abs(low - ends[0]), np.abs(high - ends[1])) / width
        (other if np.mean(apart > 0.5) >= 0.5 else same).append(name)
        if name in other:
            found = f"{name}: the policy's statistics are {span(*ends)}, the dataset's {span(low, high)}"
            fix = "the statistics of this data (policy_preprocessor.json, policy_postprocessor.json), or its policy"
            yield Finding(PART, "statistics", "fault", found, "the statistics of the data it was trained on", fix)
    if same:
        yield Finding(PART, "statistics", "ok", f"{some(same)} as in the dataset")


def _units(dataset: DatasetFacts, robot: RobotSpec) -> Iterator[Finding]:
    unit = dataset.units.get("action")
    if unit and robot.action.units and {*robot.action.units} == {robot.action.units[0]} != {unit}:
        found = f"the dataset's actions are in {unit}, {robot.name} takes {robot.action.units[0]}"
        yield Finding(
            PART, "action", "fault", found, unit, f"a robot in {unit}, or a policy trained in the robot's unit"
        )


def _vectors(dataset: DatasetFacts, seen: Sequence[Arrays], own: Mapping[str, str]) -> Iterator[Finding]:
    """Each dimension of what the robot observes, against the range of training."""
    for name in seen[0]:
        rows = dataset.vectors.get(own.get(name, name))
        found = np.array([np.ravel(each[name]) for each in seen], float)
        if rows is None or rows.shape[1] != found.shape[1]:
            continue
        low, high, mean, std = rows.min(axis=0), rows.max(axis=0), rows.mean(axis=0), rows.std(axis=0)
        width = high - low
        margin = np.maximum(MARGIN * width, 1e-3 * np.maximum(np.abs(mean), 1e-3))
        outside = (found < low - margin) | (found > high + margin)
        z = np.abs(found - mean) / np.maximum(std, 1e-9 + 1e-6 * np.abs(mean))
        far = np.maximum(low - found, found - high) > 2 * np.maximum(width, margin)
        grave = (far & (z > FAR_Z)).any(axis=0)
        cause, fix = _cause(found, rows, margin)
        if not outside.any() and not cause:
            yield Finding(
                "robot", "observation", "ok", f"{name}: within the training data in all {len(low)} dimensions"
            )
            continue
        told = [
            f"[{i}] {found[:, i].mean():.4g} (training {low[i]:.4g} to {high[i]:.4g}, {z[:, i].max():.2g} std)"
            for i in np.flatnonzero(outside.any(axis=0))
        ]
        if not told:
            told = [f"{span(found.min(axis=0), found.max(axis=0))}, training {span(low, high)}"]
        share = f"{100 * outside.mean():.0f} % of its numbers are outside the training data"
        level: Level = "fault" if grave.any() or cause else "note"
        text = f"{name}: {share}{cause}: {some(told, 4)}"
        yield Finding("robot", "observation", level, text, "what was seen in training", fix)


def _cause(found: np.ndarray, rows: np.ndarray, margin: np.ndarray) -> tuple[str, str]:
    """A change of unit that explains why these observations are unlike every frame of training; empty for none."""
    low, high = rows.min(axis=0) - margin, rows.max(axis=0) + margin
    reach, reached = np.abs(found).max(axis=1), np.abs(rows).max(axis=1)
    most_outside = np.mean((found < low) | (found > high)) > 0.5
    for what, factor, fix in (
        (" (radians, the data is in degrees)", 180 / math.pi, "a robot in degrees, or the policy of this one"),
        (" (degrees, the data is in radians)", math.pi / 180, "a robot in radians, or the policy of this one"),
    ):
        unlike = (reach < reached.min()).all() if factor > 1 else most_outside
        inside = np.mean((found * factor >= low) & (found * factor <= high))
        if unlike and inside >= 0.9 and found.shape[1] > 1 and reach.min() > 0.05:
            return what, fix
    start = "move the robot to where the demonstrations began (--robot.governor.start_pose=…), or calibrate it as then"
    return "", start


def _pictures(dataset: DatasetFacts, seen: Sequence[Arrays], own: Mapping[str, str]) -> Iterator[Finding]:
    ours = {name: [each[name] for each in seen] for name in seen[0] if seen[0][name].ndim == 3}
    for name, pictures in ours.items():
        theirs = dataset.pictures.get(own.get(name, name), ())
        if not theirs:
            continue
        wrong = [*_light(name, pictures, theirs), *_turned(name, pictures, theirs, dataset, own, ours)]
        if wrong:
            yield from wrong
        else:
            yield Finding(
                "robot", "picture", "ok", f"{name}: looks as in training, likeness {likeness(pictures, theirs):.2f}"
            )


def _turned(
    name: str,
    pictures: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    dataset: DatasetFacts,
    own: Mapping[str, str],
    ours: Mapping[str, Sequence[np.ndarray]],
) -> Iterator[Finding]:
    scores = turns(pictures, theirs)
    asis, best = scores[""], max(scores, key=lambda turn: scores[turn])
    others = {
        other: likeness(pictures, dataset.pictures[own.get(other, other)])
        for other in ours
        if other != name and dataset.pictures.get(own.get(other, other))
    }
    other = max(others, key=lambda each: others[each], default="")
    if other and others[other] > max(asis + BETTER, ALIKE) and others[other] >= scores[best]:
        found = f"{name} looks like the training's {other} (likeness {others[other]:.2f}, as itself {asis:.2f})"
        fix = f"--policy.rename='{{{name}: {own.get(other, other)}, {other}: {own.get(name, name)}}}'"
        yield Finding("robot", "picture", "fault", found, "the cameras of training under their names", fix)
    elif best and scores[best] > asis + BETTER and scores[best] > ALIKE:
        found = f"{name} is {best}: likeness {scores[best]:.2f} so turned, {asis:.2f} as it is"
        fix = (
            "--robot.rotation=180 on the camera"
            if best == "turned by 180 degrees"
            else "have the camera give it as in training"
        )
        yield Finding("robot", "picture", "fault", found, "pictures as in training", fix)
    elif asis < UNRELATED:
        found = f"{name} does not look like any picture of training (likeness {asis:.2f})"
        yield Finding(
            "robot", "picture", "note", found, "the scene and the view of training", "place the camera as it was then"
        )


def _light(name: str, pictures: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Iterator[Finding]:
    now = np.median([light(picture) for picture in pictures], axis=0)
    then = np.array([light(picture) for picture in theirs])
    low, high, usual = then.min(axis=0), then.max(axis=0), np.median(then, axis=0)
    told = []
    if now[0] < low[0] - DARKER or now[0] > high[0] + DARKER:
        told.append(
            f"{'darker' if now[0] < low[0] else 'brighter'}: {now[0]:.0f}, in training {low[0]:.0f} to {high[0]:.0f}"
        )
    for index, factor, (less, more) in (
        (1, FLATTER, ("less contrast", "more contrast")),
        (2, BLURRED, ("blurred", "sharper")),
    ):
        if now[index] * factor < low[index] and usual[index] > 1:
            told.append(f"{less}: {now[index]:.0f}, in training {low[index]:.0f} to {high[index]:.0f}")
        elif now[index] > high[index] * factor and now[index] > 1:
            told.append(f"{more}: {now[index]:.0f}, in training {low[index]:.0f} to {high[index]:.0f}")
    if told:
        yield Finding(
            "robot",
            "light",
            "note",
            f"{name}: {'; '.join(told)}",
            "light, exposure and focus of training",
            "the lamp, the lens, the camera's exposure",
        )
