"""The page of a sweep: whole in itself, the same every time, and readable in a real browser, by day and by night."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sweeps
from hypothesis import given
from hypothesis import strategies as st
from pages import DARK, LIGHT, complaints, contrasts, requests, show
from sweeps import FPS, HORIZON, add_failures, grid, make_sweep, play

from tactus.hal.spec import Feature
from tactus.runtime.commands import main
from tactus.runtime.commands.report_writer import SWEEP_REPORT, load_writer
from tactus.runtime.evaluation.results import ResultsError
from tactus.runtime.lab import figures
from tactus.runtime.lab.measures import measure
from tactus.runtime.lab.report import write_report
from tactus.runtime.lab.sweep_folder import SweepFolder, read_sweep
from tactus.runtime.lab.sweep_settings import SYNCHRONOUS, Cell
from tactus.runtime.lab.timeline import bars, depth, instructive, runs, unanswered
from tactus.runtime.lab.worth import differences
from tactus.runtime.robot_node.action_queue import ActionQueue

pytestmark = pytest.mark.slow

LATENCIES = ("fixed:0", "fixed:2", "fixed:4", "fixed:8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with everything in it: another lab's cells, a latency that varies, failures, text like HTML."""
    folder = tmp_path_factory.mktemp("report") / "sweep"
    cells = [*grid(LATENCIES), Cell("lognormal:3,drop=0.1")]
    lerobot = [("LeRobot async", Cell(latency, "weighted_average")) for latency in LATENCIES]
    make_sweep(folder, cells, 20, lerobot, failures=5)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen settings, unfinished."""
    folder = tmp_path_factory.mktemp("many") / "sweep"
    cells = grid(LATENCIES, thresholds=(0.0, 0.3, 0.5, 0.8))
    make_sweep(folder, cells, 6, played={cells[-1].name: 2, cells[-2].name: 0})
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two policies under every aggregation, one of them slower than the grid goes, and another lab."""
    folder = tmp_path_factory.mktemp("two") / "sweep"
    cells = [*grid(LATENCIES[:3], policies=("teacher", "student")), Cell("lognormal:3,drop=0.1", policy="student")]
    make_sweep(folder, cells, 20, [("LeRobot async", Cell("fixed:2", "weighted_average"))], failures=2)
    write_report(folder)
    return folder


def svgs(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)


def test_everything_is_there(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        "Success by latency", "What asynchrony costs, episode by episode", "Every cell", "Starved and stale", "Seams",
        "Where the time went", "Task by task", "One episode, tick by tick", "Failures", "What to choose, and why",
        "Provenance",
    ]  # fmt: skip
    assert len(svgs(page)) == 6
    names = {"success", "difference", "starving", "seams", "time", "timeline"}
    assert {file.stem for file in (folder / "figures").iterdir()} == names
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in (folder / "figures").iterdir())
    assert "LeRobot async" in page and "--aggregate=" in page


@pytest.mark.long
def test_several_policies_are_compared(two: Path, folder: Path) -> None:
    page = (two / "report.html").read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings[:4] == [
        "Success by latency", "What a faster policy is worth", "Policy against policy",
        "What asynchrony costs, episode by episode",
    ]  # fmt: skip
    assert {file.stem for file in (two / "figures").iterdir()} >= {"success", "worth", "difference"}
    cells = measure(read_sweep(two))
    pairs = differences(cells)
    table = list(csv.DictReader((two / "tables" / "policies.csv").open()))
    assert len(table) == len(pairs) == 1 + 3 * 4
    for row, (first, second, gap) in zip(table, pairs, strict=True):
        assert (row["first"], row["second"], row["latency"]) == ("teacher", "student", first.latency)
        assert (float(row["value"]), float(row["low"]), float(row["high"])) == gap[1:]
        assert (float(row["first_rate"]), float(row["second_rate"])) == (first.rate, second.rate)
    for name in ("cells", "episodes"):
        found = {row["policy"] for row in csv.DictReader((two / "tables" / f"{name}.csv").open())}
        assert found == {"teacher", "student", ""}
    assert page.count("student − teacher") == len(pairs)
    assert "policy teacher" in page and "flow teacher 0815" in page
    plain = (folder / "report.html").read_text()
    assert "Policy against policy" not in plain and not (folder / "tables" / "policies.csv").exists()


def test_a_policy_has_one_colour_and_line_everywhere(two: Path) -> None:
    plan = figures.scheme(measure(read_sweep(two)))
    assert [title for title, _ in plan.panels][-1] == "LeRobot async" and plan.omitted == 0
    looks: dict[str, set[Any]] = {policy: set() for policy in plan.colours}
    for mode, look in plan.looks.items():
        if not mode.label:
            looks[mode.policy].add((look.colour, look.marker, look.line))
    assert [*looks] == ["teacher", "student"] and all(len(found) == 1 for found in looks.values())
    assert looks["teacher"].isdisjoint(looks["student"])
    words = svgs((two / "report.html").read_text())
    for text in words[:3]:
        legend = re.findall(r">([^<>]+)</text>", text)
        assert sum("teacher" in word for word in legend) and sum("student" in word for word in legend)
    for text in words[:2]:
        assert "teacher: 5.8 ticks a chunk" in text and "student: 0.65 ticks a chunk" in text


@pytest.mark.long
@pytest.mark.parametrize(
    "several", [pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long), 6]
)
@pytest.mark.parametrize("thresholds", [pytest.param((0.5,), marks=pytest.mark.long), (0.0, 0.3, 0.5, 0.8)])
def test_however_many_policies_can_be_told_apart(
    several: int, thresholds: tuple[float, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"policy{index}" for index in range(several)]
    monkeypatch.setattr(sweeps, "CHUNK_MS", {name: 20.0 + index for index, name in enumerate(names)})
    cells = grid(("fixed:0", "fixed:2"), ("rtc", "average"), thresholds, names)
    make_sweep(tmp_path / "sweep", cells, 3)
    plan = figures.scheme(measure(read_sweep(tmp_path / "sweep")))
    for _, among in plan.panels:
        assert len(among) <= figures.SETTINGS and {mode.policy for mode in among} == {*names}
        looks = [plan.looks[mode] for mode in among]
        assert len({look[:2] for look in looks}) == len({look.name for look in looks}) == len(among)
    room = max(1, figures.SETTINGS // several)
    assert plan.omitted == 2 * several * max(0, len(thresholds) - room)
    page = write_report(tmp_path / "sweep").read_text()
    assert page.count("Were ") + page.count("judged at the same swept latency") == several - 1


def test_tables_hold_every_cell_task_and_episode(folder: Path) -> None:
    sweep = read_sweep(folder)
    tables = {
        name: list(csv.DictReader((folder / "tables" / f"{name}.csv").open()))
        for name in ("cells", "tasks", "episodes")
    }
    assert len(tables["cells"]) == len(sweep.cells)
    assert len(tables["episodes"]) == sum(len(one.rows) for one in sweep.cells)
    assert sum(int(row["episodes"]) for row in tables["tasks"]) == len(tables["episodes"])
    for row, cell in zip(tables["cells"], measure(sweep), strict=True):
        assert float(row["rate"]) == cell.rate
        assert (row["difference_low"] == "") == (cell.difference is None)


def test_the_page_asks_for_nothing_else(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    outside = re.findall(r"""(?:src|href|url|@import)\s*[=(]\s*["']?(?!data:|#)([^"'\s>]+)""", page)
    assert not outside
    assert "<script" not in page


def test_text_from_outside_is_text(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "pick up <the> thing" not in page and "pick up &lt;the&gt; thing" in page


def test_ids_are_unique_and_links_within_a_figure_lead_somewhere(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    ids = Counter(re.findall(r'\bid="([^"]*)"', page))
    assert ids and max(ids.values()) == 1
    for text in svgs(page):
        ElementTree.fromstring(text)
        links = re.findall(r'(?:href="|url\()#([^")]*)', text)
        assert links and {*links} <= {*re.findall(r'\bid="([^"]*)"', text)}


def test_the_same_results_give_the_same_page(folder: Path) -> None:
    first = (folder / "report.html").read_bytes()
    pictures = {file.name: file.read_bytes() for file in (folder / "figures").iterdir()}
    write_report(folder)
    assert (folder / "report.html").read_bytes() == first
    assert {file.name: file.read_bytes() for file in (folder / "figures").iterdir()} == pictures


def test_a_setting_looks_the_same_everywhere(folder: Path, many: Path) -> None:
    for sweep in (folder, many):
        cells = measure(read_sweep(sweep))
        plan = figures.scheme(cells)
        drawn = [mode for _, among in plan.panels for mode in among]
        assert len(drawn) == len({*drawn}) and {*drawn} == {*plan.looks}
        for _, among in plan.panels:
            looks = [plan.looks[mode][:2] for mode in among]
            assert len(among) <= figures.SETTINGS and len({*looks}) == len(looks)


def test_too_many_settings_are_thinned_out_and_said_so(tmp_path: Path) -> None:
    horizons = [replace(cell, execution_horizon=horizon) for cell in grid(("fixed:2",), ("rtc", "average"), (0.0, 0.5))
                if not cell.synchronous for horizon in (4, 6, 8, 12)]  # fmt: skip
    make_sweep(tmp_path / "sweep", [SYNCHRONOUS, *horizons], 4)
    plan = figures.scheme(measure(read_sweep(tmp_path / "sweep")))
    assert [len(among) for _, among in plan.panels] == [6, 6] and plan.omitted == 4
    assert "4 settings are left out here" in write_report(tmp_path / "sweep").read_text()


def test_unfinished_sweeps_say_what_is_missing(many: Path) -> None:
    page = (many / "report.html").read_text()
    assert "2 of the grid's cells lack episodes" in page and "2 of 6" in page and "0 of 6" in page


def test_only_the_reference(tmp_path: Path) -> None:
    make_sweep(tmp_path / "sweep", grid(("fixed:2",)), 4, played={cell.name: 0 for cell in grid(("fixed:2",))[1:]})
    assert "So far only the synchronous reference" in write_report(tmp_path / "sweep").read_text()


def test_only_another_lab(tmp_path: Path) -> None:
    make_sweep(tmp_path / "sweep", [SYNCHRONOUS], 4, [("LeRobot async", Cell("fixed:2"))], played={SYNCHRONOUS.name: 0})
    assert "Neither the synchronous reference nor" in write_report(tmp_path / "sweep").read_text()


def test_one_episode(tmp_path: Path) -> None:
    make_sweep(tmp_path / "sweep", [SYNCHRONOUS, Cell("fixed:2")], 1)
    assert "1 episode" in write_report(tmp_path / "sweep").read_text()


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="cannot be read as a sweep"):
        write_report(tmp_path)
    make_sweep(tmp_path / "sweep", grid(("fixed:2",)), 0)
    with pytest.raises(ResultsError, match="without a finished episode"):
        write_report(tmp_path / "sweep")


@pytest.mark.parametrize("where", ["about", "fingerprint"])
@pytest.mark.parametrize("value", [None, [], 3, "teacher", {"teacher": 3, "student": 3}, {"teacher": {}, "other": {}}])
def test_policies_that_are_not_what_a_sweep_writes(value: Any, where: str, tmp_path: Path) -> None:
    """Said to whoever reads the folder, and to whoever goes on with it; {} tells nothing, but is one."""
    cells = grid(("fixed:2",), ("rtc",), policies=("teacher", "student"))
    make_sweep(tmp_path / "sweep", cells, 2)
    file = tmp_path / "sweep" / "sweep.json"
    about = json.loads(file.read_text())
    whole = about["fingerprint"]
    (about if where == "about" else about["fingerprint"])["policies"] = value
    file.write_text(json.dumps(about))
    with pytest.raises(ResultsError, match="sweep.json"):
        write_report(tmp_path / "sweep")
    if where == "fingerprint":
        with pytest.raises(ResultsError, match=r"sweep\.json|holds another experiment|does not say enough"):
            SweepFolder(tmp_path / "sweep", whole, cells, {"policies": {}, "episodes": 2}, resume=True)


def test_a_broken_index_of_failures_is_named(tmp_path: Path) -> None:
    make_sweep(tmp_path / "sweep", [SYNCHRONOUS, Cell("fixed:2")], 2)
    add_failures(tmp_path / "sweep", Cell("fixed:2"), 1)
    (tmp_path / "sweep" / "failures" / "index.json").write_text('[{"episode": 3}]')
    with pytest.raises(ResultsError, match=r"failures/index\.json"):
        write_report(tmp_path / "sweep")


def test_pictures_come_from_the_folder_of_failures_alone(tmp_path: Path) -> None:
    make_sweep(tmp_path / "sweep", [SYNCHRONOUS, Cell("fixed:2")], 2, failures=1)
    (tmp_path / "sweep" / "secret.jpg").write_bytes(b"not for the page")
    index = tmp_path / "sweep" / "failures" / "index.json"
    index.write_text(json.dumps([{**json.loads(index.read_text())[0], "file": "../secret.jpg"}]))
    assert "data:image/jpeg" not in write_report(tmp_path / "sweep").read_text()


def test_the_command_prints_where_and_what(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text("120\n180\ndrop\n")
    assert main(["report", str(folder), f"--latency=trace:{trace}"]) == 0
    out = capsys.readouterr().out
    assert str(folder / "report.html") in out and "--aggregate=" in out and "fixed:4" in out and "1 of them lost" in out
    assert f"trace:{trace}" in (folder / "report.html").read_text()
    assert main(["report", str(folder)]) == 0  # as the other tests expect it


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{folder}"], "cannot be read as a sweep"),
        (["{folder}", "--latency=trace:/nowhere"], "cannot read /nowhere"),
        (["{folder}", "--latency=lognormal:3"], "accepted: trace:FILE"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *(argument.format(folder=tmp_path) for argument in arguments)]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named_with_the_cure(package: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nfrom tactus.runtime.commands import main\nsys.exit(main())"
    command = [sys.executable, "-c", code, "report", str(tmp_path)]
    run = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert run.returncode == 1
    assert f"needs {package}" in run.stderr and "pip install 'tactus[report]'" in run.stderr
    assert callable(load_writer(SWEEP_REPORT))


@given(st.lists(st.integers(0, 60), unique=True).map(sorted))
def test_stretches_of_ticks_cover_them_exactly(ticks: list[int]) -> None:
    found = runs(ticks)
    assert [tick for begin, end in found for tick in range(begin, end)] == ticks
    assert all(end < begin for (_, end), (begin, _) in pairwise(found))


@given(
    st.integers(0, 11), st.sampled_from([0.0, 0.3, 0.5, 0.8]), st.sampled_from(["", ",drop=0.2"]), st.integers(0, 50)
)
def test_the_timeline_is_what_the_queue_did(delay: int, threshold: float, drop: str, episode: int) -> None:
    """The picture's executed chunks, starved ticks and queue depth, against the queue's own account."""
    stats = play(Cell(f"fixed:{delay}{drop}", "latest_only", threshold), episode)
    row = {
        "asked": stats.asked,
        "chunks": [
            list(chunk) for chunk in zip(stats.starts, stats.latency_ticks, stats.lengths, stats.stale, strict=True)
        ],
        "starved": [tick for tick, source in enumerate(stats.sources) if source < 0],
    }
    executed = [-1] * stats.ticks
    for bar in bars(row):
        assert bar.start <= bar.arrived <= bar.until <= bar.end
        executed[bar.arrived : min(bar.until, stats.ticks)] = [bar.start] * (min(bar.until, stats.ticks) - bar.arrived)
    assert executed == stats.sources
    depths = depth(row, stats.ticks)
    assert [tick for tick, left in enumerate(depths) if not left] == row["starved"]
    assert max(depths) <= HORIZON
    assert bool(unanswered(row)) <= bool(drop)


def test_the_depth_is_what_the_queue_says_remains() -> None:
    queue = ActionQueue(Feature((1,), "float32"))
    timeline = {"asked": [0, 3], "chunks": [[0, 0, 6, 0], [3, 2, 6, 2]], "starved": []}
    left = []
    for tick in range(12):
        for start, late, length, _ in timeline["chunks"]:
            if start + late == tick:
                queue.merge(np.zeros((length, 1), np.float32), start, tick)
        left.append(queue.remaining(tick))
        queue.pop(tick)
    assert depth(timeline, 12) == left == [6, 5, 4, 3, 2, 4, 3, 2, 1, 0, 0, 0]


def test_an_instructive_episode_is_late_starved_and_failed(folder: Path) -> None:
    chosen = instructive(read_sweep(folder).cells)
    assert chosen is not None
    one, row = chosen
    assert one.cell.aggregate == "latest_only" and not one.label
    assert row["starved_ticks"] and not row["success"] and max(row["latency_ticks"]) >= 2


@pytest.mark.parametrize("name", ["folder", "many", "two"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_browser_shows_it(browser: Any, name: str, width: int, theme: str, request: pytest.FixtureRequest) -> None:
    file = request.getfixturevalue(name) / "report.html"
    show(browser, file, width, theme)
    assert complaints(browser) == []
    assert requests(browser) == {file.as_uri()}
    page = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert page[0] <= page[1] == width
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => [s.getBoundingClientRect(), s.getBBox()])"
        ".map(([r, b]) => [r.width, r.height, b.width, b.height])"
    )
    assert len(sizes) == (7 if name == "two" else 6) and all(min(size) > 100 for size in sizes)
    broken = browser.execute_script("return [...document.images].filter(i => !i.naturalWidth).length")
    assert broken == 0


@pytest.mark.parametrize("name", ["folder", "two"])
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_stands_out_from_the_page(browser: Any, name: str, theme: str, request: pytest.FixtureRequest) -> None:
    """WCAG's contrast of every text, in figures too, against the page: at least 4.5."""
    show(browser, request.getfixturevalue(name) / "report.html", 1280, theme)
    found = contrasts(browser)
    assert len(found) > 100
    assert [text for contrast, text in found if contrast < 4.5] == []


def test_dark_follows_the_system(browser: Any, folder: Path) -> None:
    seen = {}
    for theme in (LIGHT, DARK):
        show(browser, folder / "report.html", 1280, theme)
        seen[theme] = browser.execute_script(
            "return [getComputedStyle(document.documentElement).backgroundColor,"
            " getComputedStyle(document.querySelector('svg text')).fill]"
        )
    assert seen[LIGHT][0] == "rgb(254, 254, 254)" and seen[DARK][0] == "rgb(20, 23, 27)"
    assert seen[LIGHT][1] != seen[DARK][1]


def test_delays_are_shown_in_ms_too(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert all(f"{1000 * delay / FPS:.0f} ms" in page.replace("\u00a0", " ") for delay in (0, 2, 4, 8))
