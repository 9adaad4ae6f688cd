"""Measure equality with librosa, and speed: python scripts/benchmark.py --help.

The same as `audiotorch bench`.
"""

import sys

from audiotorch.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
