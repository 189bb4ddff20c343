"""A short run of `tests/fuzz.py`: 1,000 inputs for each target. Run by hand, it uses 100,000."""

from contextlib import suppress

import pytest

import fuzz


@pytest.mark.parametrize("name", ["wav", "requests", "headers", "events", "tokens"])
def test_nearly_valid_input_is_accepted_or_refused_in_one_line(name, tmp_path):
    read, seeds, refuses = fuzz.targets(tmp_path)[name]
    assert fuzz.fuzz(read, seeds, refuses, 1000, seed=2) == []


def test_a_header_that_announces_too_much_audio_causes_no_memory_error(tmp_path):
    read, seeds, refuses = fuzz.targets(tmp_path)["wav"]
    flac = bytearray(next(seed for seed in seeds if seed.startswith(b"fLaC")))
    flac[22:26] = b"\xff\xff\xff\xff"  # the low 32 bits of the sample count
    with suppress(refuses):
        read(bytes(flac))


def test_the_fuzzer_finds_a_crash():
    def breaks(data):
        if b"8" not in data:
            raise KeyError(data)

    assert fuzz.fuzz(breaks, [b'{"8":8}'], ValueError, 1000, seed=1)
