"""`python -m audiotorch.cli`."""

import sys

from audiotorch.cli.entry import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
