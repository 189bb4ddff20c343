"""Every error that a user can mend, in one tree.

The law of this file: the message is one line, names the file, key or device, and says what
to do. The command line prints it and exits with `exit_status`. It prints what the system
refuses (`OSError`: a full disk behind standard output) in the same way; any other exception
is a defect of kwsd and shows its traceback.
"""


class KwsdError(Exception):
    """The root: something outside kwsd is not as it must be."""

    exit_status = 1


class ConfigError(KwsdError):
    """The configuration or the command line is wrong; nothing has been started."""

    exit_status = 2


class AudioError(KwsdError):
    """A recording is empty, truncated, unreadable, or not audio at all."""


class SourceError(KwsdError):
    """A live source cannot be opened, or stopped delivering."""


class ModelError(KwsdError):
    """A model file is missing, foreign, damaged, or disagrees with its golden check."""


class SocketError(KwsdError):
    """The event socket cannot be served, or reached."""


class OutputError(KwsdError):
    """A file that was asked for cannot be written."""


class TrainingError(KwsdError):
    """The recordings, a run folder or an architecture cannot be used as asked."""


class ExportError(KwsdError):
    """The conversion failed, or the converted model disagrees with the original."""
