"""Two policies compared on one robot: whose turn it is, what is counted, and what is told when."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from person import Person
from processes import ROOT, episodes, serving

from tactus.runtime.evaluation.ab_comparison import Tally, draw, in_pairs, told

groups = st.lists(st.sampled_from("xyz"), max_size=40)


@given(groups, st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_turns_are_balanced_in_every_task_and_do_not_depend_on_how_many_there_are(
    tasks: list[str], seed: int, cut: int
) -> None:
    turns = draw(tasks, seed)
    assert draw(tasks[:cut], seed) == turns[:cut] and draw(tasks, seed) == turns
    for task in set(tasks):
        arms = Counter(turn.arm for turn, one in zip(turns, tasks, strict=True) if one == task)
        assert abs(arms[0] - arms[1]) <= 1
    for pair, count in Counter(turn.pair for turn in turns).items():
        both = [episode for episode, turn in enumerate(turns) if turn.pair == pair]
        assert count <= 2 and both[0] == pair and len({tasks[episode] for episode in both}) == 1
        assert len({turns[episode].arm for episode in both}) == count
    order = in_pairs(turns)
    assert sorted(order) == list(range(len(turns)))
    assert [pair for pair in dict.fromkeys(turns[e].pair for e in order)] == sorted({t.pair for t in turns})


def test_who_is_first_is_drawn() -> None:
    firsts = Counter(turn.arm for turn in draw(["x"] * 2000, 5)[::2])
    assert 430 < firsts[0] < 570
    assert draw(["x"] * 100, 1) != draw(["x"] * 100, 2)


def rows(pairs: list[tuple[bool, bool]]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for pair, (a, b) in enumerate(pairs):
        one = {"policy": "a", "success": a, "pair": 2 * pair}
        other = {"policy": "b", "success": b, "pair": 2 * pair}
        found += [one, other] if pair % 2 else [other, one]
    return found


def test_a_decision_stands_and_says_when() -> None:
    clear = rows([(True, False)] * 8)
    tally = Tally(0.05, clear)
    assert tally.decided == 16 and tally.better == "a" and tally.wins == 8
    tally = Tally(0.05, clear + rows([(False, True)] * 6))
    summary = tally.summary({"a": "one", "b": "two"})
    assert summary["decided_after"] == 16 and summary["e_value"] < 20 and summary["better"] == "a"
    assert any("decided after 16 episodes: a is better" in line for line in told(summary))


def test_a_pair_that_is_not_whole_counts_in_the_rates_alone() -> None:
    tally = Tally(0.05, rows([(True, False), (True, True)])[:3])
    assert (tally.wins, tally.ties, tally.losses) == (1, 0, 0) and sum(tally.episodes) == 3
    lines = told(tally.summary({"a": "one", "b": "two"}))
    assert "not decided; episodes to go: about" in lines[-1] and "one" in lines[0]
    assert "more than can be foreseen" in told(Tally(0.05).summary({}))[-1]


# at the terminal, over the wire


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two pushers, one of which errs in most episodes: their addresses."""
    folder = tmp_path_factory.mktemp("nodes")
    with (
        serving(folder / "a.log", "--policy.type=pusher") as (_, a),
        serving(folder / "b.log", "--policy.type=pusher", "--policy.mistakes=0.8") as (_, b),
    ):
        yield f"[{a},{b}]"


def tactus(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tactus", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def push(policies: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = ["eval", "--robot.type=push", f"--policies={policies}", f"--output_dir={folder}", *words]
    return tactus(*line)


def test_a_comparison_ends_when_it_is_decided_and_goes_on_as_it_would_have(nodes: str, tmp_path: Path) -> None:
    whole = push(nodes, tmp_path / "whole", "--episodes=60", "--stop_when_decided")
    assert whole.returncode == 0, whole.stderr
    rows = episodes(tmp_path / "whole")
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())["comparison"]
    assert summary["better"] == "a" and summary["decided_after"] == len(rows) < 60
    assert Counter(row["policy"] for row in rows) == {"a": len(rows) // 2, "b": len(rows) // 2}
    assert {row["policy"]: set(row["chunks_of"]) for row in rows} == {
        arm: {summary[arm]["policy"]} for arm in ("a", "b")
    }
    assert push(nodes, tmp_path / "parts", "--episodes=5").returncode == 0
    assert push(nodes, tmp_path / "parts", "--episodes=60", "--stop_when_decided", "--resume").returncode == 0
    lines = [(tmp_path / name / "episodes.jsonl").read_text() for name in ("whole", "parts")]
    assert lines[0] == lines[1]
    report = tactus("report", str(tmp_path / "whole"))
    assert report.returncode == 0 and "a is better" in report.stdout and "a is better" in whole.stdout


def test_nothing_says_who_drives_until_all_is_over(nodes: str, tmp_path: Path) -> None:
    run = push(nodes, tmp_path / "out", "--episodes=6", "--log_format=json")
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(lines) > 6 and "comparison" in lines[-1], run.stderr
    names = [lines[-1]["comparison"][arm]["policy"] for arm in ("a", "b")]
    before = json.dumps(lines[:-1])
    assert not any(name in before or name.split("@")[1] in before for name in names)
    assert not any("policy" in line for line in lines[:-1])
    assert push(nodes, tmp_path / "out", "--episodes=8", "--resume", "--alpha=0.1").returncode == 2


def test_a_policy_that_does_not_fit_is_refused_before_anything_moves(nodes: str, tmp_path: Path) -> None:
    with serving(tmp_path / "c.log", "--policy.type=ticker") as (_, other):
        first = nodes.strip("[]").split(",")[0]
        run = push(f"[{first},{other}]", tmp_path / "out")
    assert run.returncode == 3 and f"{other}: action: shape" in run.stderr and first not in run.stderr
    assert not (tmp_path / "out").exists()
    for words, said in (
        ([f"--policies={first}"], "accepted: two addresses"),
        ([f"--policies=[{first},{first}]"], "not the same"),
        (["--stop_when_decided"], "is for a comparison"),
        ([f"--policies={nodes}", "--connect=tcp://127.0.0.1:1"], "leave out connect"),
        ([f"--policies={nodes}", "--workers=2"], "without a sweep"),
    ):
        run = tactus("eval", "--robot.type=push", *words)
        assert run.returncode == 2 and said in run.stderr


@pytest.mark.realtime
@pytest.mark.slow
def test_a_person_judges_blind_and_can_stop_over_either_node(tmp_path: Path) -> None:
    """What the robot's terminal says before the end names nobody; a STOP comes from the node that does not drive."""
    robot = ["--robot.type=synthetic", "--robot.steps=100000", "--attended=true"]
    with (
        serving(tmp_path / "a.log", "--policy.type=ticker", "--policy.horizon=20") as (_, a),
        serving(tmp_path / "b.log", "--policy.type=ticker") as (_, b),
    ):
        words = [*robot, f"--policies=[{a},{b}]", f"--output_dir={tmp_path / 'out'}"]
        with Person("run", *words, "--episodes=2") as person:
            for episode in range(2):
                person.waits_for(f"episode {episode}: put the scene in order")
                person.presses("\r")
                person.presses("s" if episode else "f")
            person.waits_for("not decided")
            assert person.status() == 0
        assert "ticker@" not in person.said.partition("a  ")[0]
        rows = episodes(tmp_path / "out")
        assert sorted(row["policy"] for row in rows) == ["a", "b"]
        idle = b if rows[0]["policy"] == "a" else a
        again = [*words[:-1], f"--output_dir={tmp_path / 'again'}"]
        with Person("run", *again, "--episodes=1") as person:
            person.waits_for("put the scene in order")
            person.presses("\r")
            stopped = tactus("stop", f"--connect={idle}")
            assert "stopped 1 of the 1 robots" in stopped.stdout, stopped.stderr
            person.waits_for("stopped")
