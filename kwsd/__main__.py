"""python -m kwsd, the same as the kwsd command."""

import sys

from kwsd.cli import main

sys.exit(main())
