import librosa
import numpy as np
import pytest
import torch

from audiotorch.errors import ParameterError
from audiotorch.features import functional


def test_masks_hide_nan_and_leave_the_input():
    x = torch.full((2, 3, 4), torch.nan)
    counts = torch.tensor([0, 2])
    masked = functional.mask_frames(x, counts)
    assert (masked[0] == 0).all()
    assert masked[1, :, :2].isnan().all()
    assert (masked[1, :, 2:] == 0).all()
    assert (functional.mask_samples(x[0], torch.tensor([4, 0, 1])).isnan().sum(1)).tolist() == [
        4,
        0,
        1,
    ]
    assert x.isnan().all()
    assert functional.mask_frames(x, None) is x
    assert functional.mask_samples(x, None) is x


@pytest.mark.parametrize("top_db", [80.0, 20.0, None])
@pytest.mark.parametrize("ref", [1.0, 0.25, 1e-12])
def test_power_to_db_equals_librosa_clip_by_clip(ref, top_db):
    power = torch.rand(3, 2, 5, 7, dtype=torch.float64).pow(30)
    ours = functional.power_to_db(power, ref, top_db=top_db)
    for one, clip in zip(ours.flatten(0, 1), power.flatten(0, 1), strict=True):
        expected = librosa.power_to_db(clip.numpy(), ref=ref, top_db=top_db)
        np.testing.assert_allclose(one, expected, atol=1e-12)


def test_dynamic_range_does_not_cross_clips():
    quiet = torch.full((1, 4, 4), 1e-9)
    loud = torch.full((1, 4, 4), 1e3)
    both = functional.power_to_db(torch.cat([quiet, loud]))
    torch.testing.assert_close(both[:1], functional.power_to_db(quiet))
    assert both[0].max() < -89


@pytest.mark.parametrize(
    ("first", "last", "n_frames"),
    [(0, 29, 30), (0, 29, 64), (3, 17, 10), (5, 5, 8), (2, 28, 1), (0, 1, 2), (29, 29, 1)],
)
def test_stretch_frames_equals_numpy_interp(first, last, n_frames):
    x = torch.randn(2, 3, 30, dtype=torch.float64)
    spans = torch.tensor([first, 0]), torch.tensor([last, 29])
    ours = functional.stretch_frames(x, *spans, n_frames)
    for clip, result, start, end in zip(x, ours, *(s.tolist() for s in spans), strict=True):
        position = np.linspace(start, end, n_frames)
        expected = np.stack([np.interp(position, np.arange(30), row) for row in clip.numpy()])
        np.testing.assert_allclose(result, expected, atol=1e-13)


def test_stretch_frames_stays_inside_its_span():
    x = torch.full((1, 1, 5000), torch.nan)
    x[..., 1000:4001] = 1.0
    for n_frames in (1, 2, 7, 333, 3001, 4999):
        ours = functional.stretch_frames(x, torch.tensor([1000]), torch.tensor([4000]), n_frames)
        assert (ours == 1.0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: functional.mask_samples(torch.tensor(1.0), None), r"got a single number"),
        (lambda: functional.mask_samples(torch.ones(3).int(), None), r"divide integers by full"),
        (lambda: functional.mask_samples(torch.ones(3).half(), None), r"float32 or float64"),
        (
            lambda: functional.mask_samples(torch.ones(2, 3), torch.tensor(3)),
            r"lengths: must have the waveform's 1 leading axes, got 0",
        ),
        (lambda: functional.check_feature(torch.ones(3), None), r"\(\.\.\., rows, frames\), got 1"),
        (lambda: functional.check_feature(torch.ones(3, 3).int(), None), r"call \.float\(\)"),
        (
            lambda: functional.check_feature(torch.ones(2, 3, 3), torch.ones(2, 3).int()),
            r"frame_counts: must have the feature's 1 leading axes, got 2",
        ),
    ],
)
def test_wrong_inputs_are_refused(call, message):
    with pytest.raises(ParameterError, match=message):
        call()
