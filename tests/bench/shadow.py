"""What a shadow policy costs the first one: the latency of answers with and without one, and what handing over takes.

    python tests/bench/shadow.py [--blocks=12] [--asks=25] [--hz=8]

Two policy nodes with the same small ACT of two cameras at 128² on one thread; one of them has a shadow on all cores, an
ACT that takes several times as long. One robot asks them in turn, a block of requests each, so that
whatever else the machine does hits both alike; before each block the shadow has come to rest. Latencies are the
robot's: from its request to its chunk. What every other block without a shadow differs by from the rest is printed too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import checkpoints
from processes import end, serving

from tactus.hal.spec import STATE, Chunk, Feature, Observation, PolicySpec, RobotSpec, image
from tactus.policies.policy import Request, Session
from tactus.policies.scripted.config import TickerConfig
from tactus.runtime.policy_node.inference import Ask
from tactus.runtime.policy_node.shadow import Shadow, Shown
from tactus.runtime.wire.link import Link

CAMERAS = {f"observation.images.camera_{i}": (128, 128) for i in range(2)}
SPEC = RobotSpec(
    "bench",
    30.0,
    {STATE: Feature((7,), "float32"), **{name: image(*size) for name, size in CAMERAS.items()}},
    Feature((7,), "float32"),
)
REST_S = 3.0
LARGE = {"dim_model": 512, "n_heads": 8, "dim_feedforward": 3200, "n_encoder_layers": 6, "n_decoder_layers": 6}


def observation(tick: int) -> Observation:
    random = np.random.default_rng(tick)
    arrays: dict[str, np.ndarray] = {STATE: random.normal(size=7).astype(np.float32)}
    arrays |= {name: random.integers(0, 256, (*size, 3), np.uint8) for name, size in CAMERAS.items()}
    return Observation(arrays, dict.fromkeys(arrays, 1), tick, "pick")


def block(link: Link, first: int, asks: int, hz: float) -> list[float]:
    """Latencies of so many requests in ms, evenly spaced."""
    found, due_s = [], time.monotonic()
    for tick in range(first, first + asks):
        seen = observation(tick)
        while (left_s := due_s - time.monotonic()) > 0:
            time.sleep(left_s)
        due_s = max(due_s, time.monotonic()) + 1 / hz
        began_s = time.perf_counter()
        link.request(seen, 0, 0)
        while not link.poll():
            link.wait(0.05)
        found.append((time.perf_counter() - began_s) * 1000)
    return found


def rest(pid: int) -> None:
    """Until the process uses no more CPU, or REST_S: on a machine that is busy otherwise it hardly gets any."""
    used, give_up_s = -1, time.monotonic() + REST_S
    while time.monotonic() < give_up_s and used != (
        used := sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    ):
        time.sleep(0.3)


def answers(folder: Path, blocks: int, asks: int, hz: float) -> None:
    small = checkpoints.act(folder / "small", images=CAMERAS, state=7, chunk_size=20)
    large = checkpoints.act(folder / "large", images=CAMERAS, state=7, chunk_size=100, n_action_steps=50, **LARGE)
    report = folder / "report.json"
    keys = [f"--policy.path={small}", "--policy.threads=1"]
    shadow = [f"--shadow.path={large}", f"--shadow_report={report}"]
    with ExitStack() as stack:
        _, alone = stack.enter_context(serving(folder / "without.log", *keys))
        process, watched = stack.enter_context(serving(folder / "with.log", *keys, *shadow))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        links = {"without": Link(alone), "with": Link(watched)}
        found: dict[str, list[float]] = {name: [] for name in links}
        for link in links.values():
            link.hello(SPEC, 30, real_time=False)
            link.reset(0, 1, "pick")
            block(link, 0, asks, hz)  # the first ones pay for what is made once
        for turn in range(1, blocks + 1):
            for name, link in links.items():
                rest(int(children[0]))
                found[name] += block(link, turn * asks, asks, hz)
        for link in links.values():
            link.close()
        end(process, 30)
    said = json.loads(report.read_text())
    print(f"{'latency of answers, ms':28s}{'p50':>9s}{'p95':>9s}{'p99':>9s}{'max':>9s}{'answers':>9s}")
    for name, each in found.items():
        figures = "".join(f"{np.percentile(each, p):9.2f}" for p in (50, 95, 99, 100))
        print(f"{name + ' a shadow':28s}{figures}{len(each):9d}")
    ratios = "".join(
        f"{np.percentile(found['with'], p) / np.percentile(found['without'], p):9.3f}" for p in (50, 95, 99, 100)
    )
    print(f"{'with / without':28s}{ratios}")
    alike = np.array(found["without"]).reshape(blocks, asks)
    ratios = "".join(f"{np.percentile(alike[1::2], p) / np.percentile(alike[::2], p):9.3f}" for p in (50, 95, 99, 100))
    print(f"{'without / without':28s}{ratios}")
    slower = said["latency_ms"]["p50"] / np.percentile(found["without"], 50)
    print(f"the shadow: p50 {said['latency_ms']['p50']:.0f} ms, {slower:.1f} times as long as the first one's answer;")
    print(f"  {said['compared']} compared, {said['skipped']} skipped, {said['errors']} errors")
    assert slower > 1, "the shadow must be the slower one"


def handing_over(size: int, repeats: int = 400) -> None:
    cameras = [f"observation.images.camera_{i}" for i in range(2)]
    config = TickerConfig(cameras=2, image_size=(size, size))
    policy = config.make()
    shadow = Shadow(config)
    spec: PolicySpec = policy.spec
    shadow.ready(spec)
    picture = np.zeros((size, size, 3), np.uint8)
    arrays = {STATE: np.zeros(7, np.float32), **dict.fromkeys(cameras, picture)}
    chunk = Chunk(0, np.zeros((spec.horizon, 7), np.float32))
    spent_us: dict[str, list[float]] = {"before": [], "after": []}
    for tick in range(repeats):
        reset = Session("bench", 1, "pick") if tick == 0 else None
        ask = Ask(Request("bench", Observation(arrays, dict.fromkeys(arrays, 1), tick, "pick")), reset)
        times = [time.perf_counter()]
        shadow.pause([ask], lambda session: b"")
        times.append(time.perf_counter())
        time.sleep(0.002)
        times.append(time.perf_counter())
        shadow.resume([Shown(ask, chunk, SPEC.action)])
        times.append(time.perf_counter())
        if tick:
            spent_us["before"].append((times[1] - times[0]) * 1e6)
            spent_us["after"].append((times[3] - times[2]) * 1e6)
        time.sleep(0.01)
    report = shadow.close()
    figures = "; ".join(f"{k} {np.median(v):.0f}, p99 {np.percentile(v, 99):.0f}" for k, v in spent_us.items())
    print(f"handing over two pictures of {size}², us in the answering thread: {figures} ({report['compared']} taken)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--asks", type=int, default=25)
    parser.add_argument("--hz", type=float, default=8.0)
    given = parser.parse_args()
    for size in (128, 480):
        handing_over(size)
    with tempfile.TemporaryDirectory() as folder:
        answers(Path(folder), given.blocks, given.asks, given.hz)


if __name__ == "__main__":
    main()
