import numpy as np
import pytest
import torch

from audiotorch.audio.frames import frame_sums, full_lengths, length_mask, pad_ends, silence_past


def test_length_mask():
    mask = length_mask(torch.tensor([[0, 1], [3, 5]]), 3)
    expected = [[[0, 0, 0], [1, 0, 0]], [[1, 1, 1], [1, 1, 1]]]
    assert mask.int().tolist() == expected


def test_lengths_end_with_the_waveform():
    waveform = torch.zeros(2, 5)
    assert full_lengths(waveform, None).tolist() == [5, 5]
    assert full_lengths(waveform, torch.tensor([3, 9])).tolist() == [3, 5]


def test_silence_past_hides_nan_and_leaves_the_input():
    waveform = torch.full((2, 3), torch.nan)
    silenced = silence_past(waveform, torch.tensor([0, 2]))
    assert silenced.isnan().tolist() == [[False] * 3, [True, True, False]]
    assert waveform.isnan().all()
    assert silence_past(waveform, None) is waveform


@pytest.mark.parametrize("mode", ["reflect", "edge"])
@pytest.mark.parametrize("size", [0, 3, 25])
def test_pad_ends_equals_numpy_at_each_clips_own_end(mode, size):
    x = torch.randn(4, 12)
    lengths = torch.tensor([12, 7, 2, 1])
    padded = pad_ends(x, lengths, size, mode)
    for row, clip, length in zip(padded, x, lengths.tolist(), strict=True):
        expected = np.pad(clip[:length], size, mode=mode)
        np.testing.assert_array_equal(row[: length + 2 * size], expected)


@pytest.mark.parametrize(("frame", "hop"), [(8, 2), (6, 4), (5, 5), (4, 7)])
@pytest.mark.parametrize("n", [0, 1, 8, 23])
def test_frame_sums_equal_a_loop(frame, hop, n):
    x = torch.randn(2, n, dtype=torch.float64)
    padded = np.pad(x.numpy(), ((0, 0), (frame, 3)))
    starts = range(0, frame + n + 3 - frame + 1, hop)
    expected = np.stack([padded[:, s : s + frame].sum(1) for s in starts], axis=1)
    np.testing.assert_allclose(frame_sums(x, frame, hop, frame, 3), expected, atol=1e-12)
