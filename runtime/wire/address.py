"""Addresses of policy nodes: whether one can be, is on this machine, can be found, and needs IPv6."""

from __future__ import annotations

import ipaddress
import re
import socket
import time

EXAMPLE = "expected e.g. tcp://127.0.0.1:5555"
FIND_S = 5.0
"""How long a host's name may stay unknown: a network that has just come up."""


def malformed(address: str, bind: bool = False) -> str:
    """What is wrong with the form of a ZeroMQ address; empty if nothing is. bind: of the side that listens."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return f"found {address!r}, which has no scheme: did you mean tcp://{address}? {EXAMPLE}"
    if scheme in ("ipc", "inproc"):
        return "" if rest else f"found {address!r}, which names no place; {EXAMPLE} or ipc:///tmp/policy"
    if scheme != "tcp":
        return f"found {address!r}; accepted: tcp://, ipc://, inproc://; {EXAMPLE}"
    host, colon, port = rest.rpartition(":")
    if not colon or (not (port.isdecimal() and int(port) < 65536) and not (bind and port == "*")):
        return f"found {address!r}, whose port is {port or 'missing'!r}; {EXAMPLE}"
    if not host:
        return f"found {address!r}, which names no host; {EXAMPLE}"
    if ":" in host and not re.fullmatch(r"\[[0-9a-fA-F:.%\w]+\]", host):
        return f"found {address!r}; an IPv6 address stands in brackets, tcp://[{host.strip('[]')}]:{port}"
    if not bind and (host == "*" or port == "0"):
        return f"found {address!r}, which is for the side that listens; {EXAMPLE}"
    return ""


def is_local(address: str) -> bool:
    """Whether only this machine can be at, or reach, a ZeroMQ address."""
    host = _host(address)
    try:
        return not address.startswith("tcp://") or host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def needs_ipv6(address: str) -> bool:
    """Whether a socket must be told to speak IPv6. Raises OSError if nobody knows the host's name, during FIND_S."""
    host = _host(address)
    if not address.startswith("tcp://") or host == "*":
        return False
    until_s = time.monotonic() + FIND_S
    while True:
        try:
            return {found[0] for found in socket.getaddrinfo(host, None)} == {socket.AF_INET6}
        except socket.gaierror:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.2)


def _host(address: str) -> str:
    return address.partition("://")[2].rpartition(":")[0].strip("[]")
