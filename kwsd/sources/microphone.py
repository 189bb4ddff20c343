"""A microphone through PortAudio, at its native rate.

Law: reads never block for good. PortAudio's blocking read hangs when a device stops delivering, so
the number of available samples is polled, and a device that delivers nothing for `_STALL_SECONDS`
is a `SourceError`. Blocking reads, unlike callbacks, also work under systemd's `MemoryDenyWriteExecute`.
"""

import atexit
import threading
import time
from collections.abc import Generator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from kwsd.audio import Chunk, to_mono
from kwsd.errors import SourceError
from kwsd.sources.base import Opened, refuse_missing_channel
from kwsd.sources.sound_server import DEVICE, chosen, server_sources

_STALL_SECONDS = 3.0
_POLL_SECONDS = 0.02
_LATENCY_SECONDS = 0.5  # asks PortAudio for a buffer that survives a busy moment
_NO_DEVICE = "Error querying device -1"  # sounddevice's message for PortAudio's paNoDevice
_CARDS = Path("/proc/asound/cards")


class Microphone:
    """An input device; delivers until it breaks.

    PortAudio lists the devices once, when it starts, and a restart breaks open streams. So it is
    restarted only while no stream is open. If opening fails while others are open and a new sound
    card has appeared, the open streams end with an error, so that a restart can find the card.

    Args:
        device: number, or part of the name, as `kwsd devices` lists them; the whole name of a sound
            server's source; or None for the system's default.
        channels: one for each stream that shares the device, counted from 1; None for the device's
            own mix, or the mean of all.
    """

    is_live = is_watched = True

    _opening = threading.Lock()  # guards the class attributes below
    _n_open = 0
    _must_restart = False  # PortAudio has run before, so its list of devices may be out of date
    _known_cards = ""  # sound cards at PortAudio's last start
    _must_end = False  # open streams must end, so that PortAudio can restart

    def __init__(self, device: str | None, *channels: int | None) -> None:
        self._channels = channels or (None,)
        self.name = f"microphone {device}" if device else "the default microphone"
        self._device = int(device) if device and device.isdecimal() else device

    def open(self) -> Opened:
        with self._opening:
            sounddevice = _portaudio()
            try:
                stream, rate_hz = self._open_stream(sounddevice)
            except (sounddevice.PortAudioError, ValueError) as error:
                reason = " ".join(str(error).split()).replace(_NO_DEVICE, "there is none")
                Microphone._must_end = Microphone._n_open > 0 and _cards() != Microphone._known_cards
                raise SourceError(
                    f"{self.name}: cannot be opened ({reason}); `kwsd devices` lists the microphones"
                ) from None
            Microphone._n_open += 1
        return Opened(rate_hz, self._chunks(sounddevice, stream, rate_hz))

    def _open_stream(self, sounddevice: Any) -> tuple[Any, int]:
        """A started stream, and its rate."""
        if not Microphone._n_open:
            if Microphone._must_restart:
                _restart(sounddevice)
            Microphone._must_restart, Microphone._must_end = True, False
            Microphone._known_cards = _cards()
        source = self._device if isinstance(self._device, str) and self._device in server_sources() else None
        info = sounddevice.query_devices(DEVICE if source else self._device, "input")
        for channel in self._channels:
            refuse_missing_channel(self.name, channel, info["max_input_channels"])
        rate_hz = round(info["default_samplerate"])
        with chosen(source) if source else nullcontext():
            stream = sounddevice.InputStream(
                device=info["index"],
                samplerate=rate_hz,
                channels=info["max_input_channels"] if any(self._channels) else _n_channels(sounddevice, info, rate_hz),
                dtype="float32",
                latency=_LATENCY_SECONDS,
            )
        try:
            stream.start()
        except sounddevice.PortAudioError:
            stream.close(ignore_errors=True)
            raise
        return stream, rate_hz

    def _chunks(self, sounddevice: Any, stream: Any, rate_hz: int) -> Generator[Chunk, None, None]:
        position, read_at = 0, time.monotonic()
        try:
            while True:
                if Microphone._must_end:
                    raise SourceError(f"{self.name}: reopening, because another sound card was plugged in")
                n_samples = self._wait(stream)
                samples, overflowed = stream.read(n_samples)
                before, read_at = read_at, time.monotonic()
                if overflowed:  # PortAudio does not say how much was lost; the clock does
                    position += max(0, round((read_at - before) * rate_hz) - n_samples)
                of_streams = [to_mono(samples, channel) for channel in self._channels]
                chunk = Chunk(of_streams[0] if len(of_streams) == 1 else np.stack(of_streams, axis=1), position)
                position = chunk.end
                yield chunk
        except sounddevice.PortAudioError as error:
            raise SourceError(f"{self.name}: stopped ({str(error).splitlines()[0]})") from None
        finally:
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)
            with self._opening:
                Microphone._n_open -= 1

    def _wait(self, stream: Any) -> int:
        """Wait until samples are available; returns their number."""
        deadline = time.monotonic() + _STALL_SECONDS
        while not (n_samples := int(stream.read_available)):
            if time.monotonic() > deadline:
                raise SourceError(f"{self.name}: delivered nothing for {_STALL_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)
        return n_samples


def list_microphones() -> list[str]:
    """One line for each input device: number, name, native rate, and which is the default.

    The names of a sound server's sources follow.

    Raises:
        SourceError: PortAudio is missing.
    """
    sounddevice = _portaudio()
    try:
        default = sounddevice.query_devices(kind="input")["index"]
    except (sounddevice.PortAudioError, ValueError):
        default = None
    inputs = [info for info in sounddevice.query_devices() if info["max_input_channels"] > 0]
    return [
        f"{info['index']:>3}  {info['name']}, {info['default_samplerate']:.0f} Hz"
        + (" (default)" if info["index"] == default else "")
        for info in inputs
    ] + [f"     {source} (a source of the sound server)" for source in server_sources()]


def _portaudio() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise SourceError("no microphone without the sounddevice package: install kwsd[mic]") from None
    except OSError:  # the package is installed, the library that it loads is not
        raise SourceError(
            "no microphone without PortAudio: install libportaudio2 (Debian, Ubuntu) or portaudio"
        ) from None
    # Terminating PortAudio at exit has crashed in ALSA's plugin. The system frees everything anyway.
    atexit.unregister(sounddevice._exit_handler)
    return sounddevice


def _cards() -> str:
    """Linux's current list of sound cards."""
    try:
        return _CARDS.read_text()
    except OSError:
        return ""


def _n_channels(sounddevice: Any, info: Any, rate_hz: int) -> int:
    """One, if the device offers one; hardware without a sound server may offer only all."""
    try:
        sounddevice.check_input_settings(info["index"], channels=1, samplerate=rate_hz)
    except sounddevice.PortAudioError:
        return int(info["max_input_channels"])
    return 1


def _restart(sounddevice: Any) -> None:
    with suppress(sounddevice.PortAudioError):  # raised if the last start failed
        sounddevice._terminate()
    sounddevice._initialize()
