"""Pictures: upside down, mirrored, BGR, axes exchanged, another range of values, rounded, JPEG, padded elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations

import cv2
import numpy as np

from tactus.runtime.diagnosis.hypotheses.pair import Candidate, Pair, layout

PIXELS = 150
"""A side of what is looked at first."""
TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "": lambda x: x,
    "flipped up-down": lambda x: x[::-1],
    "flipped left-right": lambda x: x[:, ::-1],
    "rotated by 180°": lambda x: x[::-1, ::-1],
    "rotated by 90°": lambda x: np.rot90(x),
    "rotated by 270°": lambda x: np.rot90(x, 3),
    "transposed (width and height exchanged)": lambda x: np.swapaxes(x, 0, 1),
}
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CLIP_MEAN, CLIP_STD = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
Affine = tuple[np.ndarray | float, np.ndarray | float]
RANGES: dict[str, Affine] = {
    "0–1 in place of 0–255": (1 / 255, 0),
    "0–255 in place of 0–1": (255, 0),
    "±1 in place of 0–1": (2, -1),
    "0–1 in place of ±1": (0.5, 0.5),
    "±1 in place of 0–255": (1 / 127.5, -1),
    "0–255 in place of ±1": (127.5, 127.5),
    "ImageNet's mean and std applied": (1 / STD, -MEAN / STD),
    "ImageNet's mean and std not applied": (STD, MEAN),
    "CLIP's mean and std applied": (1 / CLIP_STD, -CLIP_MEAN / CLIP_STD),
    "CLIP's mean and std not applied": (CLIP_STD, CLIP_MEAN),
    "ImageNet's mean and std in place of ±1": (0.5 / STD, (0.5 - MEAN) / STD),
    "±1 in place of ImageNet's mean and std": (2 * STD, 2 * MEAN - 1),
    "ImageNet's mean and std applied, of 0–1 in place of 0–255": (1 / STD / 255, -MEAN / STD),
    "values inverted (a negative), of 0–255": (-1, 255),
    "values inverted (a negative), of 0–1": (-1, 1),
}


def axes(pair: Pair) -> Iterator[Candidate]:
    """Of the arrays as they are: HWC for CHW and the other orders, or memory read as if it were in another one."""
    if not 3 <= pair.a[0].ndim <= 4 or pair.a[0].ndim != pair.b[0].ndim:
        return
    for order in permutations(range(pair.a[0].ndim)):
        if order == (*range(pair.a[0].ndim),) or tuple(pair.a[0].shape[i] for i in order) != pair.b[0].shape:
            continue
        was, now = layout(pair.a[0].shape, pair.axes[0]), layout(pair.b[0].shape, pair.axes[1])
        named = (
            f"{now} in place of {was}"
            if order[-3:] in ((2, 0, 1), (1, 2, 0)) and was and now and was != now
            else f"axes in the order {order}"
        )
        yield Candidate(
            "axes",
            f"the axes are exchanged: {named}",
            1,
            lambda i, order=order: pair.a[i].transpose(order),
            values={"order": order},
        )
    if pair.a[0].size == pair.b[0].size:
        orders = {
            "CHW": lambda x: np.moveaxis(x, -1, -3),
            "HWC": lambda x: np.moveaxis(x, -3, -1),
            "as it is": lambda x: x,
        }
        for said, of in orders.items():
            yield Candidate(
                "axes read as another order",
                f"the shape was changed without moving the values (reshape for transpose, {said} in memory)", 1,
                lambda i, of=of: np.ascontiguousarray(of(pair.a[i])).reshape(pair.b[i].shape),
            )  # fmt: skip


def turned(pair: Pair) -> Iterator[Candidate]:
    """Flips, channels and ranges of values, alone and together."""
    slack = 1.0 if pair.whole and not pair.kinds[0].startswith("uint") else 0.0
    channels = pair.a[0].shape[-1]
    swaps: dict[str, list[int]] = {"": [*range(channels)]}
    if channels >= 3:
        swaps["BGR in place of RGB"] = [2, 1, 0, *range(3, channels)]
        swaps |= {
            f"channels in the order {p}": [*p, *range(3, channels)]
            for p in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1))
        }
    for turn, of in TURNS.items():
        if of(pair.a[0][:, :, :1]).shape[:2] != pair.b[0].shape[:2]:
            continue
        small, target = thinned(of(pair.a[0])), thinned(pair.b[0]).astype(np.float32)
        for swap, order in swaps.items():
            if channels != pair.b[0].shape[-1]:
                break
            for said, (gain, offset) in ({"": (1, 0)} | RANGES).items():
                if np.size(gain) not in (1, channels) or not (turn or swap or said):
                    continue
                made = small[..., order].astype(np.float32) * gain + offset
                if not (turn or swap or not said) and np.allclose(gain, 1):
                    continue
                if np.square(made - target).mean() > 0.8 * max(target.var(), 1e-12):
                    continue
                words = [
                    word for word in (turn, swap, said and f"values are {said}" if "in place" in said else said) if word
                ]
                yield Candidate(
                    "; ".join(word for word in (turn, swap.split(" in ")[0], said) if word),
                    f"the picture is {' and '.join(words)}" if turn or swap else f"the picture's {words[0]}",
                    len(words),
                    lambda i, of=of, order=order, by=(gain, offset) if said else None: _scaled(
                        of(pair.a[i])[..., order], by
                    ),
                    slack if said else 0.0,
                )


def _scaled(picture: np.ndarray, by: Affine | None) -> np.ndarray:
    return picture if by is None else picture * np.float64(by[0]) + by[1]


def brightness(pair: Pair) -> Iterator[Candidate]:
    """Any other gain and offset, of all channels or of each."""
    if not pair.same_shape:
        return
    channels = pair.a[0].shape[-1]
    a, b = (
        np.concatenate([thinned(x).reshape(-1, channels) for x in side]).astype(np.float64) for side in (pair.a, pair.b)
    )
    slack = 0.51 if pair.whole else 0.0
    for each in (False, True):
        x, y = (a, b) if each else (a.reshape(-1, 1), b.reshape(-1, 1))
        spread = x.var(0)
        gain = np.where(spread > 0, ((x - x.mean(0)) * (y - y.mean(0))).mean(0) / np.maximum(spread, 1e-30), 1)
        offset = y.mean(0) - gain * x.mean(0)
        numbers = "; ".join(
            f"× {g:.4g} {'+' if o >= 0 else '−'} {abs(o):.4g}" for g, o in zip(gain, offset, strict=True)
        )
        yield Candidate(
            "brightness", f"the values are scaled and shifted{' by channel' if each else ''}: {numbers}", 4 + each,
            lambda i, gain=gain, offset=offset: pair.a[i] * gain + offset, slack,
            values={"gain": gain.tolist(), "offset": offset.tolist()},
        )  # fmt: skip


def quantised(pair: Pair) -> Iterator[Candidate]:
    """Rounded or cut to 256 steps, or through JPEG."""
    lowest, highest = min(x.min() for x in pair.a), max(x.max() for x in pair.a)
    if not pair.kinds[0].startswith("uint") and highest <= 1.001 and lowest >= -1.001 and pair.same_shape:
        gain, offset = (255.0, 0.0) if lowest >= -1e-3 else (127.5, 127.5)
        for said, way in (("rounded", np.rint), ("cut off (truncated, not rounded)", np.floor)):
            yield Candidate(
                f"uint8 {said.split()[0]}",
                f"the values are {said} to 256 steps, as through uint8",
                2,
                lambda i, way=way: (way(np.float32(pair.a[i]) * np.float32(gain) + np.float32(offset)) - offset) / gain,
            )
    if pair.a[0].dtype == pair.b[0].dtype == np.uint8 and pair.same_shape and pair.a[0].shape[-1] == 3:
        small = pair.a[0]
        scores = {quality: _jpeg(small, quality) for quality in (100, 98, 95, 92, 90, 85, 80, 75, 70, 60, 50)}
        errors = {quality: np.square(made.astype(np.float32) - pair.b[0]).mean() for quality, made in scores.items()}
        quality = min(errors, key=lambda each: errors[each])
        yield Candidate(
            "jpeg", f"the picture went through JPEG of quality {quality}", 3, lambda i: _jpeg(pair.a[i], quality), 2.0
        )


def _jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    coded = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1]


def padded_elsewhere(pair: Pair) -> Iterator[Candidate]:
    """The same content between other borders of one colour."""
    if not pair.same_shape:
        return
    (top, left, height, width), border = content(pair.a[0])
    full = pair.a[0].shape[:2]
    (other_top, other_left, other_height, other_width), fill = content(pair.b[0])
    if (height, width) == full or not height:
        return
    places = {
        "at the left and top (content at the right and bottom)": (full[0] - height, full[1] - width),
        "at the right and bottom (content at the left and top)": (0, 0),
        "on both sides (content in the centre)": ((full[0] - height) // 2, (full[1] - width) // 2),
    }
    if (other_height, other_width) == (height, width):
        places.setdefault("elsewhere", (other_top, other_left))
    for said, (y, x) in places.items():
        if (y, x) == (top, left):
            continue

        def make(i: int, y: int = y, x: int = x) -> np.ndarray:
            made = np.empty_like(pair.a[i], dtype=np.result_type(pair.a[i], pair.b[i]))
            made[:] = fill if fill is not None else border
            made[y : y + height, x : x + width] = pair.a[i][top : top + height, left : left + width]
            return made

        yield Candidate(
            "padding side",
            f"the picture is padded {said}; in A its content begins at row {top}, column {left}",
            1,
            make,
        )
    if (
        fill is not None
        and border is not None
        and (top, left, height, width) == (other_top, other_left, other_height, other_width)
    ):

        def filled(i: int) -> np.ndarray:
            made = np.empty_like(pair.a[i], dtype=np.result_type(pair.a[i], pair.b[i]))
            made[:] = fill
            made[top : top + height, left : left + width] = pair.a[i][top : top + height, left : left + width]
            return made

        yield Candidate(
            "padding value", f"the picture is padded with {_colour(fill)} in place of {_colour(border)}", 1, filled
        )


def content(picture: np.ndarray) -> tuple[tuple[int, int, int, int], np.ndarray | None]:
    """Top, left, height and width of what lies between borders of one colour, and that colour; all of it if none."""
    height, width = picture.shape[:2]
    for corner in (picture[0, 0], picture[-1, -1]):
        other = (picture != corner).any(-1)
        rows, columns = np.flatnonzero(other.any(1)), np.flatnonzero(other.any(0))
        if rows.size and (rows.size < height or columns.size < width):
            box = int(rows[0]), int(columns[0]), int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
            if box[2:] != (height, width):
                return box, corner
    return (0, 0, height, width), None


def _colour(value: np.ndarray) -> str:
    return f"{value.flat[0]:.3g}" if np.ptp(value) == 0 else str([float(f"{x:.3g}") for x in value])


def thinned(picture: np.ndarray, side: int = PIXELS) -> np.ndarray:
    """At most `side` rows and columns of it, evenly."""
    return picture[:: max(1, picture.shape[0] // side), :: max(1, picture.shape[1] // side)]
