"""Makes the outputs that a configuration asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kwsd.config import Config
from kwsd.errors import ConfigError
from kwsd.service.control import Control
from kwsd.service.credentials import Credentials

if TYPE_CHECKING:
    from kwsd.service.outputs.clips import Clips
    from kwsd.service.outputs.metrics import Metrics


class Service(Protocol):
    """Something that serves what was heard, on the event loop or in a thread of its own."""

    async def start(self) -> None:
        """Begin.

        Raises:
            SocketError: its address cannot be used.
        """
        ...

    async def stop(self) -> None:
        """End, soon. It may not have been started."""
        ...


@dataclass
class Outputs:
    """What a configuration asks for.

    Attributes:
        clips: takes audio and detections.
        metrics: receives durations from the detector's thread.
        servers: those that the daemon only starts and stops.
    """

    clips: "Clips | None" = None
    metrics: "Metrics | None" = None
    servers: list[Service] = field(default_factory=list)


def make_outputs(config: Config, control: Control, credentials: Credentials) -> Outputs:
    """Import and create what the configuration asks for.

    Raises:
        ConfigError: a package is missing.
        OutputError: the folder of the clips cannot be written to.
        SocketError: a password cannot be used.
    """
    outputs = Outputs()
    if config.clips:
        from kwsd.service.outputs.clips import Clips

        outputs.clips = Clips(config.clips, lambda: control.card.window_seconds)
    if config.metrics:
        with _needs("metrics"):
            from kwsd.service.outputs.metrics import Metrics, MetricsServer
        outputs.metrics = Metrics(control.state, config.name)
        outputs.servers.append(MetricsServer(config.metrics, outputs.metrics))
    if config.http:
        with _needs("http", extra="web"):
            from kwsd.service.outputs.live_page import LivePage
            from kwsd.service.outputs.metrics import Metrics
        outputs.metrics = outputs.metrics or Metrics(control.state, config.name)
        outputs.servers.append(LivePage(config, control, credentials, outputs.metrics))
    if config.mqtt:
        with _needs("mqtt"):
            from kwsd.service.outputs.mqtt import Mqtt
        outputs.servers.append(Mqtt(config, control))
    if config.wyoming:
        with _needs("wyoming"):
            from kwsd.service.outputs.wyoming import Wyoming
        announcement = None
        if config.zeroconf:
            with _needs("zeroconf", extra="wyoming"):
                from kwsd.service.outputs.announce import Announcement
            announcement = Announcement()
        outputs.servers.append(Wyoming(config, control, announcement))
    return outputs


@contextmanager
def _needs(key: str, extra: str = "") -> Iterator[None]:
    """Say which package a key of the configuration needs, and the extra of kwsd; usually it has the key's name."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).replace("_", "-")
        raise ConfigError(f"{key}: needs the package {package}: install kwsd[{extra or key}]") from None
