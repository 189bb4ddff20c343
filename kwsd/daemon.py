"""The daemon: startup, serve, shutdown.

The law of this file: the event loop serves subscribers, one thread reads each source, one all
that comes over the network, and one hears all of them. Audio flows to the one that hears,
events from there to the loop. Nothing ever waits in the other direction.
"""

import asyncio
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from kwsd import systemd
from kwsd.bus import Bus
from kwsd.capture import Capture, End, Inbox
from kwsd.config import Config, StreamConfig, check_thresholds
from kwsd.ear import ENDED, Ear
from kwsd.errors import ConfigError, KwsdError, SourceError
from kwsd.events import PROTOCOL, DetectionEvent, Event, Goodbye, Hello, Overrun, Published, Scores, SourceDown
from kwsd.health import Health
from kwsd.model import Model, load_model
from kwsd.readable import readable
from kwsd.sockets import open_doors, renew
from kwsd.sources import is_shared, make_source
from kwsd.sources.network import NetworkAudio
from kwsd.transports.jsonlines import JsonLines

if TYPE_CHECKING:  # only who configures them pays for them
    from kwsd.clips import Clips
    from kwsd.transports.metrics import Metrics, MetricsServer, State

log = logging.getLogger("kwsd")

T = TypeVar("T")

_RELOADED = {"threshold", "thresholds", "model", "device", "streams"}
_OPENING_SECONDS = 30.0
_JOIN_SECONDS = 2.0
_BEAT_SECONDS = 1.0
_READY_SECONDS = 0.02
_SAME_TROUBLE_SECONDS = 60.0


def run(configure: Callable[[], Config]) -> None:
    """Listen until the source ends or a signal comes.

    Args:
        configure: reads the configuration; called again on SIGHUP.

    Raises:
        KwsdError: anything that the configuration names cannot be used, or the source broke.
    """
    asyncio.run(Daemon(configure).run())


class Daemon:
    """One run: captures, an ear, a bus and its transports."""

    def __init__(self, configure: Callable[[], Config]) -> None:
        self._configure = configure
        self._config, self._model = self._load()
        self._bus = Bus()
        self._ear = Ear(self._model, self._config)
        self._inbox = Inbox()
        self._captures = self._make_captures()
        streams = self._config.stream_names
        self._health = Health(self._ear, self._inbox, streams, self._captures, time.monotonic())
        self._network = self._make_network() if self._config.audio else None
        self._clips = self._make_clips()
        self._metrics, self._metrics_server = self._make_metrics()
        self._thread = threading.Thread(target=self._listen, name="ear", daemon=True)
        self._one_reload = asyncio.Lock()

    async def run(self) -> None:
        """Raises:
        KwsdError: as `run` of this module.
        """
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_Trouble())
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._doors = open_doors(self._config)
        self._transport = JsonLines(self._doors, self._bus, self._hello)
        reason = "could not start"
        try:
            await self._startup()
            reason = await self._ended
            log.info("goodbye: %s; heard %.1f s of audio", reason, self._ear.heard_seconds)
        except Exception as error:
            reason = str(error)
            raise
        finally:
            systemd.notify("STOPPING=1")
            self._stop_listening()
            await asyncio.sleep(0)  # what the ear has handed over still goes out before the goodbye
            self._bus.publish(Goodbye(reason=reason, heard_seconds=round(self._ear.heard_seconds, 3)))
            await self._transport.stop()
            self._stop_keeping()

    async def _startup(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._end, signal.Signals(number).name)
        self._had_terminal = _has_terminal()
        self._loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        if self._metrics_server:  # first of all: while a source is being opened, it is deaf, and that can be asked
            self._metrics_server.start()
        await self._transport.start()
        for capture in dict.fromkeys(self._captures.values()):
            await self._open(capture)
        if self._ended.done():
            return
        if self._network:
            self._network.start()
            log.info("audio is taken on %s", self._config.audio)
        if self._clips:
            self._clips.start()
        self._thread.start()
        self._beating = self._loop.create_task(self._beat())  # kept: the loop holds no strong reference
        self._log_model()
        log.info(
            "listening to %s; events on %s",
            ", ".join(self._config.sources),
            ", ".join(door.address for door in self._doors),
        )

    async def _open(self, capture: Capture) -> None:
        """Start a capture, unless the end comes first: a sound server that hangs holds up nothing else.

        Raises:
            SourceError, AudioError: its source cannot be opened, or takes too long.
        """
        opening = self._loop.create_task(_in_thread(capture.start))
        await asyncio.wait((opening, self._ended), timeout=_OPENING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
        elif not self._ended.done():
            raise SourceError(f"{capture.name}: not open after {_OPENING_SECONDS:g} s; does the sound server hang?")

    def _make_captures(self) -> dict[str, Capture]:
        """For each stream that kwsd reads itself what reads it; streams of one device have the same."""
        by_source: dict[str, dict[str, StreamConfig]] = {}
        for name in self._config.stream_names:
            config = self._config.of_stream(name)
            if config.source != "network":
                by_source.setdefault(config.source if is_shared(config) else name, {})[name] = config
        captures: dict[str, Capture] = {}
        for configs in by_source.values():
            source = make_source(*configs.values())
            capture = Capture(source, list(configs), self._inbox, self._config.silent_seconds)
            captures |= dict.fromkeys(configs, capture)
        return captures

    def _make_clips(self) -> "Clips | None":
        if self._config.clips is None:
            return None
        from kwsd.clips import Clips, Ended, Piece

        clips = Clips(self._config.clips)
        self._ear.on_audio = lambda *piece: clips.put(Piece(*piece))
        self._ear.on_end = lambda stream: clips.put(Ended(stream))
        return clips

    def _make_metrics(self) -> "tuple[Metrics | None, MetricsServer | None]":
        if self._config.metrics is None:
            return None, None
        try:
            from kwsd.transports.metrics import Metrics, MetricsServer
        except ImportError:
            raise ConfigError("metrics: need the prometheus-client package: install kwsd[metrics]") from None
        metrics = Metrics(self._state)
        return metrics, MetricsServer(self._config.metrics, metrics)

    def _state(self) -> "State":
        """For the metrics' thread."""
        from kwsd.transports.metrics import State

        return State(
            streams=dict(self._ear.figures),
            deaf=self._health.deaf(time.monotonic()),
            n_subscribers=len(self._transport.connections),
            n_events=self._bus.numbering.next_seq,
            n_lagged=self._bus.n_lagged,
            model=self._model.card.name,
            provider=self._model.provider,
        )

    def _make_network(self) -> NetworkAudio:
        def channel(stream: str) -> int | None:
            known = stream in self._config.stream_names  # what the one source is said to be holds for no other
            return self._config.of_stream(stream).channel if known else None

        return NetworkAudio(self._config, self._inbox, set(self._captures), channel)

    def _load(self) -> tuple[Config, Model]:
        config = self._configure()
        model = load_model(config.model, config.device)
        check_thresholds(config, model.card.keywords)
        model.only_steps()
        return config, model

    def _log_model(self) -> None:
        log.info("model %s (%s) on %s", self._model.card.name, self._model.path, self._model.provider)

    def _hang_up(self) -> None:
        """SIGHUP: somebody asks for the configuration to be read again, or the terminal was closed."""
        if self._had_terminal and not _has_terminal():
            self._end("the terminal was closed")
            return
        self._reloading = self._loop.create_task(self._reload())  # kept: the loop holds no strong reference

    async def _reload(self) -> None:
        """All is checked first; then the ear swaps between two chunks, or nothing changes."""
        async with self._one_reload:
            await self._load_and_swap()

    async def _load_and_swap(self) -> None:
        try:
            config, model = await _in_thread(self._load)
            kept = {one.name: getattr(self._config, one.name) for one in fields(Config) if one.name not in _RELOADED}
            changed = [name for name, value in kept.items() if getattr(config, name) != value]
            if _sources(config) != _sources(self._config):
                changed.append("streams")
                kept["streams"] = self._config.streams
            config = replace(config, **kept)
            renew(self._doors, config)
        except KwsdError as error:
            log.error("reload: %s; the old configuration stays", "; ".join(str(error).splitlines()))
            return
        except Exception:  # a defect: shown with its traceback, and survived
            log.exception("reload: failed; the old configuration stays")
            return
        if changed:
            log.warning("reload: %s can change only with a restart", ", ".join(changed))
        if (model.card, model.provider) == (self._model.card, self._model.provider):
            model = self._model  # the same: no stream has to begin anew
        self._config, self._model = config, model
        self._ear.swap(self._model, self._config)
        self._log_model()
        log.info("reload: done")

    async def _beat(self) -> None:
        """Tell systemd that audio arrives, for as long as it does."""
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

    def _stop_listening(self) -> None:
        self._inbox.close()
        if self._network:
            self._network.stop()
        for capture in self._captures.values():
            capture.stop()
        deadline = time.monotonic() + _JOIN_SECONDS
        for capture in self._captures.values():
            capture.join(deadline)
        if self._thread.is_alive():  # one inference; nobody else needs the loop now
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _stop_keeping(self) -> None:
        if self._clips:
            self._clips.stop()
        if self._metrics_server:
            self._metrics_server.stop()

    def _listen(self) -> None:
        """The ear's thread. Whatever ends it ends the daemon: never deaf and alive."""
        outcome: str | BaseException = "the source ended"
        left = set(self._captures)
        try:
            while (left or self._network) and (items := self._inbox.take()):
                self._ear.wants_scores = self._bus.wants_scores
                began = time.monotonic()
                if events := self._ear.hear(items):
                    self._loop.call_soon_threadsafe(self._publish, events)
                if self._metrics:
                    now = time.monotonic()
                    self._metrics.hearing.observe(now - began)
                    self._metrics.lag.observe(now - self._inbox.taken_since)
                ends = {name: item.error for name, item in items if isinstance(item, End)}
                outcome = next((error for error in ends.values() if error), outcome)
                left -= ends.keys()
                if isinstance(outcome, Exception) and not isinstance(outcome, KwsdError):  # a defect, in one of many
                    break
        except Exception as error:  # a defect: shown with its traceback by the main thread
            outcome = error
        with suppress(RuntimeError):  # the loop has ended, and did not wait any longer
            self._loop.call_soon_threadsafe(self._end, outcome)

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Scores):
                self._bus.publish_scores(event)
                continue
            assert isinstance(event, Published)
            if isinstance(event, SourceDown | Overrun):
                is_over = isinstance(event, SourceDown) and event.reason == ENDED
                level = logging.INFO if is_over else logging.WARNING
                log.log(level, "%s", readable(event), extra={"fields": {"KWSD_STREAM": event.stream}})
            published = self._bus.publish(event)
            if self._clips and isinstance(published, DetectionEvent):
                self._clips.put(published)

    def _end(self, outcome: str | BaseException) -> None:
        if self._ended.done():
            return
        if isinstance(outcome, BaseException):
            self._ended.set_exception(outcome)
        else:
            self._ended.set_result(outcome)

    def _hello(self) -> Hello:
        numbering = self._bus.numbering
        return Hello(
            protocol=PROTOCOL,
            boot_id=numbering.boot_id,
            next_seq=numbering.next_seq,
            streams=self._config.stream_names,
            labels=self._model.card.keywords,
            model=self._model.card.name,
            provider=self._model.provider,
        )


async def _in_thread(function: Callable[[], T]) -> T:
    """As `asyncio.to_thread`, but the end of the process does not wait for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(finish: Callable[[Any], None], outcome: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: None if future.done() else finish(outcome))

    def run() -> None:
        try:
            tell(future.set_result, function())
        except Exception as error:
            tell(future.set_exception, error)

    threading.Thread(target=run, daemon=True).start()
    return await future


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal, from which it was started."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _sources(config: Config) -> dict[str, StreamConfig]:
    """What of the streams takes a restart to change."""
    return {name: replace(stream, threshold=None, thresholds={}) for name, stream in config.streams.items()}


class _Trouble:
    """What went wrong where nobody waits for it. What the system refuses, such as a descriptor, is no defect."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError):
            loop.default_exception_handler(context)
            return
        line = f"{context['message']}: {error.strerror or error}"
        if loop.time() - self._logged.get(line, -math.inf) > _SAME_TROUBLE_SECONDS:
            self._logged = {line: loop.time()}
            log.warning("%s", line)
