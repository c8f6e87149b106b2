"""Figures for Prometheus: fetched over HTTP from real nodes, equal to what the results say, and gone with the node."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tactus.hal.robot import Outcome
from tactus.hal.spec import Observation
from tactus.hal.synthetic import SyntheticConfig
from tactus.runtime.metrics.endpoint import Endpoint, EndpointError
from tactus.runtime.metrics.histogram import Histogram
from tactus.runtime.metrics.robot import RobotMetrics
from tactus.runtime.robot_node.watcher import Beginning, TickView

pytestmark = pytest.mark.realtime

ROOT = Path(__file__).parents[1]
TACTUS = [sys.executable, "-m", "tactus"]
TICKER = ["--policy.type=ticker", "--policy.width=3", "--policy.horizon=8"]
ROBOT = ["--robot.type=synthetic", "--robot.width=3", "--robot.steps=60"]
URL = re.compile(r"http://\S+/metrics")

Samples = dict[str, float]

LINGERS = """
import pathlib, sys, time
from tactus.hal.synthetic.robot import SyntheticRobot

def close(self):  # everything is played and written down, and the process is still there to be asked
    while not pathlib.Path(sys.argv[1]).exists():
        time.sleep(0.02)

SyntheticRobot.close = close
SyntheticRobot.counters = lambda self: {"bus.retries": 3.0}
from tactus.runtime.commands import main
sys.exit(main(sys.argv[2:]))
"""


def scrape(url: str) -> Samples:
    """Every sample, by name and labels as they are written."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    families = list(text_string_to_metric_families(text))
    return {
        sample.name + "".join(f"[{key}={value}]" for key, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def is_gone(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5)
    except urllib.error.URLError:
        return True
    return False


def unknown_to(samples: list[str]) -> set[str]:
    """Metrics in the dashboard's expressions and variables that are not among these samples."""
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked += [
        variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["name"] != "datasource"
    ]
    words = {word for query in asked for word in re.findall(r"\b(?:tactus|process)_\w+", query)}
    assert len(words) > 25 and len(asked) > 30
    return words - {sample.partition("[")[0] for sample in samples}


Start = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A command in the background, and the address of its metrics; killed afterwards if it still runs."""
    running: list[subprocess.Popen[str]] = []

    def begin(*command: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [*command, "--metrics_port=0"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if found := URL.search(line):
                return process, found[0]
        raise AssertionError(process.communicate()[1])

    yield begin
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_both_nodes_say_over_http_what_the_results_say(start: Start, tmp_path: Path) -> None:
    endpoint, output, enough = f"ipc://{tmp_path}/node", tmp_path / "out", tmp_path / "enough"
    serve, policy_url = start(*TACTUS, "serve", f"--connect={endpoint}", "--policy.infer_ms=40", *TICKER)
    before = scrape(policy_url)
    assert before["tactus_policy_chunks_total"] == before["tactus_policy_sessions"] == 0
    # 40 ms of thought asked for with one action left, at 100 Hz: ticks without an action
    settings = ["--robot.fps=100", "--episodes=2", "--chunk_size_threshold=0.1", f"--output_dir={output}"]
    command = [sys.executable, "-c", LINGERS, str(enough), "run", f"--connect={endpoint}", *ROBOT, *settings]
    run, robot_url = start(*command)
    while not (output / "summary.json").exists():
        assert run.poll() is None
        time.sleep(0.05)
    seen, policy = scrape(robot_url), scrape(policy_url)
    summary = json.loads((output / "summary.json").read_text())

    assert seen["tactus_robot_ticks_total"] == summary["ticks"] == 120
    assert seen["tactus_robot_starved_ticks_total"] == summary["starved_ticks"] > 0
    assert seen["tactus_robot_skipped_ticks_total"] == summary["skipped_ticks"]
    assert seen["tactus_robot_requests_total"] == summary["requests"] > 5
    assert seen["tactus_robot_chunks_total"] == summary["chunks"]
    assert seen["tactus_robot_stale_actions_total"] == summary["stale_actions_dropped"]
    assert seen["tactus_robot_episodes_total"] == seen["tactus_robot_successes_total"] == 2
    assert seen["tactus_robot_tick_lateness_seconds_count"] == 118
    assert seen["tactus_robot_round_trip_seconds_count"] == summary["chunks"]
    assert seen["tactus_robot_latency_seconds_count"] == summary["chunks"]
    assert seen["tactus_robot_counter[name=bus.retries]"] == 3
    assert seen["tactus_robot_info[policy=ticker][robot=synthetic]"] == 1
    # the histogram's mean is the policy's own time
    mean_s = seen["tactus_robot_inference_seconds_sum"] / seen["tactus_robot_inference_seconds_count"]
    assert 0.04 <= mean_s < 1
    assert not unknown_to([*seen, *policy]), "the dashboard asks for what nobody exports"
    assert seen["tactus_robot_inference_seconds_bucket[le=0.035]"] == 0

    assert policy["tactus_policy_chunks_total"] == policy["tactus_policy_latency_seconds_count"] >= summary["chunks"]
    assert policy["tactus_policy_requests_total"] == summary["requests"]
    assert policy["tactus_policy_sessions"] == 1
    for samples in (seen, policy):
        assert samples["process_resident_memory_bytes"] > 1e7
        assert samples["process_open_fds"] > 5 and samples["process_cpu_seconds_total"] > 0

    enough.touch()
    assert run.wait(timeout=30) == 0
    assert is_gone(robot_url)
    end = time.monotonic() + 10
    while scrape(policy_url)["tactus_policy_sessions"]:
        assert time.monotonic() < end, "a robot that said goodbye is still counted"
        time.sleep(0.05)
    serve.terminate()
    assert serve.wait(timeout=30) == 0
    assert is_gone(policy_url)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "run"])
def test_a_taken_port_is_an_error_before_anything_else(command: str, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        keys = {"serve": TICKER, "run": [*ROBOT, f"--output_dir={tmp_path}/out"]}[command]
        connect = f"--connect=ipc://{tmp_path}/node"
        out = subprocess.run(
            [*TACTUS, command, connect, *keys, f"--metrics_port={port}"], cwd=ROOT, capture_output=True, text=True
        )
    assert out.returncode == 2
    assert f"metrics_port: cannot listen at 127.0.0.1:{port}" in out.stderr and "0 for any free one" in out.stderr
    assert not (tmp_path / "out").exists() and not (tmp_path / "node").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["--metrics_port=65536"], "metrics_port: found 65536; must be at most 65535"),
        (["--metrics_port=0", "--metrics_host=192.0.2.1"], "metrics_host: cannot listen at 192.0.2.1:0"),
        (["--metrics_port=0", "--workers=2"], "metrics_port: is for one worker without a sweep"),
    ],
)
def test_what_cannot_be_is_said(keys: list[str], words: str, tmp_path: Path) -> None:
    command = [*TACTUS, "eval", *ROBOT, f"--output_dir={tmp_path}/out", *keys]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 2
    assert words in out.stderr


@pytest.mark.slow
def test_an_endpoint_ends_when_it_is_closed_and_its_port_is_free_again() -> None:
    threads = threading.active_count()
    with Endpoint("127.0.0.1", 0) as first:
        assert "process_open_fds" in scrape(first.url)
        port = int(first.url.split(":")[2].split("/")[0])
        with pytest.raises(EndpointError, match=f"metrics_port: cannot listen at 127.0.0.1:{port}"):
            Endpoint("127.0.0.1", port)
    assert is_gone(first.url)
    with Endpoint("127.0.0.1", port) as second:
        assert scrape(second.url)
    first.close()
    assert threading.active_count() <= threads


@pytest.mark.slow
def test_a_command_without_metrics_does_not_load_prometheus() -> None:
    code = (
        "import sys, tactus.runtime.commands.run, tactus.runtime.commands.serve, tactus.runtime.commands.monitoring\n"
    )
    code += "print([m for m in ('prometheus_client', 'rerun') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@given(st.lists(st.floats(0, 20)))
def test_a_histogram_holds_every_value_once(values: list[float]) -> None:
    histogram = Histogram((0.5, 1.0, 5.0))
    for value in values:
        histogram.add(value)
    samples = {(s.name, s.labels.get("le")): s.value for s in histogram.family("x", "words").samples}
    for bound in (0.5, 1.0, 5.0):
        assert samples["x_bucket", str(bound)] == sum(value <= bound for value in values)
    assert samples["x_bucket", "+Inf"] == samples["x_count", None] == len(values)
    assert samples["x_sum", None] == pytest.approx(sum(values))


def test_ticks_that_were_skipped_are_counted_wherever_they_are() -> None:
    """Between two ticks, and before the end of an episode that max_ticks ends; not after the last tick of one that is
    done; a robot's own counters are there at the end."""
    robot = SyntheticConfig(width=2).make()
    robot.counters = lambda: {"bus.retries": 3.0}  # type: ignore[method-assign]
    metrics = RobotMetrics(robot, "ticker")
    action = np.zeros(2, np.float32)

    def play(ticks: list[int], end: int) -> Samples:
        metrics.begin(Beginning(0, 0, ""))
        for tick in ticks:
            metrics.before(TickView(tick, action, False, 4, lambda: Observation({})))
            metrics.after(tick, action, Outcome(success=True, done=tick == ticks[-1], reward=0.0))
        metrics.end(TickView(end, action, False, 0, lambda: Observation({})))
        found = {(s.name, *s.labels.values()): s.value for family in metrics.collect() for s in family.samples}
        assert found["tactus_robot_counter", "bus.retries"] == 3
        return {name[0]: value for name, value in found.items()}

    assert play([0, 1, 2], end=3)["tactus_robot_skipped_ticks_total"] == 0  # done at tick 2
    assert play([0, 1, 4], end=5)["tactus_robot_skipped_ticks_total"] == 2  # overran at 1, done at 4
    assert play([0, 1, 2], end=4)["tactus_robot_skipped_ticks_total"] == 2  # max_ticks was 3, reached in time
    assert play([0, 1, 2], end=6)["tactus_robot_skipped_ticks_total"] == 4  # and two ticks late


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """Every target reads the data source that is chosen, and only what the variables select."""
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"] and "__inputs" not in dashboard
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"] == [
        "Robot", "Policy node", "Processes",
    ]  # fmt: skip
    places = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & places and max(x for x, _ in cells) < 24, f"{panel['title']} lies on another panel"
        places |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
            selected = re.findall(r"[a-z_]+\{([^}]*)\}", target["expr"])
            assert selected and set(selected) == {'job=~"$job",instance=~"$instance"'}
            assert target["expr"].count("(") == target["expr"].count(")")
