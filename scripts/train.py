"""Train a model: python scripts/train.py model=cnn data.root=FOLDER trainer.max_epochs=30."""

import sys

from audiotorch.training.train import main

if __name__ == "__main__":
    sys.exit(main())
