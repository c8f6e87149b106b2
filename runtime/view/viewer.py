"""Starts Rerun's viewer, in a window or in a browser.

Rerun's own program runs beside the node, with `--bind 127.0.0.1`; what the SDK can start itself (`serve_grpc`, `spawn`)
listens on every interface.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import rerun_cli

HOST = "127.0.0.1"
DATA_PORT, PAGE_PORT = 9876, 9090
"""Rerun's own, if they are free."""
STARTS_WITHIN_S = 20.0
PR_SET_PDEATHSIG = 1
VIEWER, WEB, SUFFIX = "viewer", "web", ".rrd"


class ViewError(ValueError):
    """A view cannot be had; the message names the key and says what to do."""


class Viewer:
    """Rerun's viewer, as a process that takes data at `data_url`.

    web: in a browser, at `page`, for as long as the node lives; else in a window, which stays. Raises ViewError.
    """

    def __init__(self, web: bool) -> None:
        if not web and not _has_display():
            raise ViewError(
                f"view: no display for Rerun's viewer; --view={WEB} for a browser, --view=FILE{SUFFIX} for a file"
            )
        self._web = web
        data, page = _free_port(DATA_PORT), _free_port(PAGE_PORT)
        self.data_url = f"rerun+http://{HOST}:{data}/proxy"
        self.page = f"http://{HOST}:{page}/?url={quote(self.data_url, safe='')}" if web else ""
        program = Path(rerun_cli.__file__).parent / "rerun"
        served = ["--serve-web", "--web-viewer-port", str(page)] if web else ["--expect-data-soon"]
        command = [str(program), "--bind", HOST, "--port", str(data), *served]
        # Ctrl-C is for the node; the viewer ends when the node lets it
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_die_with_parent if web and sys.platform == "linux" else None,
        )
        try:
            self._wait_for(data)
        except ViewError:
            self._process.kill()
            self._process.wait()
            raise

    def _wait_for(self, port: int) -> None:
        end_s = time.monotonic() + STARTS_WITHIN_S
        while self._process.poll() is None and time.monotonic() < end_s:
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
                return
            time.sleep(0.05)
        output = b""
        if self._process.poll() is not None and self._process.stderr is not None:
            output = self._process.stderr.read()[-500:]
        raise ViewError(
            f"view: Rerun's viewer did not start: {output.decode(errors='replace').strip() or 'it does not listen'}; "
            f"--view=FILE{SUFFIX} writes a file instead"
        )

    def close(self) -> None:
        """A browser's page keeps what it has; a window stays as it is."""
        if self._web:
            self._process.terminate()
            self._process.wait()


def _has_display() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _free_port(wanted: int) -> int:
    """`wanted`, or any that is free if it is not."""
    with socket.socket() as probe:
        try:
            probe.bind((HOST, wanted))
        except OSError:
            probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _die_with_parent() -> None:
    """Between fork and exec: a node that is killed leaves no server behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
