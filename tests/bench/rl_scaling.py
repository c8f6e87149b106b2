"""Rollouts per second by workers, beside bare processes that each load the policy; learner steps by processes.

    PYTHONPATH=$PWD .venv/bin/python tests/bench/rl_scaling.py --robot=libero --workers=1,2
    PYTHONPATH=$PWD .venv/bin/python tests/bench/rl_scaling.py --robot=push --workers=1,2,4 --policy=outputs/push_base
    PYTHONPATH=$PWD .venv/bin/python tests/bench/rl_scaling.py --ranks=1,2

One policy node holds the model and N robot nodes play with it (`tactus rl`'s own players); `bare` is what people write
first: N processes, each with an environment and a model of its own, no wire at all. The ratio is of one run. More
workers or ranks than cores are measured all the same, and say so. Ranks: gloo on the CPU; `communication` is the share
of a step's time that all-reducing its gradients takes, for the flow policy here and for 30 million parameters.
"""

from __future__ import annotations

import argparse
import copy
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rl_bases import BASES, FOLDER

import tactus.hal.backends
import tactus.policies.builtin
from tactus.hal.config import decode, encode
from tactus.hal.robot import RobotConfig
from tactus.policies.policy import PolicyConfig
from tactus.policies.rl.config import ExploreConfig
from tactus.runtime.lab.episode_runner import WorkerConfig
from tactus.runtime.lab.pool import ProcessPool
from tactus.runtime.lab.sweep_settings import SYNCHRONOUS
from tactus.runtime.rl.nodes import OwnNode
from tactus.runtime.rl.players import Order, Players
from tactus.runtime.rl.policy_process import PolicyProcessConfig
from tactus.runtime.rl.rollout_worker import KIND

REGISTERED = (tactus.hal.backends, tactus.policies.builtin)
SEED, STATES = 1000, 16
SIZES = {"0.3 million": (320, 3), "30 million": (2048, 1)}
"""Hidden width and blocks of a stand-in for a network: its parameters are what is reduced."""


def robot_of(kind: str) -> RobotConfig:
    if kind == "push":
        return decode(RobotConfig, {"type": "push"})
    base = BASES["object"]
    return decode(RobotConfig, {
        "type": "libero", "suite": base.suite, "tasks": [base.task], "cameras": [], "assets": "primitive",
        "max_steps": base.max_steps,
    })  # fmt: skip


def ours(robot: RobotConfig, policy: PolicyConfig, workers: int, count: int, batch: int) -> tuple[float, float]:
    """Rollouts per second, and the share of their time that workers were busy."""
    with tempfile.TemporaryDirectory() as folder:
        node = OwnNode(
            PolicyProcessConfig(policy=policy, explore=ExploreConfig(), virtual_batch=batch), Path(folder) / "log"
        )
        config = WorkerConfig(robot=robot, seed=SEED, episodes=STATES)
        pool = ProcessPool(encode(config), {"": node.endpoints}, Path(folder), KIND)
        players = Players(pool, node, workers, SYNCHRONOUS, 0, print)
        groups = dict.fromkeys(range(STATES), "")
        players.start()
        warm = [Order(state, 10**6, state, True) for state in range(2 * workers)]
        players.play(warm, groups, lambda order, played: None)  # builds the simulators
        orders = [Order(i % STATES, i // STATES, i, True) for i in range(count)]
        began_s = time.monotonic()
        busy_s = players.play(orders, groups, lambda order, played: None)
        took_s = time.monotonic() - began_s
        pool.close()
        node.close()
    return count / took_s, busy_s / (workers * took_s)


def _bare(robot: dict[str, Any], policy: dict[str, Any], orders: list[int], ready: Any, go: Any) -> None:
    from tactus.runtime.distillation.rollouts import play

    torch.set_num_threads(1)
    made, driver = decode(RobotConfig, robot).make(), decode(PolicyConfig, policy).make()
    made.connect()
    play(made, driver, 0, SEED)
    ready.put(None)
    go.wait()
    for one in orders:
        play(made, driver, one % STATES, SEED + 1000 * (one // STATES))
    made.close()


def bare(robot: RobotConfig, policy: PolicyConfig, workers: int, count: int) -> float:
    context = mp.get_context("spawn")
    ready, go = context.Queue(), context.Event()
    processes = [
        context.Process(target=_bare, args=(encode(robot), encode(policy), [*range(w, count, workers)], ready, go))
        for w in range(workers)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.get()
    began_s = time.monotonic()
    go.set()
    for process in processes:
        process.join()
    return count / (time.monotonic() - began_s)


def _rank(rank: int, ranks: int, port: int, hidden: int, blocks: int, out: Any) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if ranks > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    wide = 2 * hidden
    block = [torch.nn.Linear(hidden, wide), torch.nn.SiLU(), torch.nn.Linear(wide, hidden)]
    network = torch.nn.Sequential(*(layer for _ in range(blocks) for layer in copy.deepcopy(block)))
    rows = torch.randn(256 // ranks, hidden)
    spent = {"step": 0.0, "reduce": 0.0}
    for step in range(12):
        began_s = time.monotonic()
        network(rows).square().mean().backward()
        reduced_s = time.monotonic()
        if ranks > 1:
            for tensor in network.parameters():
                dist.all_reduce(tensor.grad)
        if step >= 2:
            spent["step"] += time.monotonic() - began_s
            spent["reduce"] += time.monotonic() - reduced_s
    if rank == 0:
        out.put((10 / spent["step"], spent["reduce"] / spent["step"]))
    if ranks > 1:
        dist.destroy_process_group()


def learner(ranks: int, hidden: int, blocks: int) -> tuple[float, float]:
    """Steps of 256 rows per second, and the share of communication."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    out = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_rank, (ranks, port, hidden, blocks, out), nprocs=ranks)
    return out.get()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", choices=["libero", "push"], default="libero")
    parser.add_argument("--policy", default=str(FOLDER / "bases" / "object"))
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--ranks", help="measure the learner instead, with so many processes")
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if given.ranks:
        print(f"| ranks ({cores} cores) | parameters | steps/s | x | communication |\n|---|---|---|---|---|")
        for name, (hidden, blocks) in SIZES.items():
            first = None
            for ranks in map(int, given.ranks.split(",")):
                rate, share = learner(ranks, hidden, blocks)
                first = first or rate
                print(f"| {ranks} | {name} | {rate:.1f} | {rate / first:.2f} | {share:.0%} |", flush=True)
        return
    robot, policy = robot_of(given.robot), decode(PolicyConfig, {"path": given.policy})
    print(f"| workers ({cores} cores) | rollouts/s | x | busy | shared passes | bare | x | of bare |")
    print("|---|---|---|---|---|---|---|---|")
    first: tuple[float, float] | None = None
    for workers in map(int, given.workers.split(",")):
        rate, busy = ours(robot, policy, workers, given.count, 1)
        shared, _ = ours(robot, policy, workers, given.count, workers) if workers > 1 else (rate, busy)
        alone = bare(robot, policy, workers, given.count)
        first = first or (rate, alone)
        print(
            f"| {workers} | {rate:.2f} | {rate / first[0]:.2f} | {busy:.0%} | {shared:.2f} | {alone:.2f} "
            f"| {alone / first[1]:.2f} | {rate / alone:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
