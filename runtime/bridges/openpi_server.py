"""openpi's policy server, in front of our policy node: what openpi_client.WebsocketClientPolicy talks to.

Each connection has a thread and a session at the node. What cannot be answered is said as their server says it: a text
frame, here one sentence, and the connection is closed.
"""

from __future__ import annotations

import hmac
import http
import logging
import threading
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from tactus.hal.error_report import describe
from tactus.policies.remote.array_messages import OPENPI, MessageError, pack, unpack
from tactus.policies.remote.feature_map import FeatureError
from tactus.runtime.bridges.node_client import Node, NodeClient, NotAnswered, described
from tactus.runtime.wire.link import LinkError

log = logging.getLogger("tactus.bridge")
IDLE_S = 600.0
"""A robot that says nothing for so long is let go of."""


class OpenpiServer:
    """key: what robots have to show, as `Authorization: Api-Key KEY`. Raises OSError if it cannot listen there."""

    def __init__(self, node: Node, host: str, port: int, key: str | None, max_bytes: int, most: int) -> None:
        self._node, self._key, self._most = node, key, most
        self._connected = 0
        self._lock = threading.Lock()
        silent = logging.getLogger("tactus.websockets")  # which tells of every port scan, with a traceback
        silent.disabled = True
        self._server: Server = serve(
            self._handle,
            host,
            port,
            compression=None,
            max_size=max_bytes,
            close_timeout=1.0,
            process_request=self._admit,
            logger=silent,
        )
        name = f"[{host}]" if ":" in host else host
        self.endpoint = f"ws://{name}:{self._server.socket.getsockname()[1]}"

    def run(self) -> None:
        """Serve until the process ends."""
        self._server.serve_forever()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """None for a robot that may come in. /healthz is for whoever watches, as at their server."""
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        given = request.headers.get_all("Authorization")
        wanted = f"Api-Key {self._key}"
        if self._key is not None and not any(hmac.compare_digest(each.encode(), wanted.encode()) for each in given):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "the key is missing or wrong\n")
        if self._connected >= self._most:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{self._most} robots are connected\n")
        return None

    def _handle(self, connection: ServerConnection) -> None:
        with self._lock:
            self._connected += 1
        client: NodeClient | None = None
        reason = ""
        try:
            client = NodeClient(self._node, "openpi client")
            connection.send(pack(dict(described(self._node.spec)), OPENPI))
            while True:
                connection.send(pack(self._answer(client, connection.recv(timeout=IDLE_S)), OPENPI))
        except ConnectionClosed:
            pass
        except TimeoutError:
            reason = f"nothing was asked for {IDLE_S:g} s"
        except (MessageError, FeatureError, NotAnswered, LinkError) as error:
            reason = str(error)
        except Exception as error:  # whatever a robot can do to this code, the others are still served
            log.exception("an openpi robot could not be answered")
            reason = describe(error)
        finally:
            with self._lock:
                self._connected -= 1
            if client is not None:
                client.close()
        if reason:
            _refuse(connection, reason)

    def _answer(self, client: NodeClient, data: bytes | str) -> dict[str, Any]:
        if isinstance(data, str):
            raise MessageError("found text; an observation is a binary frame of msgpack")
        chunk = client.ask(unpack(data))
        spent_ms = sum(ms for name, ms in chunk.timings_ms.items() if name != "queued")
        timing = {"infer_ms": spent_ms}
        return {"actions": chunk.actions, "policy_timing": timing, "server_timing": timing}


def _refuse(connection: ServerConnection, reason: str) -> None:
    log.warning("an openpi robot was not answered: %s", reason)
    try:
        connection.send(reason)
        connection.close(CloseCode.INTERNAL_ERROR, "not answered; the frame before says why")
    except (ConnectionClosed, OSError):
        pass
