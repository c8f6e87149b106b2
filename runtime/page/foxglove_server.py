"""A run live in Foxglove: the channels of its flight record, and the cameras' pictures, at Foxglove's WebSocket.

    /about /episode /asked /merge /tick /said     as in the files of a flight record, with the same schemas
    /images/NAME                                  foxglove.CompressedImage, JPEG, while somebody subscribes to one

The flight recorder writes here as it does into a folder of files; /keyframe and /wire/…, for replay, are left out.
What a slow client has not taken waits in the server, BACKLOG messages of it; of more the oldest are dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial

import foxglove
from foxglove.channels import CompressedImageChannel
from foxglove.messages import CompressedImage, Timestamp
from foxglove.websocket import ChannelView, Client, ServerListener

from tactus.hal.robot import Robot
from tactus.runtime.flight.channels import ABOUT, EPISODE, KEYFRAME, PROPERTIES, schema
from tactus.runtime.flight.mcap_file import Entry
from tactus.runtime.page.pictures import Pictures
from tactus.runtime.page.run_state import RunState
from tactus.runtime.view.entities import Entities

BACKLOG = 128
KEPT = (ABOUT, EPISODE)
"""Channels whose newest message is sent again when somebody subscribes."""
IMAGES = "/images/"


class FoxgloveServer(ServerListener):
    """Serves at ws://HOST:PORT from its making until `close`. Nothing that is sent to it has an effect. Raises
    ValueError, naming the config's key, if the address cannot be had.

    hz: pictures of each camera a second, at most. Its `state` watches the run, for the pictures; all else comes from a
    flight recorder, by way of a LiveRing.
    """

    def __init__(self, host: str, port: int, hz: float) -> None:
        self.state = RunState(1 / hz)
        self.state.watched = lambda: bool(self._looking)
        self._hz = hz
        self._context = foxglove.Context()
        self._kept: dict[str, tuple[bytes, int]] = {}
        self._looking: set[tuple[int, int]] = set()
        shown = [topic for topic in PROPERTIES if topic != KEYFRAME]
        described = {
            topic: foxglove.Schema(name="tactus" + topic.replace("/", "."), encoding="jsonschema", data=schema(topic))
            for topic in shown
        }
        channel = partial(foxglove.Channel, message_encoding="json", context=self._context)
        self._channels = {topic: channel(topic, schema=own) for topic, own in described.items()}
        try:
            self._server = foxglove.start_server(
                name="tactus", host=host, port=port, server_listener=self, context=self._context,
                message_backlog_size=BACKLOG,
            )  # fmt: skip
        except RuntimeError as error:
            raise ValueError(f"foxglove: cannot listen at {host}:{port}: {error}; give another port") from error
        self.url = f"ws://{host}:{self._server.port}"
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, robot: Robot, policy: str) -> None:
        """This robot from now on."""
        cameras = Entities.of(robot.spec).cameras
        self.state.connect(robot, policy, [], cameras)
        if cameras:
            channels = {name: CompressedImageChannel(IMAGES + name, context=self._context) for name in cameras}
            run = partial(self._send_pictures, Pictures(self.state.look, cameras, self._hz), channels)
            self._thread = threading.Thread(target=run, name="foxglove pictures", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop listening. May be called more than once."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._server.stop()

    def log(self, topic: str, data: bytes, log_ns: int) -> None:
        """A record of a flight record's channel, if it is shown."""
        if topic in KEPT:
            self._kept[topic] = data, log_ns
        if channel := self._channels.get(topic):
            channel.log(data, log_time=log_ns)

    # the server's threads

    def on_subscribe(self, client: Client, channel: ChannelView) -> None:
        if channel.topic.startswith(IMAGES):
            self._looking.add((client.id, channel.id))
        elif kept := self._kept.get(channel.topic):
            self._channels[channel.topic].log(kept[0], log_time=kept[1])

    def on_unsubscribe(self, client: Client, channel: ChannelView) -> None:
        self._looking.discard((client.id, channel.id))

    def _send_pictures(self, pictures: Pictures, channels: dict[str, CompressedImageChannel]) -> None:
        shown = dict.fromkeys(channels, 0)
        offset_ns = time.time_ns() - time.monotonic_ns()
        while not self._closing.wait(1 / self._hz):
            for camera, channel in channels.items() if self._looking else ():
                try:
                    picture = pictures.after(camera, shown[camera])
                except Exception as error:  # noqa: BLE001 - a robot's own code: told there, and the run goes on
                    self._server.publish_status(f"camera {camera}: {error}", foxglove.StatusLevel.Error, id=camera)
                    continue
                if picture is not None:
                    shown[camera] = picture.number
                    at_ns = picture.stamp_ns + offset_ns if picture.stamp_ns else time.time_ns()
                    stamp = Timestamp(at_ns // 10**9, at_ns % 10**9)
                    image = CompressedImage(timestamp=stamp, frame_id=camera, data=picture.jpeg, format="jpeg")
                    channel.log(image, log_time=at_ns)


class LiveRing:
    """What a flight recorder writes into in the place of a folder's ring: all goes to `server`."""

    number = 1
    due = overfull = False

    def __init__(self, server: FoxgloveServer) -> None:
        self._server = server

    @property
    def segment(self) -> LiveRing:
        return self

    def write(self, entries: Sequence[Entry]) -> None:
        """Send them."""
        for entry in entries:
            self._server.log(entry.topic, b"".join(entry.parts), entry.log_ns)

    def next(self) -> LiveRing:
        return self

    def trim(self, ahead: int = 0) -> None:
        """Nothing is kept."""

    def abandon(self) -> None:
        """The recorder has failed; the server goes on."""

    def close(self) -> None:
        """The server is closed by itself."""
