"""Features that an earlier training run has learned."""

import os

from audiotorch.errors import ParameterError
from audiotorch.models.embedding import Embedding
from audiotorch.training.checkpoint import load_checkpoint_pipeline

__all__ = ["RunEmbedding"]


class RunEmbedding(Embedding):
    """The `Embedding` of a training run: `features=embedding`.

    The exported file holds all of it; a checkpoint names the run, which must stay where it was.

    Args:
        run: the run's directory, of which the best checkpoint is taken, or a checkpoint.
        sample_rate: Hz of the waveforms; must be the run's. `None` takes the run's.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)`; `None` = all full
        - Output: `(batch, embedding_size)`

    Raises:
        ParameterError: nothing is there, another rate, or a run without a network, such as one of
            scikit-learn's models.
        DecodeError: the checkpoint is damaged, or not audiotorch's.
    """

    def __init__(self, run: str | os.PathLike[str] | None, sample_rate: int | None = None) -> None:
        if run is None:
            raise ParameterError(
                "run=None: must be the directory of a training run, or a checkpoint: "
                "features.run=runs/..."
            )
        pipeline = load_checkpoint_pipeline(run)
        if sample_rate not in (None, pipeline.sample_rate):
            raise ParameterError(
                f"sample_rate={sample_rate}: run={os.fspath(run)!r} was trained at "
                f"{pipeline.sample_rate} Hz; set features.sample_rate={pipeline.sample_rate}"
            )
        if not getattr(pipeline.model, "embedding_size", 0):
            raise ParameterError(
                f"run={os.fspath(run)!r}: its model {type(pipeline.model).__name__} has no layer "
                "before the answer; name the run of a network, such as model=cnn"
            )
        super().__init__(pipeline)
