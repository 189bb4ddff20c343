"""`kwsd check`: would `kwsd run` work here, and if not, why?"""

from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from kwsd.audio import dbfs
from kwsd.config import Config, StreamConfig, check_thresholds, unix_path
from kwsd.errors import ConfigError, KwsdError
from kwsd.model import load_model
from kwsd.sockets import bind_tcp, bind_unix, is_live, tcp_secrets
from kwsd.sources import make_source


def check(load: Callable[[], Config]) -> Iterator[tuple[bool, str]]:
    """Yield for each part whether it is fine, and a line that says what it is or what to do."""
    try:
        config = load()
    except KwsdError as error:
        yield from ((False, f"configuration: {line}") for line in str(error).splitlines())
        return
    yield True, f"configuration: source {', '.join(config.sources)}"
    parts: list[tuple[str, Callable[[], str]]] = [("model", lambda: _model(config))]
    for stream in map(config.of_stream, config.stream_names):
        if stream.source != "network":
            parts.append(("audio", lambda stream=stream: _audio(stream)))  # type: ignore[misc]
    parts.append(("socket", lambda: _socket(config.socket, config)))
    if config.audio:
        parts.append(("audio socket", lambda: _audio_socket(config)))
    if config.tcp:
        parts.append(("tcp", lambda: _tcp(config)))
    if config.clips:
        parts.append(("clips", lambda: _clips(config)))
    if config.metrics:
        parts.append(("metrics", lambda: _metrics(config)))
    for name, part in parts:
        try:
            yield True, f"{name}: {part()}"
        except KwsdError as error:
            yield False, f"{name}: {error}"


def _model(config: Config) -> str:
    model = load_model(config.model, config.device)
    check_thresholds(config, model.card.keywords)
    return f"{model.card.name} passes its golden check on {model.provider}"


def _audio(config: StreamConfig) -> str:
    if config.source == "-":
        return (
            f"standard input, {config.pcm.encoding}, {config.pcm.rate_hz} Hz, {config.pcm.channels} channels (not read)"
        )
    source = make_source(config)
    rate_hz, chunks = source.open()
    with closing(chunks):
        chunk = next(chunks)
    return f"{source.name}, {rate_hz} Hz, {dbfs(chunk.samples):.0f} dBFS"


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


def _port(address: str, config: Config) -> str:
    """A port that is free; not looked at while the daemon that it is for may have it."""
    if not is_live(config.socket):
        bind_tcp(address).close()
    return address


def _tcp(config: Config) -> str:
    assert config.tcp
    _port(config.tcp, config)
    token, tls = tcp_secrets(config)
    return f"{config.tcp}{', with a token' if token else ''}{', with TLS' if tls else ''}"


def _clips(config: Config) -> str:
    from kwsd.clips import Clips

    assert config.clips
    Clips(config.clips)
    return f"kept in {config.clips.folder}"


def _metrics(config: Config) -> str:
    assert config.metrics
    if find_spec("prometheus_client") is None:
        raise ConfigError("needs the prometheus-client package: install kwsd[metrics]")
    return _port(config.metrics, config)
