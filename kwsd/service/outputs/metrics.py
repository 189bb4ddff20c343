"""`/metrics` for Prometheus, `/healthz` and `/livez`, on a port of this machine.

`/healthz` fails while a configured stream brings no audio; `/livez` only when a restart would help.

Law: the daemon fills the two histograms. Every request reads all other figures from the counters of
the daemon's parts.
"""

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from kwsd.errors import SocketError
from kwsd.limits import Crowd
from kwsd.protocol.address import host_and_port
from kwsd.service.control import State

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of Prometheus's text format."""

_JSON = "application/json"
_REQUESTS_AT_ONCE = 32
_REQUEST_SECONDS = 2.0  # for a whole request; on a network, one takes milliseconds
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)


@dataclass(eq=False)
class Metrics(Collector):
    """What Prometheus collects. The daemon's inference thread feeds the two histograms.

    Attributes:
        state: returns everything else at the time of a request.
        processing: seconds that one run of the detector took.
        lag: seconds from the arrival of the oldest audio in a run to its decisions.
        host: name of the daemon, a label of every figure; None for none.
    """

    state: Callable[[], State]
    host: str | None = None

    def __post_init__(self) -> None:
        self.registry = _Registry(self.host)

        def histogram(name: str, what: str) -> Histogram:
            return Histogram(name, what, buckets=_SECONDS, registry=self.registry)

        self.processing = histogram("kwsd_hearing_seconds", "One run of the detector: features, inference, decision")
        self.lag = histogram("kwsd_lag_seconds", "From the arrival of the oldest audio in a run to its decisions")
        self.registry.register(self)

    def exposition(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Metric]:
        state = self.state()
        streams = list(state.streams.items())
        heard = CounterMetricFamily("kwsd_audio_heard_seconds", "Audio that was processed", labels=["stream"])
        lost = CounterMetricFamily("kwsd_audio_lost_seconds", "Audio that was lost", labels=["stream"])
        is_up = GaugeMetricFamily("kwsd_source_up", "Whether a source delivers", labels=["stream"])
        muted = GaugeMetricFamily("kwsd_muted", "Whether a stream hears silence", labels=["stream"])
        found = CounterMetricFamily("kwsd_detections", "Keywords that were heard", labels=["stream", "label"])
        for stream, figures in streams:
            heard.add_metric([stream], figures.heard_seconds)
            lost.add_metric([stream], figures.lost_seconds)
            is_up.add_metric([stream], figures.is_up)
            muted.add_metric([stream], stream in state.muted)
            for label, n in list(figures.n_detections.items()):
                found.add_metric([stream, label], n)
        yield from (heard, lost, is_up, muted, found)
        yield GaugeMetricFamily("kwsd_deaf_streams", "Configured streams from which no audio arrives", len(state.deaf))
        yield GaugeMetricFamily("kwsd_subscribers", "Connected now", state.n_subscribers)
        yield CounterMetricFamily("kwsd_events", "Events that were published", state.n_events)
        yield CounterMetricFamily("kwsd_events_lagged", "Events that slow subscribers lost", state.n_lagged)
        yield InfoMetricFamily("kwsd_model", "In use", {"name": state.model, "provider": state.provider})


class _Registry(CollectorRegistry):
    """Adds the daemon's name to every figure."""

    def __init__(self, host: str | None) -> None:
        super().__init__()
        self._labels = {"host": host} if host else {}

    def collect(self) -> Iterable[Metric]:
        for family in super().collect():
            family.samples = [one._replace(labels=self._labels | one.labels) for one in family.samples]
            yield family


class _Server(ThreadingWSGIServer):
    """A thread for each request. When there are too many, the oldest one of the busiest address is closed."""

    daemon_threads = True
    address_family = socket.AF_INET

    def __init__(self, *arguments: Any) -> None:
        self._requests: Crowd[socket.socket] = Crowd(_REQUESTS_AT_ONCE)
        self._lock = threading.Lock()  # of `_requests`
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            gone = self._requests.add(request, client_address[0])
        if gone:
            _hang_up(gone)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._forget(request)
            raise

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._requests.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing of a client that has gone, or was too slow; a defect has its traceback."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        deadline = threading.Timer(_REQUEST_SECONDS, _hang_up, [request])
        try:
            deadline.start()
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._forget(request)


def _hang_up(request: socket.socket) -> None:
    with suppress(OSError):  # it has just ended by itself
        request.shutdown(socket.SHUT_RDWR)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
        """Log nothing: a line for every request would be noise."""


class MetricsServer:
    """Serves the daemon's metrics.

    Args:
        address: HOST:PORT of this machine.
    """

    def __init__(self, address: str, metrics: Metrics) -> None:
        self._address, self._metrics = address, metrics
        self._server: ThreadingWSGIServer | None = None

    async def start(self) -> None:
        """Listen, and start the thread.

        Raises:
            SocketError: the address cannot be used.
        """
        host, port = host_and_port(self._address)
        server = type("Server", (_Server,), {"address_family": socket.AF_INET6 if ":" in host else socket.AF_INET})
        try:
            self._server = server((host, port), _Quiet)
        except OSError as error:
            reason = f"cannot be bound ({error.strerror}); choose another address for metrics"
            raise SocketError(f"{self._address}: {reason}") from None
        self._server.set_app(self._answer)
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    async def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            respond("200 OK", [("Content-Type", EXPOSITION)])
            return [self._metrics.exposition()]
        if answer := health(path, self._metrics.state()):
            respond("200 OK" if answer["status"] == "ok" else "503 Service Unavailable", [("Content-Type", _JSON)])
            return [json.dumps(answer).encode() + b"\n"]
        respond("404 Not Found", [("Content-Type", "text/plain")])
        return [b"the paths are /metrics, /healthz and /livez\n"]


def health(path: str, state: State) -> dict[str, Any] | None:
    """The answer of `/healthz` and `/livez`; its status is "ok" if all is well. None for other paths."""
    if path == "/healthz":
        return {"status": "deaf" if state.deaf else "ok", "deaf": state.deaf}
    if path == "/livez":
        return {"status": "stuck" if state.is_stuck else "ok"}
    return None
