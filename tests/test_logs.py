"""Log lines as JSON: from real nodes, each line an object; and as text, as they always were."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tactus.runtime.logs import JsonFormatter, json_line
from tactus.runtime.wire.codec import WireError

ROOT = Path(__file__).parents[1]
TACTUS = [sys.executable, "-m", "tactus"]
TICKER = ["--policy.type=ticker", "--policy.width=3", "--policy.horizon=8"]
ROBOT = ["--robot.type=synthetic", "--robot.width=3", "--robot.steps=20"]


def objects(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        assert list(line)[:4] == ["time", "level", "logger", "message"]
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
    return found


@pytest.mark.slow
def test_every_line_of_both_nodes_is_an_object(tmp_path: Path) -> None:
    connect = f"--connect=ipc://{tmp_path}/node"
    serve = [*TACTUS, "serve", connect, *TICKER, "--log_format=json"]
    with subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as node:
        run = [*TACTUS, "run", connect, "--log_format=json", f"--output_dir={tmp_path}/out", "--episodes=2", *ROBOT]
        good = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=100)
        again = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=100)
        wrong = [*run, "--robot.width=4"]
        refused = subprocess.run(wrong, cwd=ROOT, capture_output=True, text=True, timeout=100)
        node.terminate()
        out, errors = node.communicate(timeout=30)

    *episodes, last = objects(good.stdout)
    assert good.returncode == 0 and good.stderr == ""
    assert [(line["episode"], line["ticks"], line["success"]) for line in episodes] == [(0, 20, True), (1, 20, True)]
    assert (last["episodes"], last["ticks"], last["logger"]) == (2, 40, "tactus.run")
    [complaint] = objects(again.stderr)
    assert again.returncode == 2 and complaint["level"] == "error" and "already holds results" in complaint["message"]
    [complaint] = objects(refused.stderr)
    assert refused.returncode == 3 and "the policy node refused this robot" in complaint["message"]

    first, *_, stopped = objects(out)
    assert first["policy"] == "ticker" and first["endpoint"] == f"ipc://{tmp_path}/node"
    assert "stopped after" in stopped["message"]
    told = objects(errors)
    assert {line["logger"] for line in told} == {"tactus.policy_node"}
    assert any(line["level"] == "warning" and "refused synthetic" in line["message"] for line in told)


@pytest.mark.slow
def test_what_a_loop_says_has_its_tick_and_episode(tmp_path: Path) -> None:
    """A robot that has something to report in the middle of an episode."""
    connect = f"--connect=ipc://{tmp_path}/node"
    serve = [*TACTUS, "serve", connect, *TICKER]
    code = (
        "import sys\nfrom tactus.hal.synthetic.robot import SyntheticRobot\n"
        "SyntheticRobot.events = lambda self: ['shoulder is warm'] if self._steps == 7 else []\n"
        "from tactus.runtime.commands import main\nsys.exit(main(sys.argv[1:]))"
    )
    keys = ["eval", connect, "--episodes=1", "--seed=3", *ROBOT]
    with subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
        told = [
            subprocess.run(
                [sys.executable, "-c", code, *keys, f"--log_format={form}", f"--output_dir={tmp_path}/{form}"],
                cwd=ROOT, capture_output=True, text=True, timeout=100,
            )
            for form in ("json", "text")
        ]  # fmt: skip
        node.terminate()
    said = [line for line in objects(told[0].stdout) if line["message"] == "shoulder is warm"]
    assert [(line["tick"], line["episode"], line["level"]) for line in said] == [(6, 0, "warning")]
    lines = told[1].stdout.splitlines()
    assert lines[0] == "tick 6: shoulder is warm" and lines[1].startswith("episode   0  success    20 ticks")


def test_a_records_extras_code_and_traceback_become_fields() -> None:
    formatter = JsonFormatter()
    error = WireError("checksum", "not whole")
    record = logging.LogRecord("tactus.x", logging.WARNING, "f", 1, "rejected: %s: %s", (error.code, error), None)
    record.session = "abc"
    [line] = objects(formatter.format(record))
    assert line["message"] == "rejected: checksum: not whole" and line["level"] == "warning"
    record = logging.LogRecord("tactus.x", logging.WARNING, "f", 1, "rejected: %s", (error,), None)
    record.session = "abc"
    [line] = objects(formatter.format(record))
    assert (line["code"], line["session"]) == ("checksum", "abc")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("tactus.x", logging.ERROR, "f", 1, "it raised", None, sys.exc_info())
    [line] = objects(formatter.format(record))
    assert "ValueError: two\nlines" in line["exception"]


def test_a_line_is_one_line_whatever_is_said() -> None:
    text = 'a "quote"\nand a break, Grüße \u2028'
    [line] = json_line("info", "x", text, tick=3, episode=None).splitlines()
    assert json.loads(line)["message"] == text and json.loads(line)["tick"] == 3 and "episode" not in json.loads(line)
