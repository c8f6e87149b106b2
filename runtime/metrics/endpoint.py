"""The metrics endpoint that Prometheus scrapes: an HTTP server in its own thread, for as long as the node lives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, Self

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, start_http_server


class EndpointError(ValueError):
    """The address cannot be used; the message names the key and says what to do."""


class Source(Protocol):
    """Something that has figures."""

    def collect(self) -> Iterable[Metric]:
        """Called by the server's thread, once a scrape."""
        ...


class Endpoint:
    """Serves GET /metrics from its making until `close`: the process's own figures, and those of every `add`ed source.

    port: 0 for any free one; `url` says which. The server's threads end with the process. Raises EndpointError.
    """

    def __init__(self, host: str, port: int) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        try:
            self._server, self._thread = start_http_server(port, host, self._registry)
        except OSError as error:
            key, hint = "metrics_port", "give another port, or 0 for any free one"
            if not isinstance(error, PermissionError) and error.strerror != "Address already in use":
                key, hint = "metrics_host", "give an address of this machine, e.g. 127.0.0.1"
            raise EndpointError(f"{key}: cannot listen at {host}:{port}: {error.strerror}; {hint}") from error
        bracketed = f"[{host}]" if ":" in host else host
        self.url = f"http://{bracketed}:{self._server.server_port}/metrics"

    def add(self, source: Source) -> None:
        """Scrapes show it from now on."""
        self._registry.register(source)  # pyright: ignore[reportArgumentType] - any object with collect() will do

    def close(self) -> None:
        """Stop listening. May be called more than once."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
