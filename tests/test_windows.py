import io
import itertools
import resource

import numpy as np
import pytest
import soundfile
import torch

import audiotorch as at
from audiotorch.audio import windows
from audiotorch.audio.windows import read_windows
from audiotorch.errors import DecodeError, ParameterError

RATE = 8000
SIZES = [
    (1.0, 0.5),
    (0.7, 0.7),
    (0.5, 0.3),
    (0.25, 0.8),
    (0.1, 3.1),
    (5.0, 1.0),
    (1.0, 1.0),
    (0.3, 0.0101),
    (2.5, 1.1),
    (0.00011, 0.4),
]


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def noise(n_samples: int, n_channels: int = 2) -> np.ndarray:
    return 0.3 * np.random.default_rng(0).standard_normal((n_samples, n_channels))


def starts_by_hand(length: int, window: int, hop: int) -> list[int]:
    """Starts at multiples of the hop, until a window reaches the recording's end."""
    starts = [0]
    while starts[-1] + window < length and starts[-1] + hop < length:
        starts.append(starts[-1] + hop)
    return starts


@pytest.mark.parametrize(("window_seconds", "hop_seconds"), SIZES)
@pytest.mark.parametrize("n_samples", [1, 799, 7999, 8000, 8001, 12000, 19999, 20000, 33333])
def test_windows_are_slices_of_the_whole(n_samples, window_seconds, hop_seconds):
    samples = noise(n_samples)
    whole = samples.astype(np.float32).mean(axis=1)
    window, hop = round(window_seconds * RATE), round(hop_seconds * RATE)
    found = list(read_windows(wav(samples), RATE, window_seconds, hop_seconds))
    starts = starts_by_hand(n_samples, window, hop)
    assert [seconds for seconds, _ in found] == [start / RATE for start in starts]
    for start, (_, samples) in zip(starts, found, strict=True):
        assert samples.dtype == torch.float32
        np.testing.assert_array_equal(samples, whole[start : start + window])


@pytest.mark.parametrize("n_samples", [1, 9000, 20000])
@pytest.mark.parametrize(("window_seconds", "hop_seconds"), SIZES)
def test_windows_are_those_of_the_pipeline(n_samples, window_seconds, hop_seconds):
    class Sums(torch.nn.Module):
        sample_rate, min_samples = RATE, 1

        def forward(self, waveform, lengths):
            return torch.stack([waveform.double().sum(dim=1), lengths], dim=1)

        def frame_counts(self, lengths):
            return lengths

    class Same(torch.nn.Module):
        def forward(self, x, lengths):
            return x

    samples = noise(n_samples, 1)
    pipeline = at.Pipeline(Sums(), Same(), sample_rate=RATE, min_duration=0, task="anomaly")
    waveform = torch.from_numpy(samples.T.astype(np.float32))
    answers, seconds, _ = pipeline.timeline(waveform, None, window_seconds, hop_seconds)
    found = list(read_windows(wav(samples), RATE, window_seconds, hop_seconds))
    assert [start for start, _ in found] == seconds.tolist()
    ours = [[float(part.double().sum()), len(part)] for _, part in found]
    np.testing.assert_allclose(ours, answers[0], atol=1e-9)


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 22050), (8000, 22050), (48000, 16000)])
def test_windows_of_a_resampled_recording_are_those_of_load(rate, wanted):
    file = wav(noise(3 * rate + 17), rate)
    whole = at.load(file, wanted)[0][0]
    window, hop = round(0.7 * wanted), round(0.45 * wanted)
    found = list(read_windows(file, wanted, 0.7, 0.45))
    assert len(found) == len(starts_by_hand(len(whole), window, hop))
    for place, (_, samples) in enumerate(found):
        expected = whole[place * hop : place * hop + window]
        # Channels are resampled, then averaged; `load` does so the other way round.
        np.testing.assert_allclose(samples, expected, atol=2e-6)


def test_windows_of_real_recordings(data_root):
    paths = sorted((data_root / "esc10").rglob("*.*g*"))[:2]
    paths += sorted((data_root / "music_examples").rglob("*.*g*"))[:2]
    assert paths
    for path in paths:
        whole = at.load(path, 22050)[0][0]
        parts = [samples for _, samples in read_windows(path, 22050, 1.3, 1.3)]
        np.testing.assert_allclose(torch.cat(parts), whole, atol=2e-6)


def test_windows_may_be_changed():
    file = wav(noise(RATE))
    kept = [samples.clone() for _, samples in read_windows(file, RATE, 0.5, 0.25)]
    for (_, samples), expected in zip(read_windows(file, RATE, 0.5, 0.25), kept, strict=True):
        assert torch.equal(samples, expected)
        samples.zero_()


def long_stream(source, block_seconds, sample_rate, mono):
    """Hours whose blocks themselves take no memory."""
    block = torch.zeros(1, 1).expand(1, round(block_seconds * sample_rate))
    return itertools.repeat(block, round(2 * 3600 / block_seconds))


@pytest.mark.parametrize(("window", "hop"), [(0.1, 7190.0), (60.0, 60.0), (60.0, 20.0), (0.1, 5.0)])
def test_memory_is_bounded(monkeypatch, window, hop):
    monkeypatch.setattr(windows, "stream", long_stream)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(1 for _ in read_windows(b"", 44100, window, hop))
    assert count in (2, 120, 358, 1440)
    # Two hours are 1.3 GB; the longest window takes 11 MB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KB


def test_a_window_comes_as_soon_as_it_is_decoded(monkeypatch):
    def breaking(source, block_seconds, sample_rate, mono):
        yield torch.ones(1, 5 * sample_rate)
        raise DecodeError("x.flac: corrupt after 5.000 s")

    monkeypatch.setattr(windows, "stream", breaking)
    found = read_windows("x.flac", RATE, 2.0, 1.0)
    assert [next(found)[0] for _ in range(4)] == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(DecodeError, match="corrupt after"):
        next(found)


def test_a_recording_without_samples_is_refused():
    with pytest.raises(DecodeError, match="<bytes>: holds no samples; leave it out"):
        next(read_windows(wav(noise(0)), RATE, 1.0, 1.0))


@pytest.mark.parametrize(
    ("rate", "window", "hop", "message"),
    [
        (RATE, 0.0, 0.5, r"window_seconds=0\.0: must be finite and at least one sample of 8000 Hz"),
        (RATE, 0.5, 0.0, r"hop_seconds=0\.0: must be"),
        (RATE, -1.0, 0.5, r"window_seconds=-1\.0: must be"),
        (RATE, 0.5, 1e-9, r"hop_seconds=1e-09: must be"),
        (RATE, float("nan"), 0.5, r"window_seconds=nan: must be"),
        (RATE, 0.5, float("inf"), r"hop_seconds=inf: must be"),
        (8000.5, 0.5, 0.5, r"sample_rate=8000\.5: must be a positive whole number of Hz"),
    ],
)
def test_wrong_sizes_are_refused_at_the_call(rate, window, hop, message):
    with pytest.raises(ParameterError, match=message):
        read_windows("never opened.wav", rate, window, hop)
