import numpy as np
import pytest
import torch
from contract import deviation, exported, run_on_fake_cuda, scripted

import audiotorch as at
from audiotorch.errors import ParameterError
from audiotorch.features import FEATURES, MFCC, FeatureExtractor, SpectralContrast

RATE = 22050
# Of a whole clip, so that they have no frames.
SINGLE = {"tempo", "harmonic_ratio"} & set(FEATURES)
# Quiet frames are divided by their own norm, and rounding grows with them.
ROUNDING = {"chroma_cqt": 1e-5, "tonnetz": 1e-5}
DISCONTINUOUS = {"tempo", "tempogram"}


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor(list(FEATURES))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with pulses and a tone, of mixed lengths; what lies past a clip's end is noise too."""
    generator = torch.Generator().manual_seed(1)
    time = torch.arange(2 * RATE) / RATE
    waveform = 0.05 * torch.randn(3, 2 * RATE, generator=generator)
    waveform += 0.3 * torch.sin(2 * np.pi * 440 * time) * (time % 0.4 < 0.05)
    return waveform, torch.tensor([2 * RATE, 30_011, 8192])


def test_table_holds_the_documented_names():
    assert at.FEATURES is FEATURES
    assert " ".join(FEATURES) == (
        "zero_crossing_rate rms spectral_centroid spectral_bandwidth spectral_rolloff "
        "spectral_contrast spectral_flatness poly_features spectrogram mel_spectrogram mfcc "
        "delta_mfcc delta2_mfcc chroma_stft chroma_cqt chroma_cens cqt tonnetz harmonic_ratio "
        "onset_strength tempogram tempo"
    )


def test_equals_each_feature_alone(extractor):
    waveform, _ = batch()
    together = extractor(waveform)
    assert list(together) == list(FEATURES)
    for name, build in FEATURES.items():
        assert torch.equal(together[name], build(RATE)(waveform)), name
        expected = (3, 1) if name in SINGLE else (3, together[name].shape[1], 87)
        assert together[name].shape == expected


def test_a_padded_clip_gives_the_numbers_it_gives_alone(extractor):
    waveform, lengths = batch()
    together = extractor(waveform, lengths)
    for i, size in enumerate(lengths.tolist()):
        alone = extractor(waveform[i : i + 1, :size])
        count = int(extractor.frame_counts(torch.tensor(size)))
        for name, answer in alone.items():
            own = together[name][i]
            if name not in SINGLE:
                assert not own[:, count:].any(), name
                own = own[:, :count]
            if name in DISCONTINUOUS:
                assert (own - answer[0]).abs().le(1e-5).double().mean() >= 0.999, name
            else:
                assert deviation(own, answer[0]) <= 1e-6, name


def test_spectra_are_kept_only_where_several_features_use_them():
    waveform, lengths = batch()
    # Long enough to be taken in float32 where that is allowed.
    waveform, lengths = waveform.repeat(1, 2), lengths + 2 * RATE
    more = ([], ["spectral_contrast"], ["harmonic_ratio"])
    extractors = [FeatureExtractor(["onset_strength", "mfcc", *each]) for each in more]
    kept = [[type(stage).__name__ for stage in each.stages.stages.values()] for each in extractors]
    counts = [(names.count("STFT"), names.count("Spectrogram")) for names in kept]
    assert counts == [(0, 0), (0, 2), (1, 1)]
    alone, beside, separated = (each(waveform, lengths)["mfcc"] for each in extractors)
    assert torch.equal(beside, separated)
    assert not torch.equal(alone, beside)
    torch.testing.assert_close(alone, beside, atol=1e-3, rtol=0)


def test_each_stage_is_computed_once(extractor):
    names = [type(stage).__name__ for stage in extractor.stages.stages.values()]
    for once in ("STFT", "MelSpectrogram", "Separation", "OnsetStrength", "MFCC"):
        assert names.count(once) == 1, names
    assert names.count("Spectrogram") == 2  # power and magnitude
    apart = FeatureExtractor(["mfcc", "onset_strength"], mfcc={"n_mels": 40})
    names = [type(stage).__name__ for stage in apart.stages.stages.values()]
    assert (names.count("MelSpectrogram"), names.count("Spectrogram")) == (2, 1)


def test_settings_for_all_and_for_one():
    extractor = FeatureExtractor(
        ["mfcc", "spectral_contrast", "rms"],
        16000,
        n_fft=1024,
        hop_length=256,
        fmin=100.0,
        mfcc={"n_mfcc": 20, "n_mels": 64},
    )
    waveform, _ = batch()
    answer = extractor(waveform)
    # Contrast lets no shared spectrum be taken in float32.
    mfcc = MFCC(16000, 1024, 256, fmin=100.0, n_mfcc=20, n_mels=64, single=False)
    contrast = SpectralContrast(16000, 1024, 256, fmin=100.0)
    assert torch.equal(answer["mfcc"], mfcc(waveform))
    assert torch.equal(answer["spectral_contrast"], contrast(waveform))
    assert answer["rms"].shape[-1] == int(extractor.frame_counts(torch.tensor(2 * RATE)))


def test_scripted_equals_eager(extractor):
    waveform, lengths = batch()
    loaded = scripted(extractor)
    for some in (slice(0, 3), slice(0, 1)):
        expected = extractor(waveform[some], lengths[some])
        for name, answer in loaded(waveform[some], lengths[some]).items():
            assert deviation(answer, expected[name]) <= ROUNDING.get(name, 1e-6), name


def test_exported_equals_eager(extractor):
    waveform, lengths = batch()
    program = exported(extractor, waveform[:2], lengths[:2])
    expected = extractor(waveform[:, :40_000], lengths.clamp(max=40_000))
    answer = program(waveform[:, :40_000], lengths.clamp(max=40_000))
    for name, x in answer.items():
        assert deviation(x, expected[name]) <= ROUNDING.get(name, 1e-6), name


def test_fake_cuda(extractor):
    assert list(run_on_fake_cuda(extractor, *batch())) == list(FEATURES)


def test_too_short_a_clip_is_told():
    assert FeatureExtractor(["rms"]).min_samples == 1
    assert FeatureExtractor(["rms", "delta_mfcc"]).min_samples == 8 * 512
    with pytest.raises(ParameterError, match="has 8 frames, Delta needs at least width=9"):
        FeatureExtractor(["delta_mfcc"])(torch.zeros(1, 8 * 512 - 1))


@pytest.mark.parametrize(
    ("features", "settings", "message"),
    [
        ([], {}, r"features=\[\]: must be distinct names"),
        (["rms", "rms"], {}, r"must be distinct names"),
        (["loudness"], {}, r"features=\['loudness'\]: unknown; known are zero_crossing_rate, rms"),
        (["rms"], {"n_mels": 40}, r"n_mels=40: none of \['rms'\] takes it"),
        (["rms"], {"mfcc": {"n_mels": 40}}, r"'mfcc' is not among the features"),
        (["rms"], {"rms": {"hop_length": 40}}, r"rms: hop_length is one for all features"),
        (["mfcc"], {"mfcc": {"n_bands": 4}}, r"mfcc: takes no 'n_bands'; it takes .*n_mels"),
        (["mfcc"], {"center": False}, r"center=False: the features' frames would not line up"),
        (["mfcc"], {"fmax": 12000.0}, r"fmax=12000\.0: need"),
        (["mfcc"], {"hop_length": 0}, r"hop_length=0: must be greater than 0"),
    ],
)
def test_refusals(features, settings, message):
    with pytest.raises(ParameterError, match=message):
        FeatureExtractor(features, **settings)


def test_only_batches_of_floats_are_taken(extractor):
    with pytest.raises(ParameterError, match=r"must be \(batch, time\), got 1 axes"):
        extractor(torch.zeros(9000))
    with pytest.raises(ParameterError, match="must be float32 or float64"):
        extractor(torch.zeros(2, 9000, dtype=torch.int16))
