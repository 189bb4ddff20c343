"""A little of `tests/fuzz.py`; by hand it throws 100,000 inputs at each."""

from contextlib import suppress

import pytest

import fuzz


@pytest.mark.parametrize("name", ["wav", "requests", "headers", "events", "tokens"])
def test_nearly_valid_input_is_accepted_or_refused_in_one_line(name, tmp_path):
    read, seeds, refuses = fuzz.targets(tmp_path)[name]
    assert fuzz.fuzz(read, seeds, refuses, 1000, seed=2) == []


def test_a_header_that_announces_too_much_audio_is_no_memory_error(tmp_path):
    read, seeds, refuses = fuzz.targets(tmp_path)["wav"]
    flac = bytearray(next(seed for seed in seeds if seed.startswith(b"fLaC")))
    flac[22:26] = b"\xff\xff\xff\xff"  # of the count of samples
    with suppress(refuses):
        read(bytes(flac))


def test_the_fuzzer_finds_a_crash():
    def breaks(data):
        if b"8" not in data:
            raise KeyError(data)

    assert fuzz.fuzz(breaks, [b'{"8":8}'], ValueError, 1000, seed=1)
