"""Silero's voice detector: the weights of the package silero-vad in a network of our own."""

import importlib.util
import threading
import warnings
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from audiotorch.errors import DecodeError, MissingDependencyError
from audiotorch.transcribe.backends import SAMPLE_RATE

__all__ = ["CONTEXT", "FRAME", "SileroNetwork", "has_silero", "load_silero"]

FRAME = 512  # samples, 32 ms: what the network hears at a time
CONTEXT = 64  # samples before the frame that it hears with it
REMEDY = "pip install 'audiotorch[vad]', or choose gate='energy'"

CONVOLUTIONS = tuple(f"encoder.{i}.reparam_conv" for i in range(4))
STRIDES = (1, 2, 2, 1)  # of the convolutions along the four spectra of a frame
SIZES = ((129, 128), (128, 64), (64, 64), (64, 128))
SHAPES: dict[str, tuple[int, ...]] = {
    "stft.forward_basis_buffer": (258, 1, 256),
    **{f"{name}.weight": (n, m, 3) for name, (m, n) in zip(CONVOLUTIONS, SIZES, strict=True)},
    **{f"{name}.bias": (n,) for name, (_, n) in zip(CONVOLUTIONS, SIZES, strict=True)},
    "decoder.rnn.weight_ih": (512, 128),
    "decoder.rnn.weight_hh": (512, 128),
    "decoder.rnn.bias_ih": (512,),
    "decoder.rnn.bias_hh": (512,),
    "decoder.decoder.2.weight": (1, 128, 1),
    "decoder.decoder.2.bias": (1,),
}
PROBE_TOLERANCE = 1e-4
_loading = threading.Lock()


class SileroNetwork:
    """Silero's layers: four spectra a frame, four convolutions over them, an LSTM over frames.

    It keeps no state, so that any number of recordings can go through it at the same time.

    Args:
        weights: by the names of `SHAPES`.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self._basis = weights["stft.forward_basis_buffer"].squeeze(1)
        # A convolution as one matrix product over all frames takes half the time.
        self._layers = [
            (weights[f"{name}.weight"].flatten(1), weights[f"{name}.bias"], stride)
            for name, stride in zip(CONVOLUTIONS, STRIDES, strict=True)
        ]
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self._lstm = [weights[f"decoder.rnn.{name}"] for name in names]
        self._output = weights["decoder.decoder.2.weight"].squeeze(-1)
        self._output_bias = weights["decoder.decoder.2.bias"]

    def __call__(
        self, samples: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the probabilities of the frames, and the state after them.

        Args:
            samples: `(CONTEXT + frames * FRAME,)` float32.
            state: after the frames before; `None` at the start.
        """
        frames = samples.unfold(0, CONTEXT + FRAME, FRAME).unsqueeze(1)
        padded = functional.pad(frames, (0, 64), mode="reflect").squeeze(1)
        # One matrix for all spectra: a product with three axes takes three times as long.
        spectra = padded.unfold(1, 256, 128).reshape(-1, 256) @ self._basis.T
        real, imaginary = spectra.chunk(2, dim=1)
        magnitude = (real.square() + imaginary.square()).sqrt()
        hidden = magnitude.unflatten(0, (-1, 4))  # (frames, spectra, bins)
        for weight, bias, stride in self._layers:
            around = functional.pad(hidden, (0, 0, 1, 1)).unfold(1, 3, stride).flatten(2)
            hidden = functional.linear(around, weight, bias).relu()
        if state is None:
            state = (torch.zeros(1, 1, 128), torch.zeros(1, 1, 128))
        # torch.lstm rather than nn.LSTM, which would draw random weights first.
        hidden, *after = torch.lstm(
            hidden.transpose(0, 1), state, self._lstm, True, 1, 0.0, False, False, True
        )
        logits = functional.linear(hidden[0].relu(), self._output, self._output_bias)
        return logits.sigmoid().squeeze(1), (after[0], after[1])


def has_silero() -> bool:
    """Return whether the package silero-vad is installed; it is not imported."""
    return importlib.util.find_spec("silero_vad") is not None


def load_silero() -> SileroNetwork:
    """Return the network on the weights of the installed silero-vad, read once in a process.

    The package itself is not imported: that would set the number of torch's threads in the whole
    process to one.

    Raises:
        MissingDependencyError: silero-vad or its file of weights is not there.
        DecodeError: the file is damaged, or holds something else than the network of 6.2.
    """
    # One thread at a time: filters of warnings and torch's switch belong to all of them.
    with _loading:
        return _load(_weights_path())


def _weights_path() -> Path:
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(f"gate='silero' needs silero-vad: {REMEDY}")
    path = Path(spec.submodule_search_locations[0]) / "data" / "silero_vad.jit"
    if not path.is_file():
        raise MissingDependencyError(
            f"the installed silero-vad has no {path.name}, which versions 6.2 and on have: {REMEDY}"
        )
    return path


@lru_cache(maxsize=1)
def _load(path: Path) -> SileroNetwork:
    """Read the weights and make sure, by a probe, that they are used here as they are meant."""
    remedy = f"install version 6.2: {REMEDY}"
    try:
        with warnings.catch_warnings():
            # The package has no other file of these weights that torch reads.
            warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated", Warning)
            script = torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DecodeError(f"{path} of silero-vad does not load ({reason}); {remedy}") from error
    weights = {
        name.removeprefix("_model."): value.detach().clone()
        for name, value in script.state_dict().items()
        if name.startswith("_model.")  # the other one is for 8 kHz
    }
    if {name: tuple(value.shape) for name, value in weights.items()} != SHAPES:
        raise DecodeError(f"{path} holds another network than silero-vad 6.2's; {remedy}")
    network = SileroNetwork(weights)
    probe = _probe()
    try:
        # Optimising the script would take longer than running it on four frames.
        with torch.no_grad(), torch.jit.optimized_execution(False):
            expected = [script(frame[None], SAMPLE_RATE).item() for frame in probe.split(FRAME)]
    except RuntimeError as error:
        raise DecodeError(f"{path} is not called as silero-vad 6.2 is; {remedy}") from error
    answer = network(functional.pad(probe, (CONTEXT, 0)), None)[0]
    if not (answer - torch.tensor(expected)).abs().max() <= PROBE_TOLERANCE:
        raise DecodeError(f"{path} computes something else than silero-vad 6.2; {remedy}")
    return network


def _probe() -> Tensor:
    """Four frames of a buzz that the detector is of two minds about."""
    time = torch.arange(4 * FRAME, dtype=torch.float64) / SAMPLE_RATE
    harmonics = torch.arange(1, 21)[:, None]
    buzz = torch.sin(2 * torch.pi * 60 * harmonics * time + harmonics).sum(dim=0)
    return (buzz / buzz.abs().max() / 2).float()
