import csv
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from contract import deviation, exported, run_on_fake_cuda, scripted
from references import word_of
from sklearn.svm import SVC
from torch import Tensor

from audiotorch.errors import ParameterError
from audiotorch.features import RobustVector, TextureStatistics

RATE = 16000
N_WORD = 16 * 7
EIGHT_KHZ = {
    "sample_rate": 8000,
    "n_fft": 256,
    "hop_length": 80,
    "n_mels": 32,
    "texture_weight": 0.7,
}


def data_root() -> Path:
    root = os.environ.get("AUDIOTORCH_DATA")
    if not root:
        pytest.skip("AUDIOTORCH_DATA is not set: no real recordings")
    return Path(root)


def words(speakers: tuple[str, ...], takes: int) -> tuple[list[Tensor], np.ndarray, np.ndarray]:
    """Spoken digits at 8 kHz, their labels and speakers."""
    folder = data_root() / "fsdd"
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["speaker"] in speakers and int(row["index"]) < takes
        ]
    clips = [
        torch.from_numpy(soundfile.read(folder / row["file"], dtype="float32")[0]) for row in rows
    ]
    return (
        clips,
        np.array([row["digit"] for row in rows]),
        np.array([row["speaker"] for row in rows]),
    )


def padded(clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    return batch, torch.tensor([len(clip) for clip in clips])


def noise(batch: int = 3, n: int = RATE) -> Tensor:
    """Noise whose loudness and colour wander."""
    generator = torch.Generator().manual_seed(5)
    swell = torch.rand(batch, 1, 9, generator=generator).pow(2) + 0.05
    swell = torch.nn.functional.interpolate(swell, n, mode="linear", align_corners=True)
    return 0.3 * torch.randn(batch, n, generator=generator) * swell[:, 0]


def test_the_word_is_what_librosa_and_scipy_give():
    clips, _, _ = words(("george", "yweweler"), 2)
    ours = RobustVector(**EIGHT_KHZ)(*padded(clips))[:, :N_WORD].numpy()
    expected = np.stack(
        [
            word_of(clip.double().numpy(), 8000, n_fft=256, hop_length=80, n_mels=32)
            for clip in clips
        ]
    )
    # Of values up to about 5; librosa's mel bank is float32 inside, and a level that lies at a
    # floor bends there.
    np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)


def test_the_texture_is_texture_statistics_moved_and_scaled():
    module, waveform = RobustVector(RATE), noise()
    plain = TextureStatistics(RATE, 512, 160)(waveform).double()
    expected = (plain - module.centre) * module.scale
    torch.testing.assert_close(module(waveform)[:, N_WORD:].double(), expected, atol=1e-5, rtol=0)


def test_names_are_unique_and_tell_the_part():
    module = RobustVector()
    assert len(set(module.names)) == len(module.names) == module.output_shape[0] == 448
    assert module.names[0] == "word_dct_0_1"
    assert module.names[N_WORD - 1] == "word_dct_15_7"
    assert all(name.startswith("word_") == (k < N_WORD) for k, name in enumerate(module.names))
    assert module.normalised
    assert list(module(noise()).shape) == [3, *module.output_shape]


def test_the_level_of_the_recording_is_out():
    waveform = noise()
    module = RobustVector()
    torch.testing.assert_close(module(0.05 * waveform), module(waveform), atol=1e-4, rtol=0)


def moved(change: Tensor, clips: Tensor) -> float:
    """A change of the word's part as a share of how far apart different clips lie."""
    apart = torch.cdist(clips, clips)
    return float((change - clips).norm(dim=1).mean() / apart[apart > 0].mean())


def test_a_microphone_moves_a_word_little():
    clips, _, _ = words(("lucas",), 3)
    colour = scipy.signal.firwin2(9, [0.0, 0.4, 1.0], [1.0, 0.4, 0.8])
    coloured = [
        torch.from_numpy(scipy.signal.lfilter(colour, 1.0, clip.numpy())).float() for clip in clips
    ]
    module = RobustVector(**EIGHT_KHZ)
    plain, other = module(*padded(clips)), module(*padded(coloured))
    assert moved(other[:, :N_WORD], plain[:, :N_WORD]) < 0.25


def test_silence_around_a_word_moves_it_little():
    clips, _, _ = words(("lucas",), 3)
    longer = [torch.nn.functional.pad(clip, (2400, 1600)) for clip in clips]
    module = RobustVector(**EIGHT_KHZ)
    plain, other = module(*padded(clips)), module(*padded(longer))
    assert moved(other[:, :N_WORD], plain[:, :N_WORD]) < 0.1


def test_a_clip_alone_equals_the_clip_in_a_padded_batch():
    module, waveform = RobustVector(), noise()
    lengths = torch.tensor([RATE, 700, 9001])
    waveform[1, 700:] = torch.nan  # what lies behind a clip is not read
    batch = module(waveform, lengths)
    for clip, n, answer in zip(waveform, lengths.tolist(), batch, strict=True):
        assert deviation(answer, module(clip[None, :n])[0]) <= 1e-6


def test_a_nan_stays_in_its_clip():
    module, waveform = RobustVector(), noise()
    expected = module(waveform)
    waveform[1, 5000] = torch.nan
    answer = module(waveform)
    assert answer[1].isnan().any()
    assert torch.equal(answer[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("samples", [1, 2, 511, 513, 9000])
def test_short_clips_silence_and_clicks_give_finite_numbers(samples):
    clips = torch.zeros(4, samples)
    clips[1, samples // 2] = 1.0
    clips[2] = 0.5
    clips[3] = torch.rand(samples)
    assert RobustVector()(clips, torch.full((4,), samples)).isfinite().all()
    assert RobustVector()(clips, torch.full((4,), 1)).isfinite().all()


def test_scripted_and_exported_equal_eager():
    module, waveform = RobustVector(), noise()
    lengths = torch.tensor([RATE, 3000, 9001])
    loaded = scripted(module)
    program = exported(module, waveform[:2], lengths[:2])
    for rows in (slice(0, 3), slice(1, 2)):
        x, n = waveform[rows, : int(lengths[rows].max())], lengths[rows]
        assert deviation(loaded(x, n), module(x, n)) <= 1e-6
        assert deviation(program(x, n), module(x, n)) <= 1e-6
    assert deviation(loaded(waveform), module(waveform)) <= 1e-6
    assert loaded.names == module.names


def test_nothing_stays_on_the_cpu():
    module, waveform = RobustVector(), noise()
    for arguments in ((waveform, torch.tensor([RATE, 3000, 9001])), (waveform,)):
        assert run_on_fake_cuda(module, *arguments).shape == (3, 448)


def test_gradients_are_finite():
    waveform = torch.cat([noise(), torch.zeros(1, RATE)]).requires_grad_()
    RobustVector()(waveform).square().sum().backward()
    assert waveform.grad.isfinite().all()
    assert waveform.grad[0].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_quefrencies": 65}, r"n_quefrencies=65: must lie in 1 to 64"),
        ({"n_orders": 48}, r"n_orders=48: must lie in 1 to 47"),
        ({"n_orders": 0}, r"n_orders=0: must lie in 1 to 47"),
        ({"texture_weight": 0.0}, r"texture_weight=0.0: must be greater than 0"),
        ({"loudness_db": -1.0}, r"loudness_db=-1.0: must be greater than 0"),
        ({"word_top_db": 0.0}, r"word_top_db=0.0: must be greater than 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ParameterError, match=message):
        RobustVector(**settings)


def test_a_wrong_waveform_is_refused():
    with pytest.raises(ParameterError, match=r"waveform: must be \(batch, time\), got 1 axes"):
        RobustVector()(torch.zeros(RATE))


def test_a_speaker_not_heard_before_is_understood():
    """Ten takes of each digit by five speakers, one of them left out: chance is 0.1."""
    clips, digit, speaker = words(("george", "jackson", "lucas", "nicolas", "yweweler"), 10)
    module = RobustVector(**EIGHT_KHZ)
    with torch.no_grad():
        batches = [module(*padded(clips[k : k + 32])) for k in range(0, len(clips), 32)]
    x = torch.cat(batches).double().numpy()
    found = []
    for left_out in np.unique(speaker):
        own = speaker == left_out
        fitted = SVC(C=10.0).fit(x[~own], digit[~own])
        found.append((fitted.predict(x[own]) == digit[own]).mean())
    assert np.mean(found) >= 0.75  # 0.79 as measured; chance is 0.1
