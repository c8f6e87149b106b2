"""The page's web server, in a thread of its own: whatever the robot's thread does, a stop gets through.

    GET  /           the page, one file                  GET /state      websocket: text out, orders in
    POST /stop       an emergency stop                   GET /pictures   websocket: JPEG out, wishes in
    POST /key        {"key": "s"}: as at the terminal

A visitor asks for each message when the last one has arrived: {"next": NUMBER} after the rows up to NUMBER,
{"camera": NAME, "after": NUMBER} for a picture that is not NUMBER. So there is at most one of each on the way to
anybody, the newest, and a slow phone costs nothing. A picture's message is a header of JSON, its length before it as
u32, little-endian, then the file.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeGuard

from aiohttp import WSMsgType, web

from tactus.hal.robot import Robot
from tactus.runtime.page.access import Access, key_for
from tactus.runtime.page.connections import Connections
from tactus.runtime.page.pictures import Pictures
from tactus.runtime.page.run_state import RunState, row_json
from tactus.runtime.view.entities import Entities

STATE_EVERY_S = 0.1
PICTURE_WAIT_S = 0.02
"""How often it looks for a picture that is newer than the one a visitor has."""
MAX_VISITORS = 16
"""Websockets of each kind that are open at once."""
MAX_ORDER_BYTES = 512
HEARTBEAT_S = 5.0
FAREWELL_S, CLOSE_S = 0.5, 3.0
KEYS = {"\r": "Enter", "s": "s", "f": "f", "i": "i"}
"""What the page's buttons may press, as the terminal has it."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageServer:
    """Serves the page of `state` from its making until `close`.

    stop: what an emergency stop calls, with its reason. key: gets a key and says whether it was for it. keys: those
    that it takes. Both are called in the server's thread, as the terminal's are in that of its keys. Raises ValueError,
    naming the config's key, if the address cannot be had.
    """

    def __init__(self, host: str, port: int, key_file: Path | None, hz: float, state: RunState) -> None:
        self.state = state
        self.stop: Callable[[str], None] = lambda reason: None
        self.key: Callable[[str], bool] = lambda pressed: False
        self.keys = ""
        self._key = key_for(host, key_file)
        self._socket = _listening(host, port)
        port = self._socket.getsockname()[1]
        self._access = Access(self._key, port)
        bracketed = f"[{host}]" if ":" in host else host
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else bracketed
        self.url = f"http://{shown}:{port}/" + (f"?key={self._key}" if self._key else "")
        self._page = files(__package__).joinpath("page.html").read_text("utf-8")
        self._headers = _headers(self._page)
        self._pictures = Pictures(state.look, {}, hz)
        self._hz = hz
        self._encoder = ThreadPoolExecutor(1, "page pictures")
        self._visitors: dict[str, set[web.WebSocketResponse]] = {"state": set(), "pictures": set()}
        state.watched = lambda: bool(self._visitors["state"] or self._visitors["pictures"])
        self._head: tuple[float, dict[str, Any]] = (0.0, {})
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="page", daemon=True)
        self._thread.start()
        ready.wait()

    def show(self, robot: Robot, policy: str) -> None:
        """This robot from now on, and what it is driven by."""
        entities = Entities.of(robot.spec)
        joints = [{"name": joint.name, "unit": joint.unit, "measured": joint.measured} for joint in entities.joints]
        self._pictures = Pictures(self.state.look, entities.cameras, self._hz)
        self.state.connect(robot, policy, joints, entities.cameras)

    def close(self) -> None:
        """Stop listening; visitors are told. May be called more than once."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(CLOSE_S)
        self._encoder.shutdown(wait=False)

    # the server's thread

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(ready))
        finally:
            ready.set()
            self._loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_ORDER_BYTES)
        app.add_routes([
            web.get("/", self._index), web.get("/state", self._state), web.get("/pictures", self._show_pictures),
            web.post("/stop", self._post_stop), web.post("/key", self._post_key),
        ])  # fmt: skip
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        assert runner.server is not None
        self._connections = Connections(runner.server)
        server = await self._loop.create_server(self._connections, sock=self._socket)
        ready.set()
        await self._closing.wait()
        server.close()
        await asyncio.gather(*(self._part(each) for visitors in self._visitors.values() for each in visitors))
        await runner.cleanup()

    async def _part(self, visitor: web.WebSocketResponse) -> None:
        """The last of the run's state, and a goodbye."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                if visitor in self._visitors["state"]:
                    await _send(visitor, {"head": {**self.state.head(), "keys": []}, "rows": []})
                await visitor.close(code=1001, message=b"the run is over")

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nothing is served, not even that there is nothing of this name, to whom it is not for."""
        reason = self._access.refusal(
            request.method, request.path, request.headers, request.cookies, request.query.get("key")
        )
        if reason:
            refused = web.Response(status=403, text=f"{reason}\n", headers=self._headers)
            refused.force_close()
            return refused
        if request.protocol is not None:
            self._connections.know(request.protocol)
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            error.headers.update(self._headers)
            raise
        if not answer.prepared:
            answer.headers.update(self._headers)
        return answer

    async def _index(self, request: web.Request) -> web.Response:
        if self._key and "key" in request.query:  # out of the address bar, history and bookmarks of others
            moved = web.Response(status=303, headers={"Location": "/"})
            moved.set_cookie(self._access.cookie, self._key, httponly=True, samesite="Lax", path="/")
            return moved
        return web.Response(text=self._page, content_type="text/html")

    async def _post_stop(self, request: web.Request) -> web.Response:
        return web.json_response({"error": self._stop(request)})

    async def _post_key(self, request: web.Request) -> web.Response:
        try:
            order = json.loads(await request.text())
        except ValueError:
            order = None
        pressed = order.get("key") if isinstance(order, dict) else None
        if not self._has(pressed):
            accepted = ", ".join(KEYS[one] for one in self.keys) or "none: nobody judges this run"
            return web.json_response({"error": f"key: accepted: {accepted}"}, status=400)
        return web.json_response({"error": self._press(pressed)})

    def _has(self, pressed: Any) -> TypeGuard[str]:
        return isinstance(pressed, str) and pressed in KEYS and pressed in self.keys

    def _stop(self, request: web.Request) -> str:
        """What went wrong, if anything did."""
        reason = f"the page, by {request.remote}"
        self.state.stopped = self.state.stopped or reason
        return _told(lambda: self.stop(reason))

    def _press(self, pressed: str) -> str:
        return _told(lambda: None if self.key(pressed) else f"{KEYS[pressed]}: not now")

    async def _state(self, request: web.Request) -> web.WebSocketResponse:
        async with self._visitor(request, "state") as visitor:
            wanted: asyncio.Queue[int] = asyncio.Queue(1)
            sender = asyncio.create_task(self._send_state(visitor, wanted))
            try:
                async for order in _orders(visitor):
                    if "stop" in order:
                        await _send(visitor, {"stopped": self._stop(request) or "done"})
                    elif self._has(pressed := order.get("key")):
                        await _send(visitor, {"said": self._press(pressed)})
                    elif type(number := order.get("next")) is int and wanted.empty():
                        wanted.put_nowait(number)
            finally:
                sender.cancel()
        return visitor

    async def _send_state(self, visitor: web.WebSocketResponse, wanted: asyncio.Queue[int]) -> None:
        while True:
            number = await wanted.get()
            began_s = time.monotonic()
            rows = [row_json(row) for row in self.state.rows(number)]
            await _send(visitor, {"head": self._shared_head(), "rows": rows})
            await asyncio.sleep(max(0.0, STATE_EVERY_S - (time.monotonic() - began_s)))

    def _shared_head(self) -> dict[str, Any]:
        """Made once for all who look."""
        now_s = time.monotonic()
        if now_s - self._head[0] > STATE_EVERY_S / 2:
            self._head = now_s, {**self.state.head(), "keys": [*self.keys]}
        return self._head[1]

    async def _show_pictures(self, request: web.Request) -> web.WebSocketResponse:
        async with self._visitor(request, "pictures") as visitor:
            senders: dict[str, asyncio.Task[None]] = {}
            try:
                async for order in _orders(visitor):
                    camera, number = order.get("camera"), order.get("after")
                    if not isinstance(camera, str) or not isinstance(number, int) or not self._pictures.has(camera):
                        continue
                    if camera not in senders or senders[camera].done():
                        senders[camera] = asyncio.create_task(self._answer(visitor, camera, number))
            finally:
                for sender in senders.values():
                    sender.cancel()
        return visitor

    async def _answer(self, visitor: web.WebSocketResponse, camera: str, number: int) -> None:
        while True:
            try:
                picture = await self._loop.run_in_executor(self._encoder, self._pictures.after, camera, number)
            except Exception as error:  # noqa: BLE001 - a robot's own code; the page goes on without the picture
                about = {"camera": camera, "number": number, "error": f"{type(error).__name__}: {error}"[:200]}
                await asyncio.sleep(1.0)
                return await _send_picture(visitor, about, b"")
            if picture is not None:
                age_s = (time.monotonic_ns() - picture.stamp_ns) / 1e9 if picture.stamp_ns else None
                about = {"camera": camera, "number": picture.number, "age_s": age_s}
                return await _send_picture(visitor, about, picture.jpeg)
            await asyncio.sleep(PICTURE_WAIT_S)

    @contextlib.asynccontextmanager
    async def _visitor(self, request: web.Request, kind: str) -> AsyncIterator[web.WebSocketResponse]:
        if len(self._visitors[kind]) >= MAX_VISITORS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_VISITORS} pages are open already\n")
        visitor = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_ORDER_BYTES, compress=False)
        await visitor.prepare(request)
        self._visitors[kind].add(visitor)
        try:
            yield visitor
        finally:
            self._visitors[kind].discard(visitor)


async def _orders(visitor: web.WebSocketResponse) -> AsyncIterator[dict[str, Any]]:
    """JSON objects that come; anything else is passed over."""
    async for message in visitor:
        if message.type == WSMsgType.TEXT:
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(order := json.loads(message.data), dict):
                    yield order


async def _send(visitor: web.WebSocketResponse, message: dict[str, Any]) -> None:
    with contextlib.suppress(ConnectionError):  # it has just gone
        await visitor.send_str(json.dumps(message, allow_nan=False))


async def _send_picture(visitor: web.WebSocketResponse, about: dict[str, Any], jpeg: bytes) -> None:
    head = json.dumps(about).encode()
    with contextlib.suppress(ConnectionError):
        await visitor.send_bytes(struct.pack("<I", len(head)) + head + jpeg)


def _told(call: Callable[[], str | None]) -> str:
    """What the call says, or what it raised: the robot's own code, whose error the visitor is shown."""
    try:
        return call() or ""
    except Exception as error:  # noqa: BLE001 - the server lives on, for the next stop
        return f"{type(error).__name__}: {error}"[:300]


def _headers(page: str) -> dict[str, str]:
    """The page runs its own script and no other, is embedded nowhere and kept nowhere."""
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src blob: data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    return {
        "Content-Security-Policy": policy, "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }  # fmt: skip


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as error:
        taken = error.strerror is not None and error.strerror.startswith("Address already in use")
        key, hint = ("page", "give another port, or 0 for any free one")
        if not taken and not isinstance(error, PermissionError):
            key, hint = "page_host", "give an address of this machine, e.g. 127.0.0.1"
        why = (error.strerror or str(error)).partition(" (while")[0]
        raise ValueError(f"{key}: cannot listen at {host}:{port}: {why}; {hint}") from error
