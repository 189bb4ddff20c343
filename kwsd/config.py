"""Configuration: typed dataclasses, a YAML file, and every mistake named at once.

The law of this file: a configuration is right in all its keys before anything starts.
"""

import ipaddress
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from kwsd import systemd
from kwsd.audio import MAX_CHANNELS, RATES_HZ
from kwsd.errors import ConfigError
from kwsd.typed_yaml import build, read_yaml, unknown_key

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[Device, ...] = get_args(Device)


def default_socket() -> Path:
    """`kwsd.sock` where systemd or the login session has a folder for it, else in /tmp."""
    folder = os.environ.get("RUNTIME_DIRECTORY") or os.environ.get("XDG_RUNTIME_DIR")
    return Path(folder) / "kwsd.sock" if folder else Path(f"/tmp/kwsd-{os.getuid()}.sock")


@dataclass(frozen=True, slots=True)
class PcmConfig:
    """What raw PCM on standard input is."""

    rate_hz: int = 16000
    channels: int = 1
    encoding: Literal["s16le", "s32le", "f32le"] = "s16le"


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What is heard of one stream.

    Attributes:
        source: "microphone", "microphone:NUMBER-OR-NAME", a recording's path, "-" for raw PCM
            on standard input, or "network" for what a program sends to the audio socket.
        channel: of the source, counted from 1; the mean of all by default.
        pace: of a recording: "realtime", or "fast" for as fast as it can be heard.
        pcm: of standard input.
        threshold: one threshold for all labels, in place of the model's own.
        thresholds: thresholds of single labels.
    """

    source: str = "microphone"
    channel: int | None = None
    pace: Literal["realtime", "fast"] = "realtime"
    pcm: PcmConfig = field(default_factory=PcmConfig)
    threshold: float | None = None
    thresholds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClipsConfig:
    """What is kept of the audio: a WAV file, and its event beside it, of each detection.

    Attributes:
        folder: where; it must exist.
        before_seconds, after_seconds: of audio around the window that decided.
        max_megabytes, max_days: the oldest clips go when there are more, or they are older.
    """

    folder: Path = Path()
    before_seconds: float = 1.0
    after_seconds: float = 0.5
    max_megabytes: float = 100.0
    max_days: float = 30.0


@dataclass(frozen=True, slots=True)
class Config(StreamConfig):
    """All that one can set, with its default.

    Attributes:
        stream: name, in its events, of the one stream that the keys of `StreamConfig` describe.
        streams: several streams in its place, by their names. Thresholds that they do not
            have themselves are those of the keys beside `streams`.
        audio: socket on which other programs send raw PCM: a path, or 127.0.0.1:PORT.
        model: an ONNX file made by `python -m export`; the bundled one by default.
        device: what runs the model; "auto" takes CUDA where it works.
        socket: Unix socket of the events.
        socket_mode, socket_group: who may connect to it, as for `chmod` and `chgrp`.
        tcp: HOST:PORT for events, beside the Unix socket.
        token_file: holds what subscribers over TCP must show; needed where other machines reach `tcp`.
        tls_certificate, tls_key: PEM files; with them TCP is encrypted.
        clips: what is kept of the audio; nothing by default.
        metrics: 127.0.0.1:PORT for Prometheus, and `/healthz`.
        silent_seconds: a live source that delivers nothing but zeros for so long is broken.
    """

    stream: str = "default"
    streams: dict[str, StreamConfig] = field(default_factory=dict)
    audio: str | None = None
    model: Path | None = None
    device: Device = "auto"
    socket: Path = field(default_factory=default_socket)
    socket_mode: str = "0660"
    socket_group: str | None = None
    tcp: str | None = None
    token_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    clips: ClipsConfig | None = None
    metrics: str | None = None
    silent_seconds: float = 30.0

    def of_stream(self, name: str) -> StreamConfig:
        """What holds for a stream, also for one that only the audio socket knows."""
        own = self.streams.get(name)
        if own is None:
            return self
        if own.threshold is not None:
            return own
        return replace(own, threshold=self.threshold, thresholds={**self.thresholds, **own.thresholds})

    @property
    def stream_names(self) -> list[str]:
        """Of the streams that are configured: none, where all come over the network under names of their own."""
        return list(self.streams) or ([] if self.source == "network" else [self.stream])

    @property
    def sources(self) -> list[str]:
        """What is heard: the source of each configured stream, or the network."""
        return [self.of_stream(name).source for name in self.stream_names] or ["network"]


def load_config(path: Path | None, changes: dict[str, Any]) -> Config:
    """Read a YAML file, if one is given, and apply the command line's changes.

    Raises:
        ConfigError: the file cannot be read, or with all mistakes in it, one a line.
    """
    data = read_yaml(path) if path else {}
    problems: list[str] = []
    config = build(Config, data, "", problems)
    if not problems:
        given = {key: value for key, value in changes.items() if value is not None}
        if "threshold" in given:  # one for all means all
            given["thresholds"] = {}
            given["streams"] = {
                name: replace(stream, threshold=None, thresholds={}) for name, stream in config.streams.items()
            }
        if "source" in given:
            given["streams"] = {}
        elif config.streams and (twice := {"source", "channel", "pace", "pcm", "stream"} & data.keys()):
            problems.append(f"{', '.join(sorted(twice))}: belongs to one stream; put it below streams")
        config = replace(config, **given)
        problems += _range_problems(config)
    if problems:
        where = f"{path}: " if path else ""
        raise ConfigError("\n".join(f"{where}{problem}" for problem in problems))
    return config  # type: ignore[no-any-return]


def unix_path(address: str) -> Path | None:
    """The path that an audio address is; None for HOST:PORT."""
    return None if address.rpartition(":")[2].isdecimal() else Path(os.path.expanduser(address))  # noqa: PTH111  (as in typed_yaml)


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of HOST:PORT, or [HOST]:PORT.

    Raises:
        ValueError: it is not that.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 <= int(port) < 65536:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT is reached from this machine alone."""
    host, _ = host_and_port(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_thresholds(config: Config, keywords: list[str]) -> None:
    """The labels can be checked only when the model is known.

    Raises:
        ConfigError: a threshold for a label that the model does not have.
    """
    problems = [
        unknown_key(f"{prefix}thresholds.{label}", label, keywords)
        for prefix, stream in _stream_groups(config)
        for label in stream.thresholds
        if label not in keywords
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _stream_groups(config: Config) -> list[tuple[str, StreamConfig]]:
    """Every group of keys about a stream, with what its keys begin with."""
    return [("", config), *((f"streams.{name}.", stream) for name, stream in config.streams.items())]


def _range_problems(config: Config) -> list[str]:
    found = [problem for prefix, stream in _stream_groups(config) for problem in _stream_problems(prefix, stream)]
    if not 1 <= config.silent_seconds <= 1e6:
        found.append(f"silent_seconds: {config.silent_seconds:g} is not between 1 and 1e+06")
    if "network" in config.sources and not config.audio:
        found.append("audio: a source is network, so name the socket that it comes over")
    if config.sources.count("-") > 1:
        found.append("streams: only one can be standard input")
    if not all(config.stream_names):
        found.append("stream: must not be empty")
    if config.audio is not None and not config.audio:
        found.append("audio: must not be empty")
    return found + _transport_problems(config) + _clips_problems(config.clips)


def _transport_problems(config: Config) -> list[str]:
    found = []
    if not re.fullmatch("0?[0-7]{3}", config.socket_mode):
        found.append(f'socket_mode: {config.socket_mode!r} is not a mode as for chmod, like "0660"')
    addresses = {"tcp": config.tcp, "metrics": config.metrics}
    if config.audio and not unix_path(config.audio):
        addresses["audio"] = config.audio
    for key, address in addresses.items():
        try:
            if address is None or is_loopback(address):
                continue
        except ValueError as error:
            found.append(f"{key}: {error}")
            continue
        if key != "tcp":
            found.append(f"{key}: {address} is open to other machines; use 127.0.0.1:PORT")
        elif config.token_file is None:
            found.append(f"tcp: {address} is open to other machines; name a token_file that they must know")
    everything = [str(config.socket), *filter(None, (config.tcp, config.metrics, config.audio))]
    if twice := {one for one in everything if everything.count(one) > 1 and not one.endswith(":0")}:  # any port
        found.append(f"socket, tcp, metrics, audio: {min(twice)} is there twice; each needs an address of its own")
    if (config.tls_certificate is None) != (config.tls_key is None):
        found.append("tls_certificate, tls_key: one does not go without the other")
    if config.tcp is None and (config.token_file or config.tls_certificate) and not systemd.is_activated():
        found.append("tcp: token_file and tls_certificate are for it, and it is not there")
    return found


def _clips_problems(clips: ClipsConfig | None) -> list[str]:
    if clips is None:
        return []
    limits = {"before_seconds": (0, 30), "after_seconds": (0, 30), "max_megabytes": (1, 1e9), "max_days": (1e-3, 1e6)}
    found = [
        f"clips.{key}: {getattr(clips, key):g} is not between {least:g} and {most:g}"
        for key, (least, most) in limits.items()
        if not least <= getattr(clips, key) <= most
    ]
    if not clips.folder.name:
        found.append("clips.folder: must name a folder for the recordings")
    return found


def _stream_problems(prefix: str, stream: StreamConfig) -> list[str]:
    thresholds = {f"thresholds.{label}": value for label, value in stream.thresholds.items()}
    if stream.threshold is not None:
        thresholds["threshold"] = stream.threshold
    found = [f"{path}: {value:g} is not between 0 and 1" for path, value in thresholds.items() if not 0 < value <= 1]
    if not RATES_HZ[0] <= stream.pcm.rate_hz <= RATES_HZ[1]:
        found.append(f"pcm.rate_hz: {stream.pcm.rate_hz} is not between {RATES_HZ[0]} and {RATES_HZ[1]}")
    if not 1 <= stream.pcm.channels <= MAX_CHANNELS:
        found.append(f"pcm.channels: {stream.pcm.channels} is not between 1 and {MAX_CHANNELS}")
    if stream.channel is not None and not 1 <= stream.channel <= MAX_CHANNELS:
        found.append(f"channel: {stream.channel} is not between 1 and {MAX_CHANNELS}")
    elif stream.source == "-" and stream.channel is not None and stream.channel > stream.pcm.channels:
        found.append(f"channel: {stream.channel} is more than there are; pcm.channels is {stream.pcm.channels}")
    return [prefix + problem for problem in found]
