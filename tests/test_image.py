import io

import numpy as np
import pytest
import scipy.signal
import torch

from audiotorch.errors import ParameterError
from audiotorch.features import Delta, MelSpectrogram, PowerToDB, SpectrogramImage

RATE = 8000
SMALL = {"sample_rate": RATE, "n_fft": 512, "hop_length": 128, "n_mels": 32}


def noise(batch: int = 3, n: int = RATE) -> torch.Tensor:
    """Noise whose loudness wanders, so that frames differ."""
    swell = 0.2 + torch.rand(batch, 1, 9).pow(2)
    swell = torch.nn.functional.interpolate(swell, n, mode="linear", align_corners=True)
    return 0.3 * torch.randn(batch, n) * swell[:, 0]


def test_none_is_the_log_mel_spectrogram():
    waveform = noise()
    db = PowerToDB()(MelSpectrogram(**SMALL)(waveform))
    assert torch.equal(SpectrogramImage(**SMALL, normalize="none")(waveform)[:, 0], db)


def test_clip_normalised_image_has_mean_0_and_spread_1_over_own_frames():
    module = SpectrogramImage(**SMALL)
    lengths = torch.tensor([RATE, 3000, 1000])
    images = module(noise(), lengths)
    for image, count in zip(images, module.frame_counts(lengths).tolist(), strict=True):
        own = image[..., :count]
        assert abs(own.mean().item()) < 1e-5
        assert own.std(correction=0).item() == pytest.approx(1.0, abs=1e-5)


def test_louder_clip_gives_the_same_image():
    waveform = noise()
    for normalize in ("clip", "band"):
        module = SpectrogramImage(**SMALL, normalize=normalize)
        torch.testing.assert_close(module(4 * waveform), module(waveform), atol=1e-5, rtol=0)


def test_band_mean_takes_the_microphone_away():
    """A filter much shorter than the window adds a constant to each band, in dB."""
    waveform = noise(2, 2 * RATE)
    colour = scipy.signal.firwin2(9, [0.0, 0.4, 1.0], [1.0, 0.2, 0.8])
    coloured = scipy.signal.fftconvolve(waveform.numpy(), colour[None], mode="same", axes=1)
    coloured = torch.from_numpy(coloured).float()

    def difference(normalize: str) -> float:
        module = SpectrogramImage(**SMALL, normalize=normalize)
        change = module(coloured)[..., 4:-4] - module(waveform)[..., 4:-4]
        return change.abs().mean().item()

    assert difference("clip") > 0.3
    assert difference("band") < 0.05


def test_constant_offset_per_band_vanishes_exactly():
    module = SpectrogramImage(**SMALL, normalize="band")
    db = 10 * torch.randn(2, 32, 40)
    counts = torch.tensor([40, 25])
    moved = module._normalized(db + torch.randn(1, 32, 1) * 20, counts, "band")
    torch.testing.assert_close(moved, module._normalized(db, counts, "band"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_frames", [None, 20])
def test_fit_equals_numpy_statistics(n_frames):
    settings = {**SMALL, "n_frames": n_frames}
    module = SpectrogramImage(**settings, normalize="dataset")
    plain = SpectrogramImage(**settings, normalize="none")
    waveform, lengths = noise(4), torch.tensor([RATE, 5000, 3000, 6100])
    assert module.fit([(waveform[:1], lengths[:1]), (waveform[1:], lengths[1:])]) is module
    clips = [plain(clip[None, :n])[0, 0] for clip, n in zip(waveform, lengths, strict=True)]
    frames = torch.cat(clips, dim=1).double().numpy()
    np.testing.assert_allclose(module.mean[:, 0], frames.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(module.std[:, 0], frames.std(axis=1), rtol=1e-6)
    images = [module(clip[None, :n])[0, 0] for clip, n in zip(waveform, lengths, strict=True)]
    fitted = torch.cat(images, dim=1)
    assert fitted.mean(dim=1).abs().max() < 1e-4
    assert (fitted.std(dim=1, correction=0) - 1).abs().max() < 1e-4


def test_fit_travels_in_the_state_dict_and_is_nan_before():
    module = SpectrogramImage(**SMALL, normalize="dataset")
    assert module(noise()).isnan().all()
    assert module.mean.isnan().all()
    module.fit([(noise(), torch.full((3,), RATE))])
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = SpectrogramImage(**SMALL, normalize="dataset")
    other.load_state_dict(torch.load(file, weights_only=True))
    waveform = noise()
    assert torch.equal(other(waveform), module(waveform))


def test_fit_needs_frames():
    with pytest.raises(ParameterError, match=r"batches: hold no frames; give the training clips"):
        SpectrogramImage(**SMALL, normalize="dataset").fit([])


def test_silent_training_clips_do_not_divide_by_0():
    module = SpectrogramImage(**SMALL, normalize="dataset")
    module.fit([(torch.zeros(2, RATE), torch.full((2,), RATE))])
    assert (module(torch.zeros(1, RATE)) == 0).all()


def test_delta_channels_are_the_image_and_its_derivatives():
    waveform = noise()
    image = SpectrogramImage(**SMALL, deltas=True)(waveform)
    alone = SpectrogramImage(**SMALL)(waveform)
    assert torch.equal(image[:, :1], alone)
    assert torch.equal(image[:, 1:2], Delta(1)(alone))
    assert torch.equal(image[:, 2:], Delta(2)(alone))


@pytest.mark.parametrize("deltas", [False, True])
@pytest.mark.parametrize("n_frames", [None, 24])
def test_output_shape_is_the_promised_one(deltas, n_frames):
    module = SpectrogramImage(**SMALL, deltas=deltas, n_frames=n_frames)
    image = module(noise(2, 4000))
    assert module.output_shape == list(image.shape[1:3]) == [3 if deltas else 1, 32]
    assert image.shape[-1] == (n_frames or 1 + 4000 // 128)
    assert module.frame_counts(torch.tensor([4000, 1300])).tolist()[0] == image.shape[-1]
    assert module(noise(1, module.min_samples)).isfinite().all()


@pytest.mark.parametrize(("before", "after"), [(0, 4096), (4096, 0), (2560, 1536)])
def test_trimmed_silence_does_not_move_the_image(before, after):
    module = SpectrogramImage(**SMALL, normalize="band", n_frames=24, trim_db=40.0)
    waveform = noise()
    waveform[:, :2048] = 0.0
    waveform[:, -2048:] = 0.0
    padded = torch.nn.functional.pad(waveform, (before, after))
    torch.testing.assert_close(module(padded), module(waveform), atol=1e-4, rtol=0)


def test_fixed_frames_make_slow_and_fast_alike():
    module = SpectrogramImage(**SMALL, n_frames=24)

    def sweep(seconds: float) -> torch.Tensor:
        time = np.arange(round(seconds * RATE)) / RATE
        samples = scipy.signal.chirp(time, 200.0, seconds, 3000.0)
        return torch.from_numpy(samples).float()[None]

    slow, fast = module(sweep(2.0)), module(sweep(1.0))
    agreement = torch.corrcoef(torch.stack([slow.flatten(), fast.flatten()]))[0, 1]
    assert agreement > 0.9


def test_silent_clip_has_a_finite_gradient():
    waveform = torch.zeros(1, 4000, requires_grad=True)
    SpectrogramImage(**SMALL)(waveform).sum().backward()
    assert waveform.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(4000,), (2, 1, 4000)])
def test_other_than_a_batch_is_refused(shape):
    with pytest.raises(ParameterError, match=rf"must be \(batch, time\), got {len(shape)} axes"):
        SpectrogramImage(**SMALL)(torch.zeros(shape))


def test_several_normalisations_are_channels_of_one_image():
    waveform, lengths = torch.randn(2, 9000), torch.tensor([9000, 6000])
    both = SpectrogramImage(**SMALL, normalize=["clip", "band"], deltas=True)
    assert both.output_shape == [6, SMALL["n_mels"]]
    image = both(waveform, lengths)
    for k, way in enumerate(both.normalize):
        alone = SpectrogramImage(**SMALL, normalize=way, deltas=True)(waveform, lengths)
        assert torch.equal(image[:, 3 * k : 3 * k + 3], alone)
    with pytest.raises(ParameterError, match=r"normalize=\[\]: must be one of"):
        SpectrogramImage(normalize=[])
