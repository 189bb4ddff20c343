"""Text from outside, made safe to show on a terminal, in a log or in a table."""


def plain(text: str) -> str:
    r"""Escape what is not printable, such as an escape sequence (`\x1b[31m`) or the end of a line (`\n`)."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
