"""Figures for Prometheus at `/metrics`, and `/healthz`, on a port of this machine.

The law of this file: nothing is counted here. Whoever asks gets what the daemon's parts have
counted by then, so a daemon that nobody asks pays nothing.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, Histogram, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from kwsd.config import host_and_port
from kwsd.ear import StreamFigures
from kwsd.errors import SocketError

_REQUESTS_AT_ONCE = 8
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)


@dataclass(frozen=True)
class State:
    """What the daemon says when it is asked.

    Attributes:
        streams: what became of each.
        deaf: streams that are not heard, and why.
        model, provider: in use.
    """

    streams: dict[str, StreamFigures]
    deaf: dict[str, str]
    n_subscribers: int
    n_events: int
    n_lagged: int
    model: str
    provider: str


@dataclass(eq=False)
class Metrics(Collector):
    """What Prometheus is told. The two histograms are fed by the daemon's ear.

    Attributes:
        state: called for the rest when somebody asks.
        hearing: seconds that one run of the ear took.
        lag: seconds from the arrival of the oldest audio in a run to its decisions.
    """

    state: Callable[[], State]
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        def histogram(name: str, what: str) -> Histogram:
            return Histogram(name, what, buckets=_SECONDS, registry=self.registry)

        self.hearing = histogram("kwsd_hearing_seconds", "What one run of the ear took: features, inference, decision")
        self.lag = histogram("kwsd_lag_seconds", "From the arrival of the oldest audio in a run to its decisions")
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        state = self.state()
        streams = list(state.streams.items())
        heard = CounterMetricFamily("kwsd_audio_heard_seconds", "Audio that was heard", labels=["stream"])
        lost = CounterMetricFamily("kwsd_audio_lost_seconds", "Audio that was lost before", labels=["stream"])
        is_up = GaugeMetricFamily("kwsd_source_up", "Whether a source delivers", labels=["stream"])
        found = CounterMetricFamily("kwsd_detections", "Keywords that were heard", labels=["stream", "label"])
        for stream, figures in streams:
            heard.add_metric([stream], figures.heard_seconds)
            lost.add_metric([stream], figures.lost_seconds)
            is_up.add_metric([stream], figures.is_up)
            for label, n in list(figures.n_detections.items()):
                found.add_metric([stream, label], n)
        yield from (heard, lost, is_up, found)
        yield GaugeMetricFamily("kwsd_deaf_streams", "Configured streams that are not heard", len(state.deaf))
        yield GaugeMetricFamily("kwsd_subscribers", "Connected now", state.n_subscribers)
        yield CounterMetricFamily("kwsd_events", "Events that were published", state.n_events)
        yield CounterMetricFamily("kwsd_events_lagged", "Events that subscribers were too slow for", state.n_lagged)
        yield InfoMetricFamily("kwsd_model", "In use", {"name": state.model, "provider": state.provider})


class _Server(ThreadingWSGIServer):
    """A thread for each request, but only so many: who comes when all are busy is turned away."""

    daemon_threads = True
    address_family = socket.AF_INET

    def __init__(self, *arguments: Any) -> None:
        self._room = threading.BoundedSemaphore(_REQUESTS_AT_ONCE)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()


class _Quiet(WSGIRequestHandler):
    timeout = 10.0

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
        """Nobody wants a line for every scrape."""


class MetricsServer:
    """Serves a daemon's figures.

    Args:
        address: HOST:PORT of this machine.
    """

    def __init__(self, address: str, metrics: Metrics) -> None:
        self._address, self._metrics = address, metrics
        self._server: ThreadingWSGIServer | None = None
        self._figures: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]] = make_wsgi_app(metrics.registry)

    def start(self) -> None:
        """Raises:
        SocketError: the address cannot be used.
        """
        host, port = host_and_port(self._address)
        server = type("Server", (_Server,), {"address_family": socket.AF_INET6 if ":" in host else socket.AF_INET})
        try:
            self._server = server((host, port), _Quiet)
        except OSError as error:
            raise SocketError(f"{self._address}: cannot be bound ({error.strerror}); choose other metrics") from None
        self._server.set_app(self._answer)
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return self._figures(environ, respond)
        if path == "/healthz":
            deaf = self._metrics.state().deaf
            respond("503 Service Unavailable" if deaf else "200 OK", [("Content-Type", "application/json")])
            return [json.dumps({"status": "deaf" if deaf else "ok", "deaf": deaf}).encode() + b"\n"]
        respond("404 Not Found", [("Content-Type", "text/plain")])
        return [b"there are /metrics and /healthz\n"]
