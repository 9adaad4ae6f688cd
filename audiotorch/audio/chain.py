"""Steps that waveforms pass through before their features."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from audiotorch.audio.resample import Resample
from audiotorch.errors import ParameterError

__all__ = ["Chain", "check_rates"]


class Chain(nn.Module):
    """Preprocessing steps one after another, each `(waveform, lengths) -> (waveform, lengths)`.

    Args:
        steps: in their order.
    """

    def __init__(self, steps: Iterable[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the last step gives."""
        for step in self.steps:
            out = step(waveform, lengths)
            waveform = out[0]
            kept = out[1]
            assert kept is not None
            lengths = kept
        return waveform, lengths


def check_rates(sample_rate: int, steps: Sequence[nn.Module], wanted: int) -> None:
    """Follow the sample rate through the preprocessing.

    Args:
        sample_rate: Hz of what the first step gets.
        steps: the preprocessing.
        wanted: Hz that the features expect.

    Raises:
        ParameterError: a step or the features get another rate than they were built for.
    """
    rate = sample_rate
    for step in steps:
        if isinstance(step, Resample):
            if step.orig_freq != rate:
                raise ParameterError(
                    f"preprocess: Resample({step.orig_freq}, {step.new_freq}) gets {rate} Hz; "
                    f"build it as Resample({rate}, {step.new_freq})"
                )
            rate = step.new_freq
        elif getattr(step, "sample_rate", rate) != rate:
            name = type(step).__name__
            raise ParameterError(
                f"preprocess: {name}(sample_rate={step.sample_rate}) gets {rate} Hz; "
                f"build it with sample_rate={rate}"
            )
    if rate != wanted:
        raise ParameterError(
            f"sample_rate={sample_rate}: the features expect {wanted} Hz and get {rate}; build "
            "both with one rate, or put a Resample into preprocess"
        )
