"""A comparison as text, as JSON and as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tactus.runtime.diagnosis.comparison import Comparison, StageResult, Swap, place
from tactus.runtime.diagnosis.hypotheses import Finding, Pair
from tactus.runtime.diagnosis.tolerance import difference
from tactus.runtime.evaluation.results import write_whole

TEMPLATE = "comparison.html.j2"
STRIPS, SIDE, HEIGHT = 4, 512, 160
"""Samples that are shown; pixels of a picture, at most; of a heat map's height, at least."""


def text_lines(found: Comparison) -> Iterator[str]:
    """What a terminal shows: the verdict, the first difference, what explains it, and every stage."""
    yield found.headline
    yield f"A: {_who(found, 0)}"
    yield f"B: {_who(found, 1)}"
    yield from (f"note: {note}" for note in found.notes)
    if first := found.first:
        yield ""
        yield f"{first.name}: {place(first.name)}"
        yield f"  {how_far(first)}"
        yield f"  in {_samples(first, found.samples)}: {first.where}"
        yield from (f"  {note}" for note in first.notes)
        yield ""
        yield from (f"  {line}" for line in explanations(found.findings))
    yield ""
    width = max(len(stage.name) for stage in found.stages)
    for stage in found.stages:
        far = "" if stage.ok and not stage.largest else how_far(stage, brief=True)
        yield f"{'ok     ' if stage.ok else 'differs'} {stage.name:{width}} {far}".rstrip()
    for which, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            yield f"only in {which}: {', '.join(names)}"
    if found.swaps:
        yield ""
        yield "stage swap: how far the actions move, on the mean, if B's is put into A"
        yield from (f"  {swap.stage}: {moved(swap)}" for swap in found.swaps)


def explanations(findings: Sequence[Finding]) -> Iterator[str]:
    """One line each, with how well it explains."""
    if not findings:
        yield "no hypothesis explains it"
    for finding in findings:
        yield f"{how_well(finding)}: {finding.sentence}"


def how_well(finding: Finding) -> str:
    """Confirmed, or how much of it is explained."""
    if finding.statistical:
        return "likely"
    if finding.confirmed:
        return f"confirmed (what is left is at most {finding.residual:.2g})"
    return f"explains {math.floor(1000 * finding.share) / 10:g} % of the squared difference, but not all"


def how_far(stage: StageResult, brief: bool = False) -> str:
    """Largest and root mean square difference, with unit, and the tolerance."""
    if math.isnan(stage.largest):
        return stage.where
    unit = f" {stage.unit}" if stage.unit else ""
    text = f"max {stage.largest:.3g}{unit}, rms {stage.rms:.3g} ({stage.relative:.2g} of its scale)"
    return text if brief else f"{text}; tolerance {stage.tolerance}"


def moved(swap: Swap) -> str:
    """Per dimension, with its unit: of positions in m, cm."""
    if swap.problem:
        return swap.problem
    told = []
    for index, value in enumerate(swap.moved):
        name, unit = (f"{of[index]} " if index < len(of) else "" for of in (swap.names, swap.unit))
        factor, unit = (100, "cm ") if unit == "m " else (1, unit)
        most = f" (at most {swap.largest[index] * factor:.3g})" if swap.largest else ""
        told.append(f"{name}{value * factor:.3g} {unit}".strip() + most)
    return ", ".join(told)


def record(found: Comparison) -> dict[str, Any]:
    """The same for programs; infinite and undefined numbers are null."""
    first = found.first
    about = {
        "equal": first is None,
        "headline": found.headline,
        "programs": found.programs,
        "policies": found.policies,
        "samples": found.samples,
        "notes": found.notes,
        "first": first and {**asdict(first), "place": place(first.name)},
        "hypotheses": [
            {"name": each.name, "sentence": each.sentence, "confirmed": each.confirmed, "by_test": each.statistical,
             "explained": each.share, "largest_left": each.residual, **({"values": each.values} if each.values else {})}
            for each in found.findings
        ],
        "stages": [asdict(stage) for stage in found.stages],
        "only_a": found.only_a,
        "only_b": found.only_b,
        "swaps": [asdict(swap) for swap in found.swaps],
    }  # fmt: skip
    return _plain(about)


def write_json(found: Comparison, file: Path) -> None:
    """Raises ResultsError if it cannot be written."""
    write_whole(file, json.dumps(record(found), indent=2, ensure_ascii=False) + "\n")


def write_html(found: Comparison, file: Path) -> None:
    """Raises ResultsError if it cannot be written, ModuleNotFoundError if jinja2 is missing."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"place": place, "how_far": how_far, "how_well": how_well, "moved": moved}
    template = environment.from_string(resources.files(__package__ or "").joinpath(TEMPLATE).read_text("utf-8"))
    first = found.first
    page = {
        "found": found,
        "first": first,
        "who": [_who(found, 0), _who(found, 1)],
        "samples": _samples(first, found.samples) if first else "",
        "strips": strips(found.pair, found.findings) if found.pair is not None else [],
        "dimensions": dimensions(found.pair) if found.pair is not None else [],
        "raw": json.dumps(record(found), indent=2, ensure_ascii=False),
    }
    write_whole(file, template.render(page))


def strips(pair: Pair, findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Of each sample, A, B, what lies between them and, of a confirmed hypothesis, what it makes of A; as data URIs."""
    view = pair.pictures() or pair
    best = next((each for each in findings if each.confirmed and each.shown is not None), None)
    shown: Sequence[Any] = best.shown if best and best.shown is not None else []
    found = []
    span = _span(view)
    for index, (a, b) in enumerate(zip(view.a, view.b, strict=True)):
        if len(found) == STRIPS or max(a.size, b.size) < 2:
            break
        made = shown[index] if index < len(shown) else None
        of_a, of_b = (span, span) if span is not None else (_range(a), _range(b))
        pictures = [("A", _drawn(view, a, *of_a)), ("B", _drawn(view, b, *of_b))]
        if a.shape == b.shape:
            apart = np.abs(np.nan_to_num(difference(a, b), posinf=0))
            most = span[1] - span[0] if span is not None else float(apart.max()) or 1
            pictures.append(("|A − B|", _drawn(view, apart, 0, most)))
        if made is not None and (pair.kind != "picture" or made.ndim == 3):
            pictures.append(("what the hypothesis makes of A", _drawn(view, np.asarray(made), *of_b)))
        found.append({"sample": index, "pictures": [(said, *picture) for said, picture in pictures]})
    return found


def _span(view: Pair) -> tuple[Any, Any] | None:
    """Of a vector stage, from where to where each dimension goes in both: all are seen, whatever their units."""
    rows = view.rows() if view.tolerance.by_dimension else None
    if rows is None:
        return None
    both = np.concatenate(rows)
    low, high = both.min(0), both.max(0)
    return low, np.where(high > low, high, low + 1)


def _drawn(view: Pair, array: np.ndarray, low: Any, high: Any) -> tuple[str, bool]:
    """As a picture, or as a heat map of its last two axes; and whether pixels are to be seen as squares."""
    values = np.clip((np.nan_to_num(array.astype(np.float64)) - low) / np.maximum(high - low, 1e-12), 0, 1)
    grey = np.rint(values * 255).astype(np.uint8)
    if view.kind == "picture" and grey.ndim == 2:
        grey = grey[..., None]
    if view.kind == "picture" and grey.ndim == 3 and grey.shape[-1] in (1, 3, 4):
        drawn = cv2.cvtColor(grey[..., :3], cv2.COLOR_RGB2BGR) if grey.shape[-1] >= 3 else grey[..., 0]
    else:
        flat = grey.reshape(1, -1) if grey.ndim < 2 else grey.reshape(-1, grey.shape[-1])
        drawn = cv2.applyColorMap(np.ascontiguousarray(flat[:SIDE, : 2 * SIDE]), cv2.COLORMAP_VIRIDIS)
    if max(drawn.shape[:2]) > SIDE and view.kind == "picture":
        ratio = SIDE / max(drawn.shape[:2])
        drawn = cv2.resize(
            drawn,
            (max(1, int(drawn.shape[1] * ratio)), max(1, int(drawn.shape[0] * ratio))),
            interpolation=cv2.INTER_AREA,
        )
    data = cv2.imencode(".png", drawn)[1]
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode(), view.kind != "picture"


def _range(array: np.ndarray) -> tuple[float, float]:
    finite = array[np.isfinite(array)].astype(np.float64)
    if not finite.size:
        return 0.0, 1.0
    return (0.0, 255.0) if array.dtype == np.uint8 else (float(finite.min()), float(finite.max()))


def dimensions(pair: Pair) -> list[dict[str, Any]]:
    """Of a vector stage, each dimension's spread in both and the difference."""
    rows = pair.rows() if pair.kind in ("vector", "noise") else None
    if rows is None or rows[0].shape[1] > 64:
        return []
    a, b = rows
    apart = np.abs(b - a)
    beyond = np.flatnonzero(np.any(apart > pair.tolerance.limit(pair.a), 0))
    return [
        {"name": pair.label(i), "unit": pair.unit[i] if i < len(pair.unit) else "", "differs": i in beyond,
         "a": f"{a[:, i].min():.4g} … {a[:, i].max():.4g}", "b": f"{b[:, i].min():.4g} … {b[:, i].max():.4g}",
         "largest": f"{apart[:, i].max():.3g}", "rms": f"{np.sqrt((apart[:, i] ** 2).mean()):.3g}"}
        for i in range(a.shape[1])
    ]  # fmt: skip


def _who(found: Comparison, which: int) -> str:
    policy = found.policies[which]
    return found.programs[which] + (f", {policy}" if policy else "")


def _samples(stage: StageResult, count: int) -> str:
    if len(stage.samples) == count:
        return "all samples" if count > 1 else "the one sample"
    shown = ", ".join(map(str, stage.samples[:8])) + (" …" if len(stage.samples) > 8 else "")
    return f"sample {shown} of {count}" if len(stage.samples) == 1 else f"samples {shown} of {count}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
