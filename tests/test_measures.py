"""What a sweep's numbers mean: intervals against published ones, pairs, delays, and advice that follows from them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeps import FPS, WEAKNESS, grid, make_sweep

from tactus.runtime.lab.measures import (
    CellMeasures,
    Mode,
    as_record,
    measure,
    missing,
    mode_names,
    modes,
    paired,
    policies,
    references,
    tango,
)
from tactus.runtime.lab.recommend import points, recommend
from tactus.runtime.lab.sweep_folder import Sweep, read_sweep
from tactus.runtime.lab.sweep_settings import SYNCHRONOUS, Cell
from tactus.runtime.lab.worth import differences, worth
from tactus.runtime.robot_node.action_smoothness import action_std, rms_jump
from tactus.runtime.statistics import wilson

LATENCIES = ("fixed:0", "fixed:2", "fixed:4")
LEROBOT = [("LeRobot async", Cell(latency, "weighted_average")) for latency in LATENCIES]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("measures") / "sweep"
    return read_sweep(make_sweep(folder, grid(LATENCIES), 40, LEROBOT))


@pytest.fixture(scope="module")
def cells(sweep: Sweep) -> list[CellMeasures]:
    return measure(sweep)


def find(cells: list[CellMeasures], latency: str, aggregate: str, label: str = "") -> CellMeasures:
    wanted = (latency, aggregate, label)
    return next(
        cell for cell in cells if not cell.reference and (cell.latency, cell.mode.aggregate, cell.mode.label) == wanted
    )


@pytest.mark.parametrize(
    ("only_first", "only_second", "pairs", "interval"),
    [
        (1, 7, 21, (-0.517, -0.026)),  # airway reactivity, Fagerland, Lydersen and Laake 2014
        (6, 16, 161, (-0.1240, -0.0054)),  # complete response, contingencytables 3.0 for R
    ],
)
def test_tango_against_published_intervals(
    only_first: int, only_second: int, pairs: int, interval: tuple[float, float]
) -> None:
    digits = 3 if pairs == 21 else 4
    assert tuple(round(bound, digits) for bound in tango(only_first, only_second, pairs)) == interval


def test_tango_at_another_level() -> None:
    """PropCIs for R: scoreci.mp(25, 28, 618, 0.90); its first argument is our second."""
    assert tango(28, 25, 618, 1.644854) == pytest.approx((-0.0148, 0.0247), abs=5e-5)


def test_tango_at_the_edges() -> None:
    assert tango(0, 0, 0) == (-1.0, 1.0)
    assert tango(10, 0, 10) == pytest.approx((0.445, 1.0), abs=1e-3)
    z2 = 1.959964**2
    assert tango(0, 0, 10) == pytest.approx((-z2 / (10 + z2), z2 / (10 + z2)), abs=1e-6)


counts = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200)).filter(sum)


@given(counts)
def test_tango_is_an_interval_around_the_difference_and_mirrors(found: tuple[int, int, int]) -> None:
    only_first, only_second, _ = found
    pairs = sum(found)
    low, high = tango(only_first, only_second, pairs)
    assert -1 <= low <= (only_first - only_second) / pairs <= high <= 1
    mirrored = tango(only_second, only_first, pairs)
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)
    wider = tango(only_first, only_second, pairs, 2.576)
    assert wider[0] <= low + 1e-9 and high <= wider[1] + 1e-9


@given(st.integers(1, 20), st.integers(0, 20), st.integers(0, 60))
def test_more_of_the_same_narrows_tango(only_first: int, only_second: int, alike: int) -> None:
    pairs = only_first + only_second + alike
    low, high = tango(only_first, only_second, pairs)
    many = tango(4 * only_first, 4 * only_second, 4 * pairs)
    assert many[1] - many[0] < high - low


results = st.dictionaries(st.integers(0, 30), st.booleans(), max_size=30)


@given(results, results)
def test_pairs_are_the_episodes_both_have_played(first: dict[int, bool], second: dict[int, bool]) -> None:
    common = first.keys() & second.keys()
    gap = paired(first, second)
    if not common:
        assert gap is None
        return
    assert gap is not None
    assert gap.episodes == len(common)
    rates = [sum(success[episode] for episode in common) / len(common) for success in (first, second)]
    assert gap.value == pytest.approx(rates[0] - rates[1])
    back = paired(second, first)
    assert back is not None and back.value == pytest.approx(-gap.value)


@pytest.mark.slow
def test_success_and_its_intervals(sweep: Sweep, cells: list[CellMeasures]) -> None:
    reference = cells[0]
    assert reference.reference and reference.difference is None
    assert sum(cell.reference for cell in cells) == 1
    for found, cell in zip(sweep.cells, cells, strict=True):
        assert cell.successes == sum(row["success"] for row in found.rows)
        assert (cell.low, cell.high) == wilson(cell.successes, cell.episodes)
        if not cell.reference:
            assert cell.difference == paired(cell.success, reference.success)


def test_starving_staleness_and_requests(sweep: Sweep, cells: list[CellMeasures]) -> None:
    found = next(one for one in sweep.cells if one.cell.latency == "fixed:4" and one.cell.aggregate == "latest_only")
    cell = find(cells, "fixed:4", "latest_only")
    assert cell.starved == sum(row["starved_ticks"] for row in found.rows) / sum(row["ticks"] for row in found.rows)
    assert cell.stale is not None and 3 < cell.stale < 4  # the first chunk of an episode is waited for
    assert cell.requests == np.mean([row["requests"] for row in found.rows])
    assert (cell.delay, cell.latency_p50, cell.latency_p95) == (4.0, 4.0, 4.0)


def test_seams_are_measured_by_the_reference(sweep: Sweep, cells: list[CellMeasures]) -> None:
    std = action_std(row["jumps"] for row in sweep.cells[0].rows)
    for found, cell in zip(sweep.cells, cells, strict=True):
        assert cell.seam == rms_jump([row["jumps"] for row in found.rows], std)
    smooth, rough = find(cells, "fixed:2", "rtc").seam, find(cells, "fixed:2", "latest_only").seam
    assert smooth is not None and rough is not None and smooth < rough
    assert find(cells, "fixed:2", "weighted_average", "LeRobot async").seam is None  # its node knows no sources


def test_time_adds_up(sweep: Sweep, cells: list[CellMeasures]) -> None:
    for found, cell in zip(sweep.cells, cells, strict=True):
        wall_ms = 1000 * sum(timing["wall_s"] for timing in found.timings)
        assert sum(cell.tick_ms.values()) * cell.ticks == pytest.approx(wall_ms, rel=1e-3)
    waited, late = find(cells, "fixed:0", "latest_only"), find(cells, "fixed:4", "latest_only")
    assert waited.wire_ms == pytest.approx(2.0, abs=0.3)
    assert late.wire_ms is None and not late.round_trips_ms  # the simulator's time would be in it


def test_tasks_add_up_in_their_natural_order(tmp_path: Path) -> None:
    cell = measure(read_sweep(make_sweep(tmp_path / "sweep", grid(("fixed:2",), ("rtc",)), 12)))[1]
    assert [task.group for task in cell.tasks] == [f"libero_object/{task}" for task in range(5)]
    assert sum(task.episodes for task in cell.tasks) == 12
    assert sum(task.successes for task in cell.tasks) == cell.successes


@pytest.mark.parametrize(
    ("latency", "delay", "plain"),
    [
        ("fixed:3", 3.0, True),
        ("fixed:120ms", 3.0, True),
        ("fixed:100ms", 2.0, True),
        ("fixed:3,drop=0.1", 3.0, False),
        ("lognormal:3,sigma=0.1", 3.5, False),
        ("trace:/gone", 3.5, False),
    ],
)
def test_where_a_latency_stands(tmp_path: Path, latency: str, delay: float, plain: bool) -> None:
    playable = "lognormal:3,sigma=0.1" if latency.startswith("trace") else latency
    sweep = read_sweep(make_sweep(tmp_path / "sweep", [SYNCHRONOUS, Cell(playable)], 6))
    cell = measure(
        Sweep(sweep.about, [one._replace(cell=replace(one.cell, latency=latency)) for one in sweep.cells[1:]])
    )[0]
    assert cell.delay == pytest.approx(delay, abs=0.5 if "." in str(delay) and delay % 1 else 0)
    assert cell.plain is plain


def test_names_say_what_differs() -> None:
    ours = [Mode("", "rtc", 0.5, None), Mode("", "rtc", 0.9, None), Mode("", "average", 0.5, None)]
    theirs = Mode("LeRobot async", "weighted_average", 0.5, None)
    assert list(mode_names([*ours, theirs]).values()) == [
        "rtc, threshold 0.5", "rtc, threshold 0.9", "average, threshold 0.5", "LeRobot async",
    ]  # fmt: skip
    assert list(mode_names([ours[0], ours[2]]).values()) == ["rtc", "average"]
    horizons = [Mode("", "rtc", 0.5, None), Mode("", "rtc", 0.5, 8)]
    assert list(mode_names(horizons).values()) == ["rtc, own horizon", "rtc, horizon 8"]
    assert horizons[1].flags == "--aggregate=rtc --chunk_size_threshold=0.5 --execution_horizon=8"


def test_an_unfinished_sweep_says_what_is_missing(tmp_path: Path) -> None:
    named = {"fixed-4_rtc_threshold-0.5": 3, "fixed-2_rtc_threshold-0.5": 0}
    sweep = read_sweep(make_sweep(tmp_path / "sweep", grid(LATENCIES, ("rtc",)), 8, played=named))
    assert missing(sweep) == [(name, named[name], 8) for name in sorted(named)]
    assert len(measure(sweep)) == 3


def test_without_a_reference_nothing_is_compared(tmp_path: Path) -> None:
    sweep = read_sweep(make_sweep(tmp_path / "sweep", grid(LATENCIES), 8, played={SYNCHRONOUS.name: 0}))
    cells = measure(sweep)
    assert not any(cell.reference or cell.difference or cell.seam for cell in cells)
    advice = recommend(sweep, cells)
    assert advice is not None
    assert any("not been played yet" in sentence for sentence in advice.sentences)


def test_a_record_is_flat(cells: list[CellMeasures]) -> None:
    for cell in cells:
        assert all(isinstance(value, str | int | float | None) for value in as_record(cell).values())


def test_advice_is_for_the_next_latency_up(sweep: Sweep, cells: list[CellMeasures]) -> None:
    advice = recommend(sweep, cells, [110.0] * 20, "the lab's network")
    assert advice is not None and advice.latency is not None
    assert advice.latency.ticks == 3  # 2.2 ticks at 20 Hz
    assert advice.choice.latency == "fixed:4" and not advice.beyond
    assert advice.choice.mode.aggregate == "rtc" and advice.flags == "--aggregate=rtc --chunk_size_threshold=0.5"
    assert "the lab's network" in advice.sentences[0] and "fixed:4" in advice.sentences[0]


def test_advice_from_the_sweep_itself(sweep: Sweep, cells: list[CellMeasures]) -> None:
    advice = recommend(sweep, cells)
    assert advice is not None and advice.latency is not None
    assert advice.latency.ms == pytest.approx(np.percentile(cells[0].round_trips_ms, 95))
    assert advice.latency.ticks == 1 and advice.choice.latency == "fixed:2"


def test_advice_beyond_the_grid_says_so(sweep: Sweep, cells: list[CellMeasures]) -> None:
    advice = recommend(sweep, cells, [900.0, float("nan")], "trace:far")
    assert advice is not None and advice.beyond and advice.choice.latency == "fixed:4"
    assert "beyond this grid" in advice.sentences[0] and "fixed:18" in advice.sentences[0]
    assert "1 of them lost" in advice.sentences[0]


def test_a_swept_trace_is_judged_in_its_own_cells(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text("60\n70\n80\n")
    latency = f"trace:{trace}"
    sweep = read_sweep(make_sweep(tmp_path / "sweep", grid((*LATENCIES, latency), ("rtc", "average")), 10))
    advice = recommend(sweep, measure(sweep), [60.0, 70.0, 80.0], latency)
    assert advice is not None and advice.choice.latency == latency


def test_other_labs_are_never_recommended(tmp_path: Path) -> None:
    weak = [Cell("fixed:2", "temporal_ensemble")]
    strong = [("LeRobot async", Cell("fixed:2", "rtc"))]
    sweep = read_sweep(make_sweep(tmp_path / "sweep", [SYNCHRONOUS, *weak], 20, strong))
    advice = recommend(sweep, measure(sweep))
    assert advice is not None and advice.choice.mode.label == ""
    only = Sweep(sweep.about, [one for one in sweep.cells if one.label or one.cell.synchronous])
    assert recommend(only, measure(only)) is None


def outcome(cell: CellMeasures, successes: set[int], starved: float, seam: float, requests: float) -> CellMeasures:
    success = {episode: episode in successes for episode in range(40)}
    return replace(
        cell, success=success, episodes=40, successes=len(successes), rate=len(successes) / 40,
        starved=starved, seam=seam, requests=requests,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ((0.2, 0.5, 9.0), (0.0, 0.9, 12.0), "fewer starved ticks"),
        ((0.001, 0.9, 9.0), (0.0, 0.5, 12.0), "smaller jumps between chunks"),
        ((0.001, 0.52, 12.0), (0.0, 0.51, 9.0), "fewer requests"),
    ],
)
def test_ties_are_broken_in_order(
    sweep: Sweep, cells: list[CellMeasures], first: tuple[float, ...], second: tuple[float, ...], reason: str
) -> None:
    """The first has one success more: by 40 episodes nobody can tell; the third has far fewer."""
    a = outcome(find(cells, "fixed:2", "latest_only"), set(range(30)), *first)
    b = outcome(find(cells, "fixed:2", "weighted_average"), set(range(29)), *second)
    c = outcome(find(cells, "fixed:2", "temporal_ensemble"), set(range(5)), 0.0, 0.1, 1.0)
    advice = recommend(sweep, [cells[0], a, b, c], [50.0])
    assert advice is not None and advice.choice is b
    assert [cell.mode for cell in advice.tied] == [a.mode, b.mode]
    assert [cell.mode for cell in advice.cells] == [b.mode, a.mode, c.mode]
    text = " ".join(advice.sentences)
    assert f"broken by {reason}" in text and "Worse than latest_only: temporal_ensemble by 62" in text


def test_a_young_cell_is_not_considered(tmp_path: Path) -> None:
    young = {"fixed-2_rtc_threshold-0.5": 4}
    sweep = read_sweep(make_sweep(tmp_path / "sweep", grid(LATENCIES), 20, played=young))
    advice = recommend(sweep, measure(sweep))
    assert advice is not None and advice.choice.mode.aggregate != "rtc"
    assert any("too few episodes so far: rtc" in sentence for sentence in advice.sentences)


@given(st.lists(st.floats(0, 2000), min_size=1, max_size=20))
def test_advice_never_judges_below_what_was_measured(sweep: Sweep, cells: list[CellMeasures], ms: list[float]) -> None:
    advice = recommend(sweep, cells, ms)
    assert advice is not None and advice.latency is not None
    p95 = np.percentile(ms, 95)
    assert advice.latency.ticks >= p95 / 1000 * FPS - 1e-6
    assert advice.beyond == (advice.latency.ticks > 4)
    assert advice.beyond or advice.choice.delay >= advice.latency.ticks


def test_points_keep_their_sign() -> None:
    gap = paired({0: True, 1: True}, {0: True, 1: True})
    assert gap is not None and points(gap._replace(low=-0.003, high=0.2)).endswith("−0.3 to +20)")


def test_the_made_up_policies_are_told_apart(cells: list[CellMeasures]) -> None:
    assert modes(cells)[-1].label == "LeRobot async"
    assert {mode.aggregate for mode in modes(cells) if not mode.label} == {*WEAKNESS}


# ---- several policies

TWO = ("teacher", "student")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Chunks of 290 and 31 ms at 20 Hz: 5.8 and 0.6 ticks."""
    folder = tmp_path_factory.mktemp("two") / "sweep"
    cells = grid(("fixed:0", "fixed:2", "fixed:4", "fixed:6"), ("rtc", "latest_only"), policies=TWO)
    return read_sweep(make_sweep(folder, cells, 40))


def test_each_policy_is_held_to_its_own_reference(two: Sweep) -> None:
    cells = measure(two)
    known = references(cells)
    assert policies(cells) == [*TWO] and [*known] == [*TWO] and sum(cell.reference for cell in cells) == 2
    for cell in cells:
        if not cell.reference:
            assert cell.difference == paired(cell.success, known[cell.mode.policy].success)
    std = action_std(row["jumps"] for one in two.cells[:2] for row in one.rows)
    for found, cell in zip(two.cells, cells, strict=True):
        assert cell.seam == rms_jump([row["jumps"] for row in found.rows], std), "one measure for both"
    names = {*mode_names(modes(cells)).values()}
    assert names == {f"{policy} with {aggregate}" for policy in TWO for aggregate in ("rtc", "latest_only")}


def test_policies_are_paired_where_they_differ_in_nothing_else(two: Sweep) -> None:
    cells = measure(two)
    found = differences(cells)
    assert len(found) == 1 + 4 * 2, "the references, and every cell"
    for first, second, gap in found:
        assert (first.mode.policy, second.mode.policy) == TWO
        assert first.latency == second.latency and first.reference == second.reference
        assert first.mode.of_any_policy == second.mode.of_any_policy
        assert gap == paired(second.success, first.success) and gap.episodes == 40
    assert differences(measure(Sweep(two.about, [one for one in two.cells if one.cell.policy == "teacher"]))) == []


def with_chunks(cells: list[CellMeasures], **ms: float) -> list[CellMeasures]:
    return [replace(cell, chunk_ms=[ms[cell.mode.policy]] * 40) for cell in cells]


@pytest.mark.parametrize(
    ("teacher_ms", "student_ms", "judged", "words"),
    [
        (
            290,
            31,
            (6, 2),
            ["teacher 290 ms (5.8 ticks), student 31 ms (0.62 ticks)", "Were student as slow"],
        ),
        (
            31,
            290,
            (2, 6),
            ["Were teacher as slow as student, teacher with rtc would succeed"],
        ),
        (190, 0.3, (4, 2), ["student 0.3 ms (0.006 ticks)", "student: rounds to 0 ticks"]),
        (0.4, 0.3, (2, 2), ["All of them round to 0 ticks", "latency, fixed:2", "No latency would tell"]),
        (90, 60, (2, 2), ["the same swept latency, fixed:2", "both are 2 ticks"]),
        (90, 30, (2, 2), ["the same swept latency, fixed:2", "Sweep fixed:1 and fixed:2, their own, to know"]),
        (640, 290, (6, 6), ["less than it takes", "The grid ends below the chunk time of teacher", "up to fixed:13"]),
        (640, 20, (6, 2), ["The grid ends below the chunk time of teacher", "Were student as slow"]),
    ],
)
def test_what_a_faster_policy_is_worth(
    two: Sweep, teacher_ms: float, student_ms: float, judged: tuple[int, int], words: list[str]
) -> None:
    cells = with_chunks(measure(two), teacher=teacher_ms, student=student_ms)
    found = worth(cells, FPS)
    assert found is not None
    assert tuple(one.cell.delay for one in found.standings.values()) == judged
    assert [one.ticks(FPS) for one in found.standings.values()] == pytest.approx([teacher_ms / 50, student_ms / 50])
    text = " ".join(found.sentences).replace("\u00a0", " ")
    assert all(word in text for word in words), text
    assert ("round to 0" in text or "rounds to 0" in text) == (min(teacher_ms, student_ms) < 25), text
    gap = paired(found.standings["student"].cell.success, found.standings["teacher"].cell.success)
    assert gap is not None and points(gap) in " ".join(found.sentences)


def test_speed_is_worth_what_the_same_episodes_say(two: Sweep) -> None:
    cells = with_chunks(measure(two), teacher=290, student=31)
    found = worth(cells, FPS)
    assert found is not None
    fast = found.standings["student"].cell
    slow = next(cell for cell in cells if cell.mode == fast.mode and cell.latency == "fixed:6")
    gap = paired(fast.success, slow.success)
    assert gap is not None and gap.value > 0 and f"its speed alone is worth {points(gap)}" in found.sentences[2]


@pytest.mark.parametrize("kept", [("teacher",), ("student",)])
def test_one_policy_has_nobody_to_be_faster_than(two: Sweep, kept: tuple[str, ...]) -> None:
    cells = measure(Sweep(two.about, [one for one in two.cells if one.cell.policy in kept]))
    assert worth(cells, FPS) is None
    advice = recommend(two, cells)
    assert advice is not None and "with" not in next(iter(mode_names(modes(cells)).values()))


@pytest.mark.parametrize(
    ("ms", "given", "chosen", "words"),
    [
        ((290, 31), None, None, ["teacher: Latency (its own chunk time", "student: Latency (its own chunk time"]),
        ((290, 31), [110.0], None, ["Latency (the lab's network, 1 requests)", "cells fixed:4"]),
        (
            (640, 31),
            None,
            "student",
            ["beyond this grid", "broken by a chunk time that the grid reaches"],
        ),
        ((190, 31), None, "student", ["broken by a shorter chunk time"]),
    ],
)
def test_advice_names_the_policy(
    two: Sweep, ms: tuple[float, float], given: list[float] | None, chosen: str | None, words: list[str]
) -> None:
    """Each is judged at its own chunk time, unless all are judged at one that is given. A tie goes to the faster."""
    cells = with_chunks(measure(two), teacher=ms[0], student=ms[1])
    if chosen:  # nobody can tell them apart
        cells = [outcome(cell, set(range(30)), 0.0, 0.1, 9.0) for cell in cells]
    advice = recommend(two, cells, given, "the lab's network" if given else "")
    assert advice is not None
    policy = advice.choice.mode.policy
    text = " ".join(advice.sentences).replace("\u00a0", " ")
    assert f"Choose {policy} with " in text and f", {policy} with " in advice.headline
    assert policy == chosen or not chosen
    assert all(word in text for word in words), text
    if given:
        assert {cell.latency for cell in advice.cells} == {"fixed:4"} and len(advice.cells) == 4


def test_measuring_needs_no_plots() -> None:
    code = "import sys; from tactus.runtime.lab import measures, recommend; import tactus.runtime.commands.report"
    code += "\nprint([m for m in ('matplotlib', 'jinja2', 'torch') if m in sys.modules])"
    root = Path(__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
