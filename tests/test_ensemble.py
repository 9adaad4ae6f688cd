import functools

import pytest
import torch
from contract import exported, run_on_fake_cuda, scripted
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.models import CNN, Ensemble

SHAPE = (2, 16)
FRAMES = torch.tensor([40, 9, 25])
SmallCNN = functools.partial(CNN, channels=(4, 8))


def images(frames: Tensor = FRAMES) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(frames), *SHAPE, int(frames.max()), generator=generator)


@pytest.fixture
def model() -> Ensemble:
    torch.manual_seed(0)
    return Ensemble(3, SHAPE, member=SmallCNN, n_members=3).eval()


def test_answer_is_the_mean_of_the_members_log_probabilities(model):
    x = images()
    each = torch.stack([member(x, FRAMES).log_softmax(-1) for member in model.members])
    torch.testing.assert_close(model(x, FRAMES), each.mean(dim=0))
    assert (each[0] - each[1]).abs().max() > 1e-3, "members start alike"


def test_each_gives_the_members_own_logits(model):
    x = images()
    each = model.each(x, FRAMES)
    assert each.shape == (3, 3, 3)
    for k, member in enumerate(model.members):
        torch.testing.assert_close(each[:, k], member(x, FRAMES))


def test_padding_and_batch_change_nothing(model):
    x = images()
    together = model(nn.functional.pad(x, (0, 30), value=5.0), FRAMES)
    for k, n in enumerate(FRAMES.tolist()):
        alone = model(x[k : k + 1, ..., :n], FRAMES[k : k + 1])
        torch.testing.assert_close(alone, together[k : k + 1], atol=1e-5, rtol=0)


def test_scripts_exports_and_runs_on_fake_cuda(model):
    x = images()
    torch.testing.assert_close(scripted(model)(x, FRAMES), model(x, FRAMES))
    program = exported(model, images(FRAMES[:2]), FRAMES[:2])
    torch.testing.assert_close(program(x, FRAMES), model(x, FRAMES))
    assert run_on_fake_cuda(model, x, FRAMES).shape == (3, 3)


def test_no_member_is_refused():
    with pytest.raises(ParameterError, match=r"n_members=0: must be at least 1"):
        Ensemble(3, SHAPE, member=SmallCNN, n_members=0)
