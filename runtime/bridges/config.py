"""What a user says of other people's robots that a policy node also answers."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated, Any, NamedTuple, get_args

from pydantic import AfterValidator

from tactus.hal.config import Config, Count, FilePath, Names
from tactus.policies.remote.address import is_local
from tactus.policies.remote.feature_map import FeatureError, FeatureMap
from tactus.runtime.bridges.kinds import Kind

KINDS = get_args(Kind)


class Listening(NamedTuple):
    """Where a bridge listens, and whom for."""

    kind: Kind
    host: str
    port: int


def listening(also: str) -> Listening:
    """KIND:PORT, on this machine, or KIND:HOST:PORT. Raises ValueError."""
    found = re.fullmatch(rf"({'|'.join(KINDS)}):(?:(\[[0-9a-fA-F:.]+\]|[^:\[\]/]+):)?(\d{{1,5}})", also)
    if found is None or int(found[3]) > 65535:
        raise ValueError(f"found {also!r}; accepted: {', '.join(f'{kind}:PORT' for kind in KINDS)}, or KIND:HOST:PORT")
    return Listening(found[1], (found[2] or "127.0.0.1").strip("[]"), int(found[3]))  # pyright: ignore


def _checked(also: str) -> str:
    listening(also)
    return also


class Bridges(Config):
    """Other people's robots."""

    also: Annotated[list[Annotated[str, AfterValidator(_checked)]], Names] = field(default_factory=list)
    """also answer robots of openpi's and GR00T's: [openpi:8000,gr00t:5556], or KIND:HOST:PORT"""
    also_features: dict[str, dict[str, Any]] = field(default_factory=dict)
    """by kind, what their keys are: {openpi: {observation/state: observation.state, prompt: task}}; not given: names
    are equal"""
    also_actions: dict[str, Count] = field(default_factory=dict)
    """parts of an action that GR00T's robots know, and their widths: {arm: 5, gripper: 1}; not given: {action: all}"""
    also_key_file: FilePath | None = None
    """file with the key that those robots have to show; not given: none"""

    def __post_init__(self) -> None:
        kinds = [listening(also).kind for also in self.also]
        for kind, features in self.also_features.items():
            if kind not in kinds:
                raise ValueError(f"also_features.{kind}: nobody of that kind is answered; also is {self.also}")
            try:
                FeatureMap(features)
            except FeatureError as error:
                raise ValueError(f"also_features.{kind}: {error}") from error
        if self.also_actions and "gr00t" not in kinds:
            raise ValueError("also_actions: is for --also=gr00t:PORT")
        for also in self.also:
            self._guard(listening(also))

    def _guard(self, at: Listening) -> None:
        host = f"[{at.host}]" if ":" in at.host else at.host
        protected = self.also_key_file is not None or getattr(self, "insecure", False)
        if not (protected or is_local(f"tcp://{host}:{at.port}")):
            raise ValueError(
                f"also: {at.kind} at {at.host} can be reached from other machines and nothing protects it: give "
                "also_key_file, leave out the host, or pass --insecure"
            )
