"""`kwsd check`: would `kwsd run` work here, and if not, why?"""

from collections.abc import Callable, Iterator
from contextlib import closing

from kwsd.audio import dbfs
from kwsd.config import Config, check_thresholds
from kwsd.errors import KwsdError
from kwsd.model import load_model
from kwsd.sources import make_source
from kwsd.transports.unix import bind, is_live


def check(load: Callable[[], Config]) -> Iterator[tuple[bool, str]]:
    """Yield for each part whether it is fine, and a line that says what it is or what to do."""
    try:
        config = load()
    except KwsdError as error:
        yield from ((False, f"configuration: {line}") for line in str(error).splitlines())
        return
    yield True, f"configuration: source {config.source}"
    for name, part in (("model", _model), ("audio", _audio), ("socket", _socket)):
        try:
            yield True, f"{name}: {part(config)}"
        except KwsdError as error:
            yield False, f"{name}: {error}"


def _model(config: Config) -> str:
    model = load_model(config.model, config.device)
    check_thresholds(config, model.card.keywords)
    return f"{model.card.name} passes its golden check on {model.provider}"


def _audio(config: Config) -> str:
    if config.source == "-":
        return (
            f"standard input, {config.pcm.encoding}, {config.pcm.rate_hz} Hz, {config.pcm.channels} channels (not read)"
        )
    source = make_source(config)
    rate_hz, chunks = source.open()
    with closing(chunks):
        chunk = next(chunks)
    return f"{source.name}, {rate_hz} Hz, {dbfs(chunk.samples):.0f} dBFS"


def _socket(config: Config) -> str:
    if is_live(config.socket):
        return f"{config.socket}, a kwsd is serving it now"
    bind(config.socket).close()
    config.socket.unlink()
    return f"{config.socket} is free"
