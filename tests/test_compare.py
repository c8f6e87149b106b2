"""`tactus compare`: the first stage that differs, what explains it, in words that a page and a program can have too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from array_faults import ACTION, CASES, CHUNK, IMAGE, LAYER, NOISE, STATE, TOP, Case, chw, pipeline, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tactus.policies.tracing.trace_file import PARTS, Recorder, Trace, TraceError
from tactus.runtime.commands import main
from tactus.runtime.diagnosis.comparison import Comparison, Swap, compare, place
from tactus.runtime.diagnosis.comparison_report import record, text_lines, write_html, write_json
from tactus.runtime.diagnosis.hypotheses.arithmetic import bfloat16
from tactus.runtime.diagnosis.hypotheses.interpolation import KERNELS, resized, weights
from tactus.runtime.diagnosis.hypotheses.pictures import RANGES, TURNS
from tactus.runtime.diagnosis.hypotheses.resizing import FITS, Step, operators, rendered
from tactus.runtime.diagnosis.hypotheses.sequences import shifted
from tactus.runtime.diagnosis.hypotheses.vectors import UNITS, affine
from tactus.runtime.diagnosis.tolerance import difference, of_again, of_dtypes

pytestmark = pytest.mark.slow

DRAWS, ENOUGH = 5, 0.95
CASE = {case.name: case for case in CASES}
told: dict[str, list[bool]] = {}


def found(name: str, seed: int = 0) -> Comparison:
    return compare(pipeline(seed), CASE[name].trace(seed))


SEARCHED = (
    "resize",
    "crop",
    "random crop",
    "interpolation",
    "sent",
    "kernel",
    "brightness",
    "noise on top",
    "frozen",
    "constant",
    "cameras",
    "lag",
)
"""Causes that are found after others were searched for, or by search: seconds each."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.long] * case.called.startswith(SEARCHED), id=case.name) for case in CASES],
)
def test_a_fault_is_found_where_it_is_and_called_what_it_is(case: Case) -> None:
    """The stage in every draw; the cause in most here, and in ENOUGH of all below."""
    for seed in range(DRAWS):
        one = compare(pipeline(seed), case.trace(seed))
        assert one.first is not None and one.first.name == case.stage, one.headline
        first = one.findings[0] if one.findings else None
        right = first is not None and first.name.startswith(case.called) and case.says in first.sentence
        told.setdefault(case.name, []).append(right)
    assert sum(told[case.name]) > DRAWS / 2, one.findings[:3]


def test_nearly_all_causes_are_named_first() -> None:
    """Of those that ran before it, in this file's order."""
    if len(told) < len(CASES):
        pytest.skip("not all of the cases above were run in this process")
    rate = np.mean([right for each in told.values() for right in each])
    assert len(CASES) >= 35 and rate >= ENOUGH, {name: each for name, each in told.items() if not all(each)}


@pytest.mark.parametrize("seed", range(50))
def test_float_noise_is_no_difference(seed: int) -> None:
    one = compare(pipeline(seed), pipeline(seed, jitter=1e-7))
    assert one.first is None, one.headline
    assert any(stage.largest for stage in one.stages)


def bordered(top: int, colour: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """A picture of 48×64 in one of 64×64, from row `top` on."""

    def make(x: np.ndarray, index: int) -> np.ndarray:
        made = np.full((64, 64, 3), colour, np.uint8)
        made[top : top + 48] = scene(np.random.default_rng(index), 48, 64)
        return made

    return make


def words(shift: int = 0, pad: int = 0, length: int = 12) -> Callable[[np.ndarray, int], np.ndarray]:
    """Six tokens, the rest padding."""
    return lambda x, index: np.roll(np.concatenate([np.arange(6) * 7 + 11 + index, np.full(length - 6, pad)]), shift)


def rows(x: np.ndarray, index: int) -> np.ndarray:
    """A chunk [12, 7] that moves on."""
    return np.cumsum(np.random.default_rng(index).normal(size=(12, 7)), 0).astype(np.float32)


def fine(x: np.ndarray, index: int) -> np.ndarray:
    return rows(x, index) * np.float64(np.pi)


def pose(index: int) -> np.ndarray:
    return (np.random.default_rng(50 + index).normal(size=7) * 3).astype(np.float32)


Made = Callable[[np.ndarray, int], np.ndarray]
SMALL: list[tuple[str, str, Made, Made]] = [
    ("relative actions", ACTION, rows, lambda x, i: rows(x, i) - pose(i)),
    ("relative actions", ACTION, rows, lambda x, i: rows(x, i) + pose(i)),
    ("cumulative actions", ACTION, rows, lambda x, i: np.cumsum(rows(x, i), 0)),
    ("steps reversed", ACTION, rows, lambda x, i: rows(x, i)[::-1]),
    ("first step repeated", ACTION, rows, lambda x, i: np.repeat(rows(x, i)[:1], 12, 0)),
    ("shifted +2", ACTION, rows, lambda x, i: np.concatenate([rows(x, i)[2:], rows(x, i)[-2:]])),
    ("shifted", "input/observation.state", lambda x, i: rows(x, i)[:3], lambda x, i: rows(x, i)[[0, 0, 1]]),
    ("dtype float32", "raw/pose", fine, lambda x, i: fine(x, i).astype(np.float32).astype(np.float64)),
    ("dtype whole numbers cut off", ACTION, rows, lambda x, i: np.trunc(rows(x, i))),
    ("offset", LAYER, rows, lambda x, i: rows(x, i) + np.float32(0.25)),
    ("gain by channel", LAYER, rows, lambda x, i: rows(x, i) * np.linspace(0.5, 2, 7, dtype=np.float32)),
    ("padding side", TOP, bordered(8, 0), bordered(16, 0)),
    ("padding side", TOP, bordered(8, 0), bordered(0, 0)),
    ("padding value", TOP, bordered(8, 0), bordered(8, 128)),
    ("token padding side", "input/tokens", words(), words(6)),
    ("padding token", "input/tokens", words(), words(pad=1)),
    ("token padding length", "input/tokens", words(length=20), words()),
    ("mask reversed", "input/mask", lambda x, i: np.arange(9) < 5 + i % 2, lambda x, i: np.arange(9) >= 4 - i % 2),
    ("lag over samples +1", "raw/pose", lambda x, i: pose(i), lambda x, i: pose(i + 1)),
    ("lag over samples -2", "raw/pose", lambda x, i: pose(i), lambda x, i: pose(i - 2 + 50) if i < 2 else pose(i - 2)),
    ("another feature", "raw/pose", lambda x, i: pose(i), lambda x, i: pose(i + 200)),
]  # fmt: skip


@pytest.mark.parametrize("called, name, a, b", SMALL, ids=[f"{called} {i}" for i, (called, *_) in enumerate(SMALL)])
def test_a_cause_that_needs_little(called: str, name: str, a: Made, b: Made) -> None:
    traces = []
    for make in (a, b):
        recorder = Recorder("one")
        for index in range(5):
            recorder.begin()
            recorder(STATE, pose(index))
            recorder("raw/other", pose(index + 200))
            recorder(name, make(np.zeros(0), index))
        traces.append(recorder.trace)
    one = compare(*traces)
    assert one.first is not None and one.first.name == name
    assert one.findings and one.findings[0].name.startswith(called), one.findings[:2]


def test_two_that_explain_it_alike_are_both_told() -> None:
    """A picture that is the same mirrored, upside down: that is a rotation too."""

    def trace(flip: bool) -> Trace:
        recorder = Recorder("one")
        for seed in range(2):
            half = scene(np.random.default_rng(seed), 48, 32)
            whole = np.concatenate([half, half[:, ::-1]], 1)
            recorder.begin()
            recorder(TOP, whole[::-1] if flip else whole)
        return recorder.trace

    one = compare(trace(False), trace(True))
    assert {each.name for each in one.findings} == {"flipped up-down", "rotated by 180°"}


@pytest.mark.parametrize(
    "name", ["flipped up-down", "flipped left-right", "rotated by 180°", "transposed (width and height exchanged)"]
)
@given(data=st.data())
def test_turns_are_their_own_inverse(name: str, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4])))
    x = np.arange(np.prod(shape)).reshape(shape)
    assert np.array_equal(TURNS[name](TURNS[name](x)), x)
    assert np.array_equal(TURNS["rotated by 270°"](TURNS["rotated by 90°"](x)), x)


@pytest.mark.parametrize("table", [RANGES, UNITS], ids=["pictures", "vectors"])
def test_every_named_constant_has_its_inverse(table: dict[str, tuple[Any, Any]]) -> None:
    """In the table too, so that neither direction of a fault goes unnamed; the negatives are their own."""
    once = ("of 0–1 in place of 0–255",)
    for name, (gain, offset) in table.items():
        if any(word in name for word in once):
            continue
        back = 1 / np.asarray(gain), -np.asarray(offset) / gain
        assert any(np.allclose(g, back[0]) and np.allclose(o, back[1]) for g, o in table.values()), name


@given(st.integers(2, 40), st.integers(2, 40), st.sampled_from(KERNELS))
def test_resizing_keeps_what_is_flat(size: int, out: int, kernel: str) -> None:
    matrix = weights(size, out, kernel)
    assert matrix.shape == (out, size) and np.allclose(matrix.sum(1), 1, atol=1e-5)
    if size == out:
        assert np.allclose(matrix, np.eye(size), atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (200, 150), (48, 64), (37, 90)])
def test_resizing_is_that_of_the_libraries(size: tuple[int, int]) -> None:
    import torch
    from torch.nn.functional import interpolate

    torch.set_num_threads(1)
    picture = np.random.default_rng(0).random((96, 128, 3)).astype(np.float32)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None]

    def by_torch(**way: Any) -> np.ndarray:
        return interpolate(tensor, size, **way)[0].permute(1, 2, 0).numpy()

    def by_opencv(way: int) -> np.ndarray:
        return cv2.resize(picture, size[::-1], interpolation=way)

    def by_pillow(way: Image.Resampling) -> np.ndarray:
        return np.stack([np.asarray(Image.fromarray(picture[..., c]).resize(size[::-1], way)) for c in range(3)], -1)

    theirs = {
        "bilinear": [by_torch(mode="bilinear"), by_opencv(cv2.INTER_LINEAR)],
        "bilinear antialiased": [by_torch(mode="bilinear", antialias=True), by_pillow(Image.Resampling.BILINEAR)],
        "bicubic": [by_torch(mode="bicubic"), by_opencv(cv2.INTER_CUBIC)],
        "bicubic antialiased": [by_torch(mode="bicubic", antialias=True), by_pillow(Image.Resampling.BICUBIC)],
        "nearest": [by_torch(mode="nearest"), by_opencv(cv2.INTER_NEAREST)],
        "lanczos": [by_opencv(cv2.INTER_LANCZOS4)],
        "lanczos antialiased": [by_pillow(Image.Resampling.LANCZOS)],
        "area by whole pixels": [by_torch(mode="area")],
        "bilinear with aligned corners": [by_torch(mode="bilinear", align_corners=True)],
    }
    if size[0] < 96 and size[1] < 128:
        theirs["area"] = [by_opencv(cv2.INTER_AREA)]
    for kernel, expected in theirs.items():
        for one in expected:
            assert np.abs(resized(picture, *size, kernel) - one).max() < 3e-5, kernel


@given(st.integers(8, 40), st.integers(8, 40), st.integers(8, 40), st.sampled_from(FITS), st.integers(0, 3))
def test_some_rows_and_columns_of_a_chain_are_those_of_all(
    height: int, width: int, side: int, fit: str, seed: int
) -> None:
    picture = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    chain = (Step(side, side, "bilinear", fit), Step(12, 20, "bicubic antialiased"))
    rows, columns = np.array([0, 5, 11]), np.array([3, 19])
    tall, wide = operators(chain, height, width, rows, columns)
    some = np.einsum("hy,wx,yxc->hwc", tall, wide, picture)
    assert np.allclose(some, rendered(chain, picture)[np.ix_(rows, columns)], atol=1e-5)


@given(st.integers(1, 3), st.booleans(), st.integers(4, 9))
def test_a_shift_and_back_leaves_what_both_know(by: int, forward: bool, length: int) -> None:
    x = np.arange(3.0 * length).reshape(length, 3)
    by = by if forward else -by
    back = shifted(shifted(x, by), -by)
    known = ~np.isnan(back)
    assert np.array_equal(back[known], x[known]) and known.sum() == 3 * (length - abs(by))


@given(st.lists(st.floats(0.1, 9), min_size=1, max_size=5), st.floats(-5, 5))
def test_a_fitted_gain_and_offset_is_the_one(gains: list[float], offset: float) -> None:
    x = np.random.default_rng(0).normal(size=(9, len(gains)))
    fit = affine(x, x * gains + offset)
    assert fit is not None and np.allclose(fit[0], gains) and np.allclose(fit[1], offset)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.sampled_from(["float32", "float64", "bfloat16"]))
def test_a_larger_factor_never_finds_more(one: float, other: float, kind: str) -> None:
    rows = [np.random.default_rng(0).normal(size=(5, 4)) * [1, 100, 1e-3, 0]]
    small, large = (of_dtypes((kind,), True, factor).limit(rows) for factor in sorted((one, other)))
    assert (small <= large).all() and small.shape == (4,)


def test_whole_numbers_have_no_tolerance_whatever_the_factor() -> None:
    for kind in ("uint8", "int64", "bool"):
        assert of_dtypes((kind, kind), False, 1e6).limit([np.ones(3)]) == 0


def test_the_tolerance_of_a_against_a_is_three_times_what_was_seen() -> None:
    a = [np.array([1.0, -1, 1, -1], np.float32)]
    again = [a[0] + np.float32([0, 0, 0.01, 0])]
    assert np.allclose(of_again(a, again, ("float32",), False).limit(a), 0.03, rtol=1e-3)
    assert 0 < of_again(a, a, ("float32",), False).limit(a) < 1e-5


@given(st.lists(st.sampled_from([0.0, 1.5, np.inf, -np.inf, np.nan]), min_size=1, max_size=8), st.data())
def test_what_is_no_number_in_both_is_no_difference(values: list[float], data: st.DataObject) -> None:
    a = np.array(values)
    assert not difference(a, a).any()
    at = data.draw(st.integers(0, len(a) - 1))
    b = a.copy()
    b[at] = np.nan if not np.isnan(a[at]) else 0
    assert np.isinf(difference(a, b)[at])


def test_a_gripper_in_m_beside_joints_in_degrees_is_seen() -> None:
    """A tolerance of all dimensions together would hide it."""

    def trace(more: float) -> Trace:
        recorder = Recorder("one")
        for seed in range(4):
            recorder.begin()
            state = np.random.default_rng(seed).normal(size=7).astype(np.float32) * 60
            state[6] = 0.02 + 0.001 * seed + more
            recorder(STATE, state)
        return recorder.trace

    assert compare(trace(0), trace(0)).first is None
    one = compare(trace(0), trace(0.003))
    assert one.first is not None and one.first.where == "dimension 6"


@pytest.mark.parametrize("name", [IMAGE, CHUNK, NOISE, LAYER, "input/observation.language.tokens"])
def test_a_batch_axis_of_one_is_no_difference(name: str) -> None:
    other = pipeline(0, lambda stage, x, _: x)
    for sample in other.samples:
        sample.stages[name] = replace(sample.stages[name], array=sample.stages[name].array[0])
    assert compare(pipeline(0), other).first is None
    assert compare(other, pipeline(0)).first is None


def test_actions_are_compared_as_far_as_both_go() -> None:
    other = pipeline(0)
    for sample in other.samples:
        sample.stages["queue/actions"] = replace(sample.stages["queue/actions"], array=sample.stages[ACTION].array)
    one = compare(pipeline(0), other)
    assert one.first is None
    queue = next(stage for stage in one.stages if stage.name == "queue/actions")
    assert queue.notes == ["10 and 16 steps: the common ones are compared"]


def changed(trace: Trace, **header: Any) -> Trace:
    for name, value in header.items():
        setattr(trace, name, value)
    return trace


def narrow(trace: Trace) -> Trace:
    for sample in trace.samples:
        sample.stages[ACTION] = replace(sample.stages[ACTION], array=sample.stages[ACTION].array[:, :6])
    return trace


def renamed(trace: Trace) -> Trace:
    for sample in trace.samples:
        sample.stages = {"my/" + name: replace(stage, name="my/" + name) for name, stage in sample.stages.items()}
    return trace


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda t: changed(t, policy="pi0:abc"), "different policies, 'tiny:abc' and 'pi0:abc'"),
        (lambda t: changed(narrow(t), robot="leg"), "different robots, 'arm' with 8 and 'leg' with 6 actions"),
        (renamed, "no stage is in both traces: A has raw/observation.images.top"),
        (lambda t: changed(t, samples=[]), "6 and 0 samples; both need at least one"),
    ],
)
def test_what_cannot_be_compared_is_said(
    change: Callable[[Trace], Trace], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline(0).save(tmp_path / "a")
    change(pipeline(0)).save(tmp_path / "b")
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    said = capsys.readouterr()
    assert sentence in said.err and "Traceback" not in said.err and not said.out


@pytest.mark.parametrize(
    "change, note",
    [
        (lambda t: changed(t, policy="tiny:xyz"), "policies of other weights: tiny:abc and tiny:xyz"),
        (lambda t: changed(t, robot="other"), "different robots: arm and other"),
        (lambda t: changed(t, samples=t.samples[:4]), "6 and 4 samples: the first 4 are compared"),
    ],
)
def test_what_is_worth_knowing_is_a_note(change: Callable[[Trace], Trace], note: str) -> None:
    one = compare(pipeline(0), change(pipeline(0)))
    assert one.first is None and any(note in each for each in one.notes)


def test_actions_of_another_width_are_a_difference_of_the_same_robot() -> None:
    one = compare(pipeline(0), narrow(pipeline(0)))
    assert one.first is not None and one.first.name == ACTION and one.findings[0].name == "cut off"
    assert any("different width: 8 and 6" in note for note in one.notes)


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "cut", "other", "version"])
def test_a_bad_file_is_a_sentence(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    good, bad = tmp_path / "good", tmp_path / "bad"
    pipeline(0).save(good)
    if kind == "folder":
        bad.mkdir()
    elif kind == "text":
        bad.write_text("hello")
    elif kind == "cut":
        bad.write_bytes(good.read_bytes()[:5000])
    elif kind == "other":
        save_file({"x": np.zeros(3)}, bad)
    elif kind == "version":
        bad.write_bytes(good.read_bytes().replace(b'\\"version\\": 1', b'\\"version\\": 7'))
    for places in ([good, bad], [bad, good], [good, good, bad]):
        words = [str(place) for place in places[:2]] + [f"--again={place}" for place in places[2:]]
        assert main(["compare", *words]) == 2
        error = capsys.readouterr().err
        assert str(bad) in error and error.startswith("tactus compare: ") and "Traceback" not in error
        assert len(error.strip().splitlines()) == 1


def test_status_text_and_json_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline(0).save(tmp_path / "a")
    CASE["BGR"].trace(0).save(tmp_path / "b")
    words = ["compare", str(tmp_path / "a")]
    assert main([*words, str(tmp_path / "a"), f"--json={tmp_path}/same.json"]) == 0
    assert capsys.readouterr().out.startswith("equal through all 16 stages, in 6 samples\n")
    same = json.loads((tmp_path / "same.json").read_text())
    assert same["equal"] and same["first"] is None and all(stage["ok"] for stage in same["stages"])
    assert main([*words, str(tmp_path / "b"), f"--json={tmp_path}/other.json"]) == 1
    out = capsys.readouterr().out
    other = json.loads((tmp_path / "other.json").read_text())
    assert out.splitlines()[0] == other["headline"] == f"first difference: {TOP}: the picture is BGR in place of RGB"
    assert other["first"]["name"] == TOP and other["first"]["place"] == "what the robot observed"
    assert other["hypotheses"][0]["confirmed"] and other["hypotheses"][0]["largest_left"] == 0
    assert re.search(rf"^differs {re.escape(TOP)} +max \d+, rms [\d.]+ ", out, re.MULTILINE)
    assert [line.split()[1] for line in out.splitlines() if line.startswith(("ok ", "differs "))] == [
        s["name"] for s in other["stages"]
    ]


def test_again_and_the_factor_make_it_less_strict(tmp_path: Path) -> None:
    for name, jitter in (("a", 0.0), ("again", 1e-2), ("b", 1.1e-2)):
        pipeline(0, jitter=jitter).save(tmp_path / name)
    words = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(words) == 1
    assert main([*words, f"--again={tmp_path}/again"]) == 0
    assert main([*words, "--tolerance=10000"]) == 0


def test_numbers_that_are_none_are_told() -> None:
    one = compare(pipeline(0), pipeline(0, lambda name, x, _: np.where(x > 0.9, np.nan, x) if name == LAYER else x))
    assert one.first is not None and one.first.name == LAYER
    assert any("infinite or no number" in note for note in one.first.notes)
    json.dumps(record(one), allow_nan=False)


def test_every_part_is_said_where_it_is() -> None:
    names = {
        "raw": TOP, "sent": "sent/x", "preprocess": "preprocess/3.device/x", "input": "input/x", "image": IMAGE,
        "layer": "layer/a.b#2", "prefix": "prefix", "noise": NOISE, "denoise": "denoise/3.x", "normalised": CHUNK,
        "actions": ACTION, "queue": "queue/actions", "executed": "executed/actions",
    }  # fmt: skip
    assert names.keys() == PARTS.keys()
    said = [place(name) for name in names.values()]
    assert len({*said}) == len(said) and "a stage of its own name" not in said
    for (key, text), words in zip(PARTS.items(), said, strict=True):
        assert words and words in text, key


@pytest.mark.long
def test_one_sample_is_enough_for_most() -> None:
    """What needs several says less; nothing breaks."""
    right = 0
    for case in CASES:
        one = pipeline(0)
        other = case.trace(0)
        one.samples, other.samples = one.samples[1:2], other.samples[1:2]
        told = compare(one, other)
        assert told.first is None or told.first.name == case.stage, (case.name, told.headline)
        right += bool(told.findings) and told.findings[0].name.startswith(case.called)
    assert right >= 0.7 * len(CASES)


def test_swaps_have_their_place_everywhere(tmp_path: Path) -> None:
    swaps = [Swap(TOP, [0.012, 0.5], ["m", "rad"])]
    one = compare(pipeline(0), CASE["BGR"].trace(0), swaps=swaps)
    assert f"  {TOP}: 1.2 cm, 0.5 rad" in list(text_lines(one))
    [told] = record(one)["swaps"]
    assert (told["stage"], told["moved"], told["unit"]) == (TOP, [0.012, 0.5], ["m", "rad"])
    write_html(one, tmp_path / "page.html")
    assert "<h2>Stage swap</h2>" in (tmp_path / "page.html").read_text()
    assert "1.2 cm, 0.5 rad" in (tmp_path / "page.html").read_text()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {"equal": compare(pipeline(0), pipeline(0))}
    for name in (
        "upside down and BGR",
        "aspect kept, border above",
        "statistics of another robot",
        "a layer's weights",
        "crop, not resized",
        "another prompt",
    ):
        made[name] = found(name)
    hostile = changed(CASE["BGR"].trace(0), program="<script>alert(1)</script>")
    made["hostile"] = compare(pipeline(0), hostile)
    files = {}
    for number, (name, one) in enumerate(made.items()):
        files[name] = folder / f"{number}.html"
        write_html(one, files[name])
        write_json(one, folder / f"{number}.json")
    return files


def test_a_page_asks_for_nothing_and_text_is_text(pages: dict[str, Path]) -> None:
    for page in pages.values():
        text = page.read_text()
        assert not re.findall(r"""(?:src|href|url|@import)\s*[=(]\s*["']?(?!data:|#)([^"'\s>]+)""", text)
        assert "<script" not in text
    assert "&lt;script&gt;" in pages["hostile"].read_text()


def test_a_page_shows_four_samples_at_most_and_what_explains_them(pages: dict[str, Path]) -> None:
    text = pages["upside down and BGR"].read_text()
    assert text.count("<img") == 16 and text.count("what the hypothesis makes of A</figcaption>") == 4
    assert pages["equal"].read_text().count("<img") == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it(browser: Any, pages: dict[str, Path], width: int) -> None:
    for name, file in pages.items():
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for log in ("browser", "performance"):
            browser.get_log(log)  # what came before is not the page's
        browser.get(file.as_uri())
        assert browser.get_log("browser") == []
        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        assert {url for url in asked if not url.startswith(("data:", "chrome://"))} == {file.as_uri()}
        page = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert page[0] <= page[1] == width, name
        broken = browser.execute_script("return [...document.images].filter(i => !i.naturalWidth).length")
        assert broken == 0, name


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([chw, lambda x: x, lambda x: x[None]]))
def test_comparing_never_breaks_on_what_a_program_may_write(seed: int, way: Callable[[np.ndarray], np.ndarray]) -> None:
    """Shapes, types and sizes at random, on both sides: a verdict, never an exception."""
    rng = np.random.default_rng(seed)
    names = (TOP, STATE, IMAGE, "input/tokens", "input/mask", NOISE, LAYER, CHUNK, ACTION)
    kinds = (np.uint8, np.float32, np.float64, np.int64, bool, np.float16)

    def trace() -> Trace:
        recorder = Recorder("any")
        for _ in range(rng.integers(1, 4)):
            recorder.begin()
            for name in names:
                shape = tuple(int(x) for x in rng.integers(0 if rng.random() < 0.1 else 1, 14, rng.integers(0, 5)))
                array = (rng.normal(size=shape) * 100).astype(kinds[rng.integers(len(kinds))])
                recorder(name, way(array) if array.ndim == 3 else array)
        return recorder.trace

    list(text_lines(compare(trace(), trace())))


def test_bfloat16_is_torchs() -> None:
    import torch

    x = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    assert np.array_equal(bfloat16(x), torch.from_numpy(x).bfloat16().float().numpy())


def test_a_trace_of_another_policy_raises() -> None:
    with pytest.raises(TraceError, match="trace one checkpoint in both programs"):
        compare(pipeline(0), changed(pipeline(0), policy="act:1"))
