"""The page of a distillation: says the verdict, what was found and where; nothing that is missing breaks it."""

from __future__ import annotations

import csv
import html
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import synthetic
from matplotlib.figure import Figure
from pages import DARK, LIGHT, complaints, contrasts, requests, show
from PIL import Image
from test_flow import waves

from tactus.hal.spec import STATE
from tactus.policies.distillation.config import DistillationConfig
from tactus.policies.distillation.measures import Error, Latency, Measures
from tactus.policies.distillation.trainer import GRID
from tactus.policies.distillation.verdict import Check, checks, verdict
from tactus.policies.flow.config import FlowConfig
from tactus.policies.flow.network import Shape, save
from tactus.policies.flow.training import train
from tactus.policies.policy import Policy
from tactus.runtime.distillation import figures
from tactus.runtime.distillation.observations import from_rollouts
from tactus.runtime.distillation.report import write_report
from tactus.runtime.distillation.student import distill, read_kept
from tactus.runtime.distillation.verification import Trials, Verification, try_both, verify
from tactus.runtime.lab.measures import paired
from tactus.runtime.statistics import wilson

pytestmark = pytest.mark.slow

ALWAYS = {"steps", "where", "times", "noise", "time"}
"""Figures that a page has of any student."""
ACTIONS, WIDTH, HORIZON = 7, 32, 12


def error(steps: int, median: float, horizon: int = HORIZON) -> Error:
    return Error(steps, median, 2 * median, median, [median / 2] * ACTIONS, [median / 2] * horizon)


def measured(**changes: Any) -> Measures:
    good = Measures(
        observations=40,
        num_steps=1,
        teacher_steps=10,
        padding=0.8,
        student_padding=0.79,
        noise_mean=[0.001] * WIDTH,
        noise_std=[1.002] * WIDTH,
        losses=[0.02 / t for t in GRID],
        straightness=0.01,
        teacher_straightness=0.2,
        errors=[error(1, 0.023), error(2, 0.031), error(4, 0.034), error(10, 0.035)],
        undistilled=0.417,
        cached=1e-6,
        spread=0.99,
        teacher_spread=1.0,
        late=1.1,
        forwards=0.99,
        backwards=-0.8,
        latency=Latency(40.0, 6.0, 47.0),
        teacher_latency=Latency(40.0, 6.0, 103.4),
    )
    return replace(good, **changes)


def trained(steps: int = 1000, **changes: Any) -> dict[str, Any]:
    """A distillation.json."""
    facts = {
        "noise_mean": [0.0] * WIDTH,
        "noise_std": [1.0] * WIDTH,
        "padding": 0.8,
        "weight_by_dimension": [1.0] * WIDTH,
        "weight_by_step": [1.0] * HORIZON,
        "loss": [0.021 / t for t in GRID],
    }
    return {
        "teacher": "smolvla:somebody/teacher",
        "source": "20 episodes of the teacher on libero",
        "settings": {"method": "reflow", "steps": steps, "one_step_stage": 0.4, "pairs": None},
        "about": {},
        "facts": facts | changes,
        "versions": {"python": "3.0", "torch": "1.2.3"},
        "losses": [math.exp(-step / steps) for step in range(steps)],
    }


def tried(teacher: list[bool], student: list[bool]) -> Trials:
    apart = paired(dict(enumerate(student)), dict(enumerate(teacher)))
    assert apart is not None
    return Trials("libero", [*range(20, 20 + len(teacher))], teacher, student, apart.value, apart.low, apart.high)


def made(found: Measures, kept: dict[str, Any] | None = None, trials: Trials | None = None) -> Verification:
    kept = kept or {}
    told = checks(found, kept.get("facts"))
    if trials is not None:
        told.append(Check("success", trials.low > -0.08, "as tried", "no worse"))
    passed, reason = verdict(told)
    return Verification("smolvla:teacher", "smolvla:student", "held <out>", passed, reason, told, found, trials, kept)


BLIND = {"padding": None, "student_padding": None, "noise_mean": [0.0] * ACTIONS, "noise_std": [1.0] * ACTIONS}
NAN = math.nan
SHORT = {"errors": [error(steps, 0.02, 1) for steps in (1, 2, 4, 10)], "late": 1.0}
BROKEN = {
    "undistilled": NAN,
    "losses": [NAN] * 10,
    "errors": [error(s, NAN) for s in (1, 2, 4, 10)],
    "straightness": NAN,
    "spread": NAN,
}
WON, LOST = [True] * 60, [False, True] * 30
# name: verification, figures beside ALWAYS or lacking of it, what the page says, what it does not
SHAPES: dict[str, tuple[Callable[[], Verification], set[str], list[str], list[str]]] = {
    "passed, all of it": (
        lambda: made(measured(), trained(), tried(WON, WON)), {"loss", "success"},
        [
            "The student may take its teacher’s place", "All 10 checks passed.", "2.3 % error with one step",
            "not distilled 41.7 %", "2.2 times as fast: a chunk takes 47 ms, the teacher’s 103 ms",
            "1 denoising step of the student, the teacher has 10", "100.0 % success of the student in 60 episodes",
            "+0.0 points", "60 won by both, 0 by the teacher alone", "episodes 20 … 79", "From step 601 on",
            "padding, made 0.79 0.8 0.988 ", "padding, trained on 0.8 0.8 1 ", "spread 0.99 1 0.99 ",
            "held out 40 observations of held <out>",
            "trained on 20 episodes of the teacher on libero", "method reflow", "pairs none", "torch 1.2.3",
        ],
        ["What failed", "not known"],
    ),
    "of another program": (
        lambda: made(measured()), set(),
        [
            "The student may take its teacher’s place", "All 5 checks passed; 4 could not be made.",
            "the student does not say how it was trained", "padding not known", "deploy/train not known",
            "What was drawn in training is not known", "the student has no distillation.json",
            "padding, trained on – 0.8 – ",
        ],
        ["optimiser steps", "won by both", "versions in training"],
    ),
    "padding cropped, and noise of zeros in it": (
        lambda: made(
            measured(student_padding=0.01), trained(noise_std=[1.0] * ACTIONS + [0.0] * (WIDTH - ACTIONS), padding=0.0)
        ),
        {"loss"},
        [
            "The student may not take its teacher’s place: the teacher's chunks were cropped", "What failed:",
            "noise: training drew its noise narrower", "padding failed", "noise failed", "whole chunks passed",
        ],
        [],
    ),
    "one reason": (
        lambda: made(measured(spread=0.4), trained()), {"loss"},
        ["may not take its teacher’s place: the student averages", "spread 0.4 1 0.4 ", "spread failed"],
        ["What failed:"],
    ),
    "too many reasons for a headline": (
        lambda: made(
            measured(spread=0.4, cached=0.1, backwards=1.0, forwards=0.0, late=3.0, errors=[error(1, 0.6)]),
            trained(weight_by_step=[1.0] * 9 + [0.5] * 3),
        ),
        {"loss"},
        [
            "may not take its teacher’s place: 5 of 9 checks failed", "cache: the deployed network", "60.0 % error",
            "time runs backwards",
        ],
        [],
    ),
    "worse on the robot": (
        lambda: made(measured(), trained(), tried(WON, LOST)), {"loss", "success"},
        [
            "may not take its teacher’s place: success: as tried", "50.0 % success of the student", "−50.0 points",
            "the teacher’s 100.0 %", "30 won by both, 30 by the teacher alone, 0 by the student alone, 0 by neither",
        ],
        [],
    ),
    "one trial": (
        lambda: made(measured(), trained(), tried([False], [True])), {"loss", "success"},
        ["in 1 episode,", "+100.0 points", "episode 20:", "1 by the student alone"], [],
    ),
    "no padding": (
        lambda: made(
            measured(**BLIND), trained(noise_mean=[0.0] * ACTIONS, noise_std=[1.0] * ACTIONS, padding=None)
        ),
        {"loss"}, ["All 8 checks passed."], ["padding, made"],
    ),
    "a chunk of one step": (lambda: made(measured(**SHORT), trained()), {"loss"}, ["2.0 % error with one step"], []),
    "a chunk of one number": (
        lambda: made(
            measured(**BLIND | {"noise_mean": [0.0], "noise_std": [1.0]},
                     errors=[Error(s, 0.02, 0.03, 0.01, [0.01], [0.01]) for s in (1, 2)], late=1.0)
        ),
        set(), ["2.0 % error with one step"], [],
    ),
    "no noise, so no spread": (
        lambda: made(measured(spread=0.0, teacher_spread=1e-9), trained()), {"loss"}, ["All 9 checks passed."], [],
    ),
    "four steps": (
        lambda: made(measured(num_steps=4), trained()), {"loss"},
        ["3.4 % error with 4 steps, as deployed", "2.3 % error with one step", "not distilled with 4: 41.7 %"],
        ["was not measured"],
    ),
    "a training of one step": (lambda: made(measured(), trained(1)), {"loss"}, ["1 optimiser step."], ["From step"]),
    "a training of one stage": (
        lambda: made(measured(), trained() | {"settings": {"one_step_stage": 0.0}}), {"loss"},
        ["1000 optimiser steps."], ["From step"],
    ),
    "a training that went astray": (
        lambda: made(measured(), trained() | {"losses": [1.0, 0.5, NAN, math.inf]}), {"loss"},
        ["not a finite number from step 3 on"], [],
    ),
    "a training that never was one": (
        lambda: made(measured(), trained() | {"losses": [NAN] * 5}), set(),
        ["not a finite number from step 1 on"], [],
    ),
    "losses of nothing": (lambda: made(measured(losses=[0.0] * 10), trained() | {"losses": [0.0] * 9}), set(), [], []),
    "no loss at all": (lambda: made(measured(losses=[0.0] * 10)), {"times"}, ["All 5 checks passed"], ["Both lines"]),
    "nothing but its name": (lambda: made(measured(), {"teacher": "t"}), set(), ["trained from t"], ["optimiser"]),
    "nulls": (
        lambda: made(measured(), dict.fromkeys(("facts", "losses", "settings", "versions", "source"))), set(),
        ["padding not known"], ["None"],
    ),
    "no number anywhere": (
        lambda: made(measured(**BROKEN), trained()), {"loss", "steps", "where"},
        ["may not take its teacher’s place", "– error with one step, median", "spread – 1 – "], ["None"],
    ),
}  # fmt: skip


def words(page: str) -> str:
    """What one reads, without figures and the folded file."""
    body = re.sub(r"<(style|svg|pre)\b.*?</\1>", " ", page.split("<body>")[1], flags=re.DOTALL)
    plain = html.unescape(re.sub(r"<[^>]*>", " ", body)).replace("\u00a0", " ")
    return re.sub(r" ([,.:;%])", r"\1", re.sub(r"\s+", " ", plain)).replace("%", " %").replace("  %", " %")


@pytest.mark.parametrize("name", SHAPES)
def test_a_page_says_what_was_found(name: str, tmp_path: Path) -> None:
    build, more, said, unsaid = SHAPES[name]
    done = build()
    page = write_report(tmp_path / "made" / "for it", done)
    assert page == tmp_path / "made" / "for it" / "report.html"
    text, source = words(page.read_text()), page.read_text()
    assert [phrase for phrase in said if phrase not in text] == [], text
    assert [phrase for phrase in unsaid if re.search(rf"\b{re.escape(phrase)}\b", text)] == [], text
    for check in done.checks:
        mark = {True: "passed", False: "failed", None: "not known"}[check.passed]
        assert f"{check.name} {mark} " in text and html.escape(check.accepted, quote=False) in html.unescape(source)
    raw = re.search(r"<pre>(.*?)</pre>", source, re.DOTALL)
    assert raw is not None and html.unescape(raw[1]) == json.dumps(done.to_dict(), indent=1)
    assert "<script" not in source and not re.search(r'\b(src|href)="(?!#|data:)|url\((?!#)|@import', source)
    drawn = {file.stem for file in (page.parent / "figures").iterdir()}
    assert drawn == ALWAYS ^ more
    assert source.count("<svg") == len(drawn)


def test_a_figure_is_legible_alone(tmp_path: Path) -> None:
    """A title that fits, of names of any length; the picture is neither empty nor all ink."""
    done = replace(made(measured(), trained(), tried(WON, LOST)), student="smolvla:" + "outputs/student/" * 6)
    write_report(tmp_path, done)
    for file in (tmp_path / "figures").iterdir():
        with Image.open(file) as picture:
            grey = picture.convert("L")
            assert picture.width == pytest.approx(1344, abs=2) and 250 < picture.height < 700, file
            ink = sum(grey.histogram()[:200]) / (grey.width * grey.height)
            assert 0.005 < ink < 0.5, file
            right = grey.crop((grey.width - 2, 0, grey.width, 120))
            assert sum(right.histogram()[:200]) == 0, f"{file.name}: the title is cut off"


def drawn_text(figure: Figure | None) -> list[str]:
    """Labels and notes that are read in a figure, but for numbers at its axes."""
    assert figure is not None
    return [
        text.get_text()
        for axes in figure.axes
        for text in (*axes.texts, *axes.get_yticklabels(), axes.xaxis.label)
        if text.get_text()
    ]


def test_figures_show_what_was_measured() -> None:
    padded = [1.0] * ACTIONS + [0.0] * (WIDTH - ACTIONS)
    found = measured(late=2.0, num_steps=2)
    done = made(found, trained(1000, noise_std=padded), tried(WON, LOST))
    facts = done.distillation["facts"]

    texts = drawn_text(figures.steps(done))
    assert {"student, 1 step", "student, 2 steps, as deployed", "teacher, not distilled, 2 steps"} <= {*texts}
    assert {"2.3 %, nine of ten below 4.6 %", "41.7 %"} <= {*texts}

    times = figures.times(done)
    assert times is not None
    lines = {line.get_label(): [*line.get_ydata()] for line in times.axes[0].lines}  # type: ignore[arg-type]
    assert lines == {"in training": facts["loss"], "in deployment, held out": found.losses}

    noise = figures.noise(done)
    assert noise is not None
    bars = {box.get_label(): box.lines[2][0].get_segments() for box in noise.axes[0].containers}  # type: ignore[attr-defined]
    heights = {label: [round(float(np.ptp(bar[:, 1])) / 2, 3) for bar in segments] for label, segments in bars.items()}
    assert heights == {"in training": padded, "in deployment": found.noise_std}
    assert "padding" in drawn_text(noise)

    loss = figures.loss(done)
    assert loss is not None and loss.axes[0].get_yscale() == "log"
    mean, mark = loss.axes[0].lines
    assert np.allclose(mean.get_ydata(), np.exp(-(np.asarray(mean.get_xdata()) - 1) / 1000), rtol=1e-3)
    assert [*mark.get_xdata()] == [600.5, 600.5] and len(mean.get_xdata()) == figures.BINS  # type: ignore[arg-type]

    where = figures.where(done)
    assert where is not None and "last quarter" in drawn_text(where)
    assert [bar.get_height() for bar in where.axes[0].patches] == found.errors[1].by_dimension  # type: ignore[attr-defined]
    assert [*where.axes[1].lines[0].get_ydata()] == found.errors[1].by_step  # type: ignore[arg-type]

    success = figures.success(done)
    assert success is not None and {"60 of 60", "30 of 60", "−50.0 points"} <= {*drawn_text(success)}
    spans = {line.get_color(): np.asarray(line.get_xdata()) for line in success.axes[0].lines[::2]}
    assert spans[figures.STUDENT] == pytest.approx(100 * np.array(wilson(30, 60)))

    time = figures.time(done)
    assert time is not None and {"teacher, 10 steps", "student, 2 steps", "103 ms", "47 ms"} <= {*drawn_text(time)}
    assert [bar.get_width() for bar in time.axes[0].patches] == pytest.approx([40, 60, 3.4, 40, 12, 0])  # type: ignore[attr-defined]


def test_tables_hold_what_the_figures_show(tmp_path: Path) -> None:
    done = made(measured(), trained(30), tried(WON, LOST))
    write_report(tmp_path, done)
    tables = {file.stem: [*csv.DictReader(file.open())] for file in (tmp_path / "tables").iterdir()}
    assert {*tables} == {
        "checks", "measures", "errors", "dimensions", "horizon", "times", "noise", "loss", "success", "time"
    }  # fmt: skip
    assert [row["name"] for row in tables["checks"]] == [check.name for check in done.checks]
    assert [float(row["loss"]) for row in tables["loss"]] == done.distillation["losses"]
    assert [row["step"] for row in tables["loss"]][::29] == ["1", "30"]
    assert [(row["policy"], row["steps"], float(row["median"])) for row in tables["errors"]][-2:] == [
        ("student", "10", 0.035), ("teacher, not distilled", "1", 0.417)
    ]  # fmt: skip
    assert [float(row["t"]) for row in tables["times"]] == [*GRID]
    assert [float(row["training"]) for row in tables["times"]] == done.distillation["facts"]["loss"]
    assert len(tables["noise"]) == WIDTH and len(tables["dimensions"]) == ACTIONS and len(tables["horizon"]) == HORIZON
    assert float(tables["horizon"][3]["rms_error, 10 steps"]) == 0.0175
    assert [row["episode"] for row in tables["success"]][:2] == ["20", "21"]
    assert [row["student"] for row in tables["success"]][:2] == ["False", "True"]
    assert [float(row["chunk_ms"]) for row in tables["time"]] == [103.4, 47.0]


def test_what_a_later_page_does_not_know_is_not_left_from_an_earlier_one(tmp_path: Path) -> None:
    write_report(tmp_path, made(measured(), trained(), tried(WON, WON)))
    write_report(tmp_path, made(measured()))
    assert {file.stem for file in (tmp_path / "figures").iterdir()} == ALWAYS
    assert not {"loss", "success"} & {file.stem for file in (tmp_path / "tables").iterdir()}


def test_names_from_outside_are_text(tmp_path: Path) -> None:
    done = replace(made(measured(), trained() | {"source": "<b>&"}), student="<img src=x>", source='"><i>')
    page = write_report(tmp_path, done).read_text()
    assert "<img" not in page and "<b>&<" not in page and '"><i>' not in page and "&lt;img src=x&gt;" in page


# --- a real student


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Verification]:
    """A report's folder, of a flow policy distilled and tried on a robot."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("student")
    robot = synthetic(steps=30).make()
    shape = Shape({STATE: robot.spec.observations[STATE]}, robot.spec.action, 8, hidden=32, blocks=1)
    save(train(shape, *waves(shape), steps=300, batch=64), folder / "teacher")

    def make(path: Path = folder / "teacher") -> Policy:
        return FlowConfig(path=str(path)).make()

    def bar(title: str, total: int) -> Callable[[int], object]:
        return lambda more: None

    robot.connect()
    found = from_rollouts(robot, make(), 6, 120, 0.2, 0)
    config = DistillationConfig(steps=300, pairs=2048, batch=64)
    student = distill(make(), make, found, config, folder, bar)
    trials = try_both(robot, make(), make(student), range(6, 10), 0)
    robot.close()
    done = verify(make(), make(student), found.held_out, found.source, read_kept(student), trials, 0, bar)
    write_report(folder / "report", done)
    torch.set_num_threads(threads)
    return folder / "report", done


def test_a_real_student_gets_a_page(real: tuple[Path, Verification]) -> None:
    folder, done = real
    text = words((folder / "report.html").read_text())
    assert f"{100 * done.measures.errors[0].median:.1f} % error with one step" in text
    assert "6 episodes of the teacher on synthetic" in text and "steps 300" in text and "From step 151 on" in text
    assert "episodes 6 … 9" in text
    assert {file.stem for file in (folder / "figures").iterdir()} == ALWAYS | {"loss", "success"}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("name", ["real", "too many reasons for a headline", "of another program"])
def test_a_browser_shows_it(
    browser: Any, real: tuple[Path, Verification], name: str, width: int, theme: str, tmp_path: Path
) -> None:
    file = real[0] / "report.html" if name == "real" else write_report(tmp_path, SHAPES[name][0]())
    show(browser, file, width, theme)
    assert complaints(browser) == [] and requests(browser) == {file.as_uri()}
    page = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert page[0] <= page[1] == width
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => [s.getBoundingClientRect(), s.getBBox()])"
        ".map(([r, b]) => [r.width, r.height, b.width, b.height])"
    )
    drawn = len(ALWAYS) + {"real": 2, "of another program": 0}.get(name, 1)
    assert len(sizes) == drawn and all(min(size) > 100 for size in sizes)
    assert [text for contrast, text in contrasts(browser) if contrast < 4.5] == []
    cut = browser.execute_script(
        "return [...document.querySelectorAll('#checks td')].filter(d => d.getBoundingClientRect().right > innerWidth)"
        ".map(d => d.textContent)"
    )
    assert cut == [], "a check is read without scrolling sideways"
