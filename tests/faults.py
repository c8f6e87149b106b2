"""Known faults, put into the pipeline that runs a policy, at one stage each; what must be said of each.

run(policy, seen, fault)   a trace with that fault in it: everything after it is what the policy makes of it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import cv2
import numpy as np

from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.policy import Policy
from tactus.policies.tracing.hooks import like
from tactus.policies.tracing.trace_file import Recorder, Trace, as_array
from tactus.runtime.diagnosis.sources import Seen
from tactus.runtime.diagnosis.tracing import trace_recorded

FAMILIES = ("act", "diffusion", "smolvla", "pi0")
SIZE = (96, 128)
FRONT, WRIST, STATE = "observation.images.front", "observation.images.wrist", "observation.state"
FEATURES: dict[str, Any] = {
    "images": {FRONT: SIZE, WRIST: SIZE},
    "state": 8,
    "action": 7,
    "ranges": {STATE: (-2, 2), "action": (-0.5, 1.5)},
}
TASK = "pick up the red cube and put it into the bin"
SAMPLES = 4
Change = Callable[[np.ndarray, list[np.ndarray]], np.ndarray]
AFFINE = ("statistics", "affine", "scale", "gain")


@dataclass(frozen=True)
class Fault:
    """stage: where, a regular expression of a stage's whole name. change: of (array, those of earlier samples).
    causes: words, one of which must be said first. task: another prompt."""

    name: str
    stage: str
    change: Change
    causes: tuple[str, ...]
    task: str = TASK


def _each(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Of pictures [H, W, 3], with or without a history in front."""

    def each(array: np.ndarray, past: list[np.ndarray]) -> np.ndarray:
        return np.stack([change(one) for one in array]) if array.ndim == 4 else np.ascontiguousarray(change(array))

    return each


def _resized(size: tuple[int, int], there: int, back: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: cv2.resize(cv2.resize(array, size[::-1], interpolation=there), SIZE[::-1], interpolation=back)


def _cropped(array: np.ndarray) -> np.ndarray:
    rows, columns = SIZE[0] // 8, SIZE[1] // 8
    return cv2.resize(array[rows:-rows, columns:-columns], SIZE[::-1], interpolation=cv2.INTER_LINEAR)


def _columns(order: list[int]) -> Change:
    return lambda array, past: array[..., order]


def _times(factor: float | list[float], plus: float | list[float] = 0.0) -> Change:
    return lambda array, past: array * np.array(factor, array.dtype) + np.array(plus, array.dtype)


def _signs(dimensions: list[int]) -> Change:
    def turned(array: np.ndarray, past: list[np.ndarray]) -> np.ndarray:
        array = array.copy()
        array[..., dimensions] *= -1
        return array

    return turned


def _bfloat16(array: np.ndarray, past: list[np.ndarray]) -> np.ndarray:
    import torch

    return torch.from_numpy(array).bfloat16().float().numpy()


def _noise(array: np.ndarray, past: list[np.ndarray]) -> np.ndarray:
    return np.random.default_rng(99 + len(past)).normal(size=array.shape).astype(array.dtype)


def _without_padding(array: np.ndarray, past: list[np.ndarray]) -> np.ndarray:
    array = array.copy()
    array[..., 7:] = 0
    return array


def _padded(array: np.ndarray, past: list[np.ndarray]) -> np.ndarray:
    """SmolVLA pads above, PI0 above and below: here it is the other way round."""
    above = int(np.flatnonzero(np.ptp(array, axis=(0, 1, 3)) > 0)[0])
    whole = int((np.ptp(array, axis=(0, 1, 3)) > 0).sum()) + above == array.shape[2]
    return np.roll(array, -above // 2 if whole else above, 2)


def _some_channels(array: np.ndarray, past: list[np.ndarray]) -> np.ndarray:
    array = array.copy()
    array[..., 3:6] = array[..., 3:6] * 1.5 + 0.1
    return array


PICTURE, OTHER, VECTOR = f"sent/{FRONT}", f"sent/{WRIST}", f"sent/{STATE}"
GIVEN = f"preprocess/0.given/{FRONT}"
NORMALISED = rf"preprocess/\d+\.normalizer_processor/{STATE}"
TOKENS = r"preprocess/\d+\.tokenizer_processor/observation\.language\.tokens"
LAYERS = {
    "act": r"layer/model\.encoder\.layers\.0\.linear1",
    "diffusion": r"layer/diffusion\.unet\.mid_modules\.0\.conv1\.block\.0",
    "smolvla": r"layer/.*lm_expert\.layers\.0\.mlp\.gate_proj",
    "pi0": r"layer/.*gemma_expert.*layers\.0\.mlp\.gate_proj",
}


def faults(family: str) -> list[Fault]:
    layer = LAYERS[family] + r"(#\d+)?"
    every = [
        Fault("flip up-down", PICTURE, _each(lambda x: x[::-1]), ("up-down",)),
        Fault("flip left-right", PICTURE, _each(lambda x: x[:, ::-1]), ("left-right",)),
        Fault("rotation by 180°", PICTURE, _each(lambda x: x[::-1, ::-1]), ("rotated",)),
        Fault("BGR", PICTURE, _each(lambda x: x[..., ::-1]), ("BGR", "channel")),
        Fault("CHW read as HWC", PICTURE, _each(lambda x: x.transpose(2, 0, 1).reshape(x.shape)), ("CHW", "axes")),
        Fault("size 96 → 72 → 96", PICTURE, _each(_resized((72, 96), cv2.INTER_LINEAR, cv2.INTER_LINEAR)), ("resize",)),
        Fault("size by nearest", PICTURE, _each(_resized((48, 64), cv2.INTER_NEAREST, cv2.INTER_NEAREST)), ("resize",)),
        Fault("crop", PICTURE, _each(_cropped), ("crop",)),
        Fault("±1 in place of 0–1", GIVEN, _times(2.0, -1.0), ("±1", "scale")),
        Fault("0–255 in place of 0–1", GIVEN, _times(255.0), ("255", "left out")),
        Fault("cameras exchanged", PICTURE, lambda x, past: x, ("cameras exchanged",)),
        Fault("black picture", OTHER, lambda x, past: np.zeros_like(x), ("constant",)),
        Fault("picture of one step ago", PICTURE, lambda x, past: past[-1] if past else x, ("lag", "one step")),
        Fault("frozen picture", PICTURE, lambda x, past: past[0] if past else x, ("frozen", "still")),
        Fault("JPEG", PICTURE, _each(_jpeg), ("jpeg",)),
        Fault("other statistics", NORMALISED, _times([1.2, 0.8, 1, 1.5, 0.9, 1.1, 1, 0.7], 0.1), AFFINE),
        Fault("joints in another order", VECTOR, _columns([1, 0, 2, 3, 4, 5, 7, 6]), ("permutation", "order")),
        Fault("sign of two joints", VECTOR, _signs([1, 4]), ("sign",)),
        Fault("quaternion wxyz", VECTOR, _columns([0, 1, 2, 6, 3, 4, 5, 7]), ("quaternion",)),
        Fault("quaternion's sign", VECTOR, _signs([3, 4, 5, 6]), ("quaternion", "sign")),
        Fault("degrees for radians", VECTOR, _times(180 / np.pi), ("degrees", "radians")),
        Fault("radians for degrees", VECTOR, _times(np.pi / 180), ("degrees", "radians")),
        Fault("state of one step ago", VECTOR, lambda x, past: past[-1] if past else x, ("lag", "one step")),
        Fault("state in bfloat16", NORMALISED, _bfloat16, ("bfloat16",)),
        Fault("a layer's gain", layer, _times(1.1), ("gain",)),
        Fault("a layer's channels", layer, _some_channels, ("channel",)),
        Fault("a layer in bfloat16", layer, _bfloat16, ("bfloat16",)),
        Fault("actions of other statistics", "chunk/actions", _times([2, 1, 1, 0.5, 1, 1, 1], 0.25), AFFINE),
        Fault("chunk one step late", "chunk/actions", lambda x, past: np.roll(x, 1, -2), ("shift", "lag")),
        Fault("actions not un-normalised", "chunk/actions", _times(0.5, -0.25), AFFINE),
    ]  # fmt: skip
    flow = [
        Fault("another prompt", TOKENS, lambda x, past: x, ("prompt", "text"), task="stack the blue cubes"),
        Fault("no newline, no prompt", TOKENS, lambda x, past: x, ("prompt", "text"), task=""),
        Fault("noise of another seed", "noise", _noise, ("other noise",)),
        Fault("noise without its padding", "noise", _without_padding, ("zero", "noise")),
        Fault("noise with another spread", "noise", _times(0.5), ("gain", "std", "scale")),
        Fault("picture padded at the other side", f"image/{FRONT}", _padded, ("padding side", "padded")),
        Fault("noise of a denoising step in bfloat16", r"denoise/1\.x", _bfloat16, ("bfloat16",)),
    ]
    if family == "act":
        return every
    if family == "diffusion":
        return every + flow[2:3]
    return every + flow


def _jpeg(array: np.ndarray) -> np.ndarray:
    data = cv2.imencode(".jpg", array[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


class _Faulty(Recorder):
    def __init__(self, fault: Fault, policy: str) -> None:
        super().__init__("faulty", policy)
        self._fault = fault
        self._past: dict[str, list[np.ndarray]] = {}

    def __call__(self, name: str, value: Any, *about: Any) -> Any:
        if not re.fullmatch(self._fault.stage, name):
            return super().__call__(name, value, *about)
        array, _ = as_array(value)
        past = self._past.setdefault(name, [])
        if self._fault.name == "cameras exchanged":
            changed = self.trace.samples[-1].stages[f"raw/{WRIST}"].array
            changed = changed if changed.shape == array.shape else np.stack([changed] * len(array))
        else:
            changed = self._fault.change(array, past).astype(array.dtype)
        past.append(array)
        super().__call__(name, changed, *about)
        return like(value, changed)


def run(policy: Policy, seen: list[Seen], fault: Fault | None, seed: int = 1000) -> Trace:
    recorder = Recorder("tactus", policy.spec.name) if fault is None else _Faulty(fault, policy.spec.name)
    if fault is not None:
        seen = [Seen(each.arrays, {**each.about, "task": fault.task}) for each in seen]
    assert sum(1 for _ in trace_recorded(recorder, policy, seen, seed, "all")) == len(seen)
    return recorder.trace


def observations(seed: int) -> list[Seen]:
    """A scene with things in it that move from sample to sample; a state of position, quaternion and gripper."""
    rng = np.random.default_rng(seed)
    front, wrist = _scene(rng), _scene(rng)
    pose = rng.uniform(-1, 1, 8)
    rows = []
    for tick in range(SAMPLES):
        pose = pose + rng.normal(0, 0.15, 8)
        state = pose.copy()
        state[3:7] /= np.linalg.norm(state[3:7])
        arrays = {FRONT: front(tick), WRIST: wrist(tick), STATE: state.astype(np.float32)}
        rows.append(Seen(arrays, {"task": TASK, "tick": tick}))
    return rows


def _scene(rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    rough = rng.integers(40, 200, (6, 8, 3), dtype=np.uint8)
    table = cv2.resize(rough, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    things = [(rng.integers(20, 70, 2), rng.integers(-5, 6, 2), rng.integers(0, 255, 3)) for _ in range(5)]
    grain = rng.normal(0, 3, (*SIZE, 3))

    def at(tick: int) -> np.ndarray:
        picture = table.copy()
        for place, move, colour in things:
            x, y = (place + tick * move).tolist()
            cv2.rectangle(picture, (x, y), (x + 22, y + 12), colour.tolist(), -1)
            cv2.circle(picture, (x + 30, y + 8), 7, colour[::-1].tolist(), -1)
        return np.clip(picture + grain, 0, 255).astype(np.uint8)

    return at


def policies(root: Path, families: tuple[str, ...] = FAMILIES) -> Iterator[tuple[str, Policy]]:
    """A tiny checkpoint of each family, loaded as a user's is."""
    with checkpoints.tiny_pi0():
        for family in families:
            folder = root / family
            if not folder.exists():
                getattr(checkpoints, family)(folder, **FEATURES)
            yield family, LeRobotConfig(path=str(folder), threads=1).make()
