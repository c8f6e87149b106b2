"""What describes a policy that another system's server answers for. The spec is made of it: such servers do not say."""

from __future__ import annotations

import os
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tactus.hal.config import Count, FilePath, Hz, Pixels, Seconds
from tactus.hal.spec import Feature, PolicySpec, image
from tactus.policies.policy import PolicyConfig
from tactus.policies.remote.address import is_local
from tactus.policies.remote.feature_map import FeatureError, FeatureMap

MAX_KEY = 4096


class RemoteConfig(PolicyConfig):
    """Another system's policy server. Not a type by itself."""

    url: str
    """where the server listens"""
    insecure: bool = False
    """allow an address on another machine that nothing protects: anybody between could drive the robot"""
    api_key_env: str | None = None
    """environment variable that holds the server's key, if it wants one"""
    api_key_file: FilePath | None = None
    """or the file that holds it"""
    inputs: dict[str, Any] = field(default_factory=dict)
    """what the robot has to observe: NAME: WIDTH of a vector, NAME: [HEIGHT, WIDTH] of a picture"""
    features: dict[str, Any] = field(default_factory=dict)
    """the server's keys, nested as it wants them, and what each is: NAME, NAME[a:b], NAME:chw, task or tick"""
    resize_with_pad: tuple[Pixels, Pixels] | None = None
    """height and width that pictures are fitted into, with black borders, as openpi's client does it"""
    rotate_180: bool = False
    """turn pictures by half a turn, for a robot whose pictures are not right side up"""
    horizon: Count = 50
    """actions per chunk of the server's"""
    n_action_steps: Count | None = None
    """actions to execute of each chunk; not given: all"""
    action_dtype: Literal["float32", "float64"] = "float32"
    """of the robot's action; the server's is cast to it"""
    fps: Hz | None = None
    """rate the policy was trained at, if known; then a robot with another rate is refused"""
    robot: str | None = None
    """name of the robot it was trained on, if known, or of several, ONE,TWO; then another robot is refused"""
    connect_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """how long it may take to connect; at the start also how long the server may take to come up"""
    timeout_s: Seconds = 30.0
    """how long an answer may take; the first one of a server that compiles takes a while"""

    def __post_init__(self) -> None:
        given: dict[str, Feature] = {}
        for name, shape in self.inputs.items():
            given[name] = _feature(name, shape)
        if not given:
            raise ValueError(
                "inputs: not given; expected e.g. {observation.state: 8, observation.images.top: [224, 224]}"
            )
        try:
            FeatureMap(self.features).check(given, whole=False)
        except FeatureError as error:
            raise ValueError(f"features: {error}") from error
        if self.n_action_steps is not None and self.n_action_steps > self.horizon:
            raise ValueError(f"n_action_steps: found {self.n_action_steps}; accepted: 1 to the horizon, {self.horizon}")
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("api_key_env: given beside api_key_file; give one of them")

    def guard(self, encrypted: bool) -> None:
        """Raises ValueError for an address on another machine that nothing protects, unless it is accepted."""
        if not (encrypted or self.insecure or is_local(self.url)):
            raise ValueError(
                f"url: {self.url} is on another machine, and anybody between could drive the robot: "
                "go through an SSH tunnel, or pass policy.insecure=true to accept that"
            )

    @property
    def features_of_inputs(self) -> dict[str, Feature]:
        """The inputs' features."""
        return {name: _feature(name, shape) for name, shape in self.inputs.items()}

    def spec(self, name: str, action_width: int, offsets: tuple[int, ...], details: dict[str, str]) -> PolicySpec:
        """The policy's, as far as a config can say: it states neither units nor modes."""
        return PolicySpec(
            name,
            self.features_of_inputs,
            Feature((action_width,), self.action_dtype, unit=""),
            self.horizon,
            observation_offsets=offsets,
            fps=self.fps,
            n_action_steps=self.n_action_steps,
            casts=True,
            robot=self.robot,
            details=details,
        )

    def api_key(self) -> str | None:
        """Never printed. Raises ValueError if it cannot be had."""
        if self.api_key_env is not None:
            key = os.environ.get(self.api_key_env, "")
            where = f"api_key_env: the environment variable {self.api_key_env}"
        elif self.api_key_file is not None:
            where = f"api_key_file: {self.api_key_file}"
            try:
                key = Path(self.api_key_file).read_text()[:MAX_KEY]
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{where} cannot be read: {getattr(error, 'strerror', 'no text')}") from error
        else:
            return None
        key = key.strip()
        if not key.isprintable() or not key.isascii() or not key:
            raise ValueError(f"{where} holds no key: one line of printable ASCII is expected")
        return key


def _feature(name: str, shape: object) -> Feature:
    if type(shape) is int and 0 < shape <= 100_000:
        return Feature((shape,), "float32", unit="")
    if isinstance(shape, list | tuple) and len(shape) == 2 and all(type(n) is int and 0 < n <= 8192 for n in shape):
        return image(*shape)
    raise ValueError(f"inputs.{name}: found {shape!r:.60}; accepted: WIDTH, or [HEIGHT, WIDTH] of a picture")


@PolicyConfig.register_subclass("openpi")
class OpenpiConfig(RemoteConfig):
    """A policy that an openpi server answers for (scripts/serve_policy.py); websocket, msgpack."""

    url: str = "ws://127.0.0.1:8000"
    """where the server listens: ws://HOST:PORT, or wss:// behind TLS"""
    action_width: Count = 7
    """dimensions of the robot's action"""
    server_width: Count | None = None
    """dimensions of the server's actions, if more: the first action_width are kept"""

    entry_point = "tactus.policies.remote.openpi:OpenpiPolicy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.url.startswith(("ws://", "wss://")):
            raise ValueError(f"url: found {self.url!r}; accepted: ws://HOST:PORT, wss://HOST:PORT")
        if self.server_width is not None and self.server_width < self.action_width:
            raise ValueError(f"server_width: found {self.server_width}; must be at least action_width")
        self.guard(encrypted=self.url.startswith("wss://"))


@PolicyConfig.register_subclass("gr00t")
class Gr00tConfig(RemoteConfig):
    """A policy that an NVIDIA Isaac-GR00T server answers for (gr00t/eval/run_gr00t_server.py); ZeroMQ, msgpack."""

    url: str = "tcp://127.0.0.1:5555"
    """where the server listens: tcp://HOST:PORT"""
    version: Literal["n1.7", "n1.6", "n1.5"] = "n1.7"
    """of GR00T, which have messages of their own; N1's are pickles, and refused"""
    actions: dict[str, Count] = field(default_factory=dict)
    """parts of the server's action, in the order of the robot's, and their widths, e.g. {single_arm: 5, gripper: 1}"""
    observation_offsets: Annotated[list[int], Field(min_length=1, max_length=64)] = field(default_factory=lambda: [0])
    """ticks that pictures are of, relative to the newest, as the server's delta_indices: [-15, 0]"""
    state_history: bool = False
    """send vectors of all those ticks too, not just the newest"""

    entry_point = "tactus.policies.remote.gr00t:Gr00tPolicy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.url.startswith("tcp://"):
            raise ValueError(f"url: found {self.url!r}; accepted: tcp://HOST:PORT")
        if not self.actions:
            raise ValueError("actions: not given; expected e.g. {single_arm: 5, gripper: 1}")
        if self.observation_offsets[-1] != 0 or self.observation_offsets != sorted(set(self.observation_offsets)):
            raise ValueError(f"observation_offsets: found {self.observation_offsets}; must ascend and end in 0")
        self.guard(encrypted=False)
