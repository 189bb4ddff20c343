"""`kwsd check`: would `kwsd run` work here, and if not, why?"""

from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from kwsd.audio import FloatArray, dbfs, is_silent
from kwsd.config import Config, StreamConfig, check_thresholds
from kwsd.core.model import load_model
from kwsd.errors import ConfigError, KwsdError
from kwsd.protocol.address import unix_path
from kwsd.service.credentials import Credentials, refuse_unused_secrets
from kwsd.service.endpoints import bind_tcp, bind_unix, is_live
from kwsd.service.outputs.clips import refuse_unwritable
from kwsd.sources.base import make_source

Part = tuple[str, Callable[[], str]]

_LISTEN_SECONDS = 1.0  # to a live source
_FULL, _CLIPPED_SHARE = 0.999, 0.001


def check(load: Callable[[], Config]) -> Iterator[tuple[bool, str]]:
    """Yield for each part whether it is fine, and one line about it."""
    try:
        config = load()
        refuse_unused_secrets(config)
    except KwsdError as error:
        yield from ((False, f"configuration: {line}") for line in str(error).splitlines())
        return
    yield True, f"configuration: source {', '.join(config.sources)}"
    for name, part in _parts(config):
        try:
            yield True, f"{name}: {part()}"
        except KwsdError as error:
            yield False, f"{name}: {error}"


def _parts(config: Config) -> Iterator[Part]:
    """Check the configured parts only, each before the next is opened."""
    yield "model", lambda: _model(config)
    for stream in config.streams.values():
        if stream.source != "network":
            yield "audio", lambda stream=stream: _audio(stream)  # type: ignore[misc]
    yield "socket", lambda: _socket(config.socket, config)
    if config.audio:
        yield "audio socket", lambda: _audio_socket(config)
    if config.tcp:
        yield "tcp", lambda: _tcp(config)
    if config.clips:
        yield "clips", lambda: _clips(config)
    if config.metrics:
        yield "metrics", lambda: _served(config, config.metrics, "metrics", "prometheus_client")
    if config.http:
        yield "http", lambda: _http(config)
    if config.mqtt:
        yield "mqtt", lambda: _mqtt(config)
    if config.wyoming:
        address = config.wyoming.removeprefix("tcp://")
        packages = ("wyoming", "zeroconf") if config.zeroconf else ("wyoming",)
        yield "wyoming", lambda: _served(config, address, "wyoming", *packages)


def _model(config: Config) -> str:
    model = load_model(config.model, config.device)
    check_thresholds(config, model.card.keywords)
    fallback = f" (CUDA is not used: {model.no_cuda})" if model.no_cuda else ""
    return f"{model.card.name} passes its golden check on {model.provider}{fallback}"


def _audio(config: StreamConfig) -> str:
    if config.source == "-":
        pcm = config.pcm
        return f"standard input, {pcm.encoding}, {pcm.rate_hz} Hz, {pcm.channels} channels (not read)"
    source = make_source(config)
    rate_hz, chunks = source.open()
    n_wanted = round(_LISTEN_SECONDS * rate_hz) if source.is_live else 1
    parts: list[FloatArray] = []
    with closing(chunks):
        while sum(map(len, parts)) < n_wanted:
            parts.append(next(chunks).samples)
    return f"{source.name}, {rate_hz} Hz, {heard(np.concatenate(parts), rate_hz)}"


def heard(samples: FloatArray, rate_hz: int) -> str:
    """The level of what a source delivered, how long that was, and what is wrong with it."""
    line = f"{dbfs(samples):.0f} dBFS in {len(samples) / rate_hz:.1f} s"
    if is_silent(samples):
        return f"{line}: silent; is it muted, or unplugged?"
    if np.mean(np.abs(samples) >= _FULL) > _CLIPPED_SHARE:
        return f"{line}: too loud, it clips; turn its gain down"
    return line


def _socket(path: Path, config: Config) -> str:
    if is_live(path):
        return f"{path}, a kwsd is serving it now"
    bind_unix(path, config).close()
    path.unlink()
    return f"{path} is free"


def _audio_socket(config: Config) -> str:
    assert config.audio
    path = unix_path(config.audio)
    return _socket(path, config) if path else _port(config.audio, config)


def _clips(config: Config) -> str:
    assert config.clips
    refuse_unwritable(config.clips.folder)
    return f"kept in {config.clips.folder}"


def _port(address: str, config: Config) -> str:
    """Check that a port is free, unless a running daemon may have it already."""
    if not is_live(config.socket):
        bind_tcp(address).close()
    return address


def _tcp(config: Config) -> str:
    assert config.tcp
    return _port(config.tcp, config) + _secured(config)


def _secured(config: Config) -> str:
    """What protects an address, as the end of a line."""
    credentials = Credentials.read(config)
    return f"{', with a token' if credentials.token else ''}{', with TLS' if credentials.tls else ''}"


def _served(config: Config, address: str | None, extra: str, *packages: str) -> str:
    """Check the packages and the port of an output."""
    assert address
    for package in packages:
        if find_spec(package) is None:
            raise ConfigError(f"needs the package {package.replace('_', '-')}: install kwsd[{extra}]")
    return _port(address, config)


def _http(config: Config) -> str:
    served = _served(config, config.http, "web", "starlette", "uvicorn", "prometheus_client")
    return served + _secured(config)


def _mqtt(config: Config) -> str:
    """Check the package, the password, and whether the broker lets kwsd in."""
    assert config.mqtt
    if find_spec("aiomqtt") is None:
        raise ConfigError("needs the package aiomqtt: install kwsd[mqtt]")
    from kwsd.service.outputs.mqtt import try_broker

    try_broker(config.mqtt)
    return f"{config.mqtt.host}:{config.mqtt.port} lets kwsd in"
