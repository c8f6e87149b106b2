"""How much the action jumps where one chunk takes over from another, by latency and by how the queue joins them.

python tests/bench/rtc_seams.py            everything: demonstrations, training, 480 episodes
python tests/bench/rtc_seams.py --ticks 4 --turns 2
python tests/bench/rtc_seams.py --policy=outputs/bench/distill/run/student      with one denoising step

A flow policy is trained on demonstrations of several minds (rtc_demos.py), served by real `tactus serve` processes
and driven by real robot nodes, in virtual time on LIBERO, from init states that no demonstration began with. Data
and weights are kept in outputs/bench/rtc; delete the folder to make them anew.

seam     ticks whose newest chunk is not the one of the tick before. Where `weighted_average` stops blending because
         the older chunk ends counts as inside.
jump     ‖(a[k] - a[k-1]) / σ‖ of what the robot executed, σ per dimension over the demonstrations; without gripper
         and dimensions that the demonstrations hardly move (rotations). Ticks with no action queued are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rtc_demos import HELD_OUT, TASKS, libero
from rtc_policy import trained

from tactus.hal.robot import Robot
from tactus.hal.spec import Feature
from tactus.runtime.robot_node.action_queue import ActionQueue
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.statistics import wilson
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link

ROOT = Path(__file__).parents[2]
SEED = 1000
STILL = 0.05
"""Dimensions with a σ below this share of half their range are left out: σ would make noise of them."""
SERVERS = {"identity": ["--policy.guidance=identity"], "vjp": ["--policy.guidance=vjp"]}


class Mode(NamedTuple):
    """A column of the table."""

    name: str
    aggregate: str
    server: str


MODES = (
    Mode("latest_only", "latest_only", "identity"),
    Mode("weighted_average", "weighted_average", "identity"),
    Mode("rtc identity", "rtc", "identity"),
    Mode("rtc vjp", "rtc", "vjp"),
)


class SourcedQueue(ActionQueue):
    """Remembers, for every action popped, when the newest chunk in it was observed; -1 where there was none."""

    def clear(self) -> None:
        super().clear()
        self.sources: list[int] = []

    def pop(self, tick: int) -> np.ndarray | None:
        action = super().pop(tick)
        self.sources.append(-1 if action is None else int(self._starts[tick - self._base]))
        return action


@dataclass
class Tally:
    """All episodes of one mode at one latency."""

    seams: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    starved: int = 0
    successes: int = 0
    episodes: int = 0

    def add(self, actions: np.ndarray, sources: list[int], scale: np.ndarray, success: bool) -> None:
        """scale: [A], 1/σ, 0 for dimensions left out."""
        jumps = np.linalg.norm(np.diff(actions, axis=0) * scale, axis=1)
        for jump, (before, after) in zip(jumps, pairwise(sources), strict=True):
            if min(before, after) >= 0:
                (self.inside if before == after else self.seams).append(float(jump))
        self.starved += sources.count(-1)
        self.successes += success
        self.episodes += 1


@contextlib.contextmanager
def served(policy: Path) -> Iterator[dict[str, Link]]:
    """A link to a `tactus serve` process per guidance."""
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        links = {}
        for name, options in SERVERS.items():
            endpoint = f"ipc://{scratch}/{name}"
            command = [sys.executable, "-m", "tactus", "serve", f"--connect={endpoint}"]
            command += ["--policy.type=flow", f"--policy.path={policy}", *options]
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            links[name] = stack.enter_context(contextlib.closing(Link(endpoint)))
        yield links


def play(robot: Robot, link: Link, mode: Mode, delay: int, episode: int) -> tuple[np.ndarray, list[int], bool]:
    """One episode: executed actions [T, A], their sources, success."""
    clock = VirtualClock(robot.spec.fps)
    spec = link.hello(robot.spec, timeout_s=60)
    delayed = VirtualDelayedLink(link, clock, LatencyModel.parse(f"fixed:{delay}"), lost_after_s=30)
    node = RobotNode(robot, spec, delayed, clock, LoopConfig(aggregate=mode.aggregate))
    queue = SourcedQueue(robot.spec.action, mode.aggregate)
    node._queue = queue
    stats = node.run_episode(episode, SEED)
    return np.stack(stats.actions), queue.sources, stats.outcome is not None and stats.outcome.success


def scale(action: Feature, std: np.ndarray) -> np.ndarray:
    """1/σ, and 0 for switches and for what hardly moves."""
    half_range = (np.array(action.high) - np.array(action.low)) / 2
    used = (std > STILL * half_range) & (np.array(action.mode) != "binary")
    return np.where(used, 1 / np.where(used, std, 1), 0)


def show(tallies: dict[tuple[int, Mode], Tally], delays: list[int]) -> None:
    print("\nmean jump in σ at seams (inside chunks)")
    print("ticks of latency" + "".join(f"{mode.name:>26s}" for mode in MODES))
    for delay in delays:
        cells = (tallies[delay, mode] for mode in MODES)
        row = (
            f"{np.mean(t.seams):.2f} ±{np.std(t.seams) / len(t.seams) ** 0.5:.2f} ({np.mean(t.inside):.2f})"
            for t in cells
        )
        print(f"{delay:16d}" + "".join(f"{cell:>26s}" for cell in row))
    print("\nsuccess in %, 95 % Wilson interval")
    for delay in delays:
        row = []
        for mode in MODES:
            tally = tallies[delay, mode]
            low, high = wilson(tally.successes, tally.episodes)
            row.append(f"{100 * tally.successes / tally.episodes:.0f} [{100 * low:.0f}, {100 * high:.0f}]")
        print(f"{delay:16d}" + "".join(f"{cell:>26s}" for cell in row))
    tally = next(iter(tallies.values()))
    seams = [len(t.seams) for t in tallies.values()]
    print(f"\n{tally.episodes} episodes a cell, {min(seams)} to {max(seams)} seams; ", end="")
    print(f"{sum(t.starved for t in tallies.values())} ticks without an action")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, nargs="+", default=[0, 1, 2, 4, 6, 8], help="latencies")
    parser.add_argument("--turns", type=int, default=10, help="held-out init states a task, at most 10")
    parser.add_argument("--policy", type=Path, help="folder of another one, e.g. a student of distill.py")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    policy, std = trained()
    policy = arguments.policy or policy
    tallies = {(delay, mode): Tally() for delay in arguments.ticks for mode in MODES}
    started_s = time.monotonic()
    with served(policy) as links:
        for task in TASKS:
            robot = libero([task], HELD_OUT)
            for (delay, mode), tally in tallies.items():
                for turn in range(arguments.turns):
                    actions, sources, success = play(robot, links[mode.server], mode, delay, turn)
                    tally.add(actions, sources, scale(robot.spec.action, std), success)
            robot.close()
            print(f"task {task}: {time.monotonic() - started_s:.0f} s", flush=True)
    show(tallies, arguments.ticks)


if __name__ == "__main__":
    main()
