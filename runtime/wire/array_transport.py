"""How the arrays of a link travel, as its config wants and the policy node agrees: frames, JPEG, or shared memory.

HELLO      images: jpeg; memory: where it is         what the robot node would use
WELCOME    images: [raw, jpeg]; memory: a proof      what the policy node takes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tactus.hal.config import ConfigError
from tactus.hal.spec import PolicySpec, RobotSpec
from tactus.runtime.wire.address import is_local
from tactus.runtime.wire.config import JPEG, RAW, WireConfig
from tactus.runtime.wire.pictures import Packer, fits_jpeg
from tactus.runtime.wire.shared_arrays import LARGE_BYTES, MEMORY, SharedArrays, Unavailable


class ArrayTransport:
    """packer: of pictures as JPEG; memory: what is shared; both None for arrays in frames.

    Raises ConfigError for shared memory with another machine.
    """

    def __init__(self, config: WireConfig, endpoint: str) -> None:
        if config.memory == "shared" and not is_local(endpoint):
            raise ConfigError(
                f"wire.memory: found shared, and {endpoint} is not an address of this machine alone; accepted there: "
                "auto, off"
            )
        self._config = config
        self._shares = config.memory != "off" and config.images == RAW and is_local(endpoint)
        self._unavailable = ""
        self._node: object = None
        self._told: set[str] = set()
        self.packer: Packer | None = None
        self.memory: SharedArrays | None = None

    def offer(self, robot: RobotSpec) -> dict[str, Any]:
        """What HELLO says of it: nothing for what every policy node takes."""
        offered: dict[str, Any] = {} if self._config.images == RAW else {"images": JPEG}
        large = any(feature.nbytes >= LARGE_BYTES for feature in robot.observations.values())
        if self._shares and large and self.memory is None:
            try:
                self.memory = SharedArrays()
            except Unavailable as error:
                self._shares, self._unavailable = False, str(error)
        if self.memory is not None:
            offered[MEMORY] = self.memory.announcement
        return offered

    def agree(
        self, welcome: Mapping[str, Any], robot: RobotSpec, policy: PolicySpec, say: Callable[[str], None]
    ) -> list[str]:
        """Take what a WELCOME has agreed to. Returns why it cannot be, in words; empty if it can. say: is told, once,
        of pictures that lose detail, and of memory that is not shared after all."""
        inputs = {name: robot.observations[name] for name in policy.inputs if name in robot.observations}
        if (quality := self._config.quality) is not None:
            if JPEG not in welcome.get("images", ()):
                return [
                    f"wire.images: the policy node does not take {self._config.images}, as one of an older Tactus does "
                    "not; update it there, or use wire.images=raw"
                ]
            names = [name for name, feature in inputs.items() if fits_jpeg(feature)]
            if names and self.packer is None:
                self.packer = Packer(quality)
            loss = f"as JPEG of quality {quality}: what the policy sees has lost detail: {', '.join(names)}"
            self._tell(f"pictures travel {loss}" if names else "wire.images: the policy reads no pictures", say)
        return self._agree_to_share(welcome, [f.nbytes * len(policy.observation_offsets) for f in inputs.values()], say)

    def _agree_to_share(self, welcome: Mapping[str, Any], sizes: list[int], say: Callable[[str], None]) -> list[str]:
        large = [size for size in sizes if size >= LARGE_BYTES]
        asked = self._config.memory == "shared"
        if not large or self.memory is None:
            self.release()
            if large and self._unavailable:
                return self._in_frames(self._unavailable, asked, say)
            if asked and not large:
                self._tell(f"wire.memory: the policy reads no array of {LARGE_BYTES} bytes or more", say)
            return []
        try:
            self.memory.agree(welcome.get(MEMORY), large)
            if welcome["node"] != self._node:
                self.memory.forget()
            self._node = welcome["node"]
        except Unavailable as error:
            self._unavailable = str(error)
            self.release()
            return self._in_frames(self._unavailable, asked, say)
        return []

    def _in_frames(self, why: str, asked: bool, say: Callable[[str], None]) -> list[str]:
        if asked:
            return [f"wire.memory: shared cannot be: {why}; auto and off send arrays in frames"]
        self._tell(f"arrays travel in frames, not through shared memory: {why}", say)
        return []

    def _tell(self, line: str, say: Callable[[str], None]) -> None:
        if line not in self._told:
            self._told.add(line)
            say(line)

    def release(self) -> None:
        """Share no memory any longer."""
        self._shares = False
        if self.memory is not None:
            self.memory.close()
            self.memory = None

    def close(self) -> None:
        """Let go of thread and memory."""
        self.release()
        if self.packer is not None:
            self.packer.close()
            self.packer = None
