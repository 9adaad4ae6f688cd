from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch

from audiotorch.audio import load
from audiotorch.audio.clips import group_by_length, padded_batches, read_clip
from audiotorch.errors import DecodeError

RATE = 8000


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((16000, 2)), 16000)
    return path


def test_clip_is_what_load_gives(file):
    torch.testing.assert_close(read_clip(file, RATE), load(file, RATE)[0][0], rtol=0, atol=0)


def test_bad_files_are_returned_not_raised(file, tmp_path):
    short = read_clip(file, RATE, 1.5, "sing longer")
    assert isinstance(short, DecodeError)
    assert "clip.wav: lasts 1.000 s, the features need 1.500 s; sing longer" in str(short)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    assert "holds no samples; leave it out" in str(read_clip(tmp_path / "none.wav", RATE))
    assert "no such file" in str(read_clip(tmp_path / "missing.wav", RATE))
    assert isinstance(read_clip(file, RATE, 1.0), torch.Tensor)


def test_long_clips_are_not_batched_beyond_memory():
    minutes = {i: 60 * 22050 * (i + 1) for i in range(4)}
    assert list(group_by_length(minutes, 1 << 22)) == [[0], [1], [2], [3]]
    assert list(group_by_length({0: 9, 1: 10, 2: 30}, 1 << 22)) == [[0, 1], [2]]


def test_groups_hold_each_clip_once_and_pad_it_little():
    lengths = dict(enumerate(np.random.default_rng(0).integers(1, 5000, 200).tolist()))
    groups = list(group_by_length(lengths, 20_000))
    assert sorted(key for group in groups for key in group) == sorted(lengths)
    for group in groups:
        longest = max(lengths[key] for key in group)
        assert longest <= 2 * min(lengths[key] for key in group)
        assert longest * len(group) <= 20_000
    assert all(lengths[a[-1]] <= lengths[b[0]] for a, b in pairwise(groups))


def test_batches_are_padded_with_zeros():
    clips = {"long": torch.ones(9), "short": torch.ones(1), "middle": torch.ones(5)}
    (first, _, _), (keys, waveform, lengths) = padded_batches(clips, 100)
    assert (first, keys) == (["short"], ["middle", "long"])
    assert lengths.tolist() == [5, 9]
    assert waveform.shape == (2, 9)
    assert waveform[0].tolist() == [1.0] * 5 + [0.0] * 4
