"""A daemon that waits for audio on its audio socket."""

import pytest

from support import serving


@pytest.fixture
def quiet(start_daemon):
    """Start a daemon that waits for audio on its audio socket. Gives the daemon and both socket paths."""

    def start(**options):
        folder = options.pop("folder")
        audio = folder / "audio.sock"
        daemon, path = start_daemon("--source", "network", "--audio", audio, **options)
        serving(audio, daemon)
        return daemon, path, audio

    return start
