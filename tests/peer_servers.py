"""Other people's policy servers, for tests and benches: openpi's shape and GR00T's, around a function.

openpi: the loop of openpi.serving.websocket_policy_server (asyncio, one handler a connection), with openpi_client's own
serializer. GR00T: gr00t/policy/server_client.py: PolicyServer of N1.7 and N1.6 and gr00t/eval/service.py of N1.5, by
their source, since the package is on no registry: their serializers are written out here, with numpy's own np.save and
np.load and the real msgpack-numpy, so that nothing of ours is compared with itself.
"""

from __future__ import annotations

import asyncio
import functools
import io
import json
import threading
import traceback
from collections.abc import Callable
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import websockets.asyncio.server
import zmq
from openpi_client import msgpack_numpy as openpi_numpy

Infer = Callable[[dict[str, Any]], Any]


class OpenpiServer:
    """infer: their observation in; what comes out is packed as they do, bytes and texts are sent as they are. headers:
    of the connections so far."""

    def __init__(self, infer: Infer, port: int = 0, metadata: dict[str, Any] | bytes | None = None) -> None:
        self._infer, self._metadata = infer, {} if metadata is None else metadata
        self.headers: list[dict[str, str]] = []
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop: asyncio.Event = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self.loop.run_until_complete(self._serve(port)), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def _serve(self, port: int) -> None:
        serve = websockets.asyncio.server.serve
        async with serve(self._handle, "127.0.0.1", port, compression=None, max_size=None, close_timeout=0.1) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set()
            await self._stop.wait()

    async def _handle(self, connection: websockets.asyncio.server.ServerConnection) -> None:
        assert connection.request is not None
        self.headers.append(dict(connection.request.headers.raw_items()))
        packer = openpi_numpy.Packer()
        metadata = self._metadata
        await connection.send(metadata if isinstance(metadata, bytes) else packer.pack(metadata))
        while True:
            try:
                observation = openpi_numpy.unpackb(await connection.recv())
                answer = self._infer(observation)
                await connection.send(answer if isinstance(answer, bytes | str) else packer.pack(answer))
            except websockets.ConnectionClosed:
                return
            except Exception:
                await connection.send(traceback.format_exc())
                await connection.close(code=1011, reason="Internal server error. Traceback in previous frame.")
                return

    def close(self) -> None:
        """As a process that is killed: its connections are gone."""
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)
        assert not self._thread.is_alive()


class ModalityConfig:
    """What of GR00T's class goes over the wire."""

    def __init__(self, **keys: Any) -> None:
        self.keys = keys


def gr00t_bytes(message: Any, version: str) -> bytes:
    """MsgSerializer.to_bytes."""

    def encode(found: Any) -> Any:
        if isinstance(found, ModalityConfig):
            marker = "__ModalityConfig__" if version == "n1.7" else "__ModalityConfig_class__"
            return {marker: True, "as_json": json.dumps(found.keys) if version == "n1.5" else found.keys}
        if isinstance(found, np.ndarray) and version != "n1.7":
            output = io.BytesIO()
            np.save(output, found, allow_pickle=False)
            return {"__ndarray_class__": True, "as_npy": output.getvalue()}
        return found

    chained = functools.partial(msgpack_numpy.encode, chain=encode) if version == "n1.7" else encode
    packed = msgpack.packb(message, default=chained)
    assert packed is not None
    return packed


def gr00t_message(data: bytes, version: str) -> Any:
    """MsgSerializer.from_bytes; N1.7 refuses arrays of objects, and reads those of N1.6 too."""

    def decode(found: Any) -> Any:
        if "__ndarray_class__" in found:
            return np.load(io.BytesIO(found["as_npy"]), allow_pickle=False)
        for marker in ("__ModalityConfig_class__", "__ModalityConfig__"):
            if marker in found:
                keys = found["as_json"]
                return ModalityConfig(**(json.loads(keys) if version == "n1.5" else keys))
        if version == "n1.7":
            assert found.get(b"kind") not in (b"O", "O"), "an array of objects"
            return msgpack_numpy.decode(found)
        return found

    return msgpack.unpackb(data, object_hook=decode)


class Gr00tServer:
    """PolicyServer.run: one REP socket. infer: an observation in, actions by name out; bytes are sent as they are."""

    def __init__(self, infer: Infer, version: str = "n1.7", port: int = 0, token: str | None = None) -> None:
        self._infer, self._version, self._token = infer, version, token
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.url: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.port = int(self.url.rpartition(":")[2])
        self.running = True
        self.calls: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self.running:
            if not self._socket.poll(50):
                continue
            try:
                request = gr00t_message(self._socket.recv(), self._version)
                self.calls.append(request.get("endpoint", "get_action"))
                if self._token is not None and request.get("api_token") != self._token:
                    answer: Any = {"error": "Unauthorized: Invalid API token"}
                else:
                    answer = self._answer(self.calls[-1], request.get("data", {}))
            except Exception as error:
                answer = {"error": str(error)}
            if self.running:
                self._socket.send(answer if isinstance(answer, bytes) else gr00t_bytes(answer, self._version))
        self._socket.close(0)

    def _answer(self, endpoint: str, data: dict[str, Any]) -> Any:
        if endpoint == "ping":
            return {"status": "ok", "message": "Server is running"}
        if endpoint == "get_modality_config":
            return {"state": ModalityConfig(delta_indices=[0], modality_keys=["arm"])}
        if endpoint != "get_action":
            raise ValueError(f"Unknown endpoint: {endpoint}")
        if self._version == "n1.5":
            return self._infer(data)
        assert set(data) == {"observation", "options"}, data
        answer = self._infer(data["observation"])
        return answer if isinstance(answer, bytes) else [answer, {}]

    def close(self) -> None:
        self.running = False
        self._thread.join(5)
        self._context.destroy(linger=0)
