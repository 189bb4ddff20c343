"""MQTT: detections for Home Assistant and others, and its knobs back.

    kwsd/status                          online, offline (retained; the broker says offline if kwsd is killed)
    kwsd/STREAM/event                    {"event_type":"stop","score":0.98,…}
    kwsd/STREAM/word                     stop
    kwsd/STREAM/up, muted, threshold/WORD       retained; muted/set and threshold/WORD/set change them

Law: a detection is published at once, or not at all: a command that comes a minute late is worse
than none. States are those of configured streams. They are retained, and published again after each
reconnection; those of any other stream would stay on the broker for ever.
"""

import asyncio
import json
import logging
import ssl
from collections import deque
from contextlib import suppress
from typing import Any

import aiomqtt

from kwsd.config import RESERVED, Config, MqttConfig
from kwsd.errors import SocketError
from kwsd.protocol.events import DetectionEvent, SourceDown, SourceUp, parse_event
from kwsd.service.control import Control
from kwsd.service.credentials import read_secret
from kwsd.service.outputs.discovery import Topics, discovery, slug

log = logging.getLogger("kwsd")

_RETRY_SECONDS = (1, 2, 5, 10, 30, 60)
_KEEP_ALIVE_SECONDS = 30
_ANSWER_SECONDS, _TRY_SECONDS = 10.0, 3.0
_FAREWELL_SECONDS = 0.5
_MOST_WAITING = 256  # detections; beyond that the oldest are dropped
_HOME_ASSISTANT = "homeassistant/status"


class Mqtt:
    """Publishes to a broker, for as long as the daemon runs.

    Raises:
        SocketError: the password or the certificate cannot be read.
    """

    def __init__(self, config: Config, control: Control) -> None:
        assert config.mqtt
        self._config, self._control, self._streams = config.mqtt, control, list(config.streams)
        self._password, self._tls = _login(config.mqtt)
        self._topics = Topics(f"{config.mqtt.topic}/{slug(config.name)}" if config.name else config.mqtt.topic)
        self._keywords: list[str] = []  # as last announced
        self._published: dict[str, str] = {}  # payloads of the states
        self._waiting_states: dict[str, str] = {}  # only the last payload of each topic counts
        self._waiting_events: deque[tuple[str, str]] = deque(maxlen=_MOST_WAITING)
        self._wake = asyncio.Event()
        self._client: aiomqtt.Client | None = None  # while connected
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._control.bus.subscribe(self._hear)
        self._control.listeners.append(self._follow)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Say goodbye to the broker: a clean end sends no will."""
        if self._client:
            with suppress(aiomqtt.MqttError):
                await self._client.publish(self._topics.status, "offline", 1, retain=True, timeout=_FAREWELL_SECONDS)
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_FAREWELL_SECONDS)

    async def _run(self) -> None:
        """Stay connected."""
        n_failures, address = 0, f"{self._config.host}:{self._config.port}"
        while True:
            try:
                async with self._new_client() as client:
                    log.info("mqtt: connected to %s", address)
                    n_failures = 0
                    await self._serve(client)
            except (aiomqtt.MqttError, OSError, ValueError) as error:  # a host that is no name is a ValueError
                seconds = _RETRY_SECONDS[min(n_failures, len(_RETRY_SECONDS) - 1)]
                if n_failures == 0:
                    log.warning("mqtt: %s: %s; trying again, after at most a minute each time", address, error)
                n_failures += 1
                await asyncio.sleep(seconds)
            except Exception:  # a defect: logged, and the daemon goes on
                log.exception("mqtt: failed; connects again")
                await asyncio.sleep(_RETRY_SECONDS[-1])

    def _new_client(self) -> aiomqtt.Client:
        return aiomqtt.Client(
            self._config.host,
            self._config.port,
            username=self._config.username,
            password=self._password,
            identifier=f"kwsd-{self._topics.device}",
            tls_context=self._tls,
            will=aiomqtt.Will(self._topics.status, "offline", 1, retain=True),
            keepalive=_KEEP_ALIVE_SECONDS,
            timeout=_ANSWER_SECONDS,
            max_queued_incoming_messages=_MOST_WAITING,
        )

    async def _serve(self, client: aiomqtt.Client) -> None:
        """Announce the daemon, and pass messages in both directions until the connection breaks."""
        prefix, loop = self._topics.prefix, asyncio.get_running_loop()
        await client.subscribe([(f"{prefix}/+/muted/set", 1), (f"{prefix}/+/threshold/+/set", 1), (_HOME_ASSISTANT, 1)])
        self._client = client
        self._waiting_events.clear()
        self._announce()
        tasks = [loop.create_task(self._send(client)), loop.create_task(self._receive(client))]
        try:
            await asyncio.gather(*tasks)
        finally:
            self._client = None
            for task in tasks:
                task.cancel()

    async def _send(self, client: aiomqtt.Client) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting_events or self._waiting_states:
                if self._waiting_events:
                    topic, payload = self._waiting_events.popleft()
                    await client.publish(topic, payload, qos=1)
                else:
                    topic, payload = next(iter(self._waiting_states.items()))
                    await client.publish(topic, payload, qos=1, retain=True)
                    if self._waiting_states.get(topic) == payload:
                        del self._waiting_states[topic]

    async def _receive(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload.decode(errors="replace") if isinstance(message.payload, bytes) else ""
            topic = message.topic.value
            if topic == _HOME_ASSISTANT:
                if payload == "online":
                    self._announce()
            elif topic.endswith("/set") and not message.retain:  # a retained command would come at each connection
                self._change(topic, payload)

    def _follow(self) -> None:
        """A threshold, a mute or the model has changed."""
        if self._control.keywords == self._keywords:
            self._publish_changes()
        else:
            self._announce()

    def _announce(self) -> None:
        """Publish everything that is retained. An empty payload removes what was retained before."""
        topics = {self._topics.discovery, self._topics.status, *self._states()}
        gone = (self._published.keys() | self._waiting_states.keys()) - topics  # of words that the model no longer has
        self._keywords, self._published = self._control.keywords, {}
        announcement = json.dumps(discovery(self._topics, self._keywords, self._streams))
        self._waiting_states = {self._topics.discovery: announcement, **dict.fromkeys(gone, "")}
        self._publish_changes()
        self._waiting_states[self._topics.status] = "online"
        self._wake.set()

    def _publish_changes(self) -> None:
        """Publish each state that differs from what was published last."""
        states = self._states()
        self._waiting_states |= {topic: new for topic, new in states.items() if self._published.get(topic) != new}
        self._published = states
        self._wake.set()

    def _states(self) -> dict[str, str]:
        states, figures = {}, self._control.streams
        for stream in self._streams:
            is_up = stream in figures and figures[stream].is_up
            states[self._topics.of(stream, "up")] = _switch(is_up)
            states[self._topics.of(stream, "muted")] = _switch(self._control.is_muted(stream))
            for label, threshold in self._control.thresholds(stream).items():
                states[self._topics.of(stream, "threshold", slug(label))] = f"{threshold:.7g}"
        return states

    def _change(self, topic: str, payload: str) -> None:
        """Follow a command, or log why not; the states then say what holds."""
        try:
            for stream in self._streams:
                if topic == self._topics.of(stream, "muted", "set") and payload in ("ON", "OFF"):
                    return self._control.mute(stream, payload == "ON")
                for label in self._control.keywords:
                    if topic == self._topics.of(stream, "threshold", slug(label), "set"):
                        return self._control.set_threshold(stream, label, float(payload))
        except ValueError as error:
            log.warning("mqtt: %.200s: %.200s", topic, error)
        else:
            log.warning("mqtt: %.200s: cannot follow %.80r", topic, payload)
        return None

    def _hear(self, lines: bytes) -> None:
        """Take events of the bus."""
        for event in map(parse_event, lines.splitlines()):
            stream = getattr(event, "stream", None)
            if stream is None or stream.startswith(RESERVED):  # these get their detections themselves
                continue
            if isinstance(event, SourceUp | SourceDown):
                self._publish_changes()
            elif self._client and isinstance(event, DetectionEvent):
                self._waiting_events.append((self._topics.of(stream, "event"), _event(event)))
                self._waiting_events.append((self._topics.of(stream, "word"), event.label))
                self._wake.set()


def _event(event: DetectionEvent) -> str:
    """The payload of Home Assistant's event entity; the other keys become attributes."""
    keys: dict[str, Any] = {"event_type": event.label, "host": event.host, "stream": event.stream, "score": event.score}
    return json.dumps(keys | {"loudness_dbfs": event.loudness_dbfs, "time": event.time, "seq": event.seq})


def _switch(is_on: bool) -> str:
    return "ON" if is_on else "OFF"


def try_broker(config: MqttConfig) -> None:
    """Connect once, and publish nothing.

    Raises:
        SocketError: no broker answers, or it refuses.
    """
    password, tls = _login(config)

    async def connect() -> None:
        async with aiomqtt.Client(
            config.host, config.port, username=config.username, password=password, tls_context=tls, timeout=_TRY_SECONDS
        ):
            pass

    try:
        asyncio.run(connect())
    except (aiomqtt.MqttError, OSError, ValueError) as error:
        raise SocketError(f"{config.host}:{config.port}: {error}; is it the right broker, user and password?") from None


def _login(config: MqttConfig) -> tuple[str | None, ssl.SSLContext | None]:
    """The password, and what the connection is encrypted with.

    Raises:
        SocketError: one of them cannot be read.
    """
    return _password(config), _tls(config)


def _password(config: MqttConfig) -> str | None:
    if config.password_file is None:
        return None
    password = read_secret(config.password_file, "the broker's password").decode()
    if not password:
        raise SocketError(f"{config.password_file}: is empty; it must hold the broker's password")
    return password


def _tls(config: MqttConfig) -> ssl.SSLContext | None:
    try:
        return ssl.create_default_context(cafile=config.tls_ca) if config.tls else None
    except OSError as error:
        raise SocketError(f"{config.tls_ca}: not a certificate in PEM ({error.strerror or error})") from None
