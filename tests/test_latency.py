"""Latency models: their texts, their numbers, and that seeds mean what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tactus.runtime.wire.latency import LatencyError, LatencyModel


def ticks(text: str, count: int = 2000, fps: float = 30.0, seed: int = 0, episode: int = 0) -> list[int]:
    sampler = LatencyModel.parse(text).sampler(fps, seed, episode)
    return [sampler.draw().ticks for _ in range(count)]


def test_fixed_is_ticks_or_milliseconds_rounded_up() -> None:
    assert set(ticks("fixed:2")) == {2}
    assert set(ticks("fixed:100ms", fps=30)) == {3}  # exactly three ticks, in spite of binary fractions
    assert set(ticks("fixed:101ms", fps=30)) == {4}
    assert set(ticks("fixed:0")) == {0}


def test_measured_is_the_inference_time() -> None:
    sampler = LatencyModel.parse("measured").sampler(20, 0, 0)
    assert [sampler.draw(ms).ticks for ms in (0.0, 1.0, 50.0, 51.0)] == [0, 1, 1, 2]
    assert LatencyModel.parse("measured").needs_reply and not LatencyModel.parse("fixed:1").needs_reply


def test_lognormal_has_its_median_and_spread() -> None:
    drawn = np.array(ticks("lognormal:10,sigma=0.4", 20000))
    assert abs(np.median(drawn) - 10.5) <= 0.5  # rounded up
    assert abs(np.log(drawn).std() - 0.4) < 0.02


def test_drops_and_reordering_have_their_probability() -> None:
    sampler = LatencyModel.parse("fixed:3,drop=0.2,reorder=0.1").sampler(30, 1, 0)
    drawn = [sampler.draw() for _ in range(20000)]
    assert abs(np.mean([d.dropped for d in drawn]) - 0.2) < 0.01
    assert abs(np.mean([d.overtaken for d in drawn]) - 0.8 * 0.1) < 0.01


def test_a_trace_is_replayed_in_order_from_a_seeded_place(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text("# ms\n100\n200\ndrop\n300\n")
    sampler = LatencyModel.parse(f"trace:{file}").sampler(10, 0, 0)
    drawn = [sampler.draw() for _ in range(8)]
    assert drawn[:4] == drawn[4:]
    assert sorted(d.ticks for d in drawn[:4] if not d.dropped) == [1, 2, 3]
    assert sum(d.dropped for d in drawn[:4]) == 1
    order = [0 if d.dropped else d.ticks for d in drawn[:4]]
    assert order in [[1, 2, 0, 3][i:] + [1, 2, 0, 3][:i] for i in range(4)]


def test_seed_and_episode_decide_everything() -> None:
    text = "lognormal:4,drop=0.1"
    assert ticks(text, seed=5, episode=3) == ticks(text, seed=5, episode=3)
    assert ticks(text, seed=5, episode=3) != ticks(text, seed=5, episode=4)
    assert ticks(text, seed=5) != ticks(text, seed=6)
    # an option more does not shift the numbers of the others
    assert ticks("lognormal:4") == ticks("lognormal:4,reorder=0.3")


@pytest.mark.parametrize(
    "text, found",
    [
        ("warp:9", "unknown kind 'warp'"),
        ("", "unknown kind ''"),
        ("fixed", "fixed needs a value"),
        ("fixed:-1", "out of range"),
        ("fixed:two", "'two' is not a number"),
        ("fixed:nan", "'nan' is not a number"),
        ("fixed:1,sigma=2", "unknown option 'sigma'"),
        ("fixed:1,drop=1", "drop=1 is out of range"),
        ("measured:3", "measured takes no value"),
        ("lognormal:0", "out of range"),
        ("trace:/does/not/exist", "cannot read /does/not/exist"),
    ],
)
def test_texts_that_cannot_be_read_say_what_is_accepted(text: str, found: str) -> None:
    with pytest.raises(LatencyError) as caught:
        LatencyModel.parse(text)
    assert found in str(caught.value)
    assert "accepted: fixed:TICKS, measured, lognormal:MEDIAN_TICKS[,sigma=S], trace:FILE" in str(caught.value)


def test_an_empty_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(LatencyError, match="at least one latency"):
        LatencyModel.parse(f"trace:{tmp_path / 'empty'}")
