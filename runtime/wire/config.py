"""What describes a connection: keys, how arrays travel, and a model of latency."""

from __future__ import annotations

import re
from pkgutil import resolve_name
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from tactus.hal.config import Config, FilePath

Allowance = Literal["image_size", "robot"]
"""A difference between robot and policy that a user may accept by name."""


def _checked(latency: str) -> str:
    resolve_name("tactus.runtime.wire.latency:LatencyModel.parse")(latency)
    return latency


Latency = Annotated[str, AfterValidator(_checked)]
"""A text that wire.latency.LatencyModel reads."""


def _joined(value: Any) -> Any:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else value


Endpoint = Annotated[str, BeforeValidator(_joined)]
"""The address of a policy node, or of several, [ONE,TWO], that workers share out."""


def endpoints_of(endpoint: str) -> list[str]:
    """The addresses of an Endpoint."""
    return [address.strip(" '\"") for address in endpoint.strip("[]").split(",") if address.strip()]


class CurveConfig(Config):
    """Encryption and authentication of the wire; all files are `tactus keygen`'s."""

    key: FilePath | None = None
    """this node's own secret key, a .key_secret file; not given: no encryption"""

    def __post_init__(self) -> None:
        if self.key is None and any(vars(self).values()):
            raise ValueError("key: not given; this node's own .key_secret file, which `tactus keygen` makes")


class ClientCurve(CurveConfig):
    """Of a robot node."""

    server: FilePath | None = None
    """the policy node's public key, a .key file"""


class ServerCurve(CurveConfig):
    """Of a policy node."""

    authorized: FilePath | None = None
    """folder with the public keys (.key) of the robots that may connect; changes count at once"""


RAW, JPEG, JPEG_QUALITY = "raw", "jpeg", 90


def _images(value: str) -> str:
    found = re.fullmatch(r"raw|jpeg(?::0*([1-9][0-9]?|100))?", value)
    if found is None:
        raise ValueError(f"found {value[:40]!r}; accepted: raw, jpeg, or jpeg:QUALITY, which is 1 to 100")
    return RAW if value == RAW else f"{JPEG}:{found[1] or JPEG_QUALITY}"


class WireConfig(Config):
    """How arrays travel from a robot node to its policy node."""

    images: Annotated[str, AfterValidator(_images)] = RAW
    """raw, or jpeg:QUALITY (1 to 100; jpeg alone: 90): for a slow link; what the policy sees has lost detail"""
    memory: Literal["auto", "off", "shared"] = "auto"
    """large arrays through memory, with a policy node on this machine: auto, where it can be; off; shared, or error"""

    def __post_init__(self) -> None:
        if self.images != RAW and self.memory == "shared":
            raise ValueError(f"memory: shared is for pictures as they are; leave out memory, or images={self.images}")

    @property
    def quality(self) -> int | None:
        """Of JPEG; None for pictures as they are."""
        return None if self.images == RAW else int(self.images.partition(":")[2])
