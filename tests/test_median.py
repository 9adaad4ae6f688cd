import itertools

import numpy as np
import pytest
import scipy.ndimage
import torch

from audiotorch.errors import ParameterError
from audiotorch.features.median import MedianFilter, Merge


def median_of(x: np.ndarray, size: int) -> np.ndarray:
    """Running median along the first axis, window by window.

    Not scipy's: where the window holds a clip more than twice, that reads foreign memory.
    """
    ends = (size // 2, size - size // 2 - 1)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, (ends, (0, 0)), mode="symmetric"), size, axis=0
    )
    return np.sort(windows, axis=-1)[..., size // 2]


@pytest.mark.parametrize(
    ("n_first", "n_second", "low", "high"),
    [
        (8, 8, 0, None),
        (16, 8, 8, 16),
        (8, 4, 4, 8),
        (4, 2, 2, 4),
        (2, 1, 1, 2),
        (1, 7, 0, None),
        (5, 3, 2, 6),
        (12, 7, 9, 10),
        (0, 4, 1, 3),
    ],
)
def test_merge_sorts_all_zeros_and_ones(n_first, n_second, low, high):
    # By the 0-1 principle, a network that sorts these sorts everything.
    merge = Merge(n_first, n_second, low, high)
    for ones, others in itertools.product(range(n_first + 1), range(n_second + 1)):
        first = [torch.tensor(float(i >= n_first - ones)) for i in range(n_first)]
        second = [torch.tensor(float(i >= n_second - others)) for i in range(n_second)]
        kept = torch.stack(merge(first, second))
        expected = torch.arange(n_first + n_second) >= n_first + n_second - ones - others
        assert torch.equal(kept, expected[low:high].float())


def test_few_steps_for_31():
    filter = MedianFilter(31)
    steps = [len(module.steps) for module in filter.modules() if isinstance(module, Merge)]
    assert filter.tile == 16
    assert sum(steps) == 150  # on halves, quarters, ... of the rows: 21 per output


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 13, 15, 16, 17, 20, 30, 31, 32, 33, 47, 51])
def test_equals_the_definition_at_each_own_end(size):
    x = torch.rand(7, 70, 3)
    counts = torch.tensor([1, 2, 3, 15, 16, 40, 70])
    medians = MedianFilter(size)(x, counts)
    for clip, median, count in zip(x, medians, counts, strict=True):
        expected = median_of(clip[:count].numpy(), size)
        assert np.array_equal(median[:count].numpy(), expected)
        alone = MedianFilter(size)(clip[None, :count], torch.tensor([count]))
        assert np.array_equal(alone[0].numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_scipy_bit_by_bit(dtype):
    x = torch.randn(2, 100, 5, dtype=dtype).square()
    x[0, 20:60] = 0.0
    median = MedianFilter(31)(x, torch.tensor([100]))
    expected = scipy.ndimage.median_filter(x.numpy(), size=(1, 31, 1), mode="reflect")
    assert np.array_equal(median.numpy(), expected)


def test_nan_spreads_as_far_as_its_windows():
    x = torch.rand(2, 90, 2)
    x[1, 45, 0] = torch.nan
    median = MedianFilter(31)(x, torch.tensor([90]))
    nan = torch.zeros(2, 90, 2, dtype=torch.bool)
    nan[1, 30:61, 0] = True
    assert torch.equal(median.isnan(), nan)


def test_even_and_impossible_sizes():
    x = torch.tensor([3.0, 1.0, 2.0, 5.0]).reshape(1, 4, 1)
    assert MedianFilter(2)(x, torch.tensor([4])).flatten().tolist() == [3.0, 3.0, 2.0, 5.0]
    with pytest.raises(ParameterError, match=r"kernel_size=0: must be at least 1"):
        MedianFilter(0)
