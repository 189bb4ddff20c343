"""The daemon: startup, main loop, shutdown.

Law: the event loop serves subscribers; a thread reads each source, one reads the audio socket, and
one runs the detector. Audio flows to the detector, events from there to the loop. A live source
never waits for the detector, and the detector never waits for a subscriber.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from kwsd.config import Config
from kwsd.errors import ConfigError, KwsdError, SourceError
from kwsd.protocol.events import (
    PROTOCOL,
    DetectionEvent,
    Event,
    Goodbye,
    Hello,
    Overrun,
    Published,
    Scores,
    SourceDown,
)  # fmt: skip
from kwsd.protocol.text import readable
from kwsd.service import systemd
from kwsd.service.audio_socket import AudioSocket
from kwsd.service.bus import Bus
from kwsd.service.capture import Capture, make_captures
from kwsd.service.detector import ENDED, Detector, Output
from kwsd.service.endpoints import open_endpoints
from kwsd.service.health import Health
from kwsd.service.inbox import Inbox
from kwsd.service.jsonlines import JsonLines
from kwsd.service.reload import Reloader, Setup, first_setup, log_model
from kwsd.service.signals import LoopTrouble, Signals
from kwsd.sources.base import End, Item
from kwsd.workers import end_with_threads, in_thread

if TYPE_CHECKING:  # optional parts are imported only when they are configured
    from kwsd.service.clips import Clips
    from kwsd.service.metrics import Metrics, MetricsServer, State

log = logging.getLogger("kwsd")

_OPENING_SECONDS = 30.0
_JOIN_SECONDS = 2.0
_BEAT_SECONDS = 1.0
_READY_SECONDS = 0.02


def run(configure: Callable[[], Config]) -> None:
    """Listen until the source ends or a signal comes.

    Args:
        configure: reads the configuration; called again for each reload.

    Raises:
        KwsdError: something that the configuration names cannot be used, or the source broke.
    """
    asyncio.run(_run(configure))
    end_with_threads()


async def _run(configure: Callable[[], Config]) -> None:
    signals = Signals()
    if setup := await first_setup(configure, signals.ended):
        await Daemon(configure, setup, signals).run()


class Daemon:
    """One run: captures, a detector, a bus and what serves it.

    Raises:
        KwsdError: a part that the configuration names cannot be used.
    """

    def __init__(self, configure: Callable[[], Config], setup: Setup, signals: Signals) -> None:
        config = setup.config
        self._config, self._signals, self._loop = config, signals, asyncio.get_running_loop()
        self._loop.set_exception_handler(LoopTrouble())
        self._bus, self._inbox = Bus(), Inbox()
        self._detector = Detector(setup.model, config)
        self._captures = make_captures(config, self._inbox)
        self._health = Health(self._detector, self._inbox, list(config.streams), self._captures, time.monotonic())
        self._audio_socket = AudioSocket(config, self._inbox, set(self._captures)) if config.audio else None
        self._clips = _make_clips(config)
        self._metrics, self._metrics_server = _make_metrics(config, self._state)
        self._thread = threading.Thread(target=self._process_audio, name="detector", daemon=True)
        self._tasks: list[asyncio.Task[None]] = []  # the loop itself holds no strong references
        self._endpoints = open_endpoints(config)  # last, because an error here must leave no socket behind
        self._transport = JsonLines(self._endpoints, self._bus, self._hello)
        self._reloader = Reloader(configure, setup, self._detector, self._endpoints)

    async def run(self) -> None:
        """Start, wait for the end, and shut down.

        Raises:
            KwsdError: as `run` of this module.
        """
        reason = "could not start"
        try:
            await self._startup()
            reason = await self._signals.ended
            log.info("goodbye: %s; heard %.1f s of audio", reason, self._detector.heard_seconds)
        except Exception as error:
            reason = str(error)
            raise
        finally:
            await self._shutdown(reason)

    async def _startup(self) -> None:
        if self._metrics_server:  # first, so that /healthz answers while a source is being opened
            self._metrics_server.start()
        await self._transport.start()
        for capture in dict.fromkeys(self._captures.values()):
            await self._open(capture)
        if self._signals.ended.done():
            return
        if self._audio_socket:
            self._audio_socket.start()
            log.info("audio is accepted on %s", self._config.audio)
        if self._clips:
            self._clips.start()
        self._thread.start()
        self._tasks = [self._loop.create_task(self._watch()), self._loop.create_task(self._reload_on_request())]
        for task in self._tasks:
            task.add_done_callback(self._end_with_task)
        log_model(self._reloader.setup.model)
        sources, addresses = self._config.sources, [endpoint.address for endpoint in self._endpoints]
        log.info("listening to %s; events on %s", ", ".join(sources), ", ".join(addresses))

    def _end_with_task(self, task: "asyncio.Task[None]") -> None:
        """A task that fails ends the daemon: without it there would be no reload and no watchdog."""
        if not task.cancelled() and (error := task.exception()):
            self._signals.end(error)

    async def _shutdown(self, reason: str) -> None:
        systemd.notify("STOPPING=1")
        self._signals.ignore_reloads()
        for task in self._tasks:
            task.cancel()
        self._stop_audio()
        await self._reloader.finish(_JOIN_SECONDS)
        await asyncio.sleep(0)  # events that the detector has handed over go out before the goodbye
        self._bus.publish(Goodbye(reason=reason, heard_seconds=round(self._detector.heard_seconds, 3)))
        await self._transport.stop()
        if self._clips:
            self._clips.stop()
        if self._metrics_server:
            self._metrics_server.stop()

    def _stop_audio(self) -> None:
        self._inbox.close()
        if self._audio_socket:
            self._audio_socket.stop()
        for capture in self._captures.values():
            capture.stop()
        deadline = time.monotonic() + _JOIN_SECONDS
        for capture in self._captures.values():
            capture.join(deadline)
        if self._thread.is_alive():  # it finishes its present run
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _is_own(self, name: str, end: End) -> bool:
        """Whether an end concerns the daemon. A sender that breaks does not; a broken audio socket does."""
        return name in self._captures or (end.error is not None and not isinstance(end.error, KwsdError))

    async def _open(self, capture: Capture) -> None:
        """Start a capture. A sound server that hangs delays neither signals nor subscribers.

        Raises:
            SourceError, AudioError: its source cannot be opened, or takes too long.
        """
        opening, ended = self._loop.create_task(in_thread(capture.start)), self._signals.ended
        await asyncio.wait((opening, ended), timeout=_OPENING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
        elif not ended.done():
            raise SourceError(f"{capture.name}: not open after {_OPENING_SECONDS:g} s; does the sound server hang?")

    async def _watch(self) -> None:
        """Tell systemd that audio arrives, as long as it does."""
        watchdog = systemd.watchdog_seconds()
        is_ready = was_stuck = False
        while True:
            now = time.monotonic()
            self._health.look(now)
            if not is_ready and self._health.has_heard_all:
                is_ready = True
                systemd.notify("READY=1")
            is_stuck = self._health.is_stuck(now)
            if is_stuck and not was_stuck:
                log.error("deaf: %s", "; ".join(f"{name}: {why}" for name, why in self._health.deaf(now).items()))
            if watchdog and not is_stuck:
                systemd.notify("WATCHDOG=1")
            was_stuck = is_stuck
            await asyncio.sleep(min(_BEAT_SECONDS, (watchdog or 10) / 4) if is_ready else _READY_SECONDS)

    async def _reload_on_request(self) -> None:
        """Requests that come during a reload become one more reload."""
        while True:
            await self._signals.reload.wait()
            self._signals.reload.clear()
            await self._reloader.start()

    def _process_audio(self) -> None:
        """The detector's thread. Whatever ends it ends the daemon, so the daemon is never deaf and alive."""
        outcome: str | BaseException = "the source ended"
        left = set(self._captures)
        try:
            while (left or self._audio_socket) and (items := self._inbox.take()):
                self._process(items)
                ends = {name: item.error for name, item in items if isinstance(item, End) and self._is_own(name, item)}
                outcome = next((error for error in ends.values() if error), outcome)
                left -= ends.keys()
                if isinstance(outcome, Exception) and not isinstance(outcome, KwsdError):  # a defect in one of many
                    break
        except Exception as error:  # a defect: the main thread raises it with its traceback
            outcome = error
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._signals.end, outcome)

    def _process(self, items: list[tuple[str, Item]]) -> None:
        began = time.monotonic()
        output: Output = self._detector.process(items, with_scores=self._bus.wants_scores)
        if self._clips:  # first, so that the audio of an event is there before it
            for piece in output.audio:
                self._clips.put(piece)
        if output.events:
            self._loop.call_soon_threadsafe(self._publish, output.events)
        if self._metrics:
            now = time.monotonic()
            self._metrics.processing.observe(now - began)
            self._metrics.lag.observe(now - self._inbox.taken_since)

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Scores):
                self._bus.publish_scores(event)
                continue
            assert isinstance(event, Published)
            if isinstance(event, SourceDown | Overrun):
                is_normal = isinstance(event, SourceDown) and event.reason == ENDED
                level = logging.INFO if is_normal else logging.WARNING
                log.log(level, "%s", readable(event), extra={"fields": {"KWSD_STREAM": event.stream}})
            published = self._bus.publish(event)
            if self._clips and isinstance(published, DetectionEvent):
                self._clips.put(published)

    def _hello(self) -> Hello:
        numbering, model = self._bus.numbering, self._reloader.setup.model
        return Hello(
            protocol=PROTOCOL,
            boot_id=numbering.boot_id,
            next_seq=numbering.next_seq,
            streams=list(self._config.streams),
            labels=model.card.keywords,
            model=model.card.name,
            provider=model.provider,
        )

    def _state(self) -> "State":
        """Called by the thread of the metrics server."""
        from kwsd.service.metrics import State

        model = self._reloader.setup.model
        return State(
            streams=dict(self._detector.figures),
            deaf=self._health.deaf(time.monotonic()),
            is_stuck=self._thread.is_alive() and self._health.is_stuck(time.monotonic()),
            n_subscribers=len(self._transport.connections),
            n_events=self._bus.numbering.next_seq,
            n_lagged=self._bus.n_lagged,
            model=model.card.name,
            provider=model.provider,
        )


def _make_clips(config: Config) -> "Clips | None":
    if config.clips is None:
        return None
    from kwsd.service.clips import Clips

    return Clips(config.clips)


def _make_metrics(config: Config, state: Callable[[], "State"]) -> "tuple[Metrics | None, MetricsServer | None]":
    if config.metrics is None:
        return None, None
    try:
        from kwsd.service.metrics import Metrics, MetricsServer
    except ImportError:
        raise ConfigError("metrics: need the prometheus-client package: install kwsd[metrics]") from None
    metrics = Metrics(state)
    return metrics, MetricsServer(config.metrics, metrics)
