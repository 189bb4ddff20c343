"""Text for a terminal, a log or a table: text from outside made safe, and a level meter."""


def plain(text: str) -> str:
    r"""Escape what is not printable, such as an escape sequence (`\x1b[31m`) or the end of a line (`\n`)."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def meter(level_dbfs: float) -> str:
    """A level meter of 30 characters for a line on a terminal, from -60 dBFS to full scale, and the level."""
    n = round(min(max((level_dbfs + 60) / 2, 0), 30))
    return f"{'#' * n:30} {max(level_dbfs, -99):4.0f} dBFS"
