"""Train a model: python scripts/train.py model=cnn data.root=FOLDER trainer.max_epochs=30."""

import sys

from audiotorch.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
