"""What a config asks to see of a running node, opened before anything moves and closed after everything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tactus.hal.robot import Robot
from tactus.hal.spec import PolicySpec
from tactus.runtime.commands.key_groups import Monitoring as Keys
from tactus.runtime.commands.key_groups import RobotCommand, Watching
from tactus.runtime.page.access import is_loopback
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.robot_node.watcher import Watcher

if TYPE_CHECKING:
    from tactus.runtime.metrics.endpoint import Endpoint
    from tactus.runtime.page.foxglove_server import FoxgloveServer
    from tactus.runtime.page.server import PageServer


LIVE_BACKLOG_BYTES = 8_000_000
"""Of records that wait for Foxglove's server."""


@contextlib.contextmanager
def _extra(key: str, extra: str) -> Iterator[None]:
    """Imports of what `key` needs and an extra has."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"{key}: needs {error.name}; install it: pip install 'tactus[{extra}]'") from error


class Monitoring:
    """Metrics and a view, if `config` asks for them.

    Order of calls: open; then timed and watch_policy, or watch_robot; close.
    """

    def __init__(self, config: Keys) -> None:
        self._config = config
        self._stack = contextlib.ExitStack()
        self._endpoint: Endpoint | None = None
        self._page: PageServer | None = None
        self._foxglove: FoxgloveServer | None = None
        self.place = ""
        """Where the view is to be seen, once there is one."""

    def open(self) -> None:
        """Claim the ports. Raises ValueError, naming the key, if it cannot be had."""
        if self._config.metrics_port is not None:
            from tactus.runtime.metrics.endpoint import Endpoint

            endpoint = Endpoint(self._config.metrics_host, self._config.metrics_port)
            self._endpoint = self._stack.enter_context(endpoint)
        if isinstance(self._config, Watching) and self._config.page is not None:
            self._page = self._opened_page(self._config)
            self._stack.callback(self._page.close)
        if isinstance(self._config, RobotCommand) and self._config.foxglove is not None:
            self._foxglove = self._opened_foxglove(self._config)
            self._stack.callback(self._foxglove.close)

    def _opened_foxglove(self, config: RobotCommand) -> FoxgloveServer:
        if not is_loopback(config.foxglove_host) and not config.insecure:
            raise ValueError(
                f"foxglove_host: found {config.foxglove_host}, where anybody may watch: Foxglove's protocol knows no "
                "keys; forward the port with ssh -L instead, or allow it with --insecure where the command has it"
            )
        with _extra("foxglove", "view"):
            from tactus.runtime.page.foxglove_server import FoxgloveServer
        return FoxgloveServer(config.foxglove_host, config.foxglove or 0, config.page_hz)

    def _opened_page(self, config: Watching) -> PageServer:
        with _extra("page", "page"):
            from tactus.runtime.page.run_state import RunState
            from tactus.runtime.page.server import PageServer
        if config.log_format == "json" and config.page_key is None and not is_loopback(config.page_host):
            raise ValueError("page_key: not given, and a log is no place for a key; give a file, which is made")
        key_file = None if config.page_key is None else Path(config.page_key)
        state = RunState(1 / config.page_hz)
        return PageServer(config.page_host, config.page or 0, key_file, config.page_hz, state)

    @property
    def page_url(self) -> str:
        """Of the robot's page, with its key unless that could be logged; empty if there is none."""
        if self._page is None:
            return ""
        return self._page.url.partition("?")[0] if self._config.log_format == "json" else self._page.url

    @property
    def foxglove_url(self) -> str:
        """What Foxglove connects to; empty if there is nothing."""
        return self._foxglove.url if self._foxglove else ""

    def watch_live(self, about: Callable[[], Mapping[str, Any]], say: Callable[[str], None]) -> list[Watcher]:
        """A flight recorder that writes to Foxglove. about: what its first message says."""
        if self._foxglove is None:
            return []
        from tactus.runtime.flight.recorder import FlightRecorder
        from tactus.runtime.page.foxglove_server import LiveRing

        recorder = FlightRecorder(LiveRing(self._foxglove), say, LIVE_BACKLOG_BYTES)
        recorder.start(about())
        self._stack.callback(recorder.close)
        return [recorder, self._foxglove.state]

    @property
    def has_page(self) -> bool:
        """Whether a person may be at the page."""
        return self._page is not None

    def attend(self, stop: Callable[[str], None], key: Callable[[str], bool] | None = None, keys: str = "") -> None:
        """What the page's buttons do: as the terminal's keys. keys: those that `key` takes."""
        if self._page is not None:
            self._page.stop, self._page.key, self._page.keys = stop, key or self._page.key, keys

    def told(self, level: str, line: str) -> None:
        """What a person is told at the terminal."""
        if self._page is not None:
            self._page.state.say(level, line)

    def judged(self, successes: int, finished: int, total: int) -> None:
        """How the run stands."""
        if self._page is not None:
            self._page.state.judged(successes, finished, total)

    @property
    def url(self) -> str:
        """Of the metrics; empty if there are none."""
        return self._endpoint.url if self._endpoint else ""

    def timed(self, trace: Callable[[float], None]) -> Callable[[float], None]:
        """`trace`, told of answers' latencies in ms, with the metrics told as well."""
        if self._endpoint is None:
            return trace
        from tactus.runtime.metrics.histogram import Histogram

        self._latency = latency = Histogram()

        def both(latency_ms: float) -> None:
            latency.add(latency_ms / 1000)
            trace(latency_ms)

        return both

    def watch_policy(self, node: PolicyNode, policy: PolicySpec) -> None:
        """After `timed`: metrics show this node from now on."""
        if self._endpoint is not None:
            from tactus.runtime.metrics.policy import PolicyMetrics

            self._endpoint.add(PolicyMetrics(node, policy, self._latency))

    def watch_robot(
        self, robot: Robot, policy: PolicySpec, real_time: bool, say: Callable[[str], None]
    ) -> list[Watcher]:
        """Onlookers for the robot's episodes. Raises ValueError, naming the key, if the view cannot be had."""
        onlookers: list[Watcher] = []
        if self._endpoint is not None:
            from tactus.runtime.metrics.robot import RobotMetrics

            onlookers.append(metrics := RobotMetrics(robot, policy.name))
            self._endpoint.add(metrics)
        if self._foxglove is not None:
            self._foxglove.show(robot, policy.name)
        if self._page is not None:
            self._page.show(robot, policy.name)
            onlookers.append(self._page.state)
        if isinstance(self._config, Watching) and self._config.view is not None:
            with _extra("view", "view"):
                from tactus.runtime.view.live_view import View
                from tactus.runtime.view.rerun_recording import RerunRecording
            canvas = RerunRecording(self._config.view, robot.spec, real_time)
            onlookers.append(view := View(canvas, robot, self._config.view_hz, real_time, say))
            self._stack.callback(view.close)
            self.place = canvas.place
        return onlookers

    def close(self) -> None:
        """May be called more than once."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
