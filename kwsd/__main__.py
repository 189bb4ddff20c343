"""python -m kwsd: the same as the kwsd command."""

import sys


def main() -> int:
    """Run `kwsd.cli.main`. Ctrl-C during the imports shows no traceback either."""
    try:
        from kwsd.cli import main as command

        return command()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
