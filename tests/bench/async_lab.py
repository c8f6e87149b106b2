"""Success against delay on LIBERO: ours, and LeRobot 0.6.1's asynchronous inference, in the same episodes and one plot.

python tests/bench/async_lab.py            the learned policy, 10 tasks × 2 held-out initial states, 5 delays

First the sweep, as a user would type it, timed: 5 delays × 4 aggregations × 20 episodes and the synchronous reference,
on two workers. Then LeRobot's own client and server (lerobot_async.py) under the same delays, with its defaults:
weighted_average, a chunk_size_threshold of 0.5, and its filter of similar observations, which compares radians and
metres with 1; without that filter; and both once more as on an arm that has not moved yet when it is observed, right
after an action was sent: there its labels are right (lerobot_async.py explains). Last, at no delay: whose actions equal
synchronous ones, to the bit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lerobot.async_inference import policy_server
from lerobot_async import play

from tactus.hal.libero import LiberoConfig
from tactus.runtime.evaluation.results import Results
from tactus.runtime.lab import sweep_folder
from tactus.runtime.lab.report import write_report
from tactus.runtime.lab.sweep_settings import SYNCHRONOUS, Cell
from tactus.runtime.robot_node.episode import episode_row, episode_timing
from tactus.runtime.statistics import wilson
from tactus.runtime.wire.link import Link

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "outputs" / "bench" / "async_lab"
INIT_STATES = [45, 46]
SEED = 1000
AGGREGATIONS = "latest_only,weighted_average,average,temporal_ensemble"
LEROBOT: dict[str, tuple[bool, bool]] = {
    "LeRobot async": (True, True),
    "LeRobot async, no filter": (False, True),
    "LeRobot async, slow arm": (True, False),
    "LeRobot async, slow arm, no filter": (False, False),
}
"""Whether observations are filtered, and whether an action is done when the robot is observed right after it."""


def ours(delays: list[int], episodes: int) -> float:
    """The sweep; what is in the folder already is kept. Returns the wall time in s."""
    latencies = ",".join(f"fixed:{delay}" for delay in delays)
    command = ["bash", "launch/sim.sh", "--policy=learned_state", "--robot.cameras=[]", "--workers=2"]
    command += [
        f"--robot.init_states={INIT_STATES}",
        f"--sweep.latency=[{latencies}]",
        f"--sweep.aggregate=[{AGGREGATIONS}]",
        f"--episodes={episodes}",
    ]
    command += [f"--output_dir={FOLDER}", "--resume"]
    started_s = time.monotonic()
    subprocess.run([argument.replace(" ", "") for argument in command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started_s


def theirs(delays: list[int], episodes: int) -> None:
    """A cell per delay and filter, beside ours."""
    with served() as link:
        robot = LiberoConfig(cameras=[], init_states=INIT_STATES).make()
        with robot:
            spec = link.hello(robot.spec, 60, real_time=False)
            cells = [Cell(f"fixed:{delay}", "weighted_average") for delay in delays]
            cells.append(Cell("fixed:0", "weighted_average", 0.0))
            for label, (filtered, acts_at_once) in LEROBOT.items():
                for cell in cells:
                    name = f"{label.replace(', ', '_').replace(' ', '-')}_{cell.name}"
                    config = {"label": label, "policy": spec.name, **cell.to_dict()}
                    results = Results(_place(cell) / name, config, resume=True)
                    left = [episode for episode in range(episodes) if episode not in results.finished]
                    with contextlib.nullcontext() if filtered else unfiltered():
                        options = (cell.latency, cell.aggregate, cell.chunk_size_threshold, left, SEED)
                        for episode, scene, stats in play(robot, link, spec, *options, acts_at_once=acts_at_once):
                            results.add(episode_row(episode, SEED, scene, stats), episode_timing(episode, stats))
                    print(f"{name}: {rate(results.rows)}", flush=True)


def _place(cell: Cell) -> Path:
    """In the report, but for the cell that only shows what no delay is like without one."""
    return FOLDER / ("cells" if cell.chunk_size_threshold else "synchronous")


@contextlib.contextmanager
def unfiltered() -> Iterator[None]:
    """LeRobot's server without its filter: no two observations are alike."""
    with mock.patch.object(policy_server, "observations_similar", lambda *args, **kwargs: False):
        yield


@contextlib.contextmanager
def served() -> Iterator[Link]:
    """A link to a `tactus serve` process with the policy that ships."""
    with contextlib.ExitStack() as stack:
        endpoint = f"ipc://{stack.enter_context(tempfile.TemporaryDirectory())}/learned"
        command = [sys.executable, "-m", "tactus", "serve", f"--connect={endpoint}", "--policy.type=learned_state"]
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.terminate)
        yield stack.enter_context(contextlib.closing(Link(endpoint)))


def rate(rows: list[dict[str, Any]]) -> str:
    successes = sum(row["success"] for row in rows)
    low, high = wilson(successes, len(rows))
    return f"{successes}/{len(rows)} [{100 * low:.0f}, {100 * high:.0f} %]"


def show(delays: list[int]) -> None:
    found = sweep_folder.read_sweep(FOLDER).cells
    modes = sorted({(one.label, one.cell.aggregate, one.cell.chunk_size_threshold) for one in found})
    print("\nsuccesses" + "".join(f"{f'{delay} ticks':>22s}" for delay in delays))
    for label, aggregate, threshold in modes:
        cells = {
            one.cell.latency: one
            for one in found
            if (one.label, one.cell.aggregate, one.cell.chunk_size_threshold) == (label, aggregate, threshold)
        }
        texts = [rate(cells[f"fixed:{delay}"].rows) if f"fixed:{delay}" in cells else "" for delay in delays]
        starved = [
            f"{100 * sum(r['starved_ticks'] for r in one.rows) / sum(r['ticks'] for r in one.rows):.0f}"
            for one in cells.values()
        ]
        print(f"{label or 'ours'}, {aggregate}, threshold {threshold:g}")
        print("         " + "".join(f"{text:>22s}" for text in texts) + f"   starved {', '.join(starved)} %")
    reference = {row["episode"]: row["actions_sha256"] for row in found[0].rows}
    assert found[0].cell == SYNCHRONOUS
    print("\nno delay, threshold 0: episodes whose actions equal the synchronous ones, to the bit")
    print(f"  ours {len(reference)} of {len(reference)} (it is the same run)")
    for folder in sorted(FOLDER.glob("synchronous/*")):
        rows = Results.read(folder).rows
        same = sum(row["actions_sha256"] == reference[row["episode"]] for row in rows)
        print(f"  {json.loads((folder / 'config.json').read_text())['label']}: {same} of {len(rows)}, {rate(rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, nargs="+", default=[0, 3, 6, 9, 12], help="delays")
    parser.add_argument("--episodes", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)  # LeRobot's client and server report every turn
    new = not (FOLDER / sweep_folder.SWEEP).exists()
    wall_s = ours(arguments.ticks, arguments.episodes)
    print(f"sweep: {wall_s:.0f} s{'' if new else ' (part of it was there already)'}", flush=True)
    theirs(arguments.ticks, arguments.episodes)
    show(arguments.ticks)
    print(f"\nreport: {write_report(FOLDER)}")
    (FOLDER / "wall.json").write_text(json.dumps({"sweep_s": wall_s, "whole": new}))


if __name__ == "__main__":
    main()
