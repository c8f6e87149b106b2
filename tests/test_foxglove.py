"""A run live in Foxglove: a client that speaks its WebSocket protocol reads every channel."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from aiohttp import ClientSession, WSMsgType
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from processes import ROOT, serving, start
from visitors import until

from tactus.runtime.flight.channels import KEYFRAME, PROPERTIES

pytestmark = [pytest.mark.realtime, pytest.mark.slow]

MESSAGE_DATA = 0x01
PICTURES = "/images/camera_0"
JSON_TOPICS = {topic for topic in PROPERTIES if topic != KEYFRAME}


async def listen(url: str, wanted: set[str], seconds: float = 20.0) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """Subscribe to all, and read until each of `wanted` has given something. Channels and messages by topic."""
    channels: dict[str, Any] = {}
    found: dict[str, list[bytes]] = {}
    async with asyncio.timeout(seconds), ClientSession() as session:  # noqa: SIM117
        async with session.ws_connect(url, protocols=("foxglove.sdk.v1",)) as peer:
            async for message in peer:
                if message.type == WSMsgType.TEXT:
                    said = json.loads(message.data)
                    if said["op"] == "advertise":
                        channels |= {channel["topic"]: channel for channel in said["channels"]}
                        ids = [{"id": each["id"], "channelId": each["id"]} for each in said["channels"]]
                        await peer.send_json({"op": "subscribe", "subscriptions": ids})
                elif message.type == WSMsgType.BINARY and message.data[0] == MESSAGE_DATA:
                    (number,) = struct.unpack_from("<I", message.data, 1)
                    [topic] = [topic for topic, channel in channels.items() if channel["id"] == number]
                    found.setdefault(topic, []).append(message.data[13:])
                    if wanted <= found.keys():
                        return channels, found
    raise AssertionError(f"never came: {wanted - found.keys()}")


def decoded(channel: dict[str, Any], data: bytes) -> Any:
    """A protobuf message by the schema that the channel was advertised with."""
    files = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(channel["schema"] + "=="))
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(channel["schemaName"])).FromString(data)


def test_a_client_gets_the_channels_of_a_flight_record_and_the_pictures(tmp_path: Path) -> None:
    robot = ["--robot.type=synthetic", "--robot.width=3", "--robot.steps=100000", "--robot.cameras=1"]
    policy = ["--policy.type=ticker", "--policy.width=3", "--policy.cameras=1"]
    record = [f"--output_dir={tmp_path}/out", f"--record_flight={tmp_path}/flight"]
    with serving(tmp_path / "serve.log", *policy) as (_, endpoint):
        log = tmp_path / "run.log"
        run = start("run", [*robot, *record, f"--connect={endpoint}", "--foxglove=0", "--episodes=1"], log)
        try:
            until(lambda: "foxglove: ws://127.0.0.1:" in log.read_text() or run.poll() is not None, log.read_text)
            url = log.read_text().partition("foxglove: ")[2].split()[0]
            until(lambda: (tmp_path / "out").exists())
            wanted = {"/about", "/episode", "/asked", "/merge", "/tick", PICTURES}
            channels, found = asyncio.run(listen(url, wanted))
            assert channels.keys() == JSON_TOPICS | {PICTURES}
            for topic in JSON_TOPICS:
                assert json.loads(channels[topic]["schema"])["properties"] == json.loads(json.dumps(PROPERTIES[topic]))
                assert channels[topic]["encoding"] == "json" and channels[topic]["schemaEncoding"] == "jsonschema"
            records = {topic: [json.loads(one) for one in found[topic]] for topic in wanted if topic != PICTURES}
            assert records["/about"][-1]["robot"]["name"] == "synthetic"
            assert records["/episode"][-1]["event"] == "begin"
            assert all(one.keys() >= {"tick", "at", "seq"} for one in records["/merge"] + records["/asked"])
            for tick in records["/tick"]:
                assert len(tick["requested"]) == len(tick["sent"]) == 3 and tick["starved"] is False
            image = decoded(channels[PICTURES], found[PICTURES][-1])
            assert (image.format, image.frame_id) == ("jpeg", "camera_0")
            assert cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR).shape[2] == 3
            assert run.poll() is None
        finally:
            run.terminate()
            run.wait(20)


@pytest.mark.parametrize(
    "command, keys, words",
    [
        ("run", ["--foxglove=0", "--foxglove_host=0.0.0.0"], "foxglove_host: found 0.0.0.0, where anybody may watch"),
        ("teleop", ["--foxglove=0", "--foxglove_host=0.0.0.0"], "forward the port with ssh -L"),
        ("run", ["--foxglove=0", "--foxglove_host=192.0.2.1"], "foxglove_host: found 192.0.2.1"),
        ("run", ["--foxglove=0", "--insecure", "--foxglove_host=192.0.2.1"], "foxglove: cannot listen at 192.0.2.1:0"),
    ],
)
def test_other_hosts_are_refused_without_insecure(command: str, keys: list[str], words: str, tmp_path: Path) -> None:
    process = start(command, ["--robot.type=synthetic", f"--output_dir={tmp_path}/out", *keys], tmp_path / "log")
    assert process.wait(60) == 2 and words in (tmp_path / "log").read_text()


def test_without_foxglove_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['foxglove'] = None\nfrom tactus.runtime.commands import main\n"
    code += "sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", "--robot.type=synthetic", "--foxglove=0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "foxglove: needs foxglove; install it: pip install 'tactus[view]'" in done.stderr
