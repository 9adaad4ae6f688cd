import copy

import numpy as np
import pytest
import torch
from contract import exported, run_on_fake_cuda, scripted
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.models import MLP, Linear

N_CLASSES = 4
SHAPES = [(12,), (1, 6), (3, 4)]
FRAMES = (40, 1, 2, 9, 31, 39, 17, 8)
PADDING = 300  # frames: 3 s at a hop of 10 ms


def inputs(shape: tuple[int, ...], frames: tuple[int, ...] = FRAMES, seed: int = 0) -> Tensor:
    """Seeded vectors or images; what lies past a clip's frames is left noisy."""
    generator = torch.Generator().manual_seed(seed)
    size = [len(frames), *shape, *([max(frames)] if len(shape) == 2 else [])]
    return 3.0 * torch.randn(size, generator=generator) + 1.0


def train(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Take a few steps, so that neither the scaler nor a weight is what it was built with."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    target = torch.arange(len(FRAMES)) % N_CLASSES
    for step in range(4):
        optimizer.zero_grad()
        logits = model(inputs(shape, seed=100 + step), torch.tensor(FRAMES))
        nn.functional.cross_entropy(logits, target).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def shape(request) -> tuple[int, ...]:
    return request.param


@pytest.fixture(scope="module", params=[MLP, Linear], ids=lambda kind: kind.__name__)
def model(request, shape) -> nn.Module:
    torch.manual_seed(0)
    model = train(request.param(N_CLASSES, shape), shape)
    assert (model.layers[0].running_mean != 0).all()
    return model


@pytest.mark.parametrize("kind", [MLP, Linear])
def test_has_less_than_a_million_parameters(kind):
    for shape in [(240,), (3, 128)]:
        assert sum(parameter.numel() for parameter in kind(50, shape).parameters()) < 1_000_000


def test_answer_does_not_depend_on_batch_or_padding(model, shape):
    x, counts = inputs(shape), torch.tensor(FRAMES)
    with torch.no_grad():
        together = model(x, counts)
        if len(shape) == 2:
            padded = model(nn.functional.pad(x, (0, PADDING), value=7.0), counts)
            torch.testing.assert_close(padded, together, atol=1e-5, rtol=0)
        for i, n in enumerate(FRAMES):
            clip = x[i : i + 1] if len(shape) == 1 else x[i : i + 1, ..., :n]
            alone = model(clip, counts[i : i + 1])
            torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=0)
    assert (together[1:] - together[:1]).abs().amax() > 1e-3, "the answers hardly differ"


@pytest.mark.parametrize("kind", [MLP, Linear])
@pytest.mark.parametrize("image_shape", [(1, 6), (3, 4)], ids=str)
def test_images_are_pooled_as_by_numpy(kind, image_shape):
    torch.manual_seed(0)
    image = inputs(image_shape)
    pooled = []
    for clip, n in zip(image.double().numpy(), FRAMES, strict=True):
        own = clip[..., :n]
        # Channel by channel: all rows' mean, then all rows' standard deviation ...
        statistics = [own.mean(-1), own.std(-1), own.min(-1), own.max(-1)]
        pooled.append(np.stack(statistics, axis=1).ravel())
    vector = torch.from_numpy(np.stack(pooled)).float()
    on_images = train(kind(N_CLASSES, image_shape), image_shape)
    on_vectors = kind(N_CLASSES, vector.shape[1:]).eval()
    on_vectors.load_state_dict(on_images.state_dict())
    counts = torch.tensor(FRAMES)
    torch.testing.assert_close(
        on_images(image, counts), on_vectors(vector, counts), atol=1e-4, rtol=1e-5
    )


def fill_scaler(model: nn.Module, scaler: StandardScaler) -> None:
    model.layers[0].running_mean.copy_(torch.from_numpy(scaler.mean_))
    model.layers[0].running_var.copy_(torch.from_numpy(scaler.var_))


def features_and_target() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    target = np.arange(120) % N_CLASSES
    centre = generator.normal(size=(N_CLASSES, 12))
    scale = np.geomspace(0.1, 100.0, 12)
    return scale * (centre[target] + generator.normal(size=(120, 12))), target


def test_linear_is_standardisation_and_logistic_regression_of_sklearn():
    x, target = features_and_target()
    scaler = StandardScaler().fit(x)
    fitted = LogisticRegression().fit(scaler.transform(x), target)
    model = Linear(N_CLASSES, (12,)).double().eval()
    fill_scaler(model, scaler)
    model.layers[1].weight.data.copy_(torch.from_numpy(fitted.coef_))
    model.layers[1].bias.data.copy_(torch.from_numpy(fitted.intercept_))
    with torch.no_grad():
        logits = model(torch.from_numpy(x), torch.ones(len(x), dtype=torch.int64))
    # BatchNorm adds 1e-5 to the variance, 1e-3 of the smallest column's here.
    np.testing.assert_allclose(
        logits.numpy(), fitted.decision_function(scaler.transform(x)), atol=1e-2
    )
    probabilities = logits.softmax(dim=1).numpy()
    np.testing.assert_allclose(probabilities, fitted.predict_proba(scaler.transform(x)), atol=2e-3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_mlp_is_standardisation_and_perceptron_of_sklearn():
    x, target = features_and_target()
    scaler = StandardScaler().fit(x)
    fitted = MLPClassifier((16, 8), max_iter=20, random_state=0).fit(scaler.transform(x), target)
    model = MLP(N_CLASSES, (12,), hidden=(16, 8)).double().eval()
    fill_scaler(model, scaler)
    linears = [layer for layer in model.layers if isinstance(layer, nn.Linear)]
    for layer, weight, bias in zip(linears, fitted.coefs_, fitted.intercepts_, strict=True):
        layer.weight.data.copy_(torch.from_numpy(weight.T))
        layer.bias.data.copy_(torch.from_numpy(bias))
    with torch.no_grad():
        logits = model(torch.from_numpy(x), torch.ones(len(x), dtype=torch.int64))
    expected = fitted.predict_proba(scaler.transform(x))
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), expected, atol=1e-4)


def test_scaler_is_the_running_mean_and_variance_of_training():
    model = Linear(N_CLASSES, (12,)).train()
    batches = [torch.from_numpy(features_and_target()[0]).float() for _ in range(150)]
    for batch in batches:
        model(batch, torch.ones(len(batch), dtype=torch.int64))
    expected = batches[0].double().numpy()
    np.testing.assert_allclose(model.layers[0].running_mean, expected.mean(0), rtol=1e-4)
    np.testing.assert_allclose(model.layers[0].running_var, expected.var(0, ddof=1), rtol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_stays_in_its_own_clip(model, shape, value):
    x, counts = inputs(shape), torch.tensor(FRAMES)
    broken = x.clone()
    broken[3, 0] = value
    if len(shape) == 2:
        broken[4, ..., FRAMES[4] :] = value
    with torch.no_grad():
        answer, expected = model(broken, counts), model(x, counts)
    others = torch.arange(len(FRAMES)) != 3
    assert not torch.isfinite(answer[3]).all()
    torch.testing.assert_close(answer[others], expected[others], atol=1e-6, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 9, 513])
def test_any_number_of_frames_has_an_answer(model, shape, frames):
    logits = model(inputs(shape, (frames, frames)), torch.tensor([frames, 1]))
    assert logits.shape == (2, N_CLASSES)
    assert torch.isfinite(logits).all()


def test_input_is_left_alone(model, shape):
    x = inputs(shape)
    before = x.clone()
    model(x, torch.tensor(FRAMES))
    assert torch.equal(x, before)


def test_scripted_equals_eager(model, shape):
    file = scripted(model)
    for frames in ((1,), (20, 3), FRAMES):
        x, counts = inputs(shape, frames), torch.tensor(frames)
        torch.testing.assert_close(file(x, counts), model(x, counts))


def test_exported_program_takes_any_batch_and_frames(model, shape):
    example = inputs(shape, (40, 25)), torch.tensor([40, 25])
    if len(shape) == 2:
        program = exported(model, *example)
    else:
        batch = {0: torch.export.Dim.AUTO}
        program = torch.export.export(model, example, dynamic_shapes=(batch, batch)).module()
    for frames in ((1,), (20, 3), FRAMES):
        x, counts = inputs(shape, frames), torch.tensor(frames)
        torch.testing.assert_close(program(x, counts), model(x, counts))


def test_runs_on_fake_cuda(model, shape):
    logits = run_on_fake_cuda(model, inputs(shape), torch.tensor(FRAMES))
    assert logits.device.type == "cuda"
    assert logits.shape == (len(FRAMES), N_CLASSES)


def test_gradients_reach_every_parameter(model, shape):
    model = copy.deepcopy(model)
    model.zero_grad()
    # A clip of one frame has no spread, and the root's slope at 0 is infinite: it stays outside.
    x = inputs(shape)[2:].requires_grad_()
    model(x, torch.tensor(FRAMES[2:])).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad != 0).any(), name
    assert torch.isfinite(x.grad).all()
    assert (x.grad.flatten(1) != 0).any(dim=1).all()


def test_linear_is_an_mlp_without_hidden_layers():
    assert [type(layer) for layer in Linear(3, (12,)).layers] == [nn.BatchNorm1d, nn.Linear]
    assert not any(isinstance(layer, nn.ReLU) for layer in MLP(3, (12,), hidden=()).layers)


@pytest.mark.parametrize("kind", [MLP, Linear])
@pytest.mark.parametrize(
    ("n_classes", "input_shape", "message"),
    [
        (0, (12,), r"n_classes=0.*at least one class"),
        (3, (), r"input_shape=\[\].*vectors \(n_features,\) or images \(channel, n_mels\)"),
        (3, (1, 40, 9), r"input_shape=\[1, 40, 9\].*vectors"),
    ],
)
def test_wrong_settings_are_refused(kind, n_classes, input_shape, message):
    with pytest.raises(ParameterError, match=message):
        kind(n_classes, input_shape)
