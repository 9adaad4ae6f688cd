"""One call for what any answer rests on."""

from torch import Tensor, nn

from audiotorch.audio import Source
from audiotorch.explain.classes import ClassExplanation, explain_class
from audiotorch.explain.detection import Explanation, explain_detection

__all__ = ["explain"]


def explain(
    module: nn.Module, source: Source | Tensor, *, device: str | None = None, batch_size: int = 8
) -> ClassExplanation | Explanation:
    """Say what a model's answer to a recording rests on.

    Args:
        module: Pipeline, eager or exported: of a detector as `explain_detection`, else as
            `explain_class`.
        source: a path, bytes or open file; or a waveform `(time,)` at the module's rate.
        device: `"cpu"`, `"cuda"` ...: the module is moved there; `None` = where it is.
        batch_size: windows answered together.

    Raises:
        ParameterError: a model that cannot say it, or a waveform of another shape.
        DecodeError: the recording cannot be read, is empty or too short.
    """
    is_detector = str(module.task) == "anomaly"
    ask = explain_detection if is_detector else explain_class
    return ask(module, source, device=device, batch_size=batch_size)
