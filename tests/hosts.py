"""Two hosts on one machine: network namespaces joined by a cable that can be pulled."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def possible() -> bool:
    """Whether this user may make namespaces here."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"tactus-{uuid.uuid4().hex[:6]}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    if made:
        ip("netns", "del", name)
    return made


@dataclass(frozen=True)
class Hosts:
    """a, b: namespaces, at address_a and address_b."""

    a: str
    b: str
    address_a: str = "10.77.0.1"
    address_b: str = "10.77.0.2"

    def at(self, host: str, *command: str) -> list[str]:
        """The command as it is run on that host."""
        return ["ip", "netns", "exec", host, *command]

    def pull(self) -> None:
        """Nothing gets through, and nobody is told: packets vanish, as when a cable is pulled at a switch."""
        ip("-n", self.a, "link", "set", "cable", "down")

    def plug(self) -> None:
        ip("-n", self.a, "link", "set", "cable", "up")


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    tag = uuid.uuid4().hex[:6]
    hosts = Hosts(f"tactus-a-{tag}", f"tactus-b-{tag}")
    try:
        for host in (hosts.a, hosts.b):
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
        ip("-n", hosts.a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", hosts.b)
        for host, address in ((hosts.a, hosts.address_a), (hosts.b, hosts.address_b)):
            ip("-n", host, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", host, "link", "set", "cable", "up")
        yield hosts
    finally:
        for host in (hosts.a, hosts.b):
            subprocess.run(["ip", "netns", "del", host], capture_output=True)
