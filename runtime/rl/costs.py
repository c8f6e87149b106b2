"""What a worker, the policy node and a learner cost here: a real node, a real worker and a few of its episodes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from tactus.hal.config import encode
from tactus.hal.robot import RobotConfig
from tactus.hal.spec import SpecError
from tactus.policies.policy import PolicyConfig
from tactus.runtime.lab.coordinator import WorkersFailed
from tactus.runtime.lab.episode_runner import WorkerConfig
from tactus.runtime.lab.pool import Pool, ProcessPool
from tactus.runtime.lab.sweep_settings import SYNCHRONOUS
from tactus.runtime.lab.worker_limit import free_bytes, gpu_use, peak_bytes, private_bytes
from tactus.runtime.rl.placement import Bytes, Costs
from tactus.runtime.rl.policy_process import PolicyProcess, PolicyProcessConfig
from tactus.runtime.robot_node.config import LoopConfig

LEAST_S = 2.0
"""Episodes are timed until they have taken this long."""
MOST = 64
"""But no more than these."""
MOST_GROUPS = 12
"""Groups of episodes, as tasks, that a worker plays to see how its memory grows with them."""
GROWN = 1.02
"""It has stopped growing if another group takes less than this times as much."""
CONTEXT = int(0.5e9)
"""Of the GPU, what CUDA takes in one more process before anything is in it."""

Say = Callable[[str], object]


class _Time(NamedTuple):
    """Of a process since it began. cpu_s: of all its threads. waited_s: its first thread could have run, but others
    had the core."""

    cpu_s: float
    waited_s: float


class _Played(NamedTuple):
    """Of one episode, on average, as if nobody else used the machine; memory of worker and node after them."""

    wall_s: float
    worker_cpu_s: float
    node_cpu_s: float
    busy_s: float
    worker: Bytes
    node: Bytes


def free_memory(policy: PolicyConfig) -> Bytes:
    """What is free now, never what there is in all; on the GPU that the policy would be on, if there is one."""
    if shutil.which("nvidia-smi") is None:
        return Bytes(free_bytes())
    device = str(getattr(policy, "device", "cuda"))
    found = _probe({"device": device if device.startswith("cuda") else "cuda"})
    return Bytes(free_bytes(), found["gpu_free"])


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0))


def measure_costs(
    robot: RobotConfig,
    policy: PolicyConfig,
    learner: bool = True,
    minibatch: int = 128,
    episodes: int = 64,
    seed: int = 1000,
    allow: Sequence[str] = (),
    say: Say = lambda line: None,
) -> Costs:
    """Loads the policy twice, one after the other: to measure its passes, and in a policy node for a worker.

    learner, minibatch: whether there is one, and how many observations it takes a gradient of at once. episodes: of
    the robot, from 0 on, that workers will play; one of each group is played here, until the worker's memory no longer
    grows with them. say: told what is being done.

    Raises SpecError for a policy that cannot be made or trained, ResultsError for a node that does not come up,
    WorkersFailed for a robot that the policy does not fit or that fails.
    """
    say("measuring the policy's passes")
    found = _probe({"policy": encode(policy), "learner": learner, "minibatch": minibatch})
    with tempfile.TemporaryDirectory(prefix="tactus_plan_") as place:
        served = PolicyProcessConfig(policy=policy, allow=tuple(allow))
        with closing(PolicyProcess(served, Path(place) / "policy_node.log")) as node:
            say("measuring a worker's episodes")
            config = WorkerConfig(robot, LoopConfig(chunk_size_threshold=0.0), seed, episodes)
            with closing(ProcessPool(encode(config), {"": [node.endpoint]}, Path(place) / "workers")) as pool:
                played = _play(pool, node.pid)
    return _costs(found, played, learner, minibatch)


def _costs(found: Mapping[str, Any], played: _Played, learner: bool, minibatch: int) -> Costs:
    """Of what the probe and the episodes have shown."""
    one, full, weights = (Bytes(*found.get(key, (0, 0))) for key in ("batch_1", "batch", "weights"))
    node = Bytes(played.node.ram + max(0, full.ram - one.ram), weights.gpu + full.gpu)
    learning, both, facts = Bytes(0), node, []
    if found["max_batch"] > 1:
        times = f"{1000 * found['batch_1_s']:.3g} ms, with {found['max_batch']} robots {1000 * found['batch_s']:.3g} ms"
        facts.append(f"a pass: {times} and {_mb(sum(full))} of activations")
    if learner:
        process, moved, training = (Bytes(*found[key]) for key in ("process", "trainable", "training"))
        state = training.plus(moved, 2)  # AdamW's moments; gradients are in `training`
        learning = process.plus(state).plus(Bytes(0, CONTEXT if process.gpu else 0))
        both = node.plus(state)
        activations = sum(training) - sum(moved)
        tried = "" if found["tried"] == minibatch else f", from those of {found['tried']}"
        facts.append(
            f"weights {_mb(found['model'])}, of which {_mb(sum(moved))} are trained; gradients {_mb(sum(moved))}, "
            f"AdamW's moments {_mb(2 * sum(moved))}, activations of {minibatch} {_mb(activations)}{tried}"
        )
    return Costs(
        worker=played.worker,
        node=node,
        learner=learning,
        both=both,
        episode_s=played.wall_s,
        worker_cpu_s=played.worker_cpu_s,
        node_cpu_s=played.node_cpu_s,
        node_busy_s=played.busy_s,
        facts=tuple(facts),
    )


def _mb(count: float) -> str:
    return f"{count / 1e6:.3g} MB" if count < 1e9 else f"{count / 1e9:.3g} GB"


def _probe(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the memory probe, in a process of its own; raises SpecError with its sentence."""
    command = [sys.executable, "-m", "tactus.runtime.rl.memory_probe"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no last words"])[-1]
        raise WorkersFailed(f"the policy's passes cannot be measured: exit status {done.returncode}, {last}")
    found = json.loads(done.stdout)
    if "error" in found:
        raise SpecError(found["error"])
    return found


def _play(pool: Pool, node_pid: int) -> _Played:
    """An episode of each group, for what a worker keeps of it; then some again, timed."""
    worker = pool.start()
    groups = _asked(pool, worker, {"hello": True})["groups"]
    firsts = [groups.index(group) for group in dict.fromkeys(groups)][:MOST_GROUPS]
    bytes_before, pid = 0, 0
    for count, episode in enumerate(firsts):
        pid = _asked(pool, worker, _order(episode))["usage"]["pid"]
        if private_bytes(pid) < GROWN * bytes_before:
            firsts = firsts[: count + 1]
            break
        bytes_before = private_bytes(pid)
    start_s, busy_s, count = time.monotonic(), 0.0, 0
    worker_before, node_before = _time(pid), _time(node_pid)
    while count < MOST and (count == 0 or time.monotonic() - start_s < LEAST_S):
        answer = _asked(pool, worker, _order(firsts[count % len(firsts)]))
        busy_s += sum(answer["timing"]["inference_ms"]) / 1000
        count += 1
    wall_s = time.monotonic() - start_s
    worker_s, node_s = (
        _Time(*(now - then for now, then in zip(_time(one), before, strict=True)))
        for one, before in ((pid, worker_before), (node_pid, node_before))
    )
    alone_s = wall_s - worker_s.waited_s - node_s.waited_s  # too little, where both waited at the same time
    gpu = gpu_use(pid)
    return _Played(
        min(wall_s, max(alone_s, worker_s.cpu_s, node_s.cpu_s)) / count,
        worker_s.cpu_s / count,
        node_s.cpu_s / count,
        max(0.0, busy_s - node_s.waited_s) / count,
        Bytes(peak_bytes(pid), gpu.used if gpu else 0),
        Bytes(peak_bytes(node_pid)),
    )


def _order(episode: int) -> dict[str, Any]:
    return {"play": {"cell": SYNCHRONOUS.to_dict(), "episode": episode}}


def _asked(pool: Pool, worker: int, order: Mapping[str, Any]) -> dict[str, Any]:
    """The worker's answer; raises WorkersFailed if it has none."""
    pool.give(worker, order)
    while not (events := pool.wait(1.0)):
        pass
    answer = events[0].answer
    if answer is None:
        raise WorkersFailed(f"the worker exited: {events[0].exit_output}")
    if "failed" in answer:
        raise WorkersFailed(answer["failed"], answer["status"])
    if "lost" in answer:
        raise WorkersFailed(answer["lost"])
    return answer


def _time(pid: int) -> _Time:
    threads = {file.parent.name: file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/schedstat")}
    return _Time(sum(int(times[0]) for times in threads.values()) / 1e9, int(threads[str(pid)][1]) / 1e9)
