"""Reload: another configuration and model for a running daemon.

Law: everything is loaded and checked first. Then the detector changes between two runs, or nothing
changes at all.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from kwsd.config import Config, StreamConfig, check_thresholds
from kwsd.core.model import Model, load_model
from kwsd.errors import KwsdError
from kwsd.service.credentials import Credentials, refuse_unused_secrets
from kwsd.service.detector import Detector
from kwsd.workers import in_thread

log = logging.getLogger("kwsd")

_RELOADED = {"model", "device", "streams", "unnamed"}
"""Keys that a reload changes. The others need a restart."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A configuration and its model, which fit together."""

    config: Config
    model: Model


def load_setup(configure: Callable[[], Config]) -> Setup:
    """Read the configuration, load its model and check both.

    Raises:
        KwsdError: one of them cannot be used.
    """
    config = configure()
    refuse_unused_secrets(config)
    model = load_model(config.model, config.device)
    if model.no_cuda:
        log.warning("CUDA is not used: %s", model.no_cuda)
    check_thresholds(config, model.card.keywords)
    return Setup(config, model)


async def first_setup(configure: Callable[[], Config], ended: asyncio.Future[str]) -> Setup | None:
    """Load what the daemon starts with; None if a signal ends it meanwhile.

    Raises:
        KwsdError: as `load_setup`.
    """
    loading = asyncio.get_running_loop().create_task(in_thread(lambda: load_setup(configure)))
    await asyncio.wait((loading, ended), return_when=asyncio.FIRST_COMPLETED)
    if loading.done():
        return loading.result()
    log.info("goodbye: %s, while the model was being loaded", ended.result())
    return None


class Reloader:
    """Replaces the setup of a running daemon.

    Args:
        configure: reads the configuration.
        setup: what the daemon started with.
        credentials: replaced by every reload.

    Attributes:
        setup: the current one.
        on_change: called after the thresholds or the model may have changed.
    """

    def __init__(
        self, configure: Callable[[], Config], setup: Setup, detector: Detector, credentials: Credentials
    ) -> None:
        self._configure, self.setup = configure, setup
        self._detector, self._credentials = detector, credentials
        self._running: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] = lambda: None

    async def reload(self) -> None:
        """Load the new setup and use it. Cancelling this call does not cancel the reload."""
        self._running = asyncio.get_running_loop().create_task(self._reload())
        await asyncio.wait([self._running])

    async def finish(self, seconds: float) -> None:
        """Wait for a running reload. Python may abort if it ends while another thread loads a model."""
        if self._running:
            await asyncio.wait([self._running], timeout=seconds)

    async def _reload(self) -> None:
        """As `reload`; logs one line that says why the old setup stays, if it does."""
        try:
            loaded = await in_thread(lambda: load_setup(self._configure))
            credentials = await in_thread(lambda: Credentials.read(self.setup.config))  # other files need a restart
            setup, ignored = _merge(self.setup, loaded)
        except KwsdError as error:
            log.error("reload: %s; the old configuration stays", "; ".join(str(error).splitlines()))
            return
        except Exception:  # a defect: logged with its traceback, and the daemon goes on
            log.exception("reload: failed; the old configuration stays")
            return
        self._credentials.replace(credentials)
        if ignored:
            log.warning("reload: %s can change only with a restart", ", ".join(ignored))
        self._use(setup)
        log_model(setup.model)
        log.info("reload: done")

    def set_thresholds(self, stream: str, thresholds: dict[str, float]) -> None:
        """Use other thresholds in a stream until the next reload. Streams that are not configured share theirs."""
        config = self.setup.config
        changed = replace(config.of_stream(stream), threshold=None, thresholds=thresholds)
        if stream in config.streams:
            config = replace(config, streams=config.streams | {stream: changed})
        else:
            config = replace(config, unnamed=changed)
        self._use(Setup(config, self.setup.model))

    def _use(self, setup: Setup) -> None:
        self.setup = setup
        self._detector.reload(setup.model, setup.config)
        self.on_change()


def log_model(model: Model) -> None:
    """Log which model runs, and on what."""
    log.info("model %s (%s) on %s", model.card.name, model.path, model.provider)


def _merge(old: Setup, new: Setup) -> tuple[Setup, list[str]]:
    """The new setup without the changes that need a restart, and the names of those keys."""
    kept = {one.name: getattr(old.config, one.name) for one in fields(Config) if one.name not in _RELOADED}
    ignored = [name for name, value in kept.items() if getattr(new.config, name) != value]
    if _without_thresholds(new.config) != _without_thresholds(old.config):
        ignored.append("the streams")
        kept["streams"] = _with_new_thresholds(old.config.streams, new.config.streams)
    is_same = (new.model.card, new.model.provider) == (old.model.card, old.model.provider)
    model = old.model if is_same else new.model  # the same model keeps the state of every stream
    return Setup(replace(new.config, **kept), model), ignored


def _without_thresholds(config: Config) -> dict[str, StreamConfig]:
    """The part of the streams that needs a restart."""
    return {name: _with_thresholds(stream, StreamConfig()) for name, stream in config.streams.items()}


def _with_new_thresholds(old: dict[str, StreamConfig], new: dict[str, StreamConfig]) -> dict[str, StreamConfig]:
    """The old streams with the thresholds of the new ones, if it is clear which belong together."""
    if len(old) == len(new) == 1:
        return dict(zip(old, map(_with_thresholds, old.values(), new.values()), strict=True))
    if old.keys() == new.keys():
        return {name: _with_thresholds(stream, new[name]) for name, stream in old.items()}
    return old


def _with_thresholds(stream: StreamConfig, other: StreamConfig) -> StreamConfig:
    return replace(stream, threshold=other.threshold, thresholds=other.thresholds)
