"""One step too late or too early, a frozen sample, another stage's values, other tokens, another mask."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher

import numpy as np

from tactus.runtime.diagnosis.hypotheses.pair import ACTIONS, Candidate, Pair, part


def lag(pair: Pair) -> Iterator[Candidate]:
    """B's sample is A's of one or two samples before or after; or steps of the chunk or the history are shifted."""
    count = len(pair.a)
    varies = any(x.shape != pair.a[0].shape or not np.array_equal(x, pair.a[0]) for x in pair.a)
    if count >= 3 and varies:
        for by in (1, -1, 2, -2):
            if count - abs(by) >= 2:
                way = "before" if by > 0 else "after"
                said = "one sample" if abs(by) == 1 else "two samples"
                yield Candidate(
                    f"lag over samples {-by:+d}", f"each sample's is A's of {said} {way}", 1 + abs(by),
                    lambda i, by=by: pair.a[i - by] if 0 <= i - by < count else None,
                )  # fmt: skip
    if pair.kind in ("vector", "noise") and pair.same_shape and pair.a[0].ndim == 2 and len(pair.a[0]) > 2:
        what = "the history" if part(pair.name) in ("raw", "sent", "preprocess", "input") else "the chunk"
        for by in (1, -1, 2, -2):
            way = "earlier" if by > 0 else "later"
            said = "one step" if abs(by) == 1 else "two steps"
            yield Candidate(
                f"shifted {by:+d}",
                f"{what} is shifted: each action comes {said} {way}"
                if what == "the chunk"
                else f"{what} is shifted by {said}",
                1 + abs(by),
                lambda i, by=by: shifted(pair.a[i], by),
            )
    if (
        pair.kind in ("vector", "noise", "picture")
        and pair.same_shape
        and pair.kind != "picture"
        and pair.a[0].ndim == 2
        and len(pair.a[0]) > 1
    ):
        yield Candidate("steps reversed", "the steps are in reverse order", 2, lambda i: pair.a[i][::-1])
        yield Candidate(
            "first step repeated",
            "every step is A's first",
            2,
            lambda i: np.broadcast_to(pair.a[i][:1], pair.a[i].shape),
        )


def shifted(array: np.ndarray, by: int) -> np.ndarray:
    """array[k + by] at k, NaN where there is none."""
    made = np.full(array.shape, np.nan)
    if by > 0:
        made[:-by] = array[by:]
    else:
        made[-by:] = array[:by]
    return made


def still(pair: Pair) -> Iterator[Candidate]:
    """Nothing but one number, or the same sample every time."""
    values = [np.unique(np.asarray(b).ravel()[:5000]) for b in pair.b]
    if all(len(value) == 1 for value in values) and pair.b[0].size > 1 and len({float(v[0]) for v in values}) == 1:
        value = values[0][0]
        what = "a black picture" if pair.kind == "picture" and value == 0 else "one number in place of the values"
        yield Candidate("constant", f"all is {float(value):.4g}: {what}", 1, lambda i: np.full(pair.b[i].shape, value))
    elif pair.kind == "picture" and all(np.ptp(np.asarray(b).reshape(-1, b.shape[-1]), 0).max() == 0 for b in pair.b):
        yield Candidate(
            "constant",
            f"the picture has one colour: {pair.b[0][0, 0].tolist()}",
            1,
            lambda i: np.broadcast_to(pair.b[i][:1, :1], pair.b[i].shape),
        )
    first = pair.b[0]
    same = all(b.shape == first.shape and np.array_equal(b, first) for b in pair.b)
    if same and len(pair.b) > 1 and any(not np.array_equal(a, pair.a[0]) for a in pair.a):
        held = [i for i, a in enumerate(pair.a) if a.shape == first.shape and _near(pair, a, first)]
        if held:
            yield Candidate(
                "frozen", f"it stands still: every sample is A's sample {held[0]}", 1, lambda i: pair.a[held[0]]
            )


def _near(pair: Pair, a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.all(np.abs(a.astype(np.float64) - b) <= pair.tolerance.limit([b])))


def other_stage(pair: Pair) -> Iterator[Candidate]:
    """B's is what A has under another name: cameras exchanged, or a step that was left out."""
    ours = part(pair.name)
    told = 0
    for name in sorted(pair.beside, key=lambda each: part(each) != ours):
        arrays = pair.beside[name]
        if name == pair.name or len(arrays) != len(pair.b) or told >= 2:
            continue
        if any(
            x.shape[:-1] != y.shape[:-1] or x.shape[-1:] < y.shape[-1:] for x, y in zip(arrays, pair.b, strict=True)
        ):
            continue
        width = pair.b[0].shape[-1] if pair.b[0].ndim else None
        if pair.kind == "picture" and width != arrays[0].shape[-1]:
            continue
        probe = np.s_[:1] if pair.b[0].ndim > 1 else np.s_[...]
        if not np.all(
            np.abs(arrays[0][..., :width][probe].astype(np.float64) - pair.b[0][probe]) <= pair.tolerance.limit(pair.b)
        ):
            continue
        arrays = [x[..., :width] for x in arrays]  # what follows a model is cut to the robot's width
        told += 1
        same = part(name) == ours and ours not in ACTIONS and name.rpartition("/")[2] != pair.name.rpartition("/")[2]
        if pair.kind == "picture" and same:
            yield Candidate(
                "cameras exchanged",
                f"the picture is that of another camera: A's {name}",
                1,
                lambda i, arrays=arrays: arrays[i],
            )
        elif same:
            yield Candidate(
                "another feature", f"the values are those of A's {name}", 1, lambda i, arrays=arrays: arrays[i]
            )
        else:
            when = "before it; what lies between was left out" if name in pair.earlier else "after it"
            yield Candidate(
                "step left out", f"the values are those of A's {name}, {when}", 1, lambda i, arrays=arrays: arrays[i]
            )


def tokens(pair: Pair) -> Iterator[Candidate]:
    """Padding on the other side or of another length, another text, other tokens of the same text."""
    pad = _pad(pair.a)
    if pad is not None:
        for side in ("left", "right"):
            yield Candidate(
                "token padding side",
                f"the tokens are padded on the {side} in place of the {'right' if side == 'left' else 'left'}",
                1,
                lambda i, side=side: _padded(_bare(pair.a[i], pad), pair.a[i].shape, pad, side),
            )
    theirs = pad if pad is not None else _pad(pair.b)
    if not pair.same_shape and theirs is not None and pair.a[0].ndim == pair.b[0].ndim == 1:
        lengths = f"from {pair.a[0].shape[-1]} to {pair.b[0].shape[-1]}"
        for side in ("right", "left"):
            yield Candidate(
                "token padding length",
                f"the same tokens, padded to another length: {lengths}, on the {side}",
                1 + (side == "left"),
                lambda i, side=side: _padded(_bare(pair.a[i], theirs), pair.b[i].shape, theirs, side),
            )
    if not pair.same_shape and pair.a[0].ndim == 1 == pair.b[0].ndim and pair.b[0].shape < pair.a[0].shape:
        yield Candidate(
            "tokens cut off",
            f"the tokens are cut off after {pair.b[0].shape[-1]}",
            2,
            lambda i: pair.a[i][: pair.b[i].shape[-1]],
        )
    if pad is not None and pair.same_shape:
        others = {int(_bare_pad(b, a, pad)) for a, b in zip(pair.a, pair.b, strict=True)}
        if len(others) == 1 and (other := others.pop()) != pad:
            yield Candidate(
                "padding token",
                f"the padding token is {other} in place of {pad}",
                1,
                lambda i: np.where(_is_pad(pair.a[i], pad), other, pair.a[i]),
            )
    index = next((i for i, (a, b) in enumerate(zip(pair.a, pair.b, strict=True)) if not np.array_equal(a, b)), 0)
    a, b = pair.a[index].ravel(), pair.b[index].ravel()
    common = min(len(a), len(b))
    apart = np.flatnonzero(a[:common] != b[:common])
    at = int(apart[0]) if apart.size else common
    first = f"the first that differs is number {at}: {_token(a, at)} in A, {_token(b, at)} in B"
    ours, other = pair.tasks[index] if index < len(pair.tasks) else ("", "")
    if ours != other:
        yield Candidate(
            "other prompt",
            f"the texts differ: {ours!r} in A, {other!r} in B; {first}",
            3,
            lambda i: None,
            statistical=True,
        )
        return
    x, y = ([v for v in side.tolist() if v != theirs] for side in (a, b))
    edits = [e for e in SequenceMatcher(None, x, y, autojunk=False).get_opcodes() if e[0] != "equal"]
    words = {
        "insert": "has {y} more at {at}",
        "delete": "lacks {x} at {at}",
        "replace": "has {y} in place of {x} at {at}",
    }
    told = "; ".join(words[kind].format(x=x[i:j], y=y[k:m], at=i) for kind, i, j, k, m in edits[:3])
    text = f"of the same text ({ours!r})" if ours else "of the same length" if len(x) == len(y) else "of another length"
    yield Candidate(
        "other tokens",
        f"other tokens {text}: {first}{'; B ' + told if told else ''}. Tokenizer, special tokens or a newline "
        f"at the end",
        4,
        lambda i: None,
        statistical=True,
    )


def _pad(arrays: list[np.ndarray]) -> int | None:
    """The token that all samples begin or end with, more than once; None if there is none."""
    for at in (-1, 0):
        edges = {int(x[..., at].flat[0]) for x in arrays if x.size}
        if len(edges) == 1 and (token := edges.pop()) is not None:
            runs = [x.ravel()[::-1] if at else x.ravel() for x in arrays]
            if all(len(run) > 1 and run[0] == run[1] == token for run in runs if run.ndim) and arrays[0].ndim == 1:
                return token
    return None


def _is_pad(tokens: np.ndarray, pad: int) -> np.ndarray:
    """Of the ends only: within the text the same token may mean something."""
    inside = np.flatnonzero(tokens != pad)
    mask = np.ones(tokens.shape, bool)
    if inside.size:
        mask[inside[0] : inside[-1] + 1] = False
    return mask


def _bare(tokens: np.ndarray, pad: int) -> np.ndarray:
    return tokens[~_is_pad(tokens, pad)]


def _bare_pad(b: np.ndarray, a: np.ndarray, pad: int) -> int:
    places = b[_is_pad(a, pad)]
    return int(places[-1]) if places.size else pad


def _padded(tokens: np.ndarray, shape: tuple[int, ...], pad: int, side: str) -> np.ndarray:
    made = np.full(shape, pad, dtype=np.int64)
    cut = tokens[: shape[-1]]
    if len(cut):
        made[(slice(-len(cut), None) if side == "left" else slice(0, len(cut)))] = cut
    return made


def _token(tokens: np.ndarray, at: int) -> str:
    return str(int(tokens[at])) if at < len(tokens) else "none"


def masks(pair: Pair) -> Iterator[Candidate]:
    """Inverted, or ignored: everything counts, or nothing."""
    yield Candidate("mask inverted", "the mask is inverted", 1, lambda i: 1 - pair.a[i].astype(np.int64))
    ones, zeros = (all((b != 0).all() == which and (b != 0).any() == which for b in pair.b) for which in (True, False))
    if ones:
        yield Candidate("mask ignored", "the mask is ignored: all is set", 1, lambda i: np.ones(pair.b[i].shape))
    if zeros:
        yield Candidate("mask ignored", "the mask is ignored: nothing is set", 1, lambda i: np.zeros(pair.b[i].shape))
    yield Candidate("mask reversed", "the mask is that of padding on the other side", 2, lambda i: pair.a[i][..., ::-1])
