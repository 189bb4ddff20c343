"""python -m kwsd: the same as the kwsd command."""

import signal
import sys


def main() -> int:
    """Run `kwsd.cli.main`. Ctrl-C during the imports shows no traceback either.

    A service that is still starting has nothing to reload, so it ignores SIGHUP until it handles it.
    In a terminal, SIGHUP means that the terminal was closed, and ends it.
    """
    if sys.argv[1:2] == ["run"] and not (sys.stdin and sys.stdin.isatty()):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        from kwsd.cli import main as command
        from kwsd.workers import end_with_threads

        status = command()
        end_with_threads(status)
        return status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
