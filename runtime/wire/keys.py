"""CURVE keys: each node's own pair, whom it trusts, and the files they lie in (pyzmq's certificates, as any ZeroMQ
tool reads them).

    policy node   policy.key_secret (0600)    robots/left.key, robots/right.key    who may connect
    robot node    left.key_secret   (0600)    policy.key                           whom it obeys
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.utils import z85

from tactus.runtime.wire.config import ClientCurve, ServerCurve

log = logging.getLogger("tactus.keys")

PUBLIC, SECRET = ".key", ".key_secret"
KEY_CHARACTERS = 40
"""Of a key in Z85."""


class KeysError(ValueError):
    """A key file that cannot be used: which, why, and what to do. Never says what is in it."""


@dataclass(frozen=True)
class Key:
    """A pair in Z85."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class ClientKeys:
    """A robot node's: its own, and the public key of the only policy node it obeys."""

    own: Key
    server: bytes

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Have a socket, not yet connected, encrypt and talk to that policy node alone."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.own.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.own.secret)


@dataclass(frozen=True)
class ServerKeys:
    """A policy node's: its own, and the robots that may connect."""

    own: Key
    allowed: AllowList

    def name(self, key: bytes) -> str | None:
        """Whose key this is; None if it may not connect. A bridge of the node's shows the node's own."""
        return "this node" if key == self.own.public else self.allowed.name(key)


def client_keys(curve: ClientCurve) -> ClientKeys | None:
    """A robot node's keys; None without encryption. Raises KeysError."""
    if curve.key is None:
        return None
    if curve.server is None:
        raise KeysError("curve.server: not given; the policy node's public key, a .key file")
    return ClientKeys(read_secret(Path(curve.key), "curve.key"), read_public(Path(curve.server), "curve.server"))


def server_keys(curve: ServerCurve) -> ServerKeys | None:
    """A policy node's keys; None without encryption. Raises KeysError."""
    if curve.key is None:
        return None
    if curve.authorized is None:
        raise KeysError("curve.authorized: not given; a folder with the public keys of the robots that may connect")
    return ServerKeys(read_secret(Path(curve.key), "curve.key"), AllowList(Path(curve.authorized)))


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A new pair as NAME.key and NAME.key_secret (0600) in `folder`. Raises KeysError rather than replace one."""
    if not name or Path(name).name != name or name.startswith("."):
        raise KeysError(f"name: found {name!r}; accepted: a file name without folders, e.g. left_arm")
    public, secret = folder / f"{name}{PUBLIC}", folder / f"{name}{SECRET}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in (public, secret):
            if file.exists():
                raise KeysError(f"{file} exists already and is not replaced; choose another name, or move it away")
        before = os.umask(0o077)  # the secret must not be readable for a moment either
        try:
            create_certificates(folder, name)
        finally:
            os.umask(before)
        public.chmod(0o644)
    except OSError as error:
        raise KeysError(f"cannot write keys to {folder}: {error.strerror}") from error
    return public, secret


def read_secret(file: Path, about: str) -> Key:
    """Raises KeysError if the file cannot be read, holds no secret key, or others can read it too."""
    public, secret = _read(file, about)
    if secret is None:
        raise KeysError(f"{about}: {file} holds no secret key; give the {SECRET} file")
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise KeysError(f"{about}: {file} can be read by others (mode {mode:04o}); run: chmod 600 {file}")
    return Key(public, secret)


def read_public(file: Path, about: str) -> bytes:
    """Raises KeysError if the file cannot be read, or holds a secret, which belongs on the other machine alone."""
    public, secret = _read(file, about)
    if secret is not None:
        raise KeysError(f"{about}: {file} holds a secret key, which must not leave its node; give the {PUBLIC} file")
    return public


def _read(file: Path, about: str) -> tuple[bytes, bytes | None]:
    try:
        public, secret = load_certificate(file)
    except OSError as error:
        raise KeysError(f"{about}: cannot read {file}: {error.strerror or 'there is no such file'}") from error
    except ValueError as error:
        raise KeysError(f"{about}: {file} is no key file; `tactus keygen` makes them") from error
    for key in (public, secret):
        if key is not None and not _is_key(key):
            raise KeysError(f"{about}: {file} is damaged: a key must be {KEY_CHARACTERS} characters of Z85")
    return public, secret


def _is_key(key: bytes) -> bool:
    try:
        return len(key) == KEY_CHARACTERS and len(z85.decode(key)) == 32
    except (KeyError, ValueError):
        return False


class AllowList:
    """The keys in a folder, by the name of their file; looked at again whenever the folder or a file changes.

    Raises KeysError if there is no such folder. If it goes away later, no key is allowed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not folder.is_dir():
            raise KeysError(f"curve.authorized: {folder} is no folder; put the robots' {PUBLIC} files into one")
        self._names: dict[bytes, str] = {}
        self._seen: object = None
        self.refresh()

    def refresh(self) -> bool:
        """Look again; whether anything has changed."""
        seen = self._look()
        if seen == self._seen:
            return False
        names: dict[bytes, str] = {}
        for path, *_ in seen:
            try:
                names[read_public(Path(path), "curve.authorized")] = Path(path).name.removesuffix(PUBLIC)
            except KeysError as error:
                log.error("%s; nobody is let in with it", error)
        added, removed = ({*names.values()} - {*self._names.values()}, {*self._names.values()} - {*names.values()})
        if self._seen is not None:
            log.info("authorized robots: now %d; new: %s; no longer: %s", len(names), _list(added), _list(removed))
        self._names, self._seen = names, seen
        return True

    def name(self, key: bytes) -> str | None:
        """Whose key this is; None if it may not connect."""
        return self._names.get(key)

    def __len__(self) -> int:
        return len(self._names)

    def _look(self) -> tuple[tuple[str, int, int], ...]:
        try:
            with os.scandir(self._folder) as entries:
                files = [(entry.path, entry.stat()) for entry in entries if entry.name.endswith(PUBLIC)]
        except OSError:
            return ()
        return tuple(sorted((path, status.st_mtime_ns, status.st_size) for path, status in files))


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
