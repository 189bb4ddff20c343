"""Every error that a user can fix, in one tree.

    KwsdError                exit status 1
    ├── ConfigError          exit status 2: the configuration or the command line is wrong
    ├── AudioError           a recording is empty, truncated, unreadable, or not audio
    │   └── UnreachableError: a bucket or server did not deliver it; a later try may
    ├── SourceError          a live source cannot be opened, or stopped delivering
    ├── ModelError           a model file is missing, foreign, damaged, or fails its golden check
    ├── SocketError          a socket cannot be served, or reached
    ├── OutputError          a file cannot be written
    ├── LearnError           a word cannot be learnt from these recordings, or by this model
    ├── TrainingError        recordings, a run folder or an architecture cannot be used as asked
    └── ExportError          the conversion failed, or the result disagrees with the original

Law: the message is one line, names the file, key or device, and says what to do. The command line
prints it and exits with `exit_status`. It prints an `OSError` (a full disk, for example) the same
way. Any other exception is a defect of kwsd and shows its traceback.
"""


class KwsdError(Exception):
    """The root of all errors that a user can fix."""

    exit_status = 1


class ConfigError(KwsdError):
    """The configuration or the command line is wrong. Nothing has been started."""

    exit_status = 2


class AudioError(KwsdError):
    """A recording is empty, truncated, unreadable, or not audio."""


class UnreachableError(AudioError):
    """A bucket or a server did not deliver a recording. A later try may succeed."""


class SourceError(KwsdError):
    """A live source cannot be opened, or stopped delivering."""


class ModelError(KwsdError):
    """A model file is missing, foreign, damaged, or fails its golden check."""


class SocketError(KwsdError):
    """A socket cannot be served, or reached."""


class OutputError(KwsdError):
    """A file cannot be written."""


class LearnError(KwsdError):
    """A word cannot be learnt from these recordings, or by this model."""


class TrainingError(KwsdError):
    """Recordings, a run folder or an architecture cannot be used as asked."""


class ExportError(KwsdError):
    """The conversion failed, or the converted model disagrees with the original."""
