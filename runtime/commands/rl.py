"""`tactus rl`: a flow policy practises on a robot, and is held to initial states that it has not practised on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tactus.hal.config import encode
from tactus.hal.interrupts import interrupted_by
from tactus.hal.spec import SpecError
from tactus.policies.policy import Policy
from tactus.policies.rl.config import ExploreConfig
from tactus.policies.rl.rollouts import Rollout
from tactus.runtime.commands.config import Rl
from tactus.runtime.commands.report_writer import PRACTICE_REPORT, load_writer
from tactus.runtime.commands.verification import bars
from tactus.runtime.evaluation.results import ResultsError, check_same, make_folder, read_config, versions, write_whole
from tactus.runtime.lab.coordinator import WorkersFailed
from tactus.runtime.lab.episode_runner import WorkerConfig
from tactus.runtime.lab.pool import Pool, ProcessPool
from tactus.runtime.lab.sweep_settings import Cell
from tactus.runtime.policy_node.inference import make
from tactus.runtime.rl.nodes import InnerNode, OtherNodes, OwnNode
from tactus.runtime.rl.players import Players
from tactus.runtime.rl.policy_process import PolicyProcessConfig
from tactus.runtime.rl.rollout_worker import KIND
from tactus.runtime.robot_node.action_queue import RTC
from tactus.runtime.wire.keys import client_keys
from tactus.runtime.wire.link import LinkError

if TYPE_CHECKING:
    from tactus.policies.rl.explorer import ExplorerPolicy

PASSED, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
ABOUT = "practice.json"
SMALL = 5_000_000
"""Parameters below which more threads of torch than one cost more than they give."""
EXTENDED = ("iterations", "eval_every")
"""Settings that may be others when a practice is gone on with."""


def main(config: Rl, arguments: list[str]) -> int:
    """Exit status 0 when all iterations are done, whatever came of them."""
    interrupted_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    folder = Path(config.output_dir or f"outputs/rl_{time.strftime('%Y%m%d_%H%M%S')}")
    on = f"what is played and learned is kept in {folder}; --output_dir={folder} --resume goes on"
    try:
        return _practise(config, folder)
    except WorkersFailed as error:
        print(f"tactus rl: {error}\n{on}", file=sys.stderr)
        return error.status
    except (ValueError, ResultsError, LinkError, ModuleNotFoundError) as error:
        print(f"tactus rl: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print(f"tactus rl: interrupted; {on}", file=sys.stderr)
        return INTERRUPTED


def _practise(config: Rl, folder: Path) -> int:
    first = os.environ.get("RANK", "0") == "0"  # of those that torchrun has started
    if first and folder.exists() and any(folder.iterdir()) and not config.resume:
        raise ResultsError(f"output_dir: {folder} is not empty; --resume goes on with it, or give another folder")
    practice = config.practice
    if config.aggregate == RTC and (practice.method != "filtered" or practice.exploration):
        raise SpecError(
            f"aggregate: {RTC} continues chunks, which exploration does not; accepted: latest_only, averages; rtc "
            "with method=filtered and sigma=0"
        )
    if config.one_process and (config.nodes or practice.overlap):
        raise SpecError("one_process: the policy node is the learner's own; leave out nodes and practice.overlap")
    load_writer(PRACTICE_REPORT)
    if config.workers == "auto" and first:
        config = _planned(config)

    import torch
    import torch.distributed as dist

    from tactus.policies.rl.explorer import ExplorerPolicy
    from tactus.policies.rl.learner import Learner
    from tactus.runtime.rl.practice import Practice

    if "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    policy = make(config.policy)
    learner = Learner(policy, practice)
    if sum(tensor.numel() for tensor in learner.flow.network.parameters()) < SMALL:
        torch.set_num_threads(1)
    if "RANK" in os.environ:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    demonstrations = _demonstrations(config, policy)
    settings = _settings(config)
    about = {"settings": json.dumps(settings, sort_keys=True), "weights": _digest(learner.arrays())}
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(bars())
        players, groups = None, [""] * (practice.train_states + practice.held_out)
        if first:
            make_folder(folder)
            players, groups, facts = _players(config, folder, stack, lambda: ExplorerPolicy(policy, learner.sampler))
            _check_folder(folder, {**about, **facts, "settings": settings}, config.resume)
        loop = Practice(learner, players, groups, practice, config.seed, folder, about, print, bar, demonstrations)
        lines = loop.run()
    if dist.is_initialized():
        dist.destroy_process_group()
    if first:
        _tell(lines)
        print(f"checkpoints: {folder / 'best'}, {folder / 'last'}\nreport: {load_writer(PRACTICE_REPORT)(folder)}")
    return PASSED


def _demonstrations(config: Rl, policy: Policy) -> list[Rollout]:
    if config.demonstrations is None:
        return []
    if not config.practice.imitates:
        raise SpecError(f"demonstrations: not used by method={config.practice.method} with a bc_weight of 0")
    from tactus.runtime.rl.demonstrations import demonstrated

    return demonstrated(Path(config.demonstrations), policy.spec)


def _planned(config: Rl) -> Rl:
    """With the number of workers, and the placement, that this machine carries. Raises WorkersFailed for no room."""
    from tactus.runtime.rl.costs import cores, free_memory, measure_costs
    from tactus.runtime.rl.placement import plan

    practice, free = config.practice, free_memory(config.policy)
    learner = practice.method != "noise"
    costs = measure_costs(
        config.robot, config.policy, learner, practice.minibatch, practice.train_states, config.seed, (), print
    )
    found = plan(costs, free, cores(), practice.states * practice.rollouts, learner)
    print("\n".join(found.lines()))
    if not found.fits:
        raise WorkersFailed("there is no room for even one worker")
    return replace(config, workers=str(found.workers), one_process=config.one_process or found.mode == "one process")


def _players(
    config: Rl, folder: Path, stack: contextlib.ExitStack, explorer: Callable[[], ExplorerPolicy]
) -> tuple[Players, list[str], dict[str, Any]]:
    """Nodes and workers, which are up: who plays, the group of each episode, and what decides how it goes. explorer:
    the learner's own policy, to be served as it is."""
    keys = client_keys(config.curve)
    if config.endpoints:
        nodes: Any = OtherNodes(config.endpoints, keys)
    elif config.one_process:
        nodes = InnerNode(explorer(), config.virtual_batch)
    else:
        explore = ExploreConfig(method=config.practice.method, sigma=config.practice.sigma)
        served = PolicyProcessConfig(policy=config.policy, explore=explore, virtual_batch=config.virtual_batch)
        nodes = OwnNode(served, folder / "logs" / "policy_node.log")
    stack.callback(nodes.close)
    pool = _pool(config, nodes.endpoints, folder)
    stack.callback(pool.close)
    cell = Cell(config.latency, config.aggregate, config.chunk_size_threshold, config.execution_horizon)
    players = Players(pool, nodes, int(config.workers), cell, config.practice.max_stale, print)
    hello = players.start()
    _check_scenes(config, hello["scenes"])
    facts = {"robot": hello["robot"], "policies": hello["policies"], "versions": versions()}
    return players, hello["groups"], facts


def _pool(config: Rl, endpoints: Sequence[str], folder: Path) -> Pool:
    practice = config.practice
    worker = WorkerConfig(
        robot=config.robot,
        loop=config.loop,
        seed=config.seed,
        episodes=practice.train_states + practice.held_out,
        curve=config.curve,
        wire=config.wire,
    )
    nodes = {"": [*endpoints]}
    if config.engine == "ray":
        from tactus.runtime.lab.ray_pool import RayPool

        return RayPool(encode(worker), nodes, config.ray_address, KIND)
    return ProcessPool(encode(worker), nodes, folder / "logs", KIND)


def _check_scenes(config: Rl, scenes: Sequence[Sequence[Any]]) -> None:
    """Raise SpecError where a held-out initial state is one that is practised on. Robots without a list draw them."""
    training = config.practice.train_states
    named = [json.dumps(scene) if "init_state" in scene[2] else None for scene in scenes]
    practised = {*named[:training]} - {None}
    if both := [episode for episode, name in enumerate(named) if episode >= training and name in practised]:
        distinct = len({*named})
        raise SpecError(
            f"practice.held_out: episode {both[0]} begins like one that is practised on: this robot has {distinct} "
            f"initial states; train_states {training} + held_out {config.practice.held_out} may be no more than that"
        )
    counts = Counter(group for group, *_ in scenes[:training])
    if len(counts) > 1:
        print("initial states: " + ", ".join(f"{group} {count}" for group, count in counts.items()))


def _settings(config: Rl) -> dict[str, Any]:
    """What decides what is learned, beside weights and robot."""
    practice = {key: value for key, value in encode(config.practice).items() if key not in EXTENDED}
    timing = {key: value for key, value in encode(config.loop).items() if not key.endswith("_s")}
    return {**practice, **timing, "latency": config.latency, "robot_seed": config.seed}


def _digest(arrays: Mapping[str, Any]) -> str:
    seen = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        seen.update(name.encode())
        seen.update(array.tobytes())
    return seen.hexdigest()[:16]


def _check_folder(folder: Path, about: Mapping[str, Any], resume: bool) -> None:
    """Raise ResultsError if the folder is another practice's."""
    file, known = folder / ABOUT, json.loads(json.dumps(about, default=str))
    if resume and file.exists():
        check_same(folder, read_config(file), known)
    write_whole(file, json.dumps(known, indent=1))


def _tell(lines: Sequence[Mapping[str, Any]]) -> None:
    """The base, the end and the best, beside each other."""
    from tactus.runtime.rl.report import evaluations

    for name, one in evaluations(lines).items():
        interval = f"[{100 * one['low']:.0f}, {100 * one['high']:.0f}] %"
        print(f"{name:4}  version {one['version']:3d}  {one['successes']} of {one['episodes']} held out {interval}")
