"""Who may use the page: decided of every request, before anything of the page is served.

With a key, whoever has it, from anywhere. Without one, browsers on this machine. Either way no other site's pages:
they may neither embed the page, nor press its buttons, nor read its pictures, under any name that leads here.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

KEY_BYTES = 32
MIN_KEY = 16
"""Characters of a key that somebody wrote himself."""
OWN = ("same-origin", "none")
"""Sec-Fetch-Site of the page itself, and of an address that was typed or opened from a bookmark."""


class Access:
    """key: what a visitor must show, in `?key=` once, then in the cookie; empty for none, on loopback alone."""

    def __init__(self, key: str, port: int) -> None:
        self._key = key.encode()
        self.cookie = f"tactus_page_{port}"
        """Its name: browsers give a host's cookies to all of its ports."""

    def has_key(self, shown: str | None) -> bool:
        """Whether this is the key, in a time that says nothing about it."""
        return bool(self._key) and hmac.compare_digest(self._key, (shown or "").encode())

    def refusal(
        self, method: str, path: str, headers: Mapping[str, str], cookies: Mapping[str, str], query_key: str | None
    ) -> str:
        """Why a request is refused, empty if it is not. headers: by names that are looked up in any case."""
        host = headers.get("Host", "")
        if self._key:
            opens = method == "GET" and path == "/" and self.has_key(query_key)
            if not opens and not self.has_key(cookies.get(self.cookie)):
                return "the key is missing or wrong: open the address that the robot node printed"
        elif not is_loopback(host_of(host)):  # a name that a stranger has made to lead here
            return "this page is for this machine, at 127.0.0.1 or localhost"
        origin = headers.get("Origin")
        changes = method != "GET" or headers.get("Upgrade", "").lower() == "websocket"
        if (changes or origin is not None) and not _is_own(origin, host):
            return "asked for by another site's page"
        site = headers.get("Sec-Fetch-Site", "none")
        follows_a_link = path == "/" and headers.get("Sec-Fetch-Dest") == "document" and method == "GET"
        return "" if site in OWN or follows_a_link else "asked for by another site's page"


def _is_own(origin: str | None, host: str) -> bool:
    parts = urlsplit(origin or "")
    return parts.scheme in ("http", "https") and bool(host) and parts.netloc.lower() == host.lower()


def host_of(host: str) -> str:
    """The name in a Host header, without its port; empty if it has none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own; no other name is looked up."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def key_for(host: str, file: Path | None) -> str:
    """The key of a page at `host`: the file's, which is made if it is not there; a new one if other machines reach it;
    else none. Raises ValueError, naming the config's key, for a file that cannot be used.
    """
    if file is None:
        return "" if is_loopback(host) else secrets.token_urlsafe(KEY_BYTES)
    try:
        if not file.exists():
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(secrets.token_urlsafe(KEY_BYTES) + "\n")
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise ValueError(f"page_key: others may read {file}; chmod 600 {file}")
        key = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"page_key: cannot use {file}: {getattr(error, 'strerror', None) or error}") from error
    if len(key) < MIN_KEY or not all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in key):
        raise ValueError(
            f"page_key: {file} holds no key; accepted: {MIN_KEY} or more letters, digits, - and _ on one line, or no "
            "such file, which is then made"
        )
    return key
