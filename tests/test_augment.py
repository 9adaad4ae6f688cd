"""Augmentation: each change obeys its law, stays within its clip, and is off in evaluation."""

import math
from typing import Any

import librosa
import numpy as np
import pytest
import scipy.signal
import scipy.stats
import soundfile
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from audiotorch.errors import ParameterError
from audiotorch.features import SpectrogramImage
from audiotorch.training.augment import Augment
from audiotorch.training.noise import NoiseSource
from audiotorch.training.warp import anchor_frames, end_frames, formant_rows, interpolate_axis

RATE = 8000
LENGTHS = torch.tensor([8000, 5000, 3001, 1])
COUNTS = torch.tensor([60, 41, 7, 1])
WAVEFORM_ON: dict[str, Any] = {
    "gain_db": 6.0,
    "noise_snr_db": (5.0, 20.0),
    "time_shift": 0.3,
    "speed": (0.9, 1.0, 1.1),
}
IMAGE_ON: dict[str, Any] = {
    "formant": 0.15,
    "mel_shift": 2,
    "time_warp": 0.2,
    "end_shift": 0.12,
    "n_freq_masks": 2,
    "freq_mask": 6,
    "n_time_masks": 2,
    "time_mask": 0.2,
}
MIX_ON: dict[str, Any] = {"mixup": 0.4}
ALL_ON: dict[str, Any] = WAVEFORM_ON | IMAGE_ON | MIX_ON


def _clips(lengths: Tensor, time: int | None = None) -> Tensor:
    waveform = torch.zeros(len(lengths), time or int(lengths.max()))
    for row, length in enumerate(lengths.tolist()):
        noise = torch.randn(length, generator=torch.Generator().manual_seed(row))
        waveform[row, :length] = noise
    return waveform


def _images(counts: Tensor, frames: int | None = None) -> Tensor:
    image = torch.zeros(len(counts), 2, 40, frames or int(counts.max()))
    for row, count in enumerate(counts.tolist()):
        values = torch.randn(2, count, 40, generator=torch.Generator().manual_seed(row))
        image[row, :, :, :count] = values.mT
    return image


def _waveform(augment: Augment, lengths: Tensor = LENGTHS, step: int = 0) -> tuple[Tensor, ...]:
    return augment.waveform(_clips(lengths), lengths, Augment.generator(0, 0, step))


def _mix(augment: Augment, x: Tensor, counts: Tensor, step: int = 0) -> tuple[Tensor, ...]:
    return augment.mix(x, counts, torch.eye(len(x)), Augment.generator(0, 0, step))


def test_nothing_is_on_by_default() -> None:
    waveform, lengths = _waveform(Augment(RATE))
    assert torch.equal(waveform, _clips(LENGTHS))
    assert torch.equal(lengths, LENGTHS)
    image = _images(COUNTS)
    assert torch.equal(Augment(RATE).image(image, COUNTS, Augment.generator(0, 0, 0)), image)


def test_evaluation_changes_nothing() -> None:
    augment = Augment(RATE, **ALL_ON).eval()
    waveform, lengths = _clips(LENGTHS), LENGTHS
    result = augment.waveform(waveform, lengths, Augment.generator(0, 0, 0))
    assert all(a is b for a, b in zip(result, (waveform, lengths), strict=True))
    image = _images(COUNTS)
    assert augment.image(image, COUNTS, Augment.generator(0, 0, 0)) is image


@pytest.mark.parametrize("augment", [Augment(RATE), Augment(RATE, **MIX_ON).eval()])
@pytest.mark.parametrize("x", [_images(COUNTS), torch.randn(4, 12)])
def test_mix_is_the_identity_when_off_or_in_evaluation(augment: Augment, x: Tensor) -> None:
    inputs = (x, COUNTS, torch.eye(4))
    generator = _key(0)
    before = generator.get_state()
    result = augment.mix(*inputs, generator)
    assert all(a is b for a, b in zip(result, inputs, strict=True))
    assert torch.equal(generator.get_state(), before)


def test_gain_is_one_uniform_factor_for_each_clip() -> None:
    lengths = torch.full((500,), 40)
    changed = _waveform(Augment(RATE, gain_db=6.0), lengths)[0]
    ratio_db = 20 * torch.log10(changed / _clips(lengths))
    assert (ratio_db - ratio_db[:, :1]).abs().max() < 1e-4
    uniform = scipy.stats.uniform(-6, 12).cdf
    assert ratio_db.abs().max() <= 6 + 1e-4
    assert scipy.stats.kstest(ratio_db[:, 0].numpy(), uniform).pvalue > 0.01


@pytest.mark.parametrize("snr_db", [-5.0, 10.0, 30.0])
def test_noise_has_the_asked_ratio_over_valid_samples(snr_db: float) -> None:
    augment = Augment(RATE, noise_snr_db=(snr_db, snr_db), noise_probability=1.0)
    noisy = _waveform(augment)[0]
    for row, length in enumerate(LENGTHS.tolist()):
        clip = _clips(LENGTHS)[row, :length].double().numpy()
        noise = noisy[row, :length].double().numpy() - clip
        measured = 10 * np.log10((clip**2).mean() / (noise**2).mean())
        assert abs(measured - snr_db) < 0.1
        assert not noisy[row, length:].any()


def test_noise_ratio_and_probability_are_drawn_for_each_clip() -> None:
    lengths = torch.full((400,), 200)
    augment = Augment(RATE, noise_snr_db=[0.0, 20.0], noise_probability=0.5)
    noise = (_waveform(augment, lengths)[0] - _clips(lengths)).double()
    noised = noise.abs().amax(1) > 0
    assert scipy.stats.binomtest(int(noised.sum()), 400, 0.5).pvalue > 0.01
    power = _clips(lengths).double().square().mean(1)
    ratio_db = 10 * torch.log10(power / noise.square().mean(1))[noised]
    assert scipy.stats.kstest(ratio_db.numpy(), scipy.stats.uniform(0, 20).cdf).pvalue > 0.01


def test_silent_clip_stays_silent() -> None:
    augment = Augment(RATE, noise_snr_db=(0, 0), noise_probability=1.0)
    silence = torch.zeros(2, 100)
    lengths = torch.tensor([100, 0])
    changed = augment.waveform(silence, lengths, Augment.generator(0, 0, 0))[0]
    assert torch.equal(changed, silence)


@pytest.mark.parametrize(("row", "slope_db"), [(0, 0.0), (1, -10.0)])
def test_coloured_noise_falls_by_its_slope_per_decade(row: int, slope_db: float) -> None:
    source = NoiseSource(RATE)
    start, length = source.spans[row]
    samples = source.table[start : start + length].numpy()
    assert abs(samples.std() - 1) < 1e-3
    frequency, density = scipy.signal.welch(samples, fs=1.0, nperseg=4096)
    band = (frequency > 0.01) & (frequency < 0.4)
    fit = np.polyfit(np.log10(frequency[band]), 10 * np.log10(density[band]), 1)
    assert abs(fit[0] - slope_db) < 0.3


def test_noise_root_gives_excerpts_of_its_recordings(tmp_path: Any) -> None:
    (tmp_path / "street").mkdir()
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(4 * RATE) / RATE)
    soundfile.write(tmp_path / "street" / "tone.wav", tone, RATE)
    augment = Augment(RATE, noise_snr_db=(0, 0), noise_probability=1.0, noise_root=tmp_path)
    noise = (_waveform(augment)[0] - _clips(LENGTHS))[0].numpy()
    spectrum = np.abs(np.fft.rfft(noise))
    assert spectrum.argmax() == 1000
    assert spectrum[1000] > 100 * np.delete(spectrum, 1000).max()


def test_circular_shift_rotates_the_valid_samples() -> None:
    lengths = LENGTHS.repeat(8)
    before = _clips(lengths)
    after = _waveform(Augment(RATE, time_shift=0.05), lengths)[0]
    moved = set()
    for row, length in enumerate(lengths.tolist()):
        shift = int((after[row, :length] == before[row, 0]).nonzero()[0, 0])
        assert torch.equal(after[row, :length], before[row, :length].roll(shift))
        assert not after[row, length:].any()
        assert min(shift, length - shift) <= 0.05 * RATE
        moved.add(shift)
    assert len(moved) > 16


def test_zero_filled_shift_loses_what_moves_out() -> None:
    lengths = torch.full((20,), 1000)
    before = _clips(lengths)
    after = _waveform(Augment(RATE, time_shift=0.05, circular=False), lengths)[0]
    for row in range(20):
        product = np.correlate(after[row].numpy(), before[row].numpy(), "full")
        shift = int(product.argmax()) - 999
        expected = torch.zeros(1000)
        kept = before[row, max(-shift, 0) : 1000 - max(shift, 0)]
        expected[max(shift, 0) : max(shift, 0) + len(kept)] = kept
        assert abs(shift) <= 0.05 * RATE
        assert torch.equal(after[row], expected)


@pytest.mark.parametrize("factor", [0.5, 0.9, 0.95, 1.1, 2.0])
def test_speed_changes_length_and_frequency(factor: float) -> None:
    time = torch.arange(22050) / 22050
    tone = torch.sin(2 * math.pi * 1000 * time).repeat(2, 1)
    lengths = torch.tensor([22050, 11025])
    tone[1, 11025:] = 0
    augment = Augment(22050, speed=[factor])
    fast, changed = augment.waveform(tone, lengths, Augment.generator(0, 0, 0))
    assert changed.tolist() == [math.ceil(22050 / factor - 1e-6), math.ceil(11025 / factor - 1e-6)]
    assert fast.shape[1] == changed[0]
    assert not fast[1, int(changed[1]) :].any()
    n = int(changed[0])
    expected = np.sin(2 * np.pi * 1000 * factor * np.arange(n) / 22050)
    # Away from the ends a tone at 9 % of the rate passes torchaudio's 6-crossing filter to 1e-3.
    assert np.abs(fast[0].numpy() - expected)[200:-200].max() < 2e-3


def test_speed_draws_each_factor() -> None:
    lengths = torch.full((300,), 900)
    changed = _waveform(Augment(RATE, speed=(0.9, 1.0, 1.0)), lengths)[1]
    counts = [int((changed == n).sum()) for n in (1000, 900)]
    assert sum(counts) == 300
    assert scipy.stats.chisquare(counts, [100, 200]).pvalue > 0.01


def test_unit_speed_among_others_keeps_the_samples() -> None:
    lengths = torch.full((30,), 90)
    fast, changed = _waveform(Augment(RATE, speed=(0.9, 1.0)), lengths)
    kept = changed == 90
    assert 0 < kept.sum() < 30
    assert torch.equal(fast[kept, :90], _clips(lengths)[kept])
    assert not fast[kept, 90:].any()


def test_mixup_mixes_images_and_targets_alike() -> None:
    counts = torch.arange(200) % 60 + 1
    image = _images(counts)
    mixed, longer, target = _mix(Augment(RATE, mixup=0.4), image, counts)
    assert torch.allclose(target.sum(1), torch.ones(200))
    assert torch.allclose(mixed, torch.einsum("ij,jcmf->icmf", target, image), atol=1e-5)
    assert (target > 0).sum(1).max() == 2
    expected = torch.stack([counts[row > 0].max() for row in target])
    # A clip whose own weight was rounded to 0 counts all the same.
    assert (longer >= expected).all()
    both = target.diagonal() > 0
    assert torch.equal(longer[both], expected[both])
    assert (longer > counts).any()
    assert not mixed.permute(0, 3, 1, 2)[torch.arange(60) >= longer[:, None]].any()
    own = target.diagonal()
    drawn = own[own < 1].double().numpy()
    assert scipy.stats.kstest(drawn, scipy.stats.beta(0.4, 0.4).cdf).pvalue > 0.01


def test_mixup_mixes_vectors_and_targets_alike() -> None:
    counts = torch.arange(1, 101)
    # Counts are of frames, not of the vector's entries, all of which are mixed.
    vectors = torch.randn(100, 30, generator=_key(9))
    mixed, longer, target = _mix(Augment(RATE, mixup=1.0), vectors, counts)
    assert torch.allclose(mixed, target @ vectors, atol=1e-5)
    assert torch.equal(longer, torch.stack([counts[row > 0].max() for row in target]))
    assert (target.diagonal() < 1).sum() > 90


@pytest.mark.parametrize("x", [_images(torch.full((400,), 5)), torch.randn(400, 12)])
def test_mixup_probability_leaves_the_other_clips_alone(x: Tensor) -> None:
    counts = torch.arange(400) % 5 + 1
    x = x.where(torch.arange(5) < counts.view(-1, 1, 1, 1), 0) if x.ndim == 4 else x
    mixed, longer, target = _mix(Augment(RATE, mixup=1.0, mixup_probability=0.25), x, counts)
    alone = target.diagonal() == 1
    assert torch.equal(mixed[alone], x[alone])
    assert torch.equal(longer[alone], counts[alone])
    # A permutation leaves a clip in its place about once in a batch.
    assert scipy.stats.binomtest(int(alone.sum()), 400, 0.75).pvalue > 0.01


def test_mixup_shares_do_not_depend_on_recording_levels() -> None:
    lengths = torch.tensor([8000, 8000])
    clips = _clips(lengths) * torch.tensor([[1.0], [0.01]])
    features = SpectrogramImage(RATE, 256, 128, n_mels=16)
    counts = features.frame_counts(lengths)
    augment = Augment(RATE, mixup=1.0)
    loud, _, target = _mix(augment, features(clips, lengths), counts)
    equal, _, same = _mix(augment, features(_clips(lengths), lengths), counts)
    assert torch.equal(target, same)
    assert torch.allclose(loud, equal, atol=1e-3)


def test_mixup_keeps_dtypes() -> None:
    augment = Augment(RATE, mixup=1.0)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        mixed, counts, target = _mix(augment, _images(COUNTS).to(dtype), COUNTS)
        assert (mixed.dtype, counts.dtype, target.dtype) == (dtype, torch.int64, torch.float32)


@pytest.mark.parametrize("dim", [1, 2, -1])
def test_interpolation_equals_numpy(dim: int) -> None:
    x = torch.randn(3, 5, 7, dtype=torch.float64)
    size = x.shape[dim]
    coordinates = torch.rand(3, 9, dtype=torch.float64) * (size + 1) - 1
    read = interpolate_axis(x, coordinates, dim)
    for item in range(3):
        expected = np.apply_along_axis(
            lambda line, at=coordinates[item]: np.interp(at, np.arange(size), line),
            dim - 1 if dim > 0 else dim,
            x[item].numpy(),
        )
        np.testing.assert_allclose(read[item].numpy(), expected, atol=1e-12)


def test_whole_positions_return_stored_values() -> None:
    x = torch.randn(2, 3, 6)
    order = torch.tensor([[5.0, 0.0, 2.0], [1.0, 1.0, 4.0]])
    expected = torch.stack([x[i][:, order[i].long()] for i in range(2)])
    assert torch.equal(interpolate_axis(x, order, 2), expected)


@pytest.mark.parametrize("htk", [False, True])
@pytest.mark.parametrize(("fmin", "fmax"), [(0.0, 4000.0), (50.0, 11025.0)])
def test_formant_rows_divide_the_frequency(fmin: float, fmax: float, htk: bool) -> None:
    factor = torch.tensor([0.85, 1.0, 1.15], dtype=torch.float64)
    rows = formant_rows(factor, 64, fmin, fmax, htk=htk)
    assert torch.equal(rows[1], torch.arange(64.0, dtype=torch.float64))
    assert (rows.diff(dim=1) > 0).all()
    centres = librosa.mel_frequencies(66, fmin=fmin, fmax=fmax, htk=htk)[1:-1]
    low, high = librosa.hz_to_mel([fmin, fmax], htk=htk)
    read = librosa.mel_to_hz(low + (rows.numpy() + 1) * (high - low) / 65, htk=htk)
    for i, alpha in enumerate(factor.tolist()):
        below = centres <= min(4800, 0.85 * fmax) * min(alpha, 1)
        # A mel is read below its own axis' start only in the first rows; those are clamped later.
        inside = below & (centres / alpha >= fmin)
        np.testing.assert_allclose(read[i][inside], (centres / alpha)[inside], rtol=1e-9)
        assert (read[i] < fmax).all()


def test_formant_moves_a_peak_within_its_range() -> None:
    counts = torch.full((50,), 4)
    hz = librosa.mel_frequencies(66, fmin=0, fmax=4000)[1:-1]
    ridge = torch.from_numpy(np.exp(-(((hz - 1500) / 200) ** 2))).float()
    image = ridge[None, None, :, None].repeat(50, 1, 1, 4)
    warped = Augment(RATE, formant=0.15).image(image, counts, Augment.generator(0, 0, 0))
    peaks = hz[warped[:, 0, :, 0].argmax(1).numpy()]
    assert peaks.min() > 1500 * 0.83
    assert peaks.max() < 1500 * 1.17
    assert np.ptp(peaks) > 300


def test_time_warp_is_monotone_and_keeps_the_ends() -> None:
    counts = torch.randint(2, 81, (60,), generator=torch.Generator().manual_seed(0))
    # Each frame holds its own number, so the warped image shows what was read.
    ramp = torch.arange(80.0).expand(60, 1, 3, 80)
    image = ramp.where(ramp < counts.view(-1, 1, 1, 1), 0)
    read = Augment(RATE, time_warp=0.2).image(image, counts, Augment.generator(0, 0, 0))[:, 0, 0]
    for row, count in enumerate(counts.tolist()):
        valid = read[row, :count]
        assert valid[0] == 0
        assert valid[-1] == count - 1
        assert (valid.diff() > 0).all()
        assert (valid - torch.arange(count)).abs().max() <= 0.2 * (count - 1) + 1e-3
        assert not read[row, count:].any()


def test_time_warp_at_zero_displacement_is_the_identity() -> None:
    share = torch.tensor([0.3, 0.7, 0.5, 0.2])
    image = _images(COUNTS)
    read = anchor_frames(share, share, COUNTS, image.shape[3])
    assert torch.equal(interpolate_axis(image, read, 3), image)


def test_end_shift_reads_a_straight_line_from_near_the_ends() -> None:
    counts = torch.randint(20, 81, (60,), generator=torch.Generator().manual_seed(0))
    ramp = torch.arange(80.0).expand(60, 1, 3, 80)
    image = ramp.where(ramp < counts.view(-1, 1, 1, 1), 0)
    read = Augment(RATE, end_shift=0.2).image(image, counts, Augment.generator(0, 0, 0))[:, 0, 0]
    first, short = [], []
    for row, count in enumerate(counts.tolist()):
        valid = read[row, :count]
        reach = 0.2 * (count - 1) + 1e-3
        assert 0 <= valid[0] <= reach
        assert count - 1 - reach <= valid[-1] <= count - 1
        step = valid.diff()
        moving = step[(valid[:-1] > 0) & (valid[1:] < count - 1)][1:-1]
        assert (moving - moving.mean()).abs().max() < 1e-3
        assert not read[row, count:].any()
        first.append(bool(valid[0] > 0))
        short.append(bool(valid[-1] < count - 1))
    # Half the clips lose their beginning, half their end, each on its own.
    assert len(set(zip(first, short, strict=True))) == 4


def test_ends_that_stay_are_the_identity() -> None:
    image = _images(COUNTS)
    read = end_frames(torch.zeros(4), torch.ones(4), COUNTS, image.shape[3])
    assert torch.equal(interpolate_axis(image, read, 3), image)


def test_mel_shift_moves_whole_rows_and_repeats_the_edge() -> None:
    image = torch.arange(12.0)[:, None].expand(200, 1, 12, 5)
    counts = torch.full((200,), 5)
    moved = Augment(RATE, mel_shift=3).image(image, counts, Augment.generator(0, 0, 0))
    shifts = moved[:, 0, 6, 0] - 6
    assert sorted(set(shifts.tolist())) == [-3, -2, -1, 0, 1, 2, 3]
    expected = (torch.arange(12.0) + shifts[:, None]).clamp(0, 11)
    assert torch.equal(moved[:, 0, :, 2], expected)


def test_frequency_masks_stay_within_their_budget() -> None:
    counts = torch.tensor([60, 41, 7] * 30)
    image = _images(counts)
    augment = Augment(RATE, n_freq_masks=2, freq_mask=6)
    masked = augment.image(image, counts, Augment.generator(0, 0, 0))
    widths = []
    for row, count in enumerate(counts.tolist()):
        changed = (masked[row] != image[row])[:, :, :count]
        rows = changed.all(2)
        assert torch.equal(changed.any(2), rows)
        mean = image[row, :, :, :count].mean((1, 2))[:, None, None]
        assert torch.allclose(
            masked[row, :, :, :count][changed], mean.expand(changed.shape)[changed]
        )
        widths.append(int(rows[0].sum()))
    assert max(widths) <= 12
    assert len(set(widths)) > 6


def test_time_masks_stay_within_their_share_of_valid_frames() -> None:
    counts = torch.tensor([60, 41, 7, 1] * 20)
    image = _images(counts)
    augment = Augment(RATE, n_time_masks=2, time_mask=0.2)
    masked = augment.image(image, counts, Augment.generator(0, 0, 0))
    for row, count in enumerate(counts.tolist()):
        changed = (masked[row] != image[row]).all(0).all(0)
        assert changed.sum() <= 2 * math.floor(0.2 * count)
        assert not masked[row, :, :, count:].any()
    assert not torch.equal(masked, image)


def _everything(augment: Augment, step: int) -> tuple[Tensor, ...]:
    image = augment.image(_images(COUNTS), COUNTS, _key(step))
    return (*_waveform(augment, step=step), image, *_mix(augment, image, COUNTS, step))


def test_draws_follow_the_generator_alone() -> None:
    augment = Augment(RATE, **ALL_ON)
    torch.manual_seed(1)
    first = _everything(augment, 3)
    torch.manual_seed(2)
    second = _everything(augment, 3)
    other = _everything(augment, 4)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for changed in (0, 2, 3, 5):
        assert not torch.equal(first[changed], other[changed])


def _key(step: int) -> torch.Generator:
    return Augment.generator(0, 0, step)


def test_generator_tells_seed_epoch_and_step_apart() -> None:
    keys = [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 11), (0, 1, 1), (-1, 0, 0)]
    firsts = {float(torch.rand((), generator=Augment.generator(*key))) for key in keys}
    assert len(firsts) == len(keys)


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    _everything(Augment(RATE, **ALL_ON), 0)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", list(WAVEFORM_ON))
def test_waveform_does_not_depend_on_padding(name: str) -> None:
    augment = Augment(RATE, **{name: WAVEFORM_ON[name]})
    near, near_lengths = _waveform(augment)
    padded = _clips(LENGTHS, 8000 + 3 * RATE)
    far, far_lengths = augment.waveform(padded, LENGTHS, _key(0))
    assert torch.equal(near_lengths, far_lengths)
    shared = min(near.shape[1], far.shape[1])
    assert torch.allclose(near[:, :shared], far[:, :shared], atol=1e-6)
    beyond = torch.arange(far.shape[1]) >= far_lengths[:, None]
    assert not far[beyond].any()


def test_image_does_not_depend_on_padding() -> None:
    augment = Augment(RATE, **IMAGE_ON)
    near = augment.image(_images(COUNTS), COUNTS, _key(0))
    far = augment.image(_images(COUNTS, 200), COUNTS, _key(0))
    assert torch.allclose(near, far[:, :, :, : near.shape[3]], atol=1e-6)
    beyond = torch.arange(200) >= COUNTS[:, None]
    assert not far.transpose(1, 3)[beyond.nonzero(as_tuple=True)].any()


def test_mix_does_not_depend_on_padding() -> None:
    augment = Augment(RATE, mixup=1.0)
    near = _mix(augment, _images(COUNTS), COUNTS)
    far = _mix(augment, _images(COUNTS, 200), COUNTS)
    assert torch.equal(near[0], far[0][:, :, :, :60])
    assert not far[0][:, :, :, 60:].any()
    assert torch.equal(near[1], far[1])
    assert torch.equal(near[2], far[2])


def test_what_lies_in_the_padding_does_not_matter() -> None:
    augment = Augment(RATE, **ALL_ON)
    beyond = torch.arange(8000) >= LENGTHS[:, None]
    dirty = _clips(LENGTHS).masked_fill(beyond, math.nan)
    clean = _waveform(augment)[0]
    assert torch.equal(augment.waveform(dirty, LENGTHS, _key(0))[0], clean)
    beyond = (torch.arange(60) >= COUNTS[:, None])[:, None, None]
    image = _images(COUNTS)
    clean = augment.image(image, COUNTS, _key(0))
    dirty = image.masked_fill(beyond, math.nan)
    assert torch.equal(augment.image(dirty, COUNTS, _key(0)), clean)
    assert torch.equal(_mix(augment, dirty, COUNTS)[0], _mix(augment, image, COUNTS)[0])


def test_input_is_not_modified() -> None:
    augment = Augment(RATE, **ALL_ON)
    clips, lengths, image = _clips(LENGTHS), LENGTHS.clone(), _images(COUNTS)
    counts, target = COUNTS.clone(), torch.eye(4)
    augment.waveform(clips, lengths, _key(0))
    augment.image(image, counts, _key(0))
    augment.mix(image, counts, target, _key(0))
    assert torch.equal(clips, _clips(LENGTHS))
    assert torch.equal(lengths, LENGTHS)
    assert torch.equal(image, _images(COUNTS))
    assert torch.equal(counts, COUNTS)
    assert torch.equal(target, torch.eye(4))


def test_gradients_flow_from_valid_samples_only() -> None:
    augment = Augment(RATE, **ALL_ON)
    waveform = _clips(LENGTHS).requires_grad_()
    augment.waveform(waveform, LENGTHS, _key(0))[0].square().sum().backward()
    image = _images(COUNTS).requires_grad_()
    changed = augment.image(image, COUNTS, _key(0))
    _mix(augment, changed, COUNTS)[0].square().sum().backward()
    assert waveform.grad is not None
    assert image.grad is not None
    for grad, ends in ((waveform.grad, LENGTHS), (image.grad, COUNTS)):
        assert grad.isfinite().all()
        for row, end in enumerate(ends.tolist()):
            assert grad[row, ..., :end].any()
            assert not grad[row, ..., end:].any()


class _Step(nn.Module):
    def __init__(self, augment: Augment) -> None:
        super().__init__()
        self.augment = augment

    def forward(self, waveform: Tensor, lengths: Tensor, image: Tensor, counts: Tensor) -> Any:
        target = torch.eye(len(lengths), device=waveform.device)
        clips = self.augment.waveform(waveform, lengths, _key(0))
        image = self.augment.image(image, counts, _key(0))
        return (*clips, *self.augment.mix(image, counts, target, _key(0)))


def test_tensors_stay_on_the_batch_device() -> None:
    # Speed and formant look at the values of their draws on the CPU, and fake ones have none.
    on = {k: v for k, v in ALL_ON.items() if k not in ("speed", "formant")}
    step = _Step(Augment(RATE, **on))
    batch = (_clips(LENGTHS), LENGTHS, _images(COUNTS), COUNTS)
    mode = FakeTensorMode()

    def fake(x: Tensor) -> Tensor:
        return torch.empty_like(mode.from_tensor(x), device="cuda")

    with mode:
        buffers = {name: fake(x) for name, x in step.named_buffers()}
        results = torch.func.functional_call(step, buffers, tuple(fake(x) for x in batch))
    assert [result.device.type for result in results] == ["cuda"] * 5


def test_checkpoints_hold_nothing_of_it() -> None:
    assert not Augment(RATE, **ALL_ON).state_dict()


def test_settings_come_from_yaml() -> None:
    settings = OmegaConf.create({"speed": [0.9, 1.1], "noise_snr_db": [5, 20]})
    augment = Augment(RATE, **settings)
    assert [float(factor) for factor in augment.speed] == [0.9, 1.1]
    assert augment.noise_snr_db == (5, 20)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_rate": 0}, r"sample_rate=0: must be a whole number from 1 to"),
        ({"gain_db": -1.0}, r"gain_db=-1.0: must be a number from 0 to 120"),
        ({"gain_db": "loud"}, r"gain_db='loud': must be a number"),
        ({"gain_db": math.nan}, r"gain_db=nan: must be a number"),
        ({"noise_snr_db": 10.0}, r"noise_snr_db=10.0: must be two numbers \(lowest, highest\)"),
        ({"noise_snr_db": (20, 5)}, r"noise_snr_db=5: must be a number from 20 to 100"),
        ({"noise_probability": 1.5}, r"noise_probability=1.5: must be a number from 0 to 1"),
        ({"time_shift": -0.1}, r"time_shift=-0.1: must be a number from 0 to 3600"),
        ({"speed": 0.9}, r"speed=0.9: must be a list of factors"),
        ({"speed": ()}, r"speed=\(\): must be a list of factors"),
        ({"speed": (1.0, 9.0)}, r"speed=9.0: must be a number from 0.25 to 4"),
        ({"mixup": -1}, r"mixup=-1: must be a number from 0 to 100"),
        ({"mixup_probability": True}, r"mixup_probability=True: must be a number from 0 to 1"),
        ({"formant": 0.6}, r"formant=0.6: must be a number from 0 to 0.5"),
        ({"time_warp": 0.5}, r"time_warp=0.5: must be a number from 0 to 0.49"),
        ({"end_shift": 0.5}, r"end_shift=0.5: must be a number from 0 to 0.49"),
        ({"mel_shift": 1.5}, r"mel_shift=1.5: must be a whole number from 0 to 10000"),
        ({"n_freq_masks": 1.5}, r"n_freq_masks=1.5: must be a whole number from 0 to 100"),
        ({"freq_mask": -1}, r"freq_mask=-1: must be a whole number from 0 to 10000"),
        ({"n_time_masks": -1}, r"n_time_masks=-1: must be a whole number from 0 to 100"),
        ({"time_mask": 2}, r"time_mask=2: must be a number from 0 to 1"),
        ({"fmax": 5000}, r"fmax=5000: must be a number from 1 to 4000"),
        ({"fmin": 4000}, r"fmin=4000: must be a number from 0 to 3999"),
    ],
)
def test_refuses_settings_outside_their_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Augment(**({"sample_rate": RATE} | settings))


def test_refuses_a_noise_folder_without_recordings(tmp_path: Any) -> None:
    (tmp_path / "notes.txt").write_text("none here")
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ParameterError, match=r"noise_root=.*must be a folder that holds rec"):
            Augment(RATE, noise_snr_db=(5, 20), noise_root=root)


def test_refuses_batches_of_other_shapes() -> None:
    augment = Augment(RATE)
    clips = torch.zeros(2, 10)
    for bad in ((clips[None], torch.tensor([10, 10])), (clips, torch.tensor([10]))):
        with pytest.raises(ParameterError, match=r"must be \(batch, time\) and \(batch,\); give"):
            augment.waveform(*bad, _key(0))
    with pytest.raises(ParameterError, match=r"waveform=torch.int64: must be floating; use"):
        augment.waveform(clips.long(), torch.tensor([10, 10]), _key(0))
    with pytest.raises(ParameterError, match=r"must be \(batch, channel, mel, frames\) and"):
        augment.image(torch.zeros(2, 40, 60), torch.tensor([60, 60]), _key(0))


def test_mix_refuses_inputs_that_do_not_fit() -> None:
    augment = Augment(RATE, mixup=0.4)
    x, counts, target = torch.zeros(2, 1, 40, 60), torch.tensor([60, 60]), torch.eye(2)
    for bad in (
        (x[:, 0], counts, target),
        (x[:1], counts, target),
        (x[0, 0, 0], counts, target),
        (x, torch.tensor([60]), target),
        (x, counts, torch.eye(3)),
        (x, counts, torch.tensor([0, 1])),
    ):
        message = r"mel, frames\) or \(batch, n_features\), \(batch,\) and \(batch, n_classes\)"
        with pytest.raises(ParameterError, match=message):
            augment.mix(*bad, _key(0))
    with pytest.raises(ParameterError, match=r"target=torch.int64: must be floating; use one_hot"):
        augment.mix(x, counts, target.long(), _key(0))
    with pytest.raises(ParameterError, match=r"x=torch.int64, .* must be floating"):
        augment.mix(x.long(), counts, target, _key(0))
