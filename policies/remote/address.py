"""Addresses of other people's servers."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_local(url: str) -> bool:
    """Whether only this machine can be at a URL. Raises ValueError if it is none."""
    parts = urlsplit(url)
    if not parts.hostname or parts.port is None:
        raise ValueError(f"url: found {url!r}; expected a scheme, a host and a port")
    try:
        return parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False
