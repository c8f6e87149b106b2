"""Addresses of policy nodes: every form that can be, every one that cannot, and IPv6 over real sockets."""

from __future__ import annotations

import socket

import pytest
from conftest import Serve
from doubles import FunctionPolicy, count, synthetic

from tactus.runtime.commands import main
from tactus.runtime.policy_node.node import BindError, PolicyNode
from tactus.runtime.wire import address as addresses
from tactus.runtime.wire.address import malformed
from tactus.runtime.wire.link import Link, Unreachable

GOOD = [
    "tcp://127.0.0.1:5555",
    "tcp://gpu:1",
    "tcp://[::1]:5629",
    "tcp://[fe80::1%eth0]:9",
    "ipc:///tmp/a",
    "inproc://a",
]
LISTENS = ["tcp://*:5555", "tcp://127.0.0.1:*", "tcp://0.0.0.0:0"]
BAD = {
    "127.0.0.1:5555": "has no scheme: did you mean tcp://127.0.0.1:5555?",
    "gpu": "has no scheme",
    "": "has no scheme",
    "http://gpu:5555": "accepted: tcp://, ipc://, inproc://",
    "tcp://gpu": "whose port is",
    "tcp://gpu:": "whose port is 'missing'",
    "tcp://gpu:http": "whose port is 'http'",
    "tcp://gpu:65536": "whose port is '65536'",
    "tcp://gpu:-1": "whose port is '-1'",
    "tcp://:5555": "names no host",
    "tcp://::1:5555": "an IPv6 address stands in brackets, tcp://[::1]:5555",
    "ipc://": "names no place",
}


@pytest.mark.parametrize("address", GOOD)
def test_what_can_be(address: str) -> None:
    assert malformed(address) == malformed(address, bind=True) == ""


@pytest.mark.parametrize("address", LISTENS)
def test_what_only_the_side_that_listens_can_have(address: str) -> None:
    assert (malformed(address, bind=True) == "" and "for the side that listens" in malformed(address)) or "*" in address


@pytest.mark.parametrize("address, words", BAD.items())
def test_what_cannot_be_is_said_on_both_sides_and_by_stop(
    address: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Unreachable) as robot:
        Link(address)
    with pytest.raises(BindError) as policy:
        PolicyNode(FunctionPolicy(count), address)
    assert words in str(robot.value) and words in str(policy.value)
    assert main(["stop", f"--connect={address}"]) == 1 and words in capsys.readouterr().err


def test_a_host_that_nobody_knows_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "FIND_S", 0.3)
    with pytest.raises(Unreachable, match="no-such-host.invalid:5555: its host cannot be found: "):
        Link("tcp://no-such-host.invalid:5555", insecure=True)
    with pytest.raises(BindError, match="its host cannot be found: "):
        PolicyNode(FunctionPolicy(count), "tcp://no-such-host.invalid:5555", insecure=True)


def test_ipv6_is_spoken(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6")
    node = serve(FunctionPolicy(count), bind=f"tcp://[::1]:{port}")
    link = Link(node.endpoint)
    link.hello(synthetic().make().spec, timeout_s=5)
    assert main(["stop", f"--connect=tcp://[::1]:{port}", "--timeout_s=0.3"]) == 1
    assert "stopped 0 of the 1 robots" in capsys.readouterr().out
    link.close()
