"""The daemon: startup, serve, shutdown.

The law of this file: the event loop serves subscribers and takes audio from the network, one
thread reads each other source, one hears all of them. Audio flows to the one that hears,
events from there to the loop. Nothing ever waits in the other direction.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from kwsd.bus import Bus
from kwsd.capture import Capture, End, Inbox
from kwsd.config import Config, StreamConfig, check_thresholds
from kwsd.ear import Ear
from kwsd.errors import KwsdError
from kwsd.events import PROTOCOL, Goodbye, Hello, Overrun, Published, SourceDown
from kwsd.model import Model, load_model
from kwsd.readable import readable
from kwsd.sources import make_source
from kwsd.sources.network import NetworkAudio
from kwsd.transports.unix import UnixTransport

log = logging.getLogger("kwsd")

_NEED_RESTART = ("source", "channel", "pace", "pcm", "stream", "audio", "socket")
_JOIN_SECONDS = 2.0


def run(configure: Callable[[], Config]) -> None:
    """Listen until the source ends or a signal comes.

    Args:
        configure: reads the configuration; called again on SIGHUP.

    Raises:
        KwsdError: anything that the configuration names cannot be used, or the source broke.
    """
    asyncio.run(Daemon(configure).run())


class Daemon:
    """One run: captures, an ear, a bus and a transport."""

    def __init__(self, configure: Callable[[], Config]) -> None:
        self._configure = configure
        self._config, self._model = self._load()
        self._bus = Bus()
        self._ear = Ear(self._model, self._config)
        self._inbox = Inbox()
        sources = {name: self._config.of_stream(name) for name in self._config.stream_names}
        local = {name: config for name, config in sources.items() if config.source != "network"}
        self._captures = {name: Capture(make_source(config), name, self._inbox) for name, config in local.items()}
        self._network = self._make_network(self._config.audio) if self._config.audio else None
        self._transport = UnixTransport(self._config.socket, self._bus, self._hello)
        self._thread = threading.Thread(target=self._listen, name="ear", daemon=True)

    async def run(self) -> None:
        """Raises:
        KwsdError: as `run` of this module.
        """
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        await self._transport.start()
        reason = "could not start"
        try:
            await self._startup()
            reason = await self._ended
            log.info("goodbye: %s; heard %.1f s of audio", reason, self._ear.heard_seconds)
        except Exception as error:
            reason = str(error)
            raise
        finally:
            self._stop_listening()
            await asyncio.sleep(0)  # what the ear has handed over still goes out before the goodbye
            self._bus.publish(Goodbye(reason=reason, heard_seconds=round(self._ear.heard_seconds, 3)))
            await self._transport.stop()

    async def _startup(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._end, signal.Signals(number).name)
        self._loop.add_signal_handler(signal.SIGHUP, self._begin_reload)
        for capture in self._captures.values():
            capture.start()
        if self._network:
            await self._network.start()
            log.info("audio is taken on %s", self._config.audio)
        self._thread.start()
        self._log_model()
        sources = ", ".join(self._config.of_stream(name).source for name in self._config.stream_names)
        log.info("listening to %s; events on %s", sources, self._config.socket)

    def _make_network(self, address: str) -> NetworkAudio:
        return NetworkAudio(
            address, self._inbox, set(self._captures), lambda stream: self._config.of_stream(stream).channel
        )

    def _load(self) -> tuple[Config, Model]:
        config = self._configure()
        model = load_model(config.model, config.device)
        check_thresholds(config, model.card.keywords)
        model.only_steps()
        return config, model

    def _log_model(self) -> None:
        log.info("model %s (%s) on %s", self._model.card.name, self._model.path, self._model.provider)

    def _begin_reload(self) -> None:
        self._reloading = self._loop.create_task(self._reload())  # kept: the loop holds no strong reference

    async def _reload(self) -> None:
        """All is checked first; then the ear swaps between two chunks, or nothing changes."""
        try:
            config, model = await asyncio.to_thread(self._load)
        except KwsdError as error:
            log.error("reload: %s; the old configuration stays", "; ".join(str(error).splitlines()))
            return
        kept = {name: getattr(self._config, name) for name in _NEED_RESTART}
        changed = [name for name, value in kept.items() if getattr(config, name) != value]
        if _sources(config) != _sources(self._config):
            changed.append("streams")
            kept["streams"] = self._config.streams
        if changed:
            log.warning("reload: %s can change only with a restart", ", ".join(changed))
        self._config, self._model = replace(config, **kept), model
        self._ear.swap(self._model, self._config)
        self._log_model()
        log.info("reload: done")

    def _stop_listening(self) -> None:
        self._inbox.close()
        if self._network:
            self._network.stop()
        for capture in self._captures.values():
            capture.stop()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)  # one inference; nobody else needs the loop now

    def _listen(self) -> None:
        """The ear's thread. Whatever ends it ends the daemon: never deaf and alive."""
        outcome: str | BaseException = "the source ended"
        left = set(self._captures)
        try:
            while (left or self._network) and (items := self._inbox.take()):
                for event in self._ear.hear(items):
                    self._loop.call_soon_threadsafe(self._publish, event)
                ends = {name: item.error for name, item in items if isinstance(item, End)}
                outcome = next((error for error in ends.values() if error), outcome)
                left -= ends.keys()
        except Exception as error:  # a defect: shown with its traceback by the main thread
            outcome = error
        with suppress(RuntimeError):  # the loop has ended, and did not wait any longer
            self._loop.call_soon_threadsafe(self._end, outcome)

    def _publish(self, event: Published) -> None:
        if isinstance(event, SourceDown | Overrun):
            ended = isinstance(event, SourceDown) and event.retry_seconds is None
            log.log(logging.INFO if ended else logging.WARNING, "%s", readable(event))
        self._bus.publish(event)

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


def _sources(config: Config) -> dict[str, StreamConfig]:
    """What of the streams takes a restart to change."""
    return {name: replace(stream, threshold=None, thresholds={}) for name, stream in config.streams.items()}
