"""Configuration: a YAML file and the command line become one resolved `Config`.

Law: every key is checked before anything starts. The check opens no other file, device or port.
`ConfigFile` is what a user writes, `Config` what the program reads: always a dict of streams, each
with its inherited thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from kwsd.audio import Channel, PcmFormat
from kwsd.errors import ConfigError
from kwsd.protocol.address import default_socket, is_loopback, unix_path
from kwsd.typed import Between, Matching, Printable, ProblemsError, build, unknown_key
from kwsd.yaml_file import read_yaml

_Threshold = Annotated[float, Between(0, 1, above=True)]
_Name = Annotated[str, Matching(r"(?s).+", "a name")]
_WyomingAddress = Annotated[str, Matching(r"tcp://.+", "tcp://HOST:PORT")]
RESERVED = "wyoming/"
"""The names of the streams of Wyoming's clients begin with it."""


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """One stream.

    Attributes:
        source: "microphone", "microphone:NUMBER-OR-NAME", the path of a recording, "-" for raw PCM
            on standard input, or "network" for what a program sends to the audio socket.
        channel: of the source, counted from 1; null for the mean of all.
        pace: of a recording: "realtime", or "fast" for as fast as possible.
        pcm: format of standard input.
        threshold: one threshold for all keywords, in place of the model's own.
        thresholds: thresholds of single keywords.
    """

    source: _Name = "microphone"
    channel: Channel | None = None
    pace: Literal["realtime", "fast"] = "realtime"
    pcm: PcmFormat = field(default_factory=PcmFormat)
    threshold: _Threshold | None = None
    thresholds: dict[str, _Threshold] = field(default_factory=dict)

    def chosen_thresholds(self, keywords: Sequence[str]) -> dict[str, float]:
        """The thresholds that replace the model's own, by keyword."""
        of_all = {} if self.threshold is None else dict.fromkeys(keywords, self.threshold)
        return of_all | self.thresholds

    def inheriting(self, other: "StreamConfig") -> "StreamConfig":
        """The same stream, with the thresholds of `other` where it has none itself."""
        if self.threshold is not None:
            return self
        return replace(self, threshold=other.threshold, thresholds={**other.thresholds, **self.thresholds})


@dataclass(frozen=True)
class ClipsConfig:
    """Which audio is kept: a WAV file for each detection, with its event beside it.

    Attributes:
        folder: where; it must exist.
        before_seconds, after_seconds: audio around the window that decided.
        max_megabytes, max_days: the oldest clips are removed beyond these limits.
        near_misses: also of what came close to a threshold.
    """

    folder: Path
    before_seconds: Annotated[float, Between(0, 30)] = 1.0
    after_seconds: Annotated[float, Between(0, 30)] = 0.5
    max_megabytes: Annotated[float, Between(1, 1e9)] = 100.0
    max_days: Annotated[float, Between(1e-3, 1e6)] = 30.0
    near_misses: bool = False

    def problems(self) -> list[str]:
        return [] if self.folder.name else ["folder: must name a folder for the recordings"]


@dataclass(frozen=True)
class MqttConfig:
    """The MQTT broker that gets the detections, for Home Assistant and others.

    Attributes:
        host, port: of the broker.
        username: for the broker; null for none.
        password_file: holds the password.
        tls: whether the connection is encrypted.
        tls_ca: PEM file of the authority to trust; null for the system's.
        topic: what all topics begin with, before the daemon's name. No two daemons of a broker may share both.
    """

    host: Annotated[str, Matching(r"[\w.-]+|[0-9A-Fa-f:]+", "the name or address of a broker, without its port")]
    port: Annotated[int, Between(1, 65535)] = 1883
    username: str | None = None
    password_file: Path | None = None
    tls: bool = False
    tls_ca: Path | None = None
    topic: Annotated[str, Matching(r"[\w-]+(/[\w-]+)*", "a topic of letters, digits, - and _")] = "kwsd"

    def problems(self) -> list[str]:
        found = []
        if self.password_file and not self.username:
            found.append("username: missing; password_file needs it")
        if self.tls_ca and not self.tls:
            found.append("tls: must be true; tls_ca needs it")
        return found


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """What holds for the daemon as a whole.

    Attributes:
        name: of this daemon, for its events, metrics and MQTT topics; null for none.
        audio: socket on which other programs send raw PCM: a path, or 127.0.0.1:PORT.
        model: an ONNX file made by `python -m export`; null for the bundled one.
        device: what runs the model; "auto" takes CUDA where it works.
        socket: Unix socket of the events.
        socket_mode, socket_group: who may connect to the Unix sockets, as for `chmod` and `chgrp`.
        tcp: HOST:PORT for events, beside the Unix socket.
        token_file: holds the token for `tcp` and `http`; required where other machines can reach one of them.
        tls_certificate, tls_key: PEM files; with them `tcp` and `http` are encrypted.
        clips: which audio is kept; null for none.
        metrics: 127.0.0.1:PORT for `/metrics`, `/healthz` and `/livez`.
        http: HOST:PORT of the live page, which also serves these three.
        mqtt: the broker that gets the detections; null for none.
        wyoming: tcp://HOST:PORT on which kwsd is a wake word service.
        zeroconf: whether to announce that service on the network.
        silent_seconds: a live source that delivers nothing or only zeros for this long is broken.
    """

    name: Annotated[str, Printable()] | None = None
    audio: Annotated[str, Matching(r"(?s).+", "an address")] | None = None
    model: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    socket: Path = field(default_factory=default_socket)
    socket_mode: Annotated[str, Matching("0?[0-7]{3}", 'a mode as for chmod, such as "0660"')] = "0660"
    socket_group: str | None = None
    tcp: str | None = None
    token_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    clips: ClipsConfig | None = None
    metrics: str | None = None
    http: str | None = None
    mqtt: MqttConfig | None = None
    wyoming: _WyomingAddress | None = None
    zeroconf: bool = False
    silent_seconds: Annotated[float, Between(1, 1e6)] = 30.0


@dataclass(frozen=True, kw_only=True)
class ConfigFile(StreamConfig, ServiceConfig):
    """What a user may write: the keys of one stream, or of several below `streams`.

    Attributes:
        stream: name of the one stream that the keys of `StreamConfig` describe.
        streams: several streams by name; they inherit the thresholds beside `streams`.
    """

    stream: _Name = "default"
    streams: dict[str, StreamConfig] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Config(ServiceConfig):
    """The resolved configuration.

    Attributes:
        streams: by name. Empty if all come over the audio socket under their own names.
        unnamed: what holds for streams that are not configured.
    """

    streams: dict[str, StreamConfig] = field(default_factory=lambda: {"default": StreamConfig()})
    unnamed: StreamConfig = field(default_factory=lambda: StreamConfig(source="network"))

    def of_stream(self, name: str) -> StreamConfig:
        return self.streams.get(name, self.unnamed)

    @property
    def sources(self) -> list[str]:
        """The source of each configured stream; the network if there is none."""
        return [stream.source for stream in self.streams.values()] or ["network"]


def load_config(path: Path | None, changes: dict[str, Any]) -> Config:
    """Read a YAML file, if there is one, and apply the command line's changes.

    Args:
        changes: values by key of `ConfigFile`; None means that the option was not given.

    Raises:
        ConfigError: the file cannot be read, or a value is wrong: one line for each wrong value, or,
            if there is none, for each contradiction between values.
    """
    given = _build_options({key: value for key, value in changes.items() if value is not None})
    data = read_yaml(path) if path else {}
    try:
        file = _changed(build(ConfigFile, data), given)
        of_one_stream = {field.name for field in fields(StreamConfig)} - {"threshold", "thresholds"} | {"stream"}
        if file.streams and (misplaced := of_one_stream & data.keys()):
            raise ProblemsError([f"{', '.join(sorted(misplaced))}: concerns one stream; move it below streams"])
        if problems := [*_stream_problems(file), *_address_problems(file)]:
            raise ProblemsError(problems)
    except ProblemsError as error:
        where = f"{path}: " if path else ""
        raise ConfigError("\n".join(f"{where}{problem}" for problem in error.problems)) from None
    return _resolved(file)


def _build_options(changes: dict[str, Any]) -> dict[str, Any]:
    """Check the command line's options, and convert them to the types of `ConfigFile`."""
    try:
        file = build(ConfigFile, {key: str(one) if isinstance(one, Path) else one for key, one in changes.items()})
    except ProblemsError as error:
        raise ConfigError("\n".join(f"--{problem}" for problem in error.problems)) from None
    return {key: getattr(file, key) for key in changes}


def check_thresholds(config: Config, keywords: list[str]) -> None:
    """Check the keywords of thresholds, which needs the model.

    Raises:
        ConfigError: a threshold for a keyword that the model does not have.
    """
    places = [("", config.unnamed), *((f"streams.{name}.", stream) for name, stream in config.streams.items())]
    problems: dict[str, str] = {}  # one line for each label: streams inherit the same mistake
    for where, stream in places:
        for label in stream.thresholds:
            if label not in keywords:
                problems.setdefault(label, unknown_key(f"{where}thresholds.{label}", label, keywords))
    if problems:
        raise ConfigError("\n".join(problems.values()))


def _changed(file: ConfigFile, given: dict[str, Any]) -> ConfigFile:
    """Apply the command line: a source replaces all streams; a threshold and a pace hold for every stream."""
    streams = {} if "source" in given else file.streams
    if "threshold" in given:
        streams = {name: replace(stream, threshold=None, thresholds={}) for name, stream in streams.items()}
        given = {"thresholds": {}} | given
    if "pace" in given:
        streams = {name: replace(stream, pace=given["pace"]) for name, stream in streams.items()}
    return replace(file, **given, streams=streams)


def _resolved(file: ConfigFile) -> Config:
    of_service = {field.name: getattr(file, field.name) for field in fields(ServiceConfig)}
    top = StreamConfig(**{field.name: getattr(file, field.name) for field in fields(StreamConfig)})
    streams = {name: stream.inheriting(top) for name, stream in file.streams.items()}
    if not streams and file.source != "network":
        streams = {file.stream: top}
    return Config(**of_service, streams=streams, unnamed=StreamConfig(source="network").inheriting(top))


def _stream_problems(file: ConfigFile) -> list[str]:
    streams: dict[str, StreamConfig] = {f"streams.{name}.": one for name, one in file.streams.items()} or {"": file}
    found = [
        f"{prefix}channel: {one.channel} does not exist; pcm.channels is {one.pcm.channels}"
        for prefix, one in streams.items()
        if one.source == "-" and one.channel is not None and one.channel > one.pcm.channels
    ]
    sources = [stream.source for stream in streams.values()]
    if "network" in sources and not file.audio:
        found.append("audio: missing; a source is network, so name the socket that it comes over")
    if sources.count("-") > 1:
        found.append("streams: only one can be standard input")
    if wrong := [name for name in (*file.streams, file.stream) if not name or name.startswith(RESERVED)]:
        found.append(f"streams: {wrong[0]!r} is no name: it is empty, or begins as those of Wyoming's clients do")
    return found


def _address_problems(config: ServiceConfig) -> list[str]:
    found = []
    wyoming = config.wyoming and config.wyoming.removeprefix("tcp://")
    addresses = {"tcp": config.tcp, "http": config.http, "metrics": config.metrics, "wyoming": wyoming}
    if config.audio and not unix_path(config.audio):
        addresses["audio"] = config.audio
    for key, address in addresses.items():
        try:
            if address is None or is_loopback(address) or key == "wyoming":  # its protocol has no token
                continue
        except ValueError as error:
            found.append(f"{key}: {error}")
            continue
        if key not in ("tcp", "http"):
            found.append(f"{key}: {address} is open to other machines; use 127.0.0.1:PORT")
        elif config.token_file is None:
            found.append(f"{key}: {address} is open to other machines; set token_file")
    used = [str(config.socket), *filter(None, (config.tcp, config.http, config.metrics, config.audio, wyoming))]
    if twice := {one for one in used if used.count(one) > 1 and not one.endswith(":0")}:  # port 0 is any free port
        found.append(f"socket, tcp, http, metrics, audio, wyoming: {min(twice)} is used twice; each needs its own")
    if config.zeroconf and not config.wyoming:
        found.append("wyoming: missing; zeroconf announces it")
    if (config.tls_certificate is None) != (config.tls_key is None):
        found.append("tls_certificate, tls_key: one needs the other")
    return found
