"""A file appears whole or not at all."""

import pytest

from kwsd.files import part_of, whole


def test_a_file_gets_its_name_at_the_end(tmp_path):
    path = tmp_path / "labels.csv"
    with whole(path) as part:
        part.write_text("new")
        assert not path.exists()
        assert part.suffix == ".csv"  # some libraries choose the format by the suffix
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_the_old_file_is_there(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("old")

    def fail():
        with whole(path) as part:
            part.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert not part_of(path).exists()


def test_a_part_that_was_never_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), whole(tmp_path / "a"):
        pass
