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
from pathlib import Path

from kwsd.config import Config
from kwsd.errors import KwsdError, SourceError
from kwsd.protocol.events import DetectionEvent, Event, Goodbye, NearMiss, Overrun, Published, Scores, SourceDown
from kwsd.protocol.text import readable
from kwsd.service import systemd
from kwsd.service.audio_socket import AudioSocket
from kwsd.service.bus import Bus
from kwsd.service.capture import Capture, make_captures
from kwsd.service.control import Control
from kwsd.service.credentials import Credentials
from kwsd.service.detector import ENDED, Detector, Extras, Processed
from kwsd.service.endpoints import open_endpoints
from kwsd.service.health import Health
from kwsd.service.inbox import Inbox
from kwsd.service.jsonlines import JsonLines
from kwsd.service.outputs.make import make_outputs
from kwsd.service.reload import Reloader, Setup, first_setup, log_model
from kwsd.service.signals import LoopTrouble, Signals
from kwsd.sources.base import End, Item
from kwsd.workers import in_thread

log = logging.getLogger("kwsd")

_OPENING_SECONDS = 30.0
_JOIN_SECONDS = 2.0
_BEAT_SECONDS = 1.0
_READY_SECONDS = 0.02


def run(configure: Callable[[], Config], watch: Callable[[Path], None] | None = None) -> None:
    """Listen until the source ends or a signal comes.

    Args:
        configure: reads the configuration; called again for each reload.
        watch: called once, in a thread of its own, with the path of the socket that then serves events.

    Raises:
        KwsdError: something that the configuration names cannot be used, or the source broke.
    """
    asyncio.run(_run(configure, watch))


async def _run(configure: Callable[[], Config], watch: Callable[[Path], None] | None) -> None:
    signals = Signals()
    if setup := await first_setup(configure, signals.ended):
        await Daemon(configure, setup, signals).run(watch)


class Daemon:
    """One run: captures, a detector, a bus and what serves it.

    Raises:
        KwsdError: a part that the configuration names cannot be used.
    """

    def __init__(self, configure: Callable[[], Config], setup: Setup, signals: Signals) -> None:
        config = setup.config
        self._config, self._signals, self._loop = config, signals, asyncio.get_running_loop()
        self._loop.set_exception_handler(LoopTrouble())
        self._bus, self._inbox = Bus(config.name), Inbox()
        self._detector = Detector(setup.model, config)
        self._captures = make_captures(config, self._inbox)
        self._health = Health(self._detector, self._inbox, list(config.streams), self._captures, time.monotonic())
        self._audio_socket = AudioSocket(config, self._inbox, set(self._captures)) if config.audio else None
        credentials = Credentials.read(config)
        self._reloader = Reloader(configure, setup, self._detector, credentials)
        self._control = Control(config, self._bus, self._inbox, self._detector, self._health, self._reloader)
        self._outputs = make_outputs(config, self._control, credentials)
        self._thread = threading.Thread(target=self._process_audio, name="detector", daemon=True)
        self._tasks: list[asyncio.Task[None]] = []  # the loop itself holds no strong references
        self._endpoints = open_endpoints(config, credentials)  # last: an error above leaves no socket behind
        self._transport = JsonLines(self._endpoints, self._bus, self._control.hello)

    async def run(self, watch: Callable[[Path], None] | None = None) -> None:
        """Start, wait for the end, and shut down. `watch` is as for `run` of this module.

        Raises:
            KwsdError: as `run` of this module.
        """
        reason = "could not start"
        try:
            await self._startup()
            if watch:
                threading.Thread(target=watch, args=[self._config.socket], daemon=True).start()
            reason = await self._signals.ended
            log.info("goodbye: %s; heard %.1f s of audio", reason, self._detector.heard_seconds)
        except Exception as error:
            reason = str(error)
            raise
        finally:
            await self._shutdown(reason)

    async def _startup(self) -> None:
        for server in self._outputs.servers:  # first, so that /healthz answers while a source is being opened
            await server.start()
        await self._transport.start()
        for capture in dict.fromkeys(self._captures.values()):
            await self._open(capture)
            if self._signals.ended.done():
                return
        if self._audio_socket:
            self._audio_socket.start()
            log.info("audio is accepted on %s", self._config.audio)
        if self._outputs.clips:
            self._outputs.clips.start()
        self._thread.start()
        self._health.is_listening = True
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
        await asyncio.gather(self._transport.stop(), *(server.stop() for server in self._outputs.servers))
        if self._outputs.clips:
            self._outputs.clips.stop()

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
        """Send systemd READY=1 when every source has delivered audio, WATCHDOG=1 unless only a restart would help."""
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
            await self._reloader.reload()

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
        output: Processed = self._detector.process(items, self._extras())
        if self._outputs.clips:  # first, so that the audio of an event is there before it
            for piece in output.audio:
                self._outputs.clips.put(piece)
        if output.windows:
            self._loop.call_soon_threadsafe(self._control.take_windows, output.windows)
        if output.events:
            self._loop.call_soon_threadsafe(self._publish, output.events)
        if self._outputs.metrics:
            now = time.monotonic()
            self._outputs.metrics.processing.observe(now - began)
            self._outputs.metrics.lag.observe(now - self._inbox.taken_since)

    def _extras(self) -> Extras:
        keeps_near_misses = bool(self._config.clips and self._config.clips.near_misses)
        near_misses = self._bus.wants_near_misses or keeps_near_misses
        return Extras(self._bus.wants_scores, near_misses, frozenset(self._control.taps))

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
            if isinstance(event, SourceDown) and event.retry_seconds is None:
                self._control.end(event.stream)
            published = self._bus.publish(event)
            if self._outputs.clips and isinstance(published, DetectionEvent | NearMiss):
                self._outputs.clips.put(published)
