"""Addresses of policy nodes: whether one can be, whether its host can be found, and whether it needs IPv6."""

from __future__ import annotations

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


def families(address: str) -> set[socket.AddressFamily]:
    """Of a TCP address's host, a name or a number; empty for other addresses. Raises OSError if nobody knows the name.

    A name that is not known yet is asked for during FIND_S.
    """
    scheme, _, rest = address.partition("://")
    host = rest.rpartition(":")[0].strip("[]")
    if scheme != "tcp" or host == "*":
        return set()
    until_s = time.monotonic() + FIND_S
    while True:
        try:
            return {found[0] for found in socket.getaddrinfo(host, None)}
        except socket.gaierror:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.2)


def needs_ipv6(found: set[socket.AddressFamily]) -> bool:
    """Whether a socket must be told to speak IPv6."""
    return found == {socket.AF_INET6}
