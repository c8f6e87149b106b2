"""How many workers this machine carries, from what the first one was seen to use."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

SHARE = 0.8
"""Of the memory that is free, what workers may take."""


class Usage(NamedTuple):
    """Of one worker. cpu: cores it keeps busy; policy: those of the policy node on its behalf; rss_bytes: its peak."""

    pid: int
    cpu: float
    policy: float
    rss_bytes: int


class Limit(NamedTuple):
    """workers: how many fit. why: a line for the user."""

    workers: int
    why: str


def affordable(usage: Usage, jobs: int) -> tuple[int, str]:
    """How many workers to have, and why. jobs: episodes still to play."""
    limits = [cores(usage), memory(usage), Limit(max(1, jobs), f"{jobs} episodes are left")]
    if (gpu := gpu_memory(usage)) is not None:
        limits.append(gpu)
    return max(1, min(limit.workers for limit in limits)), "; ".join(limit.why for limit in limits)


def cores(usage: Usage) -> Limit:
    """As many as there are cores for, to the nearest."""
    available = len(os.sched_getaffinity(0))
    need = max(0.05, usage.cpu + usage.policy)
    fit = max(1, round(available / need))
    return Limit(fit, f"{available} cores, one worker and its share of the policy keep {need:.2f} busy: {fit}")


def memory(usage: Usage) -> Limit:
    """As many as fit into SHARE of what is free now, and the one that is there already."""
    free = free_bytes()
    fit = 1 + int(SHARE * free / max(1, usage.rss_bytes))
    return Limit(fit, f"{free / 1e9:.1f} GB free, one worker takes {usage.rss_bytes / 1e9:.2f} GB: {fit}")


def free_bytes() -> int:
    """What can be taken without swapping, by this machine's account and its control group's."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, max(0, int(limit.read_text()) - int(used.read_text())))
    return free


def gpu_memory(usage: Usage) -> Limit | None:
    """As many as fit on the GPU, if there is one and the worker renders on it."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--format=csv,noheader,nounits"]
    apps = subprocess.run([*query, "--query-compute-apps=pid,used_memory"], capture_output=True, text=True)
    free = subprocess.run([*query, "--query-gpu=memory.free"], capture_output=True, text=True)
    used = [line.split(",")[1] for line in apps.stdout.splitlines() if line.split(",")[0].strip() == str(usage.pid)]
    if apps.returncode or free.returncode or not used or not used[0].strip().isdigit():
        return None
    one_mb, free_mb = max(1, int(used[0])), min(int(line) for line in free.stdout.split())
    fit = 1 + int(SHARE * free_mb / one_mb)
    return Limit(fit, f"{free_mb / 1000:.1f} GB free on the GPU, one worker takes {one_mb / 1000:.2f} GB: {fit}")
