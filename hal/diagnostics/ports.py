"""Facts and findings about serial ports: permissions, programs that have them open, latency timers."""

from __future__ import annotations

import contextlib
import grp
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tactus.hal.diagnostics.finding import Finding
from tactus.hal.servo.port import LATENCY_RULE, find_ports, latency_timer_ms


@dataclass(frozen=True)
class PortFacts:
    """One port. group: whose members may open it. holders: other processes that have it open, as far as this user may
    see. latency_timer_ms: None for adapters that have none. modem_manager: whether that runs here."""

    path: str
    description: str = ""
    exists: bool = True
    allowed: bool = True
    group: str = "dialout"
    holders: tuple[str, ...] = ()
    latency_timer_ms: int | None = None
    modem_manager: bool = False
    others: tuple[str, ...] = field(default=())
    """what there is instead, if it does not exist"""


def inspect_port(path: str) -> PortFacts:
    """Facts about one port, without opening it."""
    ports = find_ports()
    if not os.path.exists(path):
        return PortFacts(path, exists=False, others=tuple(f"{name} ({what})" for name, what in ports.items()))
    number = os.stat(path).st_gid
    try:
        group = grp.getgrgid(number).gr_name
    except KeyError:
        group = str(number)
    return PortFacts(
        path,
        ports.get(os.path.realpath(path), ports.get(path, "")),
        allowed=os.access(path, os.R_OK | os.W_OK),
        group=group,
        holders=holders(path),
        latency_timer_ms=latency_timer_ms(path),
        modem_manager=any(_comm(pid) == "ModemManager" for pid in _processes()),
    )


def holders(path: str) -> tuple[str, ...]:
    """`name (process N)` of others that have it open. The other end of a pseudo-terminal is its device, not a user."""
    real = os.path.realpath(path)
    index = real.removeprefix("/dev/pts/")
    found = []
    for pid in _processes():
        if pid == os.getpid():
            continue
        opened = dict(_opened(pid))
        if real not in opened.values() or _is_master_of(pid, opened, index):
            continue
        found.append(f"{_comm(pid)} (process {pid})")
    return tuple(found)


def diagnose_port(part: str, facts: PortFacts) -> list[Finding]:
    """Whether it can be used, and how well."""
    if not facts.exists:
        there = ", ".join(facts.others) or "none"
        fix = "plug the USB cable in, or set port to one of those; /dev/serial/by-id/ has names that stay"
        return [Finding(part, "port", "fault", f"{facts.path} does not exist; there are: {there}", facts.path, fix)]
    called = f"{facts.path} ({facts.description})" if facts.description else facts.path
    if not facts.allowed:
        fix = f"sudo usermod -aG {facts.group} $USER, then log in anew"
        found = f"no permission for {called}"
        return [Finding(part, "port", "fault", found, f"a member of the group {facts.group}", fix)]
    if facts.holders:
        found = f"{called} is in use by {', '.join(facts.holders)}"
        return [Finding(part, "port", "fault", found, "nobody else on the port", "end that program, then ask again")]
    findings = [Finding(part, "port", "ok", called)]
    if facts.latency_timer_ms is not None and facts.latency_timer_ms > 1:
        found = f"the adapter keeps bytes for {facts.latency_timer_ms} ms"
        fix = f"tactus asks the driver for 1 ms when it opens the port; for every program, a udev rule: {LATENCY_RULE}"
        findings.append(Finding(part, "latency timer", "note", found, "1 ms", fix))
    if facts.modem_manager and "ttyACM" in os.path.realpath(facts.path):
        fix = 'sudo systemctl disable --now ModemManager, or a udev rule that sets ENV{ID_MM_DEVICE_IGNORE}="1"'
        found = "ModemManager runs: it talks to a new ttyACM port for its first seconds"
        findings.append(Finding(part, "ModemManager", "note", found, "nobody else on the port", fix))
    return findings


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


def _comm(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _opened(pid: int) -> Iterable[tuple[str, str]]:
    """(descriptor, file) of a process; nothing for those that are another user's, or gone."""
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for number in os.listdir(folder):
            with contextlib.suppress(OSError):
                yield number, os.readlink(f"{folder}/{number}")


def _is_master_of(pid: int, opened: dict[str, str], index: str) -> bool:
    for number, file in opened.items():
        if file.endswith("ptmx"):
            with contextlib.suppress(OSError):
                if f"tty-index:\t{index}\n" in Path(f"/proc/{pid}/fdinfo/{number}").read_text():
                    return True
    return False
