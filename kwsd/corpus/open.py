"""Which corpus the user means."""

from pathlib import Path

from kwsd.corpus.files import Files, Listed
from kwsd.corpus.folder import Folder
from kwsd.corpus.remote import files_at, is_remote, without_query
from kwsd.corpus.source import Corpus
from kwsd.corpus.table import Content, Rows, choose_column
from kwsd.corpus.tars import Tars
from kwsd.errors import AudioError, ConfigError

_KINDS = {".tar": "tar", ".tgz": "tar", ".parquet": "Parquet", ".txt": "list", ".lst": "list"}


def open_corpus(sources: list[str], column: str = "") -> Corpus:
    """The corpus that some sources make up: a folder, or files of one kind, which their endings tell.

    Args:
        sources: a folder; or paths, patterns and addresses of recordings, of tar files, of Parquet
            files, or of lists of recordings.
        column: of Parquet files; empty for the only one that can be meant.

    Raises:
        AudioError: there is no such folder, or a Parquet file cannot be read. Of other sources it is
            found out while they are listed.
        ConfigError: they do not fit together.
    """
    if "" in sources:
        raise ConfigError("SOURCE: is empty; name a folder, or recordings")
    kinds = {_kind(source) for source in sources}
    if len(kinds) > 1:
        other = next(source for source in sources if _kind(source) != _kind(sources[0]))
        raise ConfigError(f"{sources[0]} and {other}: are of different kinds; label each kind by itself")
    [kind] = kinds
    if column and kind != "Parquet":
        raise ConfigError(f"--column {column}: {sources[0]} is no Parquet")
    if kind == "folder":
        if len(sources) > 1:
            raise ConfigError(f"{sources[0]} and {sources[1]}: name one folder")
        return Folder(Path(sources[0]))
    every = tuple(sources)
    if kind == "tar":
        return Tars(every)
    if kind == "list":
        return Listed(every)
    if kind == "Parquet":
        name, content = choose_column(next(iter(files_at(sources[0]))).address, column)
        return Rows(every, column=name) if content is Content.RECORDINGS else Listed(every, column=name)
    return Files(every)


def _kind(source: str) -> str:
    if not is_remote(source) and Path(source).is_dir():
        return "folder"
    if not is_remote(source) and source.endswith("/"):
        raise AudioError(f"{source}: no such folder")
    path = without_query(source)
    return "tar" if ".tar." in Path(path).name else _KINDS.get(Path(path).suffix.lower(), "recordings")
