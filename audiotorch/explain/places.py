"""Where in time and frequency something lies that a spectrogram's cells say."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["around", "band_edges", "frame_seconds", "hertz"]


def band_edges(features: Any) -> Tensor:
    """Return Hz between the centres of neighbouring mel bands, and where the outer ones end.

    Args:
        features: a front end with `mel` and `sample_rate`.

    Shape:
        - Output: `(n_mels + 1,)`, float64
    """
    bank = features.mel.bank.double().cpu()
    hz = torch.linspace(0.0, features.sample_rate / 2, bank.shape[1], dtype=torch.float64)
    centres = bank @ hz / bank.sum(dim=1)
    used = hz[bank.amax(dim=0) > 0]
    return torch.cat([used[:1], (centres[1:] + centres[:-1]) / 2, used[-1:]])


def frame_seconds(module: Any, frames: Tensor, lengths: Tensor) -> float:
    """Return seconds from frame to frame, of a hop or of a clip in a fixed number of frames.

    Args:
        module: Pipeline, eager or exported.
        frames: how many the clips have, `(n,)`.
        lengths: the clips' samples at the module's rate, `(n,)`.
    """
    many = torch.tensor([0, 1 << 24], device=lengths.device)
    none, all_of_them = module.features.frame_counts(many).tolist()
    if all_of_them > none:
        return round(many[1].item() / (all_of_them - none)) / float(module.features.sample_rate)
    return int(lengths[0]) / module.sample_rate / int(frames[0])


def around(enough: list[bool], place: int) -> tuple[int, int]:
    """Return the first and last place of the true ones around a true one.

    Args:
        enough: by place.
        place: of a true one.
    """
    first = last = place
    while first > 0 and enough[first - 1]:
        first -= 1
    while last + 1 < len(enough) and enough[last + 1]:
        last += 1
    return first, last


def hertz(low: float, high: float) -> str:
    """Return a band as text, in kHz where it reaches there.

    Args:
        low: Hz.
        high: Hz.
    """
    return f"{low / 1000:.1f}-{high / 1000:.1f} kHz" if high >= 1000 else f"{low:.0f}-{high:.0f} Hz"
