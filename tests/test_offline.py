"""Open-loop evaluation: errors known by construction, one scale or a reason, real checkpoints and datasets, a page."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from datasets_made import WIDTH, Knowing, known, write
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import DARK, LIGHT, complaints, contrasts, requests, show

from tactus.hal.spec import STATE, Feature, PolicySpec, SpecError, image
from tactus.policies.policy import Policy
from tactus.runtime.commands import main
from tactus.runtime.diagnosis.offline.errors import compare, last_action, mean_action
from tactus.runtime.diagnosis.offline.evaluation import LAST, MEAN, POLICY, Comparison, Evaluation
from tactus.runtime.diagnosis.offline.predictor import Predictor
from tactus.runtime.diagnosis.offline.scale import ScaleError, check_scale, ranges
from tactus.runtime.diagnosis.offline.trajectories import executed, similarities, smoothness
from tactus.runtime.diagnosis.offline.verdict import Margin, verdict
from tactus.runtime.recording.demonstrations import Demonstrations, Episode, Frame

pytestmark = pytest.mark.slow

KNOWING = "--policy.type=datasets_made:KnowingConfig"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes of 20, 21 and 22 frames, two tasks."""
    return write(tmp_path_factory.mktemp("offline") / "data", tasks=("push the block", "pull <it>"))


def evaluate(policy: Policy, root: Path, stride: int | None = 1, seed: int = 0, **options: Any) -> Evaluation:
    comparison = Comparison(policy, Demonstrations(root, policy.spec, **options), stride, seed)
    comparison.look()
    comparison.check()
    return comparison.evaluate(lambda more: None)


def steps(horizon: int) -> np.ndarray:
    return np.arange(horizon, dtype=np.float32)[:, None]


EXACT = {
    "the truth": (lambda true, _: true, 0.0, 0.0),
    "half more": (lambda true, _: true + 0.5, 0.25, 0.5),
    "less in one dimension": (lambda true, _: true - np.array([0, 0, 1.5], np.float32), 0.75, 0.5),
    "more at each step": (lambda true, _: true + steps(8) / 8, None, None),
    "up and down": (lambda true, _: true + 0.25 * (-1) ** steps(8), 0.0625, 0.25),
    "far beside, on the same scale": (lambda true, _: true + 64, 4096.0, 64.0),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("stride", [1, 3, 8, 11])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_error_known_by_construction_is_the_one_told(name: str, stride: int, dtype: str, data: Path) -> None:
    """To the bit, whatever the stride, with chunks that reach beyond an episode's end."""
    error, mse, mae = EXACT[name]
    found = evaluate(Knowing(error, dtype=dtype), data, stride).errors[POLICY]
    starts = [(e, t) for e in range(3) for t in range(0, 20 + e, stride)]
    reach = [min(8, 20 + e - t) for e, t in starts]
    assert found.compared == sum(reach)
    if mse is None:  # (h/8)² at step h, over the steps that exist
        mse = float(np.mean(np.concatenate([(np.arange(n) / 8) ** 2 for n in reach])))
        mae = float(np.mean(np.concatenate([np.arange(n) / 8 for n in reach])))
    assert found.mse == pytest.approx(mse, rel=1e-12, abs=0) and found.mae == pytest.approx(mae, rel=1e-12, abs=0)
    if "more at each step" not in name:
        assert found.mse == mse and found.mae == mae
    by_step = [sum(n > h for n in reach) for h in range(8)]
    assert found.count.tolist() == by_step
    true = np.concatenate([[known(e, t) for t in range(20 + e)] for e in range(3)]).astype(np.float64)
    assert found.std == pytest.approx(true.std(0)) and found.span == pytest.approx(np.ptp(true, axis=0))
    assert found.normalised == pytest.approx(np.sqrt(np.mean(found.mse_by_dimension / true.var(0))))


def test_noise_of_known_variance_is_within_its_interval(tmp_path: Path) -> None:
    """Mean of n squares of N(0, σ²): σ² ± 5 σ² √(2/n)."""
    root = write(tmp_path / "data", episodes=20, length=40)
    policy = Knowing(lambda true, noise: true + noise.normal(0, 0.5, true.shape), length=40, dtype="float64")
    found = evaluate(policy, root).errors[POLICY]
    count = found.compared * WIDTH
    assert abs(found.mse - 0.25) < 5 * 0.25 * np.sqrt(2 / count)
    assert abs(found.bias_by_dimension).max() < 5 * 0.5 / np.sqrt(found.compared)
    assert found.normalised_over_horizon.std() < 0.1 * found.normalised


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=40)
def test_sums_are_those_of_a_plain_loop(seed: int, horizon: int, stride: int, width: int) -> None:
    """Errors by step, dimension, episode and task, and both baselines."""
    random = np.random.default_rng(seed)
    episodes = []
    for number in range(random.integers(1, 5)):
        length = int(random.integers(1, 12))
        actions = random.normal(size=(length, width)).astype(np.float32)
        episodes.append(Episode(number, actions, random.integers(0, 3, length), np.arange(length)))
    frames = [Frame(e, t) for e, one in enumerate(episodes) for t in range(0, len(one.actions), stride)]
    chunks = random.normal(size=(len(frames), horizon, width))
    mean = np.concatenate([one.actions for one in episodes]).astype(float).mean(0)
    for predict, answer in (
        (lambda _, places: chunks[places], lambda n, e, t: chunks[n]),
        (mean_action(episodes, horizon), lambda n, e, t: [mean] * horizon),
        (
            last_action(episodes, horizon),
            lambda n, e, t: [episodes[e].actions[t - 1].astype(float) if t else mean] * horizon,
        ),
    ):
        found = compare(episodes, frames, horizon, predict)
        errors = [
            (h, e, int(episodes[e].tasks[t]), answer(n, e, t)[h] - episodes[e].actions[t + h].astype(float))
            for n, (e, t) in enumerate(frames)
            for h in range(horizon)
            if t + h < len(episodes[e].actions)
        ]
        for of, place, size in (
            (found.squared, 0, horizon), (found.episode_squared, 1, len(episodes)), (found.task_squared, 2, 3)
        ):  # fmt: skip
            for group in range(min(size, len(of))):
                expected = sum((one[3] ** 2 for one in errors if one[place] == group), np.zeros(width))
                assert of[group] == pytest.approx(expected)
        assert found.compared == len(errors)
        assert found.absolute.sum(0) == pytest.approx(sum(abs(one[3]) for one in errors))
        assert found.largest == pytest.approx(np.max([abs(one[3]) for one in errors], axis=0))


def test_correlation_is_pearsons(data: Path) -> None:
    found = evaluate(Knowing(lambda true, noise: true + noise.normal(0, 2, true.shape)), data)
    true, predicted = [], []
    for (e, t), chunk in zip(found.predictions.frames, found.predictions.chunks, strict=True):
        actions = found.demonstrations.episodes[e].actions[t : t + 8]
        true.append(actions)
        predicted.append(chunk[: len(actions)])
    for d in range(WIDTH):
        r = np.corrcoef(np.concatenate(true)[:, d], np.concatenate(predicted)[:, d])[0, 1]
        assert found.errors[POLICY].correlation[d] == pytest.approx(r)


def test_baselines_know_what_they_should(data: Path) -> None:
    found = evaluate(Knowing(), data)
    assert found.errors[MEAN].normalised == pytest.approx(1, abs=0.05)
    assert found.errors[POLICY].normalised == 0 < found.errors[LAST].normalised
    assert found.lines[0].startswith("The policy is better than both baselines")
    assert "100 % less" in found.lines[1] and "no interval" in found.lines[1]  # three episodes


def test_frames_are_asked_once_with_noise_of_their_own(data: Path) -> None:
    """The same run gives the same figures; another stride or batch the same chunks; another seed others."""

    def noisy(batch: int) -> Knowing:
        return Knowing(lambda true, noise: true + noise.normal(0, 0.1, true.shape), max_batch=batch, dtype="float64")

    first, policy = evaluate(noisy(4), data), noisy(5)
    again, sparse, other = evaluate(policy, data), evaluate(noisy(1), data, 3), evaluate(noisy(4), data, seed=1)
    assert np.array_equal(first.predictions.chunks, again.predictions.chunks)
    assert first.errors[POLICY].mse == again.errors[POLICY].mse != other.errors[POLICY].mse
    every = dict(zip(first.predictions.frames, first.predictions.chunks, strict=True))
    for frame, chunk in zip(sparse.predictions.frames, sparse.predictions.chunks, strict=True):
        assert np.array_equal(chunk, every[frame])
    assert sparse.alone is None and first.company == 0.0
    assert {*policy.tasks} == {"push the block", "pull <it>"}
    assert max(map(len, policy.asked)) == 5 and not policy._generators


@pytest.mark.parametrize(("stride", "given"), [(None, 8), (5, 5)])
def test_the_stride_is_what_a_robot_would_do_if_not_given(stride: int | None, given: int, data: Path) -> None:
    assert evaluate(Knowing(), data, stride).stride == given


RANDOM = np.random.default_rng(0)
SWING = np.stack([np.sin(np.arange(400) / 9 + d) for d in range(7)], axis=1)
NOISE = RANDOM.normal(size=SWING.shape)
PIXELS = 256 + 220 * SWING
APART = {
    "±1 against pixels, learned": (SWING + 0.05 * NOISE, PIXELS, ["look normalised", "un-normaliser"]),
    "±1 against pixels, not learned": (np.tanh(NOISE), PIXELS, ["look normalised", "un-normaliser"]),
    "z-scores against pixels": (NOISE, PIXELS, ["look normalised"]),
    "a constant far below": (np.full_like(SWING, 0.3), PIXELS, ["look normalised"]),
    "pixels against ±1": (PIXELS, SWING, ["the dataset's actions look normalised"]),
    "radians against degrees, learned": (np.radians(80 * SWING + NOISE), 80 * SWING, ["like radians", "like degrees"]),
    "radians against degrees, not learned": (np.radians(80 * np.tanh(NOISE)), 80 * SWING, ["like radians"]),
    "degrees against radians": (80 * SWING + NOISE, np.radians(80 * SWING), ["like degrees, the dataset like radians"]),
    "m against mm, of three": (
        SWING * [0.3, 0.3, 0.3, 1, 1, 1, 1], SWING * [300, 300, 300, 1, 1, 1, 1], ["like m, the dataset like mm"]
    ),
    "a third of the scale, learned": (0.33 * SWING, SWING, ["scale is 0.33 times"]),
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_another_scale_is_refused_with_both_ranges_and_the_cause(name: str) -> None:
    predicted, true, words = APART[name]
    with pytest.raises(ScaleError) as refusal:
        check_scale(ranges([f"d{i}" for i in range(7)], predicted, true, true, Feature((7,), "float32")))
    told = str(refusal.value)
    assert all(word in told for word in words), told
    assert f"predicted {predicted[:, 0].min():.4g} … {predicted[:, 0].max():.4g}" in told
    assert f"true {true[:, 0].min():.4g} … {true[:, 0].max():.4g}" in told


BAD_BUT_COMPARABLE = {
    "right": SWING,
    "the mean": np.zeros_like(SWING),
    "nearly the mean": 0.01 * NOISE,
    "shrunk, as one that has not learned all": 0.5 * SWING + 0.4 * NOISE,
    "another sign": -SWING,
    "beside": SWING + 3,
    "only noise": np.tanh(NOISE),
    "wide noise": 2 * NOISE,
    "another order": SWING[:, ::-1],
    "one dimension in other units": SWING * [100, 1, 1, 1, 1, 1, 1],
}


@pytest.mark.parametrize("name", BAD_BUT_COMPARABLE)
@pytest.mark.parametrize(("scale", "centre"), [(1.0, 0.0), (0.05, 0.4), (100.0, 0.0), (200.0, 256.0)])
def test_a_bad_policy_on_the_right_scale_is_compared(name: str, scale: float, centre: float) -> None:
    predicted, true = scale * BAD_BUT_COMPARABLE[name] + centre, scale * SWING + centre
    if name == "nearly the mean" and scale >= 100 and centre == 0.0:
        return  # within ±4 of 0 against ±100: that is what normalised predictions look like
    notes = check_scale(ranges([f"d{i}" for i in range(7)], predicted, true, true, Feature((7,), "float32")))
    assert bool(notes) == (name == "one dimension in other units")


def test_dimensions_that_never_change_are_left_out_of_what_is_relative(tmp_path: Path) -> None:
    def act(episode: int, frame: int) -> np.ndarray:
        return np.array([np.sin(frame / 3), 0.5], np.float32)

    root = write(tmp_path / "data", action=act)
    found = evaluate(Knowing(lambda true, _: true + np.float32(0.25), act=act), root)
    ours = found.errors[POLICY]
    assert ours.moving.tolist() == [True, False] and np.isnan(ours.normalised_by_dimension[1])
    assert ours.normalised == pytest.approx(0.25 / ours.std[0])
    assert ours.mse == pytest.approx(0.0625, rel=1e-6)


def test_nothing_moves(tmp_path: Path) -> None:
    root = write(tmp_path / "data", action=lambda episode, frame: np.array([0.5, 2], np.float32))
    out = tmp_path / "out"
    policy = Knowing(lambda true, _: true + np.float32(0.25), act=lambda episode, frame: np.array([0.5, 2], np.float32))
    found = evaluate(policy, root)
    assert "never change" in found.lines[0]
    from tactus.runtime.diagnosis.offline.report import write_report

    page = write_report(out, found).read_text()
    assert "never change" in page and not re.search(r"\bnan\b", page)


def test_trajectories_are_what_would_be_executed() -> None:
    episode = Episode(3, np.zeros((10, 1), np.float32), np.zeros(10, int), np.arange(10))
    frames = [Frame(0, t) for t in (0, 4, 8)]
    chunks = np.stack([np.full((3, 1), t, float) for t in (0, 4, 8)])
    [found] = executed([episode], frames, chunks)
    assert found.sources.tolist() == [0, 0, 0, -1, 4, 4, 4, -1, 8, 8]
    assert np.isnan(found.actions[[3, 7]]).all() and found.actions[5, 0] == 4


def test_a_late_trajectory_is_far_frame_by_frame_and_near_when_aligned() -> None:
    wave = np.sin(np.arange(120) / 8)[:, None].astype(np.float32)
    episode = Episode(0, wave, np.zeros(120, int), np.arange(120))
    late = np.concatenate([wave[:1].repeat(6, 0), wave[:-6]])
    frames = [Frame(0, t) for t in range(0, 120, 10)]
    chunks = np.stack([late[t : t + 10] for t in range(0, 120, 10)])
    found = executed([episode], frames, chunks)
    [alike] = similarities([episode], found, wave.std(0).astype(float))
    assert alike.dtw < 0.2 * alike.apart and alike.frechet < 0.8
    [same] = similarities(
        [episode],
        executed([episode], frames, np.stack([wave[t : t + 10] for t in range(0, 120, 10)])),
        wave.std(0).astype(float),
    )
    assert same[1:] == (0, 0, 0)
    smooth = smoothness([episode], found)
    assert smooth.true == pytest.approx(smooth.inside, rel=0.15) == pytest.approx(smooth.seam, rel=0.4)
    rough = smoothness([episode], executed([episode], frames, chunks + np.arange(12)[:, None, None] % 2))
    assert rough.seam is not None and rough.inside == smooth.inside and rough.seam > 5 * rough.inside


MARGINS = {
    "better": ([Margin("a", 1, 0.5, 0.4, 0.6), Margin("b", 1, 0.2, 0.1, 0.3)], "better than both"),
    "worse": ([Margin("a", 1, -0.5, -0.6, -0.4), Margin("b", 1, -0.2, -0.3, -0.1)], "worse than both"),
    "mixed": ([Margin("a", 1, -0.5, -0.6, -0.4), Margin("b", 1, 0.2, 0.1, 0.3)], "worse than a, better than b"),
    "open": ([Margin("a", 1, 0.01, -0.1, 0.1), Margin("b", 1, 0.2, 0.1, 0.3)], "better than b, and not to be"),
    "unclear": ([Margin("a", 1, 0.01, -0.1, 0.1), Margin("b", 1, 0.0, -0.1, 0.1)], "cannot be told from the baselines"),
    "few": ([Margin("a", 1, 0.5, None, None), Margin("b", 1, -0.2, None, None)], "worse than b, better than a"),
}  # fmt: skip


@pytest.mark.parametrize("name", MARGINS)
def test_the_verdict_is_in_plain_words(name: str, data: Path) -> None:
    found, words = MARGINS[name]
    lines = verdict(evaluate(Knowing(), data).errors[POLICY], found)
    assert words in lines[0] and len(lines) == 3
    assert ("no interval" in lines[1]) == (name == "few")


# --- real checkpoints through the real classes


def swing(width: int, scale: float = 1.0, centre: float = 0.0) -> Callable[[int, int], np.ndarray]:
    return lambda episode, frame: (centre + scale * np.sin(frame / 5 + episode + np.arange(width))).astype(np.float32)


CHECKPOINTS: dict[str, tuple[Callable[..., Path], dict[str, Any], dict[str, Any]]] = {
    "act, LIBERO with two cameras": (
        checkpoints.act, {}, {"cameras": {"image": (64, 64), "image2": (64, 64)}, "video": True}
    ),
    "diffusion with history, PushT": (
        checkpoints.diffusion,
        {"n_obs_steps": 2, "state": 2, "action": 2, "ranges": {"action": (0, 512), STATE: (0, 512)}},
        {"cameras": {"image": (96, 96)}, "video": True, "scale": 200, "centre": 256},
    ),
    "act, ALOHA's fourteen joints at 50 Hz": (
        checkpoints.act, {"state": 14, "action": 14}, {"cameras": {"top": (60, 80)}, "fps": 50}
    ),
    "smolvla with tokens, three cameras": (
        checkpoints.smolvla, {"state": 6, "action": 6}, {"cameras": {c: (64, 64) for c in ("top", "wrist", "side")}}
    ),
    "pi0 with tokens, two cameras": (
        checkpoints.pi0, {}, {"cameras": {"image": (64, 64), "image2": (64, 64)}, "video": True}
    ),
    "vqbet with a history of five": (checkpoints.vqbet, {}, {"cameras": {"image": (64, 64)}}),
}  # fmt: skip


BRIEF = ("act, LIBERO with two cameras", "diffusion with history, PushT")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name not in BRIEF)) for name in CHECKPOINTS]
)
def test_checkpoints_are_compared_on_datasets_of_their_shape(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, options, shape = CHECKPOINTS[name]
    shape = dict(shape)
    scale, centre, cameras = shape.pop("scale", 1), shape.pop("centre", 0), shape["cameras"]
    width, state = options.get("action", 7), options.get("state", 8)
    folder = make(tmp_path / "checkpoint", images={f"observation.images.{c}": s for c, s in cameras.items()}, **options)
    root = write(
        tmp_path / "data", action=swing(width, scale, centre), state=swing(state, scale, centre), episodes=2, length=12,
        tasks=("pick up the milk", "push the block"), **shape,
    )  # fmt: skip
    line = ["offline", f"--policy.path={folder}", f"--dataset_root={root}", f"--output_dir={tmp_path / 'out'}"]
    with checkpoints.tiny_pi0():
        status = main([*line, "--stride=4", "--policy.max_batch=4"])
    out = capsys.readouterr()
    assert status == 0, out.err
    assert (
        "2 episodes, 25 frames, 7 of them asked for a chunk (every 4)" in out.out
        and f"{shape.get('fps', 10)} Hz" in out.out
    )
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert np.isfinite(summary["errors"][POLICY]["mse"]) and len(summary["dimensions"]) == width
    assert [row["task"] for row in summary["tasks"]] == ["pick up the milk", "push the block"]
    # a float's rounding, and nothing else, may come of company: noise is the frame's own
    assert summary["latency"]["batch_changes_actions_by_sigma"] < 1e-3


def test_a_frame_is_given_as_it_was_written(tmp_path: Path) -> None:
    """Pictures to the grey level, the history's ticks in order, the first frame repeated before it, its task."""

    def picture(camera: int, episode: int, frame: int) -> np.ndarray:
        return np.random.default_rng([camera, episode, frame]).integers(0, 256, (32, 48, 3), np.uint8)

    cameras = {"top": (32, 48), "wrist": (32, 48), "unread": (32, 48)}
    root = write(tmp_path / "data", cameras=cameras, picture=picture, tasks=("a", "b"))
    names = [f"observation.images.{camera}" for camera in ("top", "wrist")]
    inputs = {STATE: Feature((2,), "float64")} | {name: image(32, 48) for name in names}
    for offsets in ((0,), (-2, -1, 0)):
        spec = PolicySpec("p", inputs, Feature((WIDTH,), "float32"), 1, observation_offsets=offsets)
        demonstrations = Demonstrations(root, spec, [2, 1])
        assert [one.number for one in demonstrations.episodes] == [1, 2]
        for frame in (Frame(0, 0), Frame(0, 1), Frame(1, 7), Frame(1, 21)):
            episode, seen = frame.episode + 1, demonstrations.observation(frame)
            ticks = [max(0, frame.frame + offset) for offset in offsets]
            for camera, name in enumerate(names):
                expected = np.stack([picture(camera, episode, tick) for tick in ticks])
                assert np.array_equal(seen.arrays[name], expected if len(offsets) > 1 else expected[0])
            states = np.array([[episode, tick] for tick in ticks], float)
            assert np.array_equal(seen.arrays[STATE], states if len(offsets) > 1 else states[0])
            assert seen.arrays[STATE].dtype == np.float64 and {*seen.arrays} == {*inputs}
            assert (seen.tick, seen.task) == (frame.frame, "ab"[episode % 2])


@pytest.mark.parametrize(
    "ranges",
    [None, {"action": (-0.02, 0.02)}],
    ids=["statistics of another dataset", "narrower ones"],
)
def test_plus_minus_one_against_pixels_is_refused(
    ranges: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoints.act(tmp_path / "act", state=2, action=2, ranges=ranges)
    root = write(
        tmp_path / "data", action=swing(2, 250, 256), state=swing(2, 250, 256), cameras={"image": (64, 64)}
    )  # fmt: skip
    line = ["offline", f"--policy.path={folder}", f"--dataset_root={root}", f"--output_dir={tmp_path / 'out'}"]
    assert main(line) == 2
    told = capsys.readouterr()
    assert "different scales" in told.err and "look normalised" in told.err and "statistics say that" in told.err
    assert "true 6" in told.err and "predicted -" in told.err and "--range_check=false" in told.err
    assert not (tmp_path / "out").exists()
    assert main([*line, "--range_check=false"]) == 0


def test_a_checkpoint_that_un_normalises_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lerobot.configs import NormalizationMode

    identity = {kind: NormalizationMode.IDENTITY for kind in ("VISUAL", "STATE", "ACTION")}
    folder = checkpoints.act(tmp_path / "act", state=2, action=2, normalization_mapping=identity)
    root = write(tmp_path / "data", action=swing(2, 250, 256), state=swing(2), cameras={"image": (64, 64)})
    assert main(["offline", f"--policy.path={folder}", f"--dataset_root={root}", f"--output_dir={tmp_path / 'o'}"]) == 2
    assert "look normalised" in capsys.readouterr().err


# --- bad input


def gone(part: str) -> Callable[[Path], Any]:
    return lambda root: shutil.rmtree(root / part) if (root / part).is_dir() else (root / part).unlink()


def rewrite(**changes: Any) -> Callable[[Path], Any]:
    def change(root: Path) -> None:
        file = root / "meta" / "info.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def first_file(folder: str, text: bytes) -> Callable[[Path], Any]:
    return lambda root: next(file for file in sorted((root / folder).rglob("*")) if file.is_file()).write_bytes(text)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
BAD_DATA: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing there": (shutil.rmtree, "dataset_root: no folder "),
    "a file": (lambda root: (shutil.rmtree(root), root.write_text("x")), "dataset_root: no folder "),
    "no meta": (gone("meta"), "is no LeRobotDataset: info.json: No such file"),
    "no tasks": (gone("meta/tasks.parquet"), "is not whole: meta/tasks.parquet is missing"),
    "no episodes": (gone("meta/episodes"), "is not whole: meta/episodes is missing"),
    "no data": (gone("data"), "there is no data/chunk-000/file-000.parquet"),
    "no video": (gone("videos"), ".mp4 is missing"),
    "a pointer for a video": (first_file("videos", POINTER), "is a Git LFS pointer"),
    "a pointer for data": (first_file("data", POINTER), "is a Git LFS pointer"),
    "a cut file": (first_file("data", b"PAR1"), "cannot be read: "),
    "an old version": (rewrite(codebase_version="v2.1"), "is a LeRobotDataset v2.1; accepted: v3.0"),
    "no episode at all": (rewrite(total_episodes=0), "has no episode"),
    "more episodes than data": (rewrite(total_episodes=9), "lack frames of episode 3"),
}


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("filmed") / "data", cameras={"front": (64, 64)}, video=True, length=6)


@pytest.mark.parametrize("name", BAD_DATA)
def test_a_dataset_that_cannot_be_read_is_a_sentence(
    name: str, filmed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_it, words = BAD_DATA[name]
    root = tmp_path / "data"
    shutil.copytree(filmed, root)
    break_it(root)
    assert main(["offline", KNOWING, f"--dataset_root={root}", f"--output_dir={tmp_path / 'out'}"]) == 2
    told = capsys.readouterr().err
    assert words in told and str(root) in told and "Traceback" not in told and "huggingface" not in told.lower()
    assert not (tmp_path / "out").exists()


BAD_LINES = {
    "no dataset": (["--dataset_root=/proc"], "is no LeRobotDataset"),
    "none given": ([], "dataset_root: not given"),
    "no such episode": (["{data}", "--episodes=[1,7,9]"], "episodes: found 7, 9; {root} has 0 to 2"),
    "an episode that is no number": (["{data}", "--episodes=[a]"], "expected a whole number"),
    "a negative episode": (["{data}", "--episodes=[-1]"], "episodes.0: found -1; must not be negative"),
    "a count": (["{data}", "--episodes=3"], "episodes: found 3; expected a list"),
    "no episodes": (["{data}", "--episodes=[]"], "episodes: none; name at least one"),
    "a stride of 0": (["{data}", "--stride=0"], "stride: found 0; must be positive"),
    "half a stride": (["{data}", "--stride=0.5"], "expected a whole number"),
    "nowhere to write": (["{data}", "--output_dir=/proc/x"], "output_dir: /proc/x cannot be written"),
    "results there": (["{data}", "--output_dir={full}"], "already holds results"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_line_that_cannot_be_is_a_sentence(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "summary.json").write_text("{}")
    keys, words = BAD_LINES[name]
    filled = [key.format(data=f"--dataset_root={data}", full=tmp_path / "full") for key in keys]
    assert main(["offline", KNOWING, *filled]) == 2
    told = capsys.readouterr().err
    assert words.format(root=data) in told and "Traceback" not in told
    assert not (tmp_path / "outputs").exists()


CAMERA = {"image": (64, 64)}
UNFIT: dict[str, tuple[dict[str, Any], dict[str, Any], list[str], str]] = {
    "another camera": (
        {"state": 2, "action": 3}, {"cameras": {"front": (64, 64)}}, [],
        "the policy needs it, the dataset has observation.images.front, observation.state",
    ),
    "another camera, with advice": (
        {"state": 2, "action": 3}, {"cameras": {"front": (64, 64)}}, [],
        "give --policy.rename='{{observation.images.front: observation.images.image}}'",
    ),
    "another action": (
        {"state": 2, "action": 7}, {"cameras": CAMERA}, [], "action: shape: dataset 3, policy 7"
    ),
    "another state": (
        {"state": 8, "action": 3}, {"cameras": CAMERA}, [], "observation.state: shape: dataset 2, policy 8"
    ),
    "another size": (
        {"state": 2, "action": 3}, {"cameras": {"image": (32, 64)}}, [],
        "observation.images.image: shape: dataset 32x64x3, policy 64x64x3; accept it with --allow image_size",
    ),
    "another rate": ({"state": 2, "action": 3}, {"cameras": CAMERA}, ["--policy.fps=30"], "fps: dataset 10, policy 30"),
    "another robot": (
        {"state": 2, "action": 3}, {"cameras": CAMERA}, ["--policy.robot=other"], "trained on other, this is bench"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_a_policy_that_reads_or_does_something_else_is_refused_with_both_names(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    widths, shape, keys, words = UNFIT[name]
    folder = checkpoints.act(tmp_path / "act", images={"observation.images.image": (64, 64)}, **widths)
    root = write(tmp_path / "data", episodes=1, length=4, **shape)
    assert main(["offline", f"--policy.path={folder}", f"--dataset_root={root}", *keys]) == 2
    told = capsys.readouterr().err
    assert words.format() in told and str(root) in told and "act:act:" in told, told


def test_renamed_it_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = checkpoints.act(tmp_path / "act", state=2, action=WIDTH, ranges={"action": (-5, 5)})
    root = write(tmp_path / "data", cameras={"front": (64, 64)}, length=6)
    rename = "--policy.rename={observation.images.front: observation.images.image}"
    line = ["offline", f"--policy.path={folder}", f"--dataset_root={root}", rename, f"--output_dir={tmp_path / 'out'}"]
    assert main(line) == 0, capsys.readouterr().err


class Broken(Knowing):
    def __init__(self, how: str) -> None:
        super().__init__(max_batch=1)
        self.how = how

    def infer(self, requests: Any) -> Any:
        chunks = super().infer(requests)
        if self.how == "raises":
            raise ZeroDivisionError("by nothing")
        if self.how == "nan":
            chunks[0].actions[3, 1] = np.nan
        if self.how == "none":
            return []
        if self.how == "short":
            return [type(chunk)(chunk.start, chunk.actions[:3]) for chunk in chunks]
        return chunks


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raises", "predicting frame 0 raised ZeroDivisionError: by nothing"),
        ("nan", "not finite at frame 0"),
        ("none", "gave 0 chunks for 1 frames"),
        ("short", r"gave a chunk of \[3, 3\] at frame 0, not \[8, 3\]"),
    ],
)
def test_a_policy_that_breaks_is_named(how: str, words: str, data: Path) -> None:
    policy = Broken(how)
    with pytest.raises(SpecError, match=f"policy knowing.*{words}"):
        Predictor(policy, Demonstrations(data, policy.spec), 0).predict([Frame(0, 0)])


@pytest.mark.parametrize("names", [None, ["actions"], {"motors": ["a", "b", "c"]}, ["a", "b", "c"], {}, []])
def test_names_of_other_peoples_datasets(names: Any, data: Path, tmp_path: Path) -> None:
    """One name for all seven, as LIBERO's has it, is none."""
    shutil.copytree(data, tmp_path / "data")
    file = tmp_path / "data" / "meta" / "info.json"
    info = json.loads(file.read_text())
    info["features"]["action"]["names"] = names
    file.write_text(json.dumps(info))
    found = Demonstrations(tmp_path / "data", Knowing().spec)
    three = ["a", "b", "c"]
    assert found.names == (three if names in (three, {"motors": three}) else ["action 0", "action 1", "action 2"])


# --- what is told and written


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A report's folder, and what the terminal said, of a policy half a unit beside."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("told")
    units, names = ("deg", "deg", "mm"), ("shoulder_pan.pos", "elbow_flex.pos", "gripper & <jaw>")
    root = write(folder / "data", episodes=6, tasks=("push <the> block", "pull"), units=units, names=names)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        line = ["offline", KNOWING, "--policy.offset=0.5", f"--dataset_root={root}", f"--output_dir={folder / 'out'}"]
        assert main(line) == 0
    return folder / "out", out.getvalue()


def test_the_terminal_says_what_then_how_good(told: tuple[Path, str]) -> None:
    folder, out = told
    lines = out.splitlines()
    assert (
        lines[0].startswith("policy:  knowing") and lines[1].startswith("dataset: ") and " of bench, 10 Hz" in lines[1]
    )
    assert lines[2] == "compare: 6 episodes, 135 frames, 19 of them asked for a chunk (every 8)"
    assert re.match(r"shoulder_pan.pos +-4 … 3.875 +-3.5 … 4.375  deg", lines[4])
    assert lines[-3].startswith("The policy is better than both baselines: its normalised error is 0.2")
    assert re.match(r"Repeating the last action has .* σ: the policy's error is \d+ % less \(95 % interval", lines[-2])
    assert lines[-1].startswith("The mean action has ") and f"report: {folder / 'report.html'}" in out
    assert re.search(
        r"latency of 4 frames a call, ms: min .*, mean .*, median .*, p95 .*, max .*; .* frames a second", out
    )


def test_tables_and_summary_hold_the_same(told: tuple[Path, str]) -> None:
    folder, _ = told
    summary = json.loads((folder / "summary.json").read_text())
    tables = {file.stem: [*csv.DictReader(file.open())] for file in (folder / "tables").iterdir()}
    assert {*tables} == {"dimensions", "horizon", "episodes", "tasks", "latency"}
    assert summary["errors"][POLICY]["mse"] == 0.25 and summary["errors"][POLICY]["mae"] == 0.5
    assert [float(row["mse"]) for row in tables["dimensions"]] == [0.25] * 3
    assert [row["unit"] for row in tables["dimensions"]] == ["deg", "deg", "mm"]
    assert len(tables["horizon"]) == 8 and len(tables["episodes"]) == 6 and len(tables["tasks"]) == 2
    assert sum(int(row["compared"]) for row in tables["horizon"]) == summary["errors"][POLICY]["compared"]
    assert {float(row["mae, elbow_flex.pos"]) for row in tables["horizon"]} == {0.5}


def test_figures_stand_beside_the_page(told: tuple[Path, str]) -> None:
    names = {"horizon", "dimensions", "heat", "scatter", "episodes", "latency", "time_median", "time_worst"}
    files = [*(told[0] / "figures").iterdir()]
    assert {file.stem for file in files} == names
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_browser_shows_it(browser: Any, told: tuple[Path, str], width: int, theme: str) -> None:
    file = told[0] / "report.html"
    show(browser, file, width, theme)
    assert complaints(browser) == [] and requests(browser) == {file.as_uri()}
    page = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert page[0] <= page[1] == width
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => [s.getBoundingClientRect(), s.getBBox()])"
        ".map(([r, b]) => [r.width, r.height, b.width, b.height])"
    )
    assert len(sizes) == 8 and all(min(size) > 100 for size in sizes)
    assert [text for contrast, text in contrasts(browser) if contrast < 4.5] == []


@pytest.mark.parametrize("package", ["matplotlib", "jinja2", "similaritymeasures"])
def test_a_missing_package_is_named_with_the_cure(package: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nfrom tactus.runtime.commands import main\nsys.exit(main())"
    command = [sys.executable, "-c", code, "offline", f"--dataset_root={tmp_path}"]
    run = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert run.returncode == 1
    assert f"needs {package}" in run.stderr and "pip install 'tactus[report]'" in run.stderr


def test_text_from_outside_is_text(told: tuple[Path, str]) -> None:
    page = (told[0] / "report.html").read_text()
    assert "push <the> block" not in page and "push &lt;the&gt; block" in page and "<script" not in page
    assert "<jaw>" not in page


def test_the_policy_of_a_config_is_any(data: Path, tmp_path: Path) -> None:
    """A policy that is not LeRobot's, and one of ours that is scripted."""
    line = ["--policy.type=ticker", "--policy.width=3", "--policy.cameras=0", "--policy.horizon=4"]
    root = write(
        tmp_path / "data", state=swing(3), action=lambda e, t: np.array([t, t, t % 7], np.float32),
        names=[f"joint_{i}" for i in range(3)],
    )  # fmt: skip
    assert main(["offline", *line, f"--dataset_root={root}", f"--output_dir={tmp_path / 'out'}"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["mse"] for row in summary["dimensions"][:2]] == [0, 0] and summary["dimensions"][2]["mse"] > 1
