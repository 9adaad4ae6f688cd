import itertools

import numpy as np
import pytest
import torch
from contract import scripted

from audiotorch.audio import load
from audiotorch.features import (
    MFCC,
    Delta,
    EnvelopeRhythm,
    MFCCStatistics,
    SoundProfile,
    SpectrogramImage,
    StatisticsPooling,
    SummaryVector,
    TextureStatistics,
    TorchaudioStatistics,
)
from audiotorch.features.pooling import VectorPooling, column_names

NAMES = ("mean", "std", "min", "max")


@pytest.mark.parametrize(
    "statistics", [s for n in (1, 2, 4) for s in itertools.combinations(NAMES, n)]
)
def test_any_subset_in_the_order_asked_for(statistics):
    x = torch.randn(5, 3, 17, dtype=torch.float64)
    order = statistics[::-1]
    expected = np.concatenate([getattr(np, name)(x.numpy(), axis=-1) for name in order], axis=-1)
    np.testing.assert_allclose(StatisticsPooling(order)(x), expected, atol=1e-13)


@pytest.mark.parametrize("padding", [0.0, 1e9, torch.nan, torch.inf])
def test_padding_changes_nothing(padding):
    x = torch.randn(3, 4, 20)
    counts = torch.tensor([20, 7, 1])
    padded = torch.full((3, 4, 31), padding)
    for clip, whole, count in zip(x, padded, counts.tolist(), strict=True):
        whole[:, :count] = clip[:, :count]
    pooled = StatisticsPooling()(padded, counts)
    for clip, answer, count in zip(x, pooled, counts.tolist(), strict=True):
        torch.testing.assert_close(answer, StatisticsPooling()(clip[:, :count]))


def test_constant_row_has_no_spread():
    pooled = StatisticsPooling()(torch.full((2, 6), -3.0))
    assert pooled.tolist() == [-3.0, -3.0, 0.0, 0.0, -3.0, -3.0, -3.0, -3.0]


def test_small_spread_on_a_large_mean_survives_float32():
    x = torch.tensor([[1000.0, 1000.5] * 50])
    assert StatisticsPooling(["std"])(x).item() == pytest.approx(0.25, rel=1e-4)


def test_clip_without_frames_gives_0():
    pooled = StatisticsPooling()(torch.randn(2, 3, 9), torch.tensor([9, 0]))
    assert (pooled[1] == 0).all()
    assert (pooled[0] != 0).all()


def test_frames_in_another_order_pool_to_the_same():
    x = torch.randn(3, 50, dtype=torch.float64)
    torch.testing.assert_close(
        StatisticsPooling()(x), StatisticsPooling()(x[:, torch.randperm(50)])
    )


def test_vector_holds_mfcc_then_deltas_each_with_all_statistics():
    waveform = torch.randn(2, 11025)
    module = MFCCStatistics(n_mfcc=5, statistics=["mean", "max"])
    mfcc = MFCC(n_mfcc=5)(waveform)
    parts = [mfcc, Delta(1)(mfcc), Delta(2)(mfcc)]
    expected = torch.cat([s for x in parts for s in (x.mean(-1), x.amax(-1))], dim=-1)
    vector = module(waveform)
    torch.testing.assert_close(vector, expected)
    assert module.output_shape == [30] == list(vector.shape[1:])
    assert module.sample_rate == 22050


def test_shortest_clip_is_the_one_promised():
    module = MFCCStatistics(hop_length=256)
    assert module(torch.randn(1, module.min_samples)).isfinite().all()
    with pytest.raises(ValueError, match=r"has 8 frames, Delta needs at least width=9"):
        module(torch.randn(1, module.min_samples - 1))


@pytest.mark.parametrize(
    "front_end",
    [
        SummaryVector(16000, 20),
        MFCCStatistics(n_mfcc=5, statistics=["max", "mean"]),
        TorchaudioStatistics(n_mfcc=7),
        TextureStatistics(n_mels=32),
        SoundProfile(n_mels=32),
        EnvelopeRhythm(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_every_column_has_a_name_of_its_own(front_end):
    vector = front_end(torch.randn(1, 22050))
    assert len(set(front_end.names)) == len(front_end.names) == vector.shape[1]
    assert front_end.output_shape == [vector.shape[1]]


def test_names_tell_what_a_column_holds():
    waveform = 0.3 * torch.randn(1, 22050)
    module = MFCCStatistics(n_mfcc=5, statistics=["max", "mean"])
    mfcc = module.mfcc(waveform)[0]
    vector = dict(zip(module.names, module(waveform)[0].tolist(), strict=True))
    assert vector["mfcc_max_3"] == pytest.approx(float(mfcc[3].max()))
    assert vector["delta2_mfcc_mean_1"] == pytest.approx(
        float(module.delta2(mfcc)[1].mean()), abs=1e-4
    )
    texture = TextureStatistics()
    values = dict(zip(texture.names, texture(waveform)[0].tolist(), strict=True))
    assert max(values[f"modulation_octave{k}_0"] for k in range(7)) > 0
    octaves = [values[f"modulation_octave{k}_3"] for k in range(7)]
    assert sum(octaves) == pytest.approx(0.0, abs=1e-4)


def test_images_become_vectors_with_names():
    image = SpectrogramImage(8000, 256, 80, n_mels=20, deltas=True)
    waveform, lengths = torch.randn(2, 8000), torch.tensor([8000, 3000])
    x, counts = image(waveform, lengths), image.frame_counts(lengths)
    vector = VectorPooling()(x, counts)
    names = column_names(image)
    assert vector.shape == (2, len(names))
    assert len(set(names)) == len(names) == 3 * 4 * 20
    own = x[1, 2, 7, : int(counts[1])]
    assert vector[1, names.index("channel2_mel_max_7")] == own.max()
    assert vector[1, names.index("channel2_mel_mean_7")] == pytest.approx(
        float(own.mean()), abs=1e-6
    )
    plain = SpectrogramImage(8000, 256, 80, n_mels=20)
    assert column_names(plain)[20] == "mel_std_0"
    assert column_names(SummaryVector()) == SummaryVector().names


@pytest.mark.parametrize("single", [True, False])
def test_an_exported_file_has_the_vectors_of_the_eager_module(data_root, single):
    """Of short words, of whose tunings a rounded peak decides one in a few hundred."""
    files = sorted((data_root / "fsdd" / "recordings").glob("4_*.wav"))[::2]
    module = SummaryVector(single=single)
    exported = scripted(module)
    clips = [torch.nn.functional.pad(load(file)[0], [0, 12_000])[:, :22_050] for file in files]
    if not single:  # long ones are in float32 where that is let
        clips.append(load(data_root / "esc10" / "003 - Sea waves" / "3-164630-A.ogg")[0])
    vectors = torch.cat([module(clip) for clip in clips])
    spread = vectors.std(dim=0)
    for clip, vector in zip(clips, vectors, strict=True):
        assert ((exported(clip)[0] - vector).abs() / spread).max() <= 1e-4
