"""A pipeline from pictures and states to actions, small and without a model, with a place for a fault in every stage;
and faults as they happen, with what they must be called. What follows a fault is computed from it, as in a program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tactus.policies.tracing.trace_file import Recorder, Trace
from tactus.runtime.diagnosis.hypotheses.arithmetic import bfloat16

SAMPLES, STEPS, WIDTH, PADDED, TOKENS = 6, 16, 8, 32, 24
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
NAMES = (*JOINTS, "x", "y", "z", "qx", "qy", "qz", "qw")
UNIT = (*["deg"] * 5, "percent", "m", "m", "m", "", "", "", "")
ACTIONS = ("x", "y", "z", "roll", "pitch", "yaw", "speed", "gripper")
MEAN = np.array([3, -40, 60, 10, -5, 45, 0.3, 0.05, 0.2, 0, 0, 0, 0.5], np.float32)
STD = np.array([25, 30, 22, 40, 35, 30, 0.1, 0.12, 0.08, 0.5, 0.5, 0.5, 0.5], np.float32)
ACTION_MEAN = np.array([0.1, 0.2, 0.05, 0.0, 0.3, -0.1, 1.5, 40], np.float32)
ACTION_STD = np.array([0.05, 0.08, 0.03, 0.4, 0.3, 0.5, 0.8, 30], np.float32)
TASK = "pick up the red cube"
Fault = Callable[[str, np.ndarray, np.random.Generator], np.ndarray]


def scene(rng: np.random.Generator, height: int = 120, width: int = 160) -> np.ndarray:
    """A table with things on it, in light from one side, and a camera's own noise; [height, width, 3] uint8."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    tone, tilt = rng.uniform(70, 150, 3), rng.uniform(-0.35, 0.35, (2, 3))
    picture = tone + x[..., None] * tilt[0] + y[..., None] * tilt[1]
    picture = np.ascontiguousarray(picture, np.float32)
    for _ in range(rng.integers(5, 9)):
        at = rng.integers(0, width), rng.integers(0, height)
        colour = tuple(float(v) for v in rng.uniform(0, 255, 3))
        if rng.random() < 0.5:
            cv2.circle(picture, (int(at[0]), int(at[1])), int(rng.integers(6, 22)), colour, -1)
        else:
            size = rng.integers(8, 40, 2)
            cv2.rectangle(picture, (int(at[0]), int(at[1])), (int(at[0] + size[0]), int(at[1] + size[1])), colour, -1)
    picture = cv2.GaussianBlur(picture, (0, 0), 0.8) + rng.normal(0, 1.5, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def state(rng: np.random.Generator) -> np.ndarray:
    """Joints in degrees, a gripper in percent, a position in m, a quaternion xyzw; float32."""
    turn = rng.normal(size=4)
    turn[3] = abs(turn[3])
    return np.concatenate([(MEAN + STD * rng.normal(size=13))[:9], turn / np.linalg.norm(turn)]).astype(np.float32)


def resized(picture: np.ndarray, size: int = 128) -> np.ndarray:
    """As a policy has it: float 0–1, stretched, bilinear; [size, size, 3]."""
    return cv2.resize(picture.astype(np.float32) / 255, (size, size), interpolation=cv2.INTER_LINEAR)


def chw(picture: np.ndarray) -> np.ndarray:
    return np.moveaxis(picture, -1, 0)[None]


def pipeline(
    seed: int, fault: Fault | None = None, task: str = TASK, samples: int = SAMPLES, jitter: float = 0.0
) -> Trace:
    """jitter: relative float noise on every float stage. The same seed sees, and draws, the same things."""
    weights = np.random.default_rng(7)
    encoder = weights.normal(0, 0.25, (13, 64)).astype(np.float32)
    eye = weights.normal(0, 0.02, (64, 3 * 16 * 16)).astype(np.float32)
    head = weights.normal(0, 0.1, (64, PADDED)).astype(np.float32)
    recorder = Recorder("pipeline", "tiny:abc", "arm")
    odd = np.random.default_rng([seed, 99])
    shaken = np.random.default_rng([seed, int(jitter * 1e12) % 2**31])

    def note(name: str, value: np.ndarray, **about: Any) -> np.ndarray:
        dtype = value.dtype
        if jitter and dtype.kind == "f":
            value = (value * (1 + jitter * shaken.normal(size=value.shape))).astype(dtype)
        if fault is not None:
            value = fault(name, value, odd)
        recorder(name, value, **about)
        return value

    for index in range(samples):
        rng = np.random.default_rng([seed, index])
        recorder.begin(task=task, tick=10 * index)
        top = note("raw/observation.images.top", scene(rng), axes="HWC")
        wrist = note("raw/observation.images.wrist", scene(rng), axes="HWC")
        seen = note("raw/observation.state", state(rng), names=NAMES, unit=UNIT)
        top = note("sent/observation.images.top", top)
        wrist = note("sent/observation.images.wrist", wrist)
        normal = note("preprocess/2.normalizer/observation.state", ((seen - MEAN) / STD)[None], names=NAMES)
        words = np.array([2, *(7 + sum(map(ord, word)) % 900 for word in task.split()), 108], np.int64)
        tokens = np.zeros((1, TOKENS), np.int64)
        tokens[0, : len(words)] = words
        tokens = note("input/observation.language.tokens", tokens)
        note("input/observation.language.attention_mask", np.arange(TOKENS)[None] < len(words))
        pictures = [
            note(f"image/observation.images.{name}", chw(to_model(one) * 2 - 1))
            for name, one in (("top", top), ("wrist", wrist))
        ]
        small = [cv2.resize(np.resize(p, (128, 128, 3)), (16, 16)).ravel() for p in pictures]
        noise = note("noise", rng.normal(size=(1, STEPS, PADDED)).astype(np.float32))
        inner = np.resize(normal, (1, 13)) @ encoder
        grid = np.tanh(inner + (eye @ small[0] + eye @ small[1])[None] + rng.normal(size=(20, 64)).astype(np.float32))
        layer = note("layer/model.encoder.layers.0", grid[None].astype(np.float32))
        velocity = np.tanh(layer[0, :STEPS] @ head)[None] - noise[:, :STEPS, :PADDED] * 0.5
        note("denoise/0.v", velocity.astype(np.float32))
        rough = (noise[:, :STEPS, :PADDED] * 0.3 + velocity)[0]
        path = np.cumsum(rough, 0) / 4  # an action follows the one before it
        chunk = note("chunk/normalised", path[None].astype(np.float32))
        actions = note("chunk/actions", chunk[0, :, :WIDTH] * ACTION_STD + ACTION_MEAN, names=ACTIONS)
        note("queue/actions", actions[:10], names=ACTIONS)
    return recorder.trace


def to_model(picture: np.ndarray) -> np.ndarray:
    return (
        picture
        if picture.shape == (128, 128, 3) and picture.dtype == np.float32
        else resized(np.ascontiguousarray(picture))
    )


TOP, WRIST, STATE = "raw/observation.images.top", "raw/observation.images.wrist", "raw/observation.state"
SENT, NORMAL, IMAGE = (
    "sent/observation.images.top",
    "preprocess/2.normalizer/observation.state",
    "image/observation.images.top",
)
TEXT, MASK, LAYER = (
    "input/observation.language.tokens",
    "input/observation.language.attention_mask",
    "layer/model.encoder.layers.0",
)
NOISE, CHUNK, ACTION = "noise", "chunk/normalised", "chunk/actions"


@dataclass(frozen=True)
class Case:
    """change: of one stage's array; whole: seed → another trace. called: how the first finding's name begins. says:
    what its sentence has."""

    name: str
    stage: str
    called: str
    change: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None
    whole: Callable[[int], Trace] | None = None
    says: str = ""

    def trace(self, seed: int) -> Trace:
        if self.whole is not None:
            return self.whole(seed)
        change = self.change
        assert change is not None

        def fault(name: str, value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return np.ascontiguousarray(change(value, rng)) if name == self.stage else value

        return pipeline(seed, fault)


def dims(at: list[int], factor: float, plus: float = 0.0) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    def change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        made = x.copy()
        made[..., at] = made[..., at] * factor + plus
        return made

    return change


def delayed(stage: str, by: int) -> Callable[[int], Trace]:
    """Each sample's is that of a sample before (by > 0) or after, and the rest of the sample follows."""

    def whole(seed: int) -> Trace:
        plain = [sample.stages[stage].array for sample in pipeline(seed).samples]
        count = iter(range(10**6))
        return pipeline(
            seed, lambda name, x, rng: plain[min(max(next(count) - by, 0), SAMPLES - 1)] if name == stage else x
        )

    return whole


def exchanged(seed: int) -> Trace:
    plain = [sample.stages for sample in pipeline(seed).samples]
    count = {TOP: iter(range(99)), WRIST: iter(range(99))}
    other = {TOP: WRIST, WRIST: TOP}
    return pipeline(seed, lambda name, x, rng: plain[next(count[name])][other[name]].array if name in other else x)


def frozen(stage: str) -> Callable[[int], Trace]:
    def whole(seed: int) -> Trace:
        first = pipeline(seed).samples[0].stages[stage].array
        return pipeline(seed, lambda name, x, rng: first if name == stage else x)

    return whole


def fixed_noise(kind: str) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    def change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if kind == "wide":
            return rng.normal(0, 0.5, x.shape).astype(np.float32)
        if kind == "narrow":
            return np.pad(
                rng.normal(size=(*x.shape[:-1], WIDTH)), [(0, 0)] * (x.ndim - 1) + [(0, x.shape[-1] - WIDTH)]
            ).astype(np.float32)
        return rng.normal(size=x.shape).astype(np.float32)

    return change


def zeroed(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    made = x.copy()
    made[..., WIDTH:] = 0
    return made


def detour(*sides: int, way: int = cv2.INTER_LINEAR) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Raw picture → each side in turn, in uint8 as a camera's process has it."""

    def change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for side in sides:
            x = cv2.resize(x, (side, side), interpolation=way)
        return x

    return change


def image_of(make: Callable[[np.ndarray], np.ndarray]) -> Callable[[int], Trace]:
    """The model's picture made of the one that was sent in another way; make: [H, W, 3] uint8 → [128, 128, 3], 0–1."""

    def whole(seed: int) -> Trace:
        last: dict[str, np.ndarray] = {}

        def fault(name: str, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            last[name] = x
            return chw(make(last[SENT]).astype(np.float32) * 2 - 1) if name == IMAGE else x

        return pipeline(seed, fault)

    return whole


def pil(picture: np.ndarray, way: Image.Resampling, size: tuple[int, int] = (128, 128)) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize(size, way), np.float32) / 255


def with_border(picture: np.ndarray, corner: bool) -> np.ndarray:
    inner = cv2.resize(picture.astype(np.float32) / 255, (128, 96), interpolation=cv2.INTER_LINEAR)
    made = np.zeros((128, 128, 3), np.float32)
    top = 32 if corner else 16
    made[top : top + 96] = inner
    return made


def central(picture: np.ndarray, fraction: float) -> np.ndarray:
    height, width = (round(side * fraction) for side in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return resized(picture[top : top + height, left : left + width])


def shifted_crop(x: np.ndarray, top: int, left: int) -> np.ndarray:
    return cv2.resize(x[top : top + 100, left : left + 136], (160, 120), interpolation=cv2.INTER_LINEAR)


def tokens_right(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    count = int((x != 0).sum())
    return np.roll(x, x.shape[-1] - count, -1)


def no_newline(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    made = x.copy()
    made[0, int((x != 0).sum()) - 1] = 0
    return made


def quaternion_signs(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    made = x.copy()
    made[9:] *= -1
    return made


def other_affine(seed: int, stage: str, width: int) -> Trace:
    rng = np.random.default_rng([seed, 5])
    gain, offset = rng.uniform(0.4, 2.5, width), rng.normal(0, 0.5, width)
    return pipeline(seed, lambda name, x, _: (x * gain + offset).astype(np.float32) if name == stage else x)


def channels_of_layer(seed: int) -> Trace:
    rng = np.random.default_rng([seed, 6])
    chosen, mix = rng.choice(64, 3, replace=False), rng.normal(size=(64, 3)) * 0.2

    def fault(name: str, x: np.ndarray, _: np.random.Generator) -> np.ndarray:
        if name != LAYER:
            return x
        made = x.copy()
        made[..., chosen] += (x @ mix).astype(np.float32)
        return made

    return pipeline(seed, fault)


def other_weights(seed: int) -> Trace:
    mix = np.eye(64) + np.random.default_rng([seed, 8]).normal(0, 0.05, (64, 64))
    return pipeline(seed, lambda name, x, _: (x @ mix).astype(np.float32) if name == LAYER else x)


def permuted(seed: int, stage: str, width: int, signs: bool) -> Trace:
    rng = np.random.default_rng([seed, 9])
    order = np.concatenate([rng.permutation(width)])
    while (order == np.arange(width)).all():
        order = rng.permutation(width)
    sign = np.where(rng.random(width) < 0.5, -1, 1) if signs else np.ones(width)
    if signs:
        sign[int(np.flatnonzero(order != np.arange(width))[0])] = -1
    return pipeline(seed, lambda name, x, _: (x[..., order] * sign).astype(np.float32) if name == stage else x)


def dropped(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(x.shape) < 0.1, 0, x / 0.9).astype(np.float32)


def relative_chunk(seed: int) -> Trace:
    return pipeline(seed, lambda name, x, _: np.diff(x, axis=0, prepend=0 * x[:1]) if name == ACTION else x)


def jpeg(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", x[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1], 1))[..., ::-1]


def imagenet(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mean, std = np.reshape([0.485, 0.456, 0.406], (3, 1, 1)), np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
    return (((x + 1) / 2 - mean) / std).astype(np.float32)


def by_pillow(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.rint(pil(x, Image.Resampling.BICUBIC, (224, 224)) * 255).astype(np.uint8)


def cropped_elsewhere(seed: int) -> Trace:
    at = seed % 15, 3 + seed % 7
    return pipeline(seed, lambda name, x, _: shifted_crop(x, *at) if name == SENT else x)


def by_opencv(size: tuple[int, int], way: int) -> Callable[[int], Trace]:
    return image_of(lambda x: cv2.resize(x.astype(np.float32) / 255, size, interpolation=way))


CASES = [
    Case("picture upside down", TOP, "flipped up-down", lambda x, r: x[::-1]),
    Case("picture mirrored", TOP, "flipped left-right", lambda x, r: x[:, ::-1]),
    Case("picture rotated by 180°", SENT, "rotated by 180°", lambda x, r: x[::-1, ::-1]),
    Case("BGR", TOP, "BGR", lambda x, r: x[..., ::-1]),
    Case("BGR in the model's input", IMAGE, "BGR", lambda x, r: x[:, ::-1]),
    Case("upside down and BGR", TOP, "flipped up-down; BGR", lambda x, r: x[::-1, :, ::-1]),
    Case("CHW for HWC", SENT, "axes", lambda x, r: np.moveaxis(x, -1, 0), says="CHW in place of HWC"),
    Case("HWC for CHW", IMAGE, "axes", lambda x, r: np.moveaxis(x, 1, -1), says="HWC in place of CHW"),
    Case("reshape for transpose", IMAGE, "axes read", lambda x, r: np.moveaxis(x, 1, -1).copy().reshape(x.shape)),
    Case("0–1 for ±1", IMAGE, "0–1 in place of ±1", lambda x, r: (x + 1) / 2),
    Case("0–255 for ±1", IMAGE, "0–255 in place of ±1", lambda x, r: (x + 1) * 127.5),
    Case("ImageNet's statistics for ±1", IMAGE, "ImageNet", imagenet),
    Case("darker", TOP, "brightness", lambda x, r: np.rint(x * 0.7).astype(np.uint8)),
    Case("black picture", WRIST, "constant", lambda x, r: np.zeros_like(x), says="black"),
    Case("frozen camera", TOP, "frozen", whole=frozen(TOP)),
    Case("cameras exchanged", TOP, "cameras exchanged", whole=exchanged),
    Case("picture one sample late", TOP, "lag over samples -1", whole=delayed(TOP, 1)),
    Case("sent at 96×96", SENT, "interpolation", detour(96), says="96×96 (bilinear)"),
    Case("sent at 224×224 by PIL", SENT, "interpolation", by_pillow, says="224×224 (bicubic antialiased)"),
    Case("sent by way of 84×84", SENT, "resize chain", detour(84, 240), says="84×84"),
    Case("resized twice, to the same size", IMAGE, "resize chain",
         whole=image_of(lambda x: resized(cv2.resize(x, (224, 224)))), says="224×224"),
    Case("antialiased", IMAGE, "interpolation",
         whole=image_of(lambda x: pil(x, Image.Resampling.BILINEAR)), says="bilinear antialiased"),
    Case("area for bilinear", IMAGE, "interpolation", whole=by_opencv((128, 96), cv2.INTER_AREA), says="128×96 (area)"),
    Case("nearest for bilinear", IMAGE, "interpolation",
         whole=by_opencv((128, 128), cv2.INTER_NEAREST), says="(nearest"),
    Case("lanczos for bilinear", IMAGE, "interpolation",
         whole=image_of(lambda x: pil(x, Image.Resampling.LANCZOS)), says="lanczos antialiased"),
    Case("aspect kept, border on both sides", IMAGE, "interpolation",
         whole=image_of(lambda x: with_border(x, False)), says="padded on both sides"),
    Case("aspect kept, border above", IMAGE, "interpolation",
         whole=image_of(lambda x: with_border(x, True)), says="padded at the left and top"),
    Case("central crop of 0.9", IMAGE, "crop", whole=image_of(lambda x: central(x, 0.9)), says="cropped to 144×108"),
    Case("crop elsewhere, resized back", SENT, "crop", whole=cropped_elsewhere, says="cropped to 136×100"),
    Case("crop of a random place", SENT, "random crop",
         lambda x, r: shifted_crop(x, int(r.integers(0, 16)), int(r.integers(0, 20)))),
    Case("crop, not resized", SENT, "crop", lambda x, r: x[10:106, 30:142], says="at column 30, row 10"),
    Case("through JPEG", SENT, "jpeg", jpeg, says="quality 85"),
    Case("cut off to 256 steps", IMAGE, "uint8 cut",
         lambda x, r: (np.floor(x * 127.5 + 127.5) - 127.5).astype(np.float32) / np.float32(127.5)),
    Case("noise on the picture", SENT, "noise on top",
         lambda x, r: np.clip(x + np.rint(r.normal(0, 5, x.shape)), 0, 255).astype(np.uint8)),
    Case("radians", STATE, "radians in place of degrees", dims([0, 1, 2, 3, 4], np.pi / 180)),
    Case("radians in one joint", STATE, "radians in place of degrees", dims([3], np.pi / 180), says="wrist_flex"),
    Case("degrees in the actions", ACTION, "degrees in place of radians", dims([3, 4, 5], 180 / np.pi)),
    Case("mm", STATE, "mm in place of m", dims([6, 7, 8], 1000)),
    Case("gripper 0–1", STATE, "±1 in place of ±100 (or 0–1 of 0–100)", dims([5], 0.01), says="gripper"),
    Case("gripper inverted", STATE, "other statistics", dims([5], -1, 100), says="gripper"),
    Case("sign of two joints", STATE, "sign", dims([1, 4], -1), says="shoulder_lift, wrist_roll"),
    Case("joints in another order", STATE, "permutation", whole=lambda seed: permuted(seed, STATE, 13, False)),
    Case("joints in another order, other signs", ACTION, "permutation with signs",
         whole=lambda seed: permuted(seed, ACTION, 8, True)),
    Case("wxyz for xyzw", STATE, "quaternion wxyz", lambda x, r: np.concatenate([x[:9], x[[12, 9, 10, 11]]])),
    Case("quaternion's sign", STATE, "quaternion sign", quaternion_signs),
    Case("normaliser left out", NORMAL, "step left out", lambda x, r: x * STD + MEAN),
    Case("normaliser's mean left out", NORMAL, "other statistics", lambda x, r: x + MEAN / STD),
    Case("statistics of another robot", NORMAL, "other statistics", whole=lambda seed: other_affine(seed, NORMAL, 13)),
    Case("un-normaliser left out", ACTION, "step left out", lambda x, r: (x - ACTION_MEAN) / ACTION_STD),
    Case("un-normaliser's other statistics", ACTION, "other statistics",
         whole=lambda seed: other_affine(seed, ACTION, 8)),
    Case("state one sample late", STATE, "lag over samples -1", whole=delayed(STATE, 1)),
    Case("chunk one step early", CHUNK, "shifted +1", lambda x, r: np.concatenate([x[:, 1:], x[:, -1:]], 1)),
    Case("queue one step late", "queue/actions", "shifted -1", lambda x, r: np.concatenate([x[:1], x[:-1]])),
    Case("actions as differences", ACTION, "differences", whole=relative_chunk),
    Case("actions clipped", CHUNK, "clipped", lambda x, r: np.clip(x, -0.5, 0.5)),
    Case("state padded before", NORMAL, "zeros before", lambda x, r: np.pad(x, [(0, 0), (19, 0)])),
    Case("state padded after", NORMAL, "zeros after", lambda x, r: np.pad(x, [(0, 0), (0, 19)])),
    Case("a joint that is always zero", STATE, "constant", dims([2], 0), says="elbow_flex"),
    Case("another prompt", TEXT, "other prompt",
         whole=lambda seed: pipeline(seed, task="push the blue cube"), says="push the blue"),
    Case("tokens padded on the left", TEXT, "token padding side", tokens_right),
    Case("tokens padded to another length", TEXT, "token padding length", lambda x, r: np.pad(x, [(0, 0), (0, 24)])),
    Case("no newline at the end", TEXT, "other tokens", no_newline, says="lacks [108]"),
    Case("mask ignored", MASK, "mask ignored", lambda x, r: np.ones_like(x)),
    Case("mask inverted", MASK, "mask inverted", lambda x, r: ~x),
    Case("another seed", NOISE, "other noise", fixed_noise("")),
    Case("noise of half the spread", NOISE, "noise of another std", fixed_noise("wide")),
    Case("noise of the robot's width", NOISE, "noise with zeros", fixed_noise("narrow")),
    Case("zeros in the padded noise", NOISE, "constant", zeroed),
    Case("noise scaled", NOISE, "gain", lambda x, r: x * np.float32(0.8)),
    Case("bfloat16", LAYER, "dtype bfloat16", lambda x, r: bfloat16(x)),
    Case("float16", CHUNK, "dtype float16", lambda x, r: x.astype(np.float16).astype(np.float32)),
    Case("a layer's gain", LAYER, "gain", lambda x, r: x * np.float32(1.02)),
    Case("three channels of a layer", LAYER, "some channels", whole=channels_of_layer, says="model.encoder.layers.0"),
    Case("a layer's weights", LAYER, "inside the module", whole=other_weights, says="model.encoder.layers.0"),
    Case("dropout", LAYER, "dropout", dropped),
    Case("noise on the state", STATE, "noise on top", lambda x, r: (x + r.normal(0, 0.02 * STD)).astype(np.float32)),
]  # fmt: skip
