import copy
import sys

import pytest
import torch
from contract import exported, run_on_fake_cuda, scripted
from torch import Tensor, nn

from audiotorch.errors import MissingDependencyError, ParameterError
from audiotorch.models import CNN, TimmCNN

N_CLASSES = 5
SHAPES = [(1, 40), (3, 24)]
PADDING = 300  # frames: 3 s at a hop of 10 ms
FRAMES = (57, 1, 2, 9, 31, 56, 33, 8)


def images(shape: tuple[int, int], frames: tuple[int, ...] = FRAMES, seed: int = 0) -> Tensor:
    """Seeded images; what lies past a clip's frames is left noisy, for the model to ignore."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(frames), *shape, max(frames), generator=generator)


def train(model: nn.Module, shape: tuple[int, int], steps: int = 4) -> nn.Module:
    """Take a few steps, so that no BatchNorm statistic nor weight is what it was built with."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    target = torch.arange(len(FRAMES)) % N_CLASSES
    for step in range(steps):
        optimizer.zero_grad()
        image = 2.0 * images(shape, seed=100 + step) + 0.5
        nn.functional.cross_entropy(model(image, torch.tensor(FRAMES)), target).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def shape(request) -> tuple[int, int]:
    return request.param


@pytest.fixture(scope="module")
def model(shape) -> nn.Module:
    torch.manual_seed(0)
    model = train(CNN(N_CLASSES, shape), shape)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all((norm.running_mean != 0).all() and (norm.running_var != 1).all() for norm in norms)
    return model


def check_padding(model: nn.Module, shape: tuple[int, int]) -> None:
    """A clip alone, in a batch, and padded further has one answer."""
    image, counts = images(shape), torch.tensor(FRAMES)
    with torch.no_grad():
        together = model(image, counts)
        padded = model(nn.functional.pad(image, (0, PADDING), value=7.0), counts)
        torch.testing.assert_close(padded, together, atol=1e-5, rtol=0)
        for i, n in enumerate(FRAMES):
            alone = model(image[i : i + 1, ..., :n], counts[i : i + 1])
            torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=0)
    assert (together[1:] - together[:1]).abs().amax() > 1e-3, "the answers hardly differ"


def check_scripted(model: nn.Module, shape: tuple[int, int]) -> None:
    file = scripted(model)
    for frames in ((1,), (20, 3), FRAMES):
        image, counts = images(shape, frames), torch.tensor(frames)
        torch.testing.assert_close(file(image, counts), model(image, counts))


def check_exported(model: nn.Module, shape: tuple[int, int]) -> None:
    program = exported(model, images(shape, (40, 25)), torch.tensor([40, 25]))
    for frames in ((1,), (20, 3), FRAMES):
        image, counts = images(shape, frames), torch.tensor(frames)
        torch.testing.assert_close(program(image, counts), model(image, counts))


def test_has_less_than_a_million_parameters():
    n_parameters = sum(parameter.numel() for parameter in CNN(50, (3, 128)).parameters())
    assert n_parameters < 1_000_000
    # The docstring says so.
    assert sum(p.numel() for p in CNN(10, (1, 64)).parameters()) == pytest.approx(0.31e6, rel=0.02)


def test_answer_does_not_depend_on_padding_or_batch(model, shape):
    check_padding(model, shape)


def test_padding_changes_nothing_in_float64(model, shape):
    image, counts = images(shape).double(), torch.tensor(FRAMES)
    double = copy.deepcopy(model).double()
    with torch.no_grad():
        padded = double(nn.functional.pad(image, (0, PADDING), value=7.0), counts)
        torch.testing.assert_close(padded, double(image, counts), atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_stays_in_its_own_clip(model, shape, value):
    image, counts = images(shape), torch.tensor(FRAMES)
    broken = image.clone()
    broken[3, 0, 5, 2] = value
    broken[4, ..., FRAMES[4] :] = value
    with torch.no_grad():
        answer, expected = model(broken, counts), model(image, counts)
    others = torch.arange(len(FRAMES)) != 3
    assert not torch.isfinite(answer[3]).any()
    torch.testing.assert_close(answer[others], expected[others], atol=1e-6, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 9, 64, 513])
def test_any_number_of_frames_has_an_answer(model, shape, frames):
    logits = model(images(shape, (frames, frames)), torch.tensor([frames, 1]))
    assert logits.shape == (2, N_CLASSES)
    assert torch.isfinite(logits).all()


def test_input_is_left_alone(model, shape):
    image = images(shape)
    before = image.clone()
    model(image, torch.tensor(FRAMES))
    assert torch.equal(image, before)


def test_scripted_equals_eager(model, shape):
    check_scripted(model, shape)


def test_exported_program_takes_any_batch_and_frames(model, shape):
    check_exported(model, shape)


def test_runs_on_fake_cuda(model, shape):
    logits = run_on_fake_cuda(model, images(shape), torch.tensor(FRAMES))
    assert logits.device.type == "cuda"
    assert logits.shape == (len(FRAMES), N_CLASSES)


def test_gradients_reach_every_parameter(shape):
    torch.manual_seed(0)
    model = CNN(N_CLASSES, shape)
    image = images(shape).requires_grad_()
    model(image, torch.tensor(FRAMES)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name
    for i, n in enumerate(FRAMES):
        assert (image.grad[i, ..., :n] != 0).any()
        assert (image.grad[i, ..., n:] == 0).all(), "padding has a gradient"


def test_learns_a_course_in_time():
    """Rising against falling: the same rows, for the same time, in another order."""
    torch.manual_seed(0)
    model = CNN(2, (1, 16), channels=(8, 16), dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    rising = torch.eye(16).repeat_interleave(2, dim=1)
    clean = torch.stack([rising, rising.flip(1)])[:, None].repeat(8, 1, 1, 1)
    target = torch.tensor([0, 1]).repeat(8)
    counts = torch.full((16,), 32)
    for _ in range(25):
        optimizer.zero_grad()
        noisy = clean + 0.3 * torch.randn_like(clean)
        nn.functional.cross_entropy(model(noisy, counts), target).backward()
        optimizer.step()
    answer = model.eval()(clean + 0.3 * torch.randn_like(clean), counts).argmax(dim=1)
    assert torch.equal(answer, target)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3, (240,)), {}, r"input_shape=\[240\]: CNN reads images .* model=mlp"),
        ((3, (1, 40, 9)), {}, r"input_shape=\[1, 40, 9\]: CNN reads images"),
        ((0, (1, 40)), {}, r"n_classes=0.*at least one class"),
        ((3, (1, 40)), {"channels": (16,)}, r"channels=\[16\].*a stem and one stage"),
    ],
)
def test_wrong_settings_are_refused(arguments, options, message):
    with pytest.raises(ParameterError, match=message):
        CNN(*arguments, **options)


def test_timm_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'audiotorch\[timm\]'"):
        TimmCNN(3, (1, 40))


@pytest.fixture(scope="module")
def timm_model() -> nn.Module:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    return train(TimmCNN(N_CLASSES, (1, 40), name="resnet18", n_frames=32), (1, 40), steps=2)


def test_timm_answer_does_not_depend_on_padding_or_batch(timm_model):
    check_padding(timm_model, (1, 40))


def test_timm_scripted_equals_eager(timm_model):
    check_scripted(timm_model, (1, 40))


def test_timm_exported_program_takes_any_batch_and_frames(timm_model):
    check_exported(timm_model, (1, 40))


def test_timm_runs_on_fake_cuda(timm_model):
    logits = run_on_fake_cuda(timm_model, images((1, 40)), torch.tensor(FRAMES))
    assert logits.device.type == "cuda"


def test_timm_backbone_sees_the_clip_stretched(timm_model):
    seen = []
    hook = timm_model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = images((1, 40))
    timm_model(image, torch.tensor(FRAMES))
    hook.remove()
    for i, n in enumerate(FRAMES):
        expected = nn.functional.interpolate(
            image[i : i + 1, 0, :, :n], size=32, mode="linear", align_corners=True
        )
        torch.testing.assert_close(seen[0][i], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3, (1, 40)), {"name": "resnet81"}, r"name='resnet81': not a timm model; near names:"),
        ((3, (240,)), {}, r"input_shape=\[240\]: TimmCNN reads images"),
        ((0, (1, 40)), {}, r"n_classes=0"),
        ((3, (1, 40)), {"n_frames": 0}, r"n_frames=0"),
    ],
)
def test_timm_wrong_settings_are_refused(arguments, options, message):
    pytest.importorskip("timm")
    with pytest.raises(ParameterError, match=message):
        TimmCNN(*arguments, **options)
