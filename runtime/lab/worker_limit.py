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


def private_bytes(pid: int) -> int:
    """What a process adds to the memory in use: its own, and its share of what several have mapped, as libraries."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def peak_bytes(pid: int) -> int:
    """The same at its most: a simulator needs more while it loads a scene than after."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    most, now = (int(lines[key].split()[0]) * 1024 for key in ("VmHWM", "VmRSS"))
    return private_bytes(pid) + max(0, most - now)


class GpuUse(NamedTuple):
    """Of a GPU, in bytes: what one process has of it, and what is free."""

    used: int
    free: int


def gpu_use(pid: int) -> GpuUse | None:
    """None if there is no GPU, or the process has nothing on it."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--format=csv,noheader,nounits"]
    apps = subprocess.run([*query, "--query-compute-apps=pid,used_memory"], capture_output=True, text=True)
    free = subprocess.run([*query, "--query-gpu=memory.free"], capture_output=True, text=True)
    used = [line.split(",")[1] for line in apps.stdout.splitlines() if line.split(",")[0].strip() == str(pid)]
    if apps.returncode or free.returncode or not used or not used[0].strip().isdigit():
        return None
    return GpuUse(int(used[0]) * 1_000_000, min(int(line) for line in free.stdout.split()) * 1_000_000)


def gpu_memory(usage: Usage) -> Limit | None:
    """As many as fit on the GPU, if there is one and the worker renders on it."""
    found = gpu_use(usage.pid)
    if found is None:
        return None
    fit = 1 + int(SHARE * found.free / max(1, found.used))
    return Limit(fit, f"{found.free / 1e9:.1f} GB free on the GPU, one worker takes {found.used / 1e9:.2f} GB: {fit}")
