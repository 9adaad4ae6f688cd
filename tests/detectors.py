"""Detectors for tests, small enough to see through, and recordings for them."""

import io

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from audiotorch.features import SpectrogramImage, SummaryVector
from audiotorch.features.functional import mask_frames
from audiotorch.pipeline import Pipeline

RATE = 8000
HOP = 128


class MeanImage(nn.Module):
    """Stands for an autoencoder: it rebuilds any image as one and the same spectrum."""

    spectrum: Tensor

    def __init__(self, spectrum: Tensor) -> None:
        super().__init__()
        self.register_buffer("spectrum", spectrum.reshape(-1, 1))

    @torch.jit.export
    def error_map(self, x: Tensor, counts: Tensor) -> Tensor:
        return mask_frames((x[:, 0] - self.spectrum).square(), counts)

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        return self.error_map(x, counts).sum(dim=(1, 2)) / (counts * x.shape[2])


class Distance(nn.Module):
    """Stands for detectors on vectors: mean squared standard deviations."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    @torch.jit.export
    def deviations(self, x: Tensor, counts: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        return self.deviations(x, counts).square().mean(dim=1)


def image_detector(spectrum: Tensor | None = None, rate: int = RATE, **options) -> Pipeline:
    features = SpectrogramImage(rate, 512, HOP, n_mels=32, normalize="none")
    model = MeanImage(torch.full([32], -30.0) if spectrum is None else spectrum)
    return Pipeline(features, model, sample_rate=rate, task="anomaly", **options).eval()


def vector_detector(**options) -> Pipeline:
    """One that takes a summary vector, fitted to quiet noise."""
    features = SummaryVector(RATE)
    normal = features(0.1 * torch.randn(30, RATE, generator=torch.Generator().manual_seed(1)))
    model = Distance(normal.mean(dim=0), normal.std(dim=0).clamp(min=1e-3))
    options = {"min_duration": 0.6, **options}
    return Pipeline(features, model, sample_rate=RATE, task="anomaly", **options).eval()


def calibrated(pipeline: Pipeline, *names: str) -> Pipeline:
    """Put thresholds among the scores that noise of different levels has."""
    generator = torch.Generator().manual_seed(2)
    level = torch.linspace(0.03, 0.3, 19).unsqueeze(1)
    with torch.no_grad():
        scores = pipeline(level * torch.randn(19, 2 * RATE, generator=generator)).sort()[0]
    thresholds = {name: float(scores[15 + place]) for place, name in enumerate(names)}
    pipeline.calibrate(scores, thresholds)
    return pipeline


def noise(seconds: float, rate: int = RATE, n_channels: int = 1, level: float = 0.3) -> np.ndarray:
    """Louder and louder, that no window is like another."""
    generator = np.random.default_rng(0)
    samples = generator.standard_normal((round(seconds * rate), n_channels))
    return samples * np.linspace(0.1 * level, level, len(samples))[:, None]


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()
