"""The contract table: one row or more per public class of audiotorch.features."""

import librosa
import numpy as np
import pytest
import rows_chroma
import rows_constantq
import rows_harmonic
import rows_pooled
import rows_rhythm
import rows_spectral
import torch
from contract import (
    Row,
    absolute_error,
    check_device,
    check_edges,
    check_exported,
    check_gradient,
    check_independence,
    check_parity,
    check_refusals,
    check_scripted,
    check_state,
    peak_error,
    row_error,
)
from references import (
    HOP,
    NINE_FRAMES,
    TINY,
    band_image,
    centred_frames,
    clip_image,
    dataset_image,
    fitted_image,
    log_mel,
    mel_of,
    mfcc_of,
    pooled,
    stretched_image,
    texture_of,
    with_deltas,
)

from audiotorch import features
from audiotorch.features import (
    MFCC,
    Delta,
    MelSpectrogram,
    MFCCStatistics,
    PowerToDB,
    Spectrogram,
    SpectrogramImage,
    StatisticsPooling,
    TextureStatistics,
)

SHARE_OF_PEAK = {torch.float64: 1e-7, torch.float32: 1e-5}
DECIBELS = {torch.float64: 1e-7, torch.float32: 2e-3}
# Means over a few hundred frames and float32's rounding of the answer.
STATISTICS = {torch.float64: 1e-12, torch.float32: 1e-6}
SHARE_OF_RANGE = {torch.float64: 1e-9, torch.float32: 1e-5}
# 2e-3 dB of an image that spreads by 10 dB; its deltas are smaller than the image.
NORMALIZED = {torch.float64: 1e-8, torch.float32: 2e-4}


SIZES = [
    (Spectrogram, {"n_fft": 0}, r"n_fft=0: must be greater than 0"),
    (Spectrogram, {"hop_length": -1}, r"hop_length=-1: must be greater than 0"),
    (Spectrogram, {"sample_rate": 0}, r"sample_rate=0: must be greater than 0"),
    (Spectrogram, {"power": 0.0}, r"power=0\.0: must be greater than 0"),
    (Spectrogram, {"win_length": 4096}, r"win_length=4096: must lie in 1 to n_fft=2048"),
    (Spectrogram, {"window": "hamm1ng"}, r"window='hamm1ng': scipy\.signal\.get_window says"),
    (Spectrogram, {"pad_mode": "wrap"}, r"pad_mode='wrap': must be 'constant', 'reflect' or"),
]
MEL = [
    (MelSpectrogram, {"hop_length": 0}, r"hop_length=0: must be greater than 0"),
    (MelSpectrogram, {"n_mels": 0}, r"n_mels=0: must be at least 1"),
    (MelSpectrogram, {"n_mels": 900}, r"n_mels=900: \d+ bands hold no FFT bin .*lower n_mels"),
    (MelSpectrogram, {"fmax": 12000.0}, r"fmax=12000\.0: need .* 11025\.0 Hz"),
    (MelSpectrogram, {"fmin": -1.0}, r"fmin=-1\.0, .*need 0 <= fmin"),
    (MelSpectrogram, {"fmin": 900.0, "fmax": 800.0}, r"fmin=900\.0, fmax=800\.0: need"),
    (MelSpectrogram, {"norm": "area"}, r"norm='area': must be 'slaney' or None"),
]
CEPSTRUM = [
    (MFCC, {"n_mfcc": 0}, r"n_mfcc=0: must lie in 1 to n_mels=128"),
    (MFCC, {"n_mfcc": 41, "n_mels": 40}, r"n_mfcc=41: must lie in 1 to n_mels=40"),
    (MFCC, {"dct_type": 5}, r"dct_type=5: must be 1, 2, 3 or 4"),
    (MFCC, {"dct_norm": "area"}, r"norm='area': must be 'ortho' or None"),
    (MFCC, {"lifter": -1.0}, r"lifter=-1\.0: must be at least 0"),
    (MFCC, {"fmax": 12000.0}, r"fmax=12000\.0: need .* 11025\.0 Hz"),
]
DECIBEL = [
    (PowerToDB, {"ref": "mean"}, r"ref='mean': must be a power above 0, or 'max'"),
    (PowerToDB, {"ref": 0.0}, r"ref=0\.0: must be greater than 0"),
    (PowerToDB, {"amin": 0.0}, r"amin=0\.0: must be greater than 0"),
    (PowerToDB, {"top_db": -80.0}, r"top_db=-80\.0: must be greater than 0"),
]
DERIVATIVE = [
    (Delta, {"width": 8}, r"width=8: must be odd and at least 3"),
    (Delta, {"width": 1}, r"width=1: must be odd and at least 3"),
    (Delta, {"order": 0}, r"order=0: must lie in 1 to width - 1 = 8"),
    (Delta, {"order": 9}, r"order=9: must lie in 1 to width - 1 = 8"),
]
POOLING = [
    (StatisticsPooling, {"statistics": []}, r"statistics=\[\]: must be distinct names"),
    (StatisticsPooling, {"statistics": ["median"]}, r"statistics=\['median'\]: must be"),
    (StatisticsPooling, {"statistics": ["mean", "mean"]}, r"must be distinct names of"),
    (StatisticsPooling, {"statistics": "mean"}, r"must be distinct names of"),
]
VECTOR = [
    (MFCCStatistics, {"n_mfcc": 200}, r"n_mfcc=200: must lie in 1 to n_mels=128"),
    (MFCCStatistics, {"statistics": ["mode"]}, r"statistics=\['mode'\]: must be"),
    (MFCCStatistics, {"fmin": -5.0}, r"fmin=-5\.0, .*need 0 <= fmin"),
]
IMAGE = [
    (SpectrogramImage, {"normalize": "batch"}, r"normalize='batch': must be one of"),
    (SpectrogramImage, {"trim_db": 30.0}, r"trim_db=30\.0: needs n_frames"),
    (SpectrogramImage, {"trim_db": 0.0, "n_frames": 9}, r"trim_db=0\.0: must be greater than 0"),
    (SpectrogramImage, {"n_frames": 0}, r"n_frames=0: must be greater than 0"),
    (SpectrogramImage, {"n_frames": 8, "deltas": True}, r"n_frames=8: must be at least 9"),
    (SpectrogramImage, {"top_db": 0.0}, r"top_db=0\.0: must be greater than 0"),
    (SpectrogramImage, {"n_mels": 1000}, r"n_mels=1000: \d+ bands hold no FFT bin"),
]
TEXTURE = [
    (TextureStatistics, {"n_bands": 10}, r"n_bands=10: must divide n_mels=64"),
    (TextureStatistics, {"n_bands": 0}, r"n_bands=0: must divide n_mels=64"),
    (TextureStatistics, {"top_db": -1.0}, r"top_db=-1\.0: must be greater than 0"),
    (TextureStatistics, {"modulation_frames": 8}, r"modulation_frames=8: must be at least 16"),
    (TextureStatistics, {"hop_length": 1378}, r"hop_length=1378: too long for rates above 8 Hz"),
    (TextureStatistics, {"n_mels": 1024}, r"n_mels=1024: \d+ bands hold no FFT bin"),
]


def image_row(name: str, build, reference, **settings) -> Row:
    return Row(
        f"SpectrogramImage, {name}",
        build=build,
        reference=reference,
        error=absolute_error,
        batch_only=True,
        **{"tolerance": NORMALIZED, "formula": centred_frames, "refusals": IMAGE, **settings},
    )


ROWS = [
    Row(
        "Spectrogram",
        build=Spectrogram,
        tiny=lambda: Spectrogram(**TINY),
        reference=lambda y, rate: np.abs(librosa.stft(y)) ** 2,
        error=peak_error,
        tolerance=SHARE_OF_PEAK,
        formula=centred_frames,
        refusals=SIZES,
    ),
    Row(
        "Spectrogram, magnitude",
        build=lambda rate: Spectrogram(rate, win_length=1200, window="hamming", power=1.0),
        tiny=lambda: Spectrogram(**TINY, power=1.0),
        reference=lambda y, rate: np.abs(
            librosa.stft(y, hop_length=HOP, win_length=1200, window="hamming")
        ),
        error=peak_error,
        tolerance=SHARE_OF_PEAK,
        formula=centred_frames,
    ),
    Row(
        "Spectrogram, mirrored ends",
        build=lambda rate: Spectrogram(rate, pad_mode="reflect"),
        tiny=lambda: Spectrogram(**TINY, pad_mode="reflect"),
        reference=lambda y, rate: (
            np.abs(librosa.stft(np.pad(y, 1024, mode="reflect"), center=False)) ** 2
        ),
        error=peak_error,
        tolerance=SHARE_OF_PEAK,
        formula=centred_frames,
    ),
    Row(
        "Spectrogram, not centred",
        build=lambda rate: Spectrogram(rate, center=False),
        tiny=lambda: Spectrogram(**TINY, center=False),
        reference=lambda y, rate: np.abs(librosa.stft(y, center=False)) ** 2,
        error=peak_error,
        tolerance=SHARE_OF_PEAK,
        min_size=2048,
        formula=lambda n: 1 + (n - 2048) // HOP,
    ),
    Row(
        "MelSpectrogram",
        build=MelSpectrogram,
        tiny=lambda: MelSpectrogram(**TINY, n_mels=4),
        reference=mel_of,
        error=peak_error,
        tolerance=SHARE_OF_PEAK,
        formula=centred_frames,
        refusals=MEL,
    ),
    Row(
        "MelSpectrogram, single",
        build=lambda rate: MelSpectrogram(rate, single=True),
        tiny=lambda: MelSpectrogram(**TINY, n_mels=4, single=True),
        reference=mel_of,
        error=peak_error,
        tolerance=SHARE_OF_PEAK,
        formula=centred_frames,
    ),
    Row(
        "MFCC",
        build=MFCC,
        tiny=lambda: MFCC(**TINY, n_mels=4, n_mfcc=3),
        reference=lambda y, rate: librosa.feature.mfcc(y=y, sr=rate),
        error=absolute_error,
        tolerance=DECIBELS,
        formula=centred_frames,
        refusals=CEPSTRUM,
    ),
    Row(
        "MFCC, lifter",
        build=lambda rate: MFCC(rate, n_mfcc=13, n_mels=40, lifter=22.0, fmax=3800.0),
        tiny=lambda: MFCC(**TINY, n_mels=4, n_mfcc=3, lifter=2.0, dct_norm=None, dct_type=3),
        reference=lambda y, rate: librosa.feature.mfcc(
            y=y, sr=rate, n_mfcc=13, n_mels=40, lifter=22, fmax=3800
        ),
        error=absolute_error,
        # The lifter multiplies by up to 12.
        tolerance={torch.float64: 1e-6, torch.float32: 2e-3 * 12},
        formula=centred_frames,
    ),
    Row(
        "PowerToDB",
        build=lambda rate: PowerToDB(),
        tiny=PowerToDB,
        reference=lambda mel, rate: librosa.power_to_db(mel),
        error=absolute_error,
        tolerance=DECIBELS,
        prepare=mel_of,
        rows=128,
        tiny_rows=3,
        refusals=DECIBEL,
    ),
    Row(
        "PowerToDB of a power spectrogram",
        build=lambda rate: torch.nn.Sequential(Spectrogram(rate), PowerToDB()),
        tiny=PowerToDB,
        reference=lambda y, rate: librosa.power_to_db(np.abs(librosa.stft(y)) ** 2),
        error=absolute_error,
        tolerance=DECIBELS,
    ),
    Row(
        "PowerToDB, relative",
        build=lambda rate: PowerToDB(ref="max", top_db=60.0),
        tiny=lambda: PowerToDB(ref="max"),
        reference=lambda mel, rate: librosa.power_to_db(mel, ref=np.max, top_db=60.0),
        error=absolute_error,
        tolerance=DECIBELS,
        prepare=mel_of,
        rows=128,
        tiny_rows=3,
    ),
    *(
        Row(
            f"Delta, order {order}",
            build=lambda rate, order=order: Delta(order),
            tiny=lambda order=order: Delta(order),
            reference=lambda x, rate, order=order: librosa.feature.delta(x, order=order),
            error=row_error,
            tolerance=SHARE_OF_RANGE,
            prepare=mfcc_of,
            rows=20,
            tiny_rows=2,
            min_size=9,
            refusals=DERIVATIVE,
        )
        for order in (1, 2)
    ),
    Row(
        "StatisticsPooling",
        build=lambda rate: StatisticsPooling(),
        tiny=StatisticsPooling,
        reference=lambda x, rate: pooled(x),
        error=peak_error,
        tolerance=STATISTICS,
        prepare=mfcc_of,
        rows=20,
        tiny_rows=2,
        frames=False,
        refusals=POOLING,
    ),
    Row(
        "MFCCStatistics",
        build=MFCCStatistics,
        tiny=lambda: MFCCStatistics(**TINY, n_mels=4, n_mfcc=3),
        reference=lambda y, rate: pooled(with_deltas(mfcc_of(y, rate))).reshape(-1),
        error=absolute_error,
        tolerance=DECIBELS,
        min_size=NINE_FRAMES,
        frames=False,
        formula=centred_frames,
        refusals=VECTOR,
    ),
    Row(
        "TextureStatistics",
        build=TextureStatistics,
        tiny=lambda: TextureStatistics(**TINY, n_mels=4, n_bands=2, modulation_frames=16),
        reference=texture_of,
        error=absolute_error,
        tolerance=NORMALIZED,
        batch_only=True,
        frames=False,
        formula=lambda n: 1 + n // 256,
        refusals=TEXTURE,
    ),
    image_row(
        "dB",
        lambda rate: SpectrogramImage(rate, normalize="none"),
        lambda y, rate: log_mel(y, rate)[None],
        tiny=lambda: SpectrogramImage(**TINY, n_mels=4, normalize="none"),
        tolerance=DECIBELS,
    ),
    image_row(
        "clip", SpectrogramImage, clip_image, tiny=lambda: SpectrogramImage(**TINY, n_mels=4)
    ),
    image_row(
        "clip and band",
        lambda rate: SpectrogramImage(rate, normalize=["clip", "band"]),
        lambda y, rate: np.concatenate([clip_image(y, rate), band_image(log_mel(y, rate))[None]]),
        tiny=lambda: SpectrogramImage(**TINY, n_mels=4, normalize=["clip", "band"]),
    ),
    image_row(
        "band and deltas",
        lambda rate: SpectrogramImage(rate, normalize="band", deltas=True),
        lambda y, rate: with_deltas(band_image(log_mel(y, rate))),
        tiny=lambda: SpectrogramImage(**TINY, n_mels=4, normalize="band", deltas=True),
        min_size=NINE_FRAMES,
    ),
    image_row(
        "dataset",
        fitted_image,
        dataset_image,
        tiny=lambda: SpectrogramImage(**TINY, n_mels=4, normalize="dataset").fit(
            [(torch.randn(1, 60), torch.tensor([60]))]
        ),
        # The statistics are float32 buffers: 6e-8 of up to 100 dB, in units of a few dB.
        tolerance={torch.float64: 2e-5, torch.float32: 2e-3},
    ),
    image_row(
        "trimmed to 24 frames",
        lambda rate: SpectrogramImage(
            rate, normalize="band", deltas=True, n_frames=24, trim_db=40.0
        ),
        stretched_image,
        tiny=lambda: SpectrogramImage(**TINY, n_mels=4, n_frames=9, trim_db=60.0, deltas=True),
        formula=lambda n: 24,
    ),
]
for room in (
    rows_spectral,
    rows_harmonic,
    rows_constantq,
    rows_chroma,
    rows_rhythm,
    rows_pooled,
):
    ROWS += room.ROWS
# A chain has no lengths of its own: it is in the table for its parity only.
CONTRACT = [row for row in ROWS if "of a power spectrogram" not in row.name]


def every(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


def test_every_public_feature_has_a_row():
    # These two have tests of their own.
    public = set(features.__all__) - {"FEATURES", "FeatureExtractor"}
    assert {row.module or type(row.build(16000)).__name__ for row in CONTRACT} == public
    assert {build.__name__ for row in CONTRACT for build, _, _ in row.refusals} == public


@every(ROWS)
def test_equals_reference_on_real_recordings(row, recordings):
    check_parity(row, recordings)


@every(ROWS)
def test_equals_reference_on_synthetic_signals(row, signals):
    settled = [name for name in signals if name not in row.unsettled]
    check_parity(row, [(name, signals[name], 22050) for name in settled])


@every(CONTRACT)
def test_each_clip_is_independent(row):
    check_independence(row)


@every(CONTRACT)
def test_gradient(row):
    check_gradient(row)


@every(CONTRACT)
def test_scripted_equals_eager(row):
    check_scripted(row)


@every(CONTRACT)
def test_exported_equals_eager(row):
    check_exported(row)


@pytest.mark.parametrize("rate", [8000, 44100])
@every(CONTRACT)
def test_edges(row, rate):
    check_edges(row, rate)


@every(CONTRACT)
def test_state_round_trip(row):
    check_state(row)


@every(CONTRACT)
def test_fake_cuda(row):
    check_device(row)


@every(CONTRACT)
def test_refusals(row):
    check_refusals(row)
