"""A microphone through PortAudio, at its native rate.

The law of this file: reads never block for good. PortAudio's blocking read hangs when a
device stops delivering, so the amount that is ready is polled, and a device that delivers
nothing for `_STALL_SECONDS` is a `SourceError`. Blocking-mode streams rather than callbacks
also work under systemd's `MemoryDenyWriteExecute`.
"""

import atexit
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from kwsd.audio import Chunk, to_mono
from kwsd.errors import SourceError
from kwsd.sources import Opened, refuse_missing_channel

_STALL_SECONDS = 3.0
_POLL_SECONDS = 0.02
_LATENCY_SECONDS = 0.5  # asks PortAudio for a buffer that survives a busy moment
_NO_DEVICE = "Error querying device -1"  # sounddevice's words for PortAudio's paNoDevice
_CARDS = Path("/proc/asound/cards")


class Microphone:
    """An input device; lives until it breaks.

    Args:
        device: number, or part of the name, as `kwsd devices` lists them; None for the
            system's default.
        channels: of each stream that hears it, counted from 1; None for the device's own mix,
            or the mean of all.
    """

    is_live = True

    _opening = threading.Lock()
    _n_open = 0  # PortAudio's restart, which finds new devices, would end streams that are open
    _was_open = False  # since then what PortAudio knows of devices may be out of date
    _known_cards = ""  # when PortAudio looked for devices last
    _must_end = False  # so that it can look again: one that was plugged in anew is not among those it knows

    def __init__(self, device: str | None, *channels: int | None) -> None:
        self._channels = channels or (None,)
        self.name = f"microphone {device}" if device else "the default microphone"
        self._device = int(device) if device and device.isdecimal() else device

    def open(self) -> Opened:
        with self._opening:
            return self._open()

    def _open(self) -> Opened:
        sounddevice = _portaudio()
        try:
            if not Microphone._n_open:
                if Microphone._was_open:
                    _rescan(sounddevice)
                Microphone._was_open, Microphone._must_end = True, False
                Microphone._known_cards = _cards()
            info = sounddevice.query_devices(self._device, "input")
            for channel in self._channels:
                refuse_missing_channel(self.name, channel, info["max_input_channels"])
            rate_hz = round(info["default_samplerate"])
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
            Microphone._n_open += 1
        except (sounddevice.PortAudioError, ValueError) as error:
            reason = str(error).splitlines()[0].replace(_NO_DEVICE, "there is none")
            Microphone._must_end = Microphone._n_open > 0 and _cards() != Microphone._known_cards
            raise SourceError(f"{self.name}: cannot be opened ({reason}); `kwsd devices` lists what is there") from None
        return Opened(rate_hz, self._chunks(sounddevice, stream, rate_hz))

    def _chunks(self, sounddevice: Any, stream: Any, rate_hz: int) -> Generator[Chunk, None, None]:
        position, read_at = 0, time.monotonic()
        try:
            while True:
                if Microphone._must_end:
                    raise SourceError(f"{self.name}: is opened anew, since other sound cards were plugged in")
                n_samples = self._wait(stream)
                samples, overflowed = stream.read(n_samples)
                before, read_at = read_at, time.monotonic()
                if overflowed:  # PortAudio does not say how much was lost; the clock does
                    position += max(0, round((read_at - before) * rate_hz) - n_samples)
                heard = [to_mono(samples, channel) for channel in self._channels]
                chunk = Chunk(heard[0] if len(heard) == 1 else np.stack(heard, axis=1), position)
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
        """Samples that are ready, as soon as there are some."""
        deadline = time.monotonic() + _STALL_SECONDS
        while not (n_samples := int(stream.read_available)):
            if time.monotonic() > deadline:
                raise SourceError(f"{self.name}: delivered nothing for {_STALL_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)
        return n_samples


def list_microphones() -> list[str]:
    """One line for each input device: number, name, native rate, and which is the default.

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
    ]


def _portaudio() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise SourceError("no microphone without the sounddevice package: install kwsd[mic]") from None
    except OSError:  # the package is there, the library that it loads is not
        raise SourceError(
            "no microphone without PortAudio: install libportaudio2 (Debian, Ubuntu) or portaudio"
        ) from None
    # Ending PortAudio with the process has crashed in ALSA's plugin; the system takes back all by itself.
    atexit.unregister(sounddevice._exit_handler)
    return sounddevice


def _cards() -> str:
    """The sound cards that Linux has now."""
    try:
        return _CARDS.read_text()
    except OSError:
        return ""


def _n_channels(sounddevice: Any, info: Any, rate_hz: int) -> int:
    """One where the device gives one; hardware without a sound server may give only all."""
    try:
        sounddevice.check_input_settings(info["index"], channels=1, samplerate=rate_hz)
    except sounddevice.PortAudioError:
        return int(info["max_input_channels"])
    return 1


def _rescan(sounddevice: Any) -> None:
    """PortAudio lists devices once, at its start; only a restart finds what was plugged in."""
    with suppress(sounddevice.PortAudioError):  # if the last start failed, there is nothing to end
        sounddevice._terminate()
    sounddevice._initialize()
