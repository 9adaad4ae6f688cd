"""The walk over chunks and threads that modules take on the CPU."""

import threading

import pytest
import torch

from audiotorch.audio import chunks as room
from audiotorch.audio.chunks import walk, walks
from audiotorch.errors import ParameterError
from audiotorch.features import MFCC, FeatureExtractor, Spectrogram


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(room, "CHUNK_SAMPLES", 20_000)


@pytest.fixture
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def clips(batch: int = 7, size: int = 9000) -> tuple[torch.Tensor, torch.Tensor]:
    waveform = torch.randn(batch, size, generator=torch.Generator().manual_seed(0))
    return waveform, torch.linspace(4500, size, batch).long()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("threads", [1, 2])
def test_chunks_change_nothing(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        waveform, lengths = clips()
        module = MFCC()
        assert walks(waveform)
        for given in (lengths, None):
            expected = module.compute(waveform, given)
            torch.testing.assert_close(module(waveform, given), expected, atol=1e-4, rtol=0)
        extractor = FeatureExtractor(["mfcc", "rms", "spectrogram"])
        answer = extractor(waveform, lengths)
        for name, expected in extractor.stages.compute(waveform, lengths).items():
            torch.testing.assert_close(answer[name], expected, atol=1e-4, rtol=1e-5)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("small_chunks", "_two_threads")
def test_the_callers_number_of_threads_is_used_and_kept():
    seen = []

    def compute(waveform, lengths):
        seen.append((threading.get_ident(), torch.get_num_threads(), len(waveform)))
        return waveform + 1

    waveform, _ = clips(8)
    assert torch.equal(walk(compute, waveform, None), waveform + 1)
    assert [size for _, _, size in seen] == [2, 2, 2, 2]
    assert {threads for _, threads, _ in seen} == {1}
    assert threading.get_ident() not in {thread for thread, _, _ in seen}
    assert torch.get_num_threads() == 2
    started = []
    thread = threading.Thread(target=lambda: started.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert started == [2]


@pytest.mark.usefixtures("small_chunks", "_two_threads")
def test_an_error_in_a_chunk_is_raised():
    def compute(waveform, lengths):
        raise ParameterError("no")

    with pytest.raises(ParameterError, match="no"):
        walk(compute, clips()[0], None)
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("small_chunks")
def test_chunks_of_full_clips_get_no_lengths():
    seen = []

    def compute(waveform, lengths):
        seen.append(lengths is None)
        return waveform

    waveform, _ = clips(4)
    walk(compute, waveform, torch.tensor([9000, 9000, 9000, 8999]))
    assert seen == [True, False]


@pytest.mark.usefixtures("small_chunks")
def test_tuples_and_layouts_are_joined():
    waveform, _ = clips(6)
    swapped, whole = walk(lambda x, _: (x.unflatten(1, (90, 100)).mT, x.sum(1)), waveform, None)
    assert torch.equal(swapped, waveform.unflatten(1, (90, 100)).mT)
    assert torch.equal(whole, waveform.sum(1))


@pytest.mark.usefixtures("small_chunks")
def test_gradients_take_the_batch_whole():
    waveform, _ = clips()
    assert not walks(waveform.requires_grad_())
    Spectrogram()(waveform).sum().backward()
    assert waveform.grad.abs().amin(dim=1).gt(0).any()
    with torch.no_grad():
        assert walks(waveform)


@pytest.mark.parametrize("shape", [(1, 9000), (3, 0), (2, 1)])
def test_small_batches_are_one_chunk(shape):
    seen = []

    def compute(waveform, lengths):
        seen.append(waveform.shape)
        return waveform

    assert walk(compute, torch.zeros(shape), None).shape == shape
    assert seen == [shape]


def test_an_empty_batch_takes_no_walk():
    assert not walks(torch.zeros(0, 9000))
    assert Spectrogram()(torch.zeros(0, 9000)).shape == (0, 1025, 18)


@pytest.mark.usefixtures("small_chunks", "_two_threads")
def test_one_short_clip_takes_one_thread_and_a_long_one_all():
    seen = []

    def compute(waveform, lengths):
        seen.append(torch.get_num_threads())
        return waveform

    for size in (9000, 90_000):
        walk(compute, torch.zeros(1, size), None)
        assert torch.get_num_threads() == 2
    assert seen == [1, 2]
