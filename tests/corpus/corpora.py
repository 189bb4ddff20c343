"""Helpers for tests of corpora."""

from pathlib import Path

import pyarrow
import pyarrow.parquet

from kwsd.commands.label import label_corpus
from kwsd.corpus.open import open_corpus


def write_table(path, columns, rows=1000):
    """Write Parquet with so many rows in a group."""
    pyarrow.parquet.write_table(pyarrow.table({name: list(one) for name, one in columns.items()}), path, rows)


def labelled(*sources, column="", **options):
    """Label a corpus; the text of the CSV."""
    output = Path("out.csv")
    label_corpus(open_corpus([*map(str, sources)], column), output, **options)
    return output.read_text()
