"""What every feature of waveforms shares: stages and batches."""

from typing import Any, ClassVar, Optional

import torch
from torch import Tensor, nn

from audiotorch.audio.chunks import Walker, walks
from audiotorch.errors import ParameterError
from audiotorch.features.functional import check_waveform, mask_samples

__all__ = ["Feature", "Waveform", "check_positive"]


class Waveform(nn.Module):
    """The stage before all others: each clip's own samples, zeros behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.min_samples = 1

    def derive(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return `(batch, time)` as it is, but for what lies past each clip's length."""
        return mask_samples(waveform, lengths)

    def derive_beside(
        self, x: Tensor, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tensor:
        """Return the same as `derive`."""
        return self.derive(x, lengths)

    def compute(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the same as `derive`."""
        return self.derive(waveform, lengths)


class Feature(Walker):
    """A feature of waveforms, made in stages; the base of those that librosa has.

    Each feature adds one step, `derive`, to what its `source` gives, and the first source is the
    waveform. So several features can share a source, as in `FeatureExtractor`.

    Args:
        source: the stage before this one; `None` = the waveform itself.
    """

    passes_on_to: ClassVar[type["Feature"] | None] = None
    """The class whose settings the constructor passes on to it."""

    def __init__(self, source: nn.Module | None = None) -> None:
        super().__init__()
        # Not annotated in the class: TorchScript would take that for the module's type.
        self.source: Any = Waveform() if source is None else source
        self.min_samples = int(getattr(self.source, "min_samples", 1))

    def derive(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return this stage's output from its source's.

        Args:
            x: what the source gives, `(batch, ...)`.
            lengths: int64, samples of each clip, `(batch,)`; `None` = all full.
        """
        raise NotImplementedError

    def derive_beside(
        self, x: Tensor, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tensor:
        """Return what `derive` does; for stages that need the waveform as well as their source.

        Args:
            x: what the source gives, `(batch, ...)`.
            waveform: `(batch, time)`; past each clip's length may lie anything.
            lengths: int64, samples of each clip, `(batch,)`; `None` = all full.
        """
        return self.derive(x, lengths)

    def compute(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the feature of `(batch, time)` at once: all stages, no chunks."""
        return self.derive_beside(self.source.compute(waveform, lengths), waveform, lengths)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        counts: Tensor = self.source.frame_counts(lengths)
        return counts

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the feature; shapes and errors as in the class docstring."""
        check_waveform(waveform, lengths)
        rows = waveform.unsqueeze(0).flatten(0, -2)
        row_lengths = None if lengths is None else lengths.reshape(-1)
        if not torch.jit.is_scripting():
            if walks(rows):
                answer: Tensor = self._walk(rows, row_lengths)
                return answer.reshape(waveform.shape[:-1] + answer.shape[1:])
        answer = self.compute(rows, row_lengths)
        return answer.reshape(waveform.shape[:-1] + answer.shape[1:])


def check_positive(**values: float | None) -> None:
    """Refuse settings that are not greater than 0; `None` passes.

    Raises:
        ParameterError: naming the setting and its value.
    """
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ParameterError(f"{name}={value}: must be greater than 0")
