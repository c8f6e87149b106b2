"""Key files: who can read them, what is in them, and who is on the list."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from tactus.runtime.wire.address import is_local
from tactus.runtime.wire.config import ClientCurve, ServerCurve
from tactus.runtime.wire.keys import (
    AllowList,
    KeysError,
    client_keys,
    make_keys,
    read_public,
    read_secret,
    server_keys,
)


def test_a_new_pair_is_readable_by_its_owner_alone_and_not_replaced(tmp_path: Path) -> None:
    public, secret = make_keys(tmp_path / "keys", "left")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    key = read_secret(secret, "curve.key")
    assert key.public == read_public(public, "curve.server") and len(key.secret) == 40
    assert key.secret not in public.read_bytes()
    with pytest.raises(KeysError, match="exists already and is not replaced"):
        make_keys(tmp_path / "keys", "left")
    assert read_secret(secret, "curve.key") == key


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_secret_is_never_readable_by_others_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        _, secret = make_keys(tmp_path, "left")
        assert os.umask(umask) == umask, "the process's own umask stays"
    finally:
        os.umask(before)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "../left", "a/b", ".hidden", "/etc/passwd"])
def test_a_name_is_a_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeysError, match="accepted: a file name"):
        make_keys(tmp_path, name)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o700 | 0o010])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    _, secret = make_keys(tmp_path, "left")
    secret.chmod(mode)
    with pytest.raises(KeysError, match=f"can be read by others .*; run: chmod 600 {secret}"):
        read_secret(secret, "curve.key")


def test_files_that_are_no_keys_are_refused_without_saying_what_is_in_them(tmp_path: Path) -> None:
    public, secret = make_keys(tmp_path, "left")
    with pytest.raises(KeysError, match="holds no secret key"):
        read_secret(public, "curve.key")
    with pytest.raises(KeysError, match="must not leave its node"):
        read_public(secret, "curve.server")
    with pytest.raises(KeysError, match="there is no such file"):
        read_secret(tmp_path / "none", "curve.key")
    words = read_secret(secret, "curve.key").secret
    damaged = tmp_path / "damaged"
    damaged.write_bytes(secret.read_bytes().replace(words, words[:-3]))
    damaged.chmod(0o600)
    with pytest.raises(KeysError, match="is damaged") as caught:
        read_secret(damaged, "curve.key")
    assert words[:10].decode() not in str(caught.value)
    junk = tmp_path / "junk"
    junk.write_text("hello")
    with pytest.raises(KeysError, match="no key file"):
        read_public(junk, "curve.server")


def test_a_key_does_not_show_its_secret(tmp_path: Path) -> None:
    key = read_secret(make_keys(tmp_path, "left")[1], "curve.key")
    assert key.secret.decode() not in f"{key!r} {key}"


def test_the_list_follows_its_folder(tmp_path: Path) -> None:
    robots = tmp_path / "robots"
    robots.mkdir()
    allowed = AllowList(robots)
    assert len(allowed) == 0
    keys = {}
    for name in ("left", "right"):
        public, _ = make_keys(tmp_path, name)
        keys[name] = read_public(public, "")
        public.rename(robots / public.name)
        assert allowed.refresh() and allowed.name(keys[name]) == name
    assert not allowed.refresh()
    (robots / "left.key").unlink()
    assert allowed.refresh()
    assert allowed.name(keys["left"]) is None and allowed.name(keys["right"]) == "right"
    (robots / "right.key").rename(tmp_path / "away.key")
    robots.rmdir()
    allowed.refresh()
    assert allowed.name(keys["right"]) is None, "without a folder nobody is allowed"


def test_a_file_that_is_half_written_lets_nobody_in_until_it_is_whole(tmp_path: Path) -> None:
    robots = tmp_path / "robots"
    robots.mkdir()
    good, _ = make_keys(robots, "good")
    (robots / "good.key_secret").unlink()
    public, _ = make_keys(tmp_path, "late")
    content = public.read_bytes()
    (robots / "late.key").write_bytes(content[: len(content) // 2])
    allowed = AllowList(robots)
    assert allowed.name(read_public(good, "")) == "good" and len(allowed) == 1
    time.sleep(0.01)
    (robots / "late.key").write_bytes(content)
    assert allowed.refresh() and len(allowed) == 2


def test_a_secret_in_the_list_lets_nobody_in(tmp_path: Path) -> None:
    robots = tmp_path / "robots"
    robots.mkdir()
    _, secret = make_keys(tmp_path, "left")
    secret.rename(robots / "left.key")
    assert len(AllowList(robots)) == 0


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    public, secret = (str(file) for file in make_keys(tmp_path, "left"))
    with pytest.raises(ValueError, match=r"key: not given"):
        ClientCurve(server=public)
    with pytest.raises(ValueError, match=r"curve\.server: not given"):
        client_keys(ClientCurve(key=secret))
    with pytest.raises(ValueError, match=r"curve\.authorized: not given"):
        server_keys(ServerCurve(key=secret))
    with pytest.raises(ValueError, match=r"curve\.authorized: .* is no folder"):
        server_keys(ServerCurve(key=secret, authorized=str(tmp_path / "none")))
    assert client_keys(ClientCurve()) is None and server_keys(ServerCurve()) is None


@pytest.mark.parametrize(
    "address, local",
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.8.0.1:*", True),
        ("tcp://[::1]:5555", True),
        ("tcp://localhost:5555", True),
        ("ipc:///run/x", True),
        ("tcp://*:5555", False),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://[::]:5555", False),
        ("tcp://192.168.1.7:5555", False),
        ("tcp://gpu.lab:5555", False),
        ("tcp://127.0.0.1.evil.example:5555", False),
        ("tcp://eth0:5555", False),
    ],
)
def test_which_addresses_are_this_machine(address: str, local: bool) -> None:
    assert is_local(address) is local
