"""python -m kwsd, the same as the kwsd command."""

import sys


def main() -> int:
    """`kwsd.cli.main`; an interruption while it is still being imported shows no traceback, either."""
    try:
        from kwsd.cli import main as command

        return command()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
