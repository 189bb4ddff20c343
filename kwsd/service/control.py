"""Control: what the outputs see of the running daemon, and what they may change.

Law: an output reaches the daemon through the bus and this object, on the event loop; only `state` may be asked
by any thread. A changed
threshold lasts until the next reload (unless that one names other streams, which need a restart):
the configuration file keeps the last word. A mute lasts as long as the daemon, or a stream that is not configured.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from kwsd.config import Config
from kwsd.core.card import ModelCard
from kwsd.core.stream_batch import Windows
from kwsd.protocol.events import PROTOCOL, Hello
from kwsd.service.bus import Bus
from kwsd.service.detector import Detector, StreamFigures
from kwsd.service.health import Health
from kwsd.service.inbox import Inbox
from kwsd.service.reload import Reloader


@dataclass(frozen=True)
class State:
    """The daemon's counters.

    Attributes:
        streams: counters of each stream, which go on changing.
        deaf: streams from which no audio arrives, and why.
        is_stuck: whether only a restart would help.
        muted: streams that hear silence.
        model, provider: those in use.
    """

    streams: dict[str, StreamFigures]
    deaf: dict[str, str]
    is_stuck: bool
    muted: frozenset[str]
    n_subscribers: int
    n_events: int
    n_lagged: int
    model: str
    provider: str


class Control:
    """A running daemon, as its outputs see it.

    Attributes:
        bus: hands out the events.
        inbox: takes the audio of a stream that an output brings.
        listeners: called after a threshold or a mute has changed, or a reload.
        taps: take the windows of a stream, by its name. The dict is replaced, never changed.
    """

    def __init__(
        self, config: Config, bus: Bus, inbox: Inbox, detector: Detector, health: Health, reloader: Reloader
    ) -> None:
        self._config, self._detector, self._health, self._reloader = config, detector, health, reloader
        self.bus, self.inbox = bus, inbox
        self.listeners: list[Callable[[], None]] = []
        self.taps: dict[str, Callable[[Windows], None]] = {}
        reloader.on_change = self._tell

    @property
    def card(self) -> ModelCard:
        """The card of the model in use."""
        return self._reloader.setup.model.card

    @property
    def keywords(self) -> list[str]:
        return self.card.keywords

    @property
    def streams(self) -> dict[str, StreamFigures]:
        """The counters of each stream that is configured, or up."""
        return dict(self._detector.figures)

    def hello(self) -> Hello:
        """The greeting of a subscriber."""
        numbering, model = self.bus.numbering, self._reloader.setup.model
        return Hello(
            protocol=PROTOCOL,
            boot_id=numbering.boot_id,
            next_seq=numbering.next_seq,
            streams=list(self._config.streams),
            labels=model.card.keywords,
            model=model.card.name,
            provider=model.provider,
            host=numbering.host,
        )

    def state(self) -> State:
        """The counters now. Any thread may ask."""
        now, model = time.monotonic(), self._reloader.setup.model
        return State(
            streams=self.streams,
            deaf=self._health.deaf(now),
            is_stuck=self._health.is_stuck(now),
            muted=self._detector.muted,
            n_subscribers=self.bus.n_subscribers,
            n_events=self.bus.numbering.next_seq,
            n_lagged=self.bus.n_lagged,
            model=model.card.name,
            provider=model.provider,
        )

    def thresholds(self, stream: str) -> dict[str, float]:
        """The threshold of each keyword in a stream."""
        setup = self._reloader.setup
        changed = setup.config.of_stream(stream).chosen_thresholds(self.keywords)
        return {**setup.model.card.decision.thresholds, **changed}

    def set_threshold(self, stream: str, label: str, threshold: float) -> None:
        """Change one threshold. Streams that are not configured share theirs.

        Raises:
            ValueError: there is no such stream or keyword, or the threshold is not above 0 and at most 1.
        """
        self._refuse_unknown(stream)
        if label not in self.keywords:
            raise ValueError(f"{label}: not a keyword; they are {', '.join(self.keywords)}")
        if not 0 < threshold <= 1:
            raise ValueError(f"{threshold:g}: a threshold is above 0 and at most 1")
        self._reloader.set_thresholds(stream, self.thresholds(stream) | {label: threshold})

    def is_muted(self, stream: str) -> bool:
        return stream in self._detector.muted

    def mute(self, stream: str, is_muted: bool) -> None:
        """Let a stream hear silence, or its source again.

        Raises:
            ValueError: there is no such stream to be muted.
        """
        if is_muted:
            self._refuse_unknown(stream)
        change = {stream}
        self._detector.muted = self._detector.muted | change if is_muted else self._detector.muted - change
        self._tell()

    def end(self, stream: str) -> None:
        """Unmute a stream that has ended, unless it is configured: its name may come back as another stream."""
        if self.is_muted(stream) and stream not in self._config.streams:
            self.mute(stream, False)

    def take_windows(self, windows: list[tuple[str, Windows]]) -> None:
        """Pass windows on to the taps."""
        for stream, one in windows:
            if tap := self.taps.get(stream):
                tap(one)

    def _refuse_unknown(self, stream: str) -> None:
        if stream not in self.streams:
            raise ValueError(f"{stream!r:.60}: no such stream; they are {', '.join(self.streams)}")

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()
