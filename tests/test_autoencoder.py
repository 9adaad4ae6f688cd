import numpy as np
import pytest
import torch
from contract import exported, run_on_fake_cuda, scripted
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.models import ConvAutoencoder, DenseAutoencoder, InterpolatingAutoencoder

SHAPE = (2, 12)
FRAMES = (57, 1, 2, 9, 31, 4, 33, 8)
PADDING = 40
BUILD = {
    "dense": lambda: DenseAutoencoder(SHAPE, hidden=16, n_layers=2, bottleneck=4),
    "conv": lambda: ConvAutoencoder(SHAPE, n_frames=10, channels=(4, 8), bottleneck=6),
    "idnn": lambda: InterpolatingAutoencoder(SHAPE, hidden=16, n_layers=2, bottleneck=4),
}


def images(frames: tuple[int, ...] = FRAMES, seed: int = 0) -> Tensor:
    """Seeded images; what lies past a clip's frames is left noisy, for the model to ignore."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(frames), *SHAPE, max(frames), generator=generator)


@pytest.fixture(scope="module", params=BUILD)
def model(request) -> nn.Module:
    """A few steps old, so that no statistic nor weight is what it was built with."""
    torch.manual_seed(0)
    model = BUILD[request.param]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(4):
        optimizer.zero_grad()
        model.loss(2 * images(seed=step) + 0.5, torch.tensor(FRAMES)).backward()
        optimizer.step()
    return model.eval()


def by_loops(model: nn.Module, image: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Score, error map and reconstruction of one clip alone, block by block and frame by frame."""
    n_frames, size = image.shape[-1], model.n_frames
    if isinstance(model, ConvAutoencoder):
        starts = list(range(0, max(n_frames - size, 0) + 1, size // 2))
        if starts[-1] + size < n_frames:
            starts.append(n_frames - size)
    else:
        starts = list(range(max(n_frames - size, 0) + 1))
    middle = isinstance(model, InterpolatingAutoencoder)
    errors, squares, values, hits = [], np.zeros(image.shape), np.zeros(image.shape), {}
    for start in starts:
        frames = [min(start + k, n_frames - 1) for k in range(size)]
        block = image[..., frames]  # (channel, n_mels, n_frames)
        stacked = np.stack([block[..., k].ravel() for k in range(size)])
        with torch.no_grad():
            answer = model.net(torch.from_numpy(stacked)[None])[0].numpy()
        shown = [size // 2] if middle else range(size)
        missed = []
        for k, predicted in zip(shown, answer, strict=True):
            difference = predicted.reshape(SHAPE) - block[..., k]
            missed.append(np.mean(difference**2))
            squares[..., frames[k]] += difference**2
            values[..., frames[k]] += predicted.reshape(SHAPE)
            hits[frames[k]] = hits.get(frames[k], 0) + 1
        errors.append(np.mean(missed))
    reconstruction = image.copy()
    for frame, n in hits.items():
        squares[..., frame] /= n
        reconstruction[..., frame] = values[..., frame] / n
    return float(np.mean(errors)), squares.mean(axis=0), reconstruction


def test_score_map_and_reconstruction_equal_loops(model):
    """In float64, on every clip of a padded batch."""
    double, image, counts = model.double(), images().double(), torch.tensor(FRAMES)
    with torch.no_grad():
        score = double(image, counts)
        error, shown = double.error_map(image, counts), double.reconstruct(image, counts)
        loss = double.loss(image, counts)
    assert error.shape == (len(FRAMES), SHAPE[1], max(FRAMES))
    assert shown.shape == image.shape
    n_blocks = []
    for i, n in enumerate(FRAMES):
        expected = by_loops(double, image[i, ..., :n].numpy())
        assert score[i].item() == pytest.approx(expected[0], rel=1e-12)
        np.testing.assert_allclose(error[i, :, :n], expected[1], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(shown[i, ..., :n], expected[2], rtol=1e-10, atol=1e-12)
        assert (error[i, :, n:] == 0).all()
        assert (shown[i, ..., n:] == 0).all()
        n_blocks.append(-(-max(n - double.n_frames, 0) // double.hop) + 1)
    # Every block weighs the same in training.
    assert loss.item() == pytest.approx(np.average(score, weights=n_blocks), rel=1e-12)
    model.float()


def test_dense_is_the_dcase_baseline():
    """The baseline's own summary: 269 992 parameters, of which 267 928 are trained."""
    model = DenseAutoencoder((1, 128))
    trained = 0
    for n_in, n_out in [(640, 128), *[(128, 128)] * 3, (128, 8), (8, 128), *[(128, 128)] * 3]:
        trained += n_in * n_out + n_out + 2 * n_out  # weights, bias, batch normalisation
    trained += 128 * 640 + 640
    assert trained == 267_928
    assert sum(p.numel() for p in model.parameters()) == trained
    statistics = [b.numel() for name, b in model.named_buffers() if "running" in name]
    assert trained + sum(statistics) == 269_992
    kinds = [type(layer).__name__ for layer in model.net][1:-1]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 9 + ["Linear"]


def test_middle_frame_does_not_predict_itself():
    model = BUILD["idnn"]().eval()
    image, counts = images((5,)), torch.tensor([5])
    other = image.clone()
    other[..., 2] += 3.0
    first, second = model.reconstruct(image, counts), model.reconstruct(other, counts)
    assert torch.equal(first[..., 2], second[..., 2])
    assert not torch.allclose(model(image, counts), model(other, counts))


@pytest.mark.parametrize("method", ["forward", "error_map", "reconstruct"])
def test_answer_does_not_depend_on_padding_or_batch(model, method):
    image, counts = images(), torch.tensor(FRAMES)
    answer = getattr(model, method)
    with torch.no_grad():
        together = answer(image, counts)
        padded = answer(nn.functional.pad(image, (0, PADDING), value=7.0), counts)
        if method != "forward":
            assert (padded[..., max(FRAMES) :] == 0).all()
            padded = padded[..., : max(FRAMES)]
        torch.testing.assert_close(padded, together, atol=1e-6, rtol=1e-6)
        for i, n in enumerate(FRAMES):
            alone = answer(image[i : i + 1, ..., :n], counts[i : i + 1])
            expected = together[i : i + 1] if method == "forward" else together[i : i + 1, ..., :n]
            torch.testing.assert_close(alone, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 4, -1])
def test_nan_stays_in_its_own_clip(model, value, place):
    image, counts = images(), torch.tensor(FRAMES)
    broken = image.clone()
    broken[3, 0, 5, FRAMES[3] - 1 if place == -1 else place] = value
    broken[4, ..., FRAMES[4] :] = value
    with torch.no_grad():
        answer, expected = model(broken, counts), model(image, counts)
    others = torch.arange(len(FRAMES)) != 3
    assert not torch.isfinite(answer[3])
    torch.testing.assert_close(answer[others], expected[others], atol=1e-6, rtol=0)


def test_input_is_left_alone(model):
    image = images()
    before = image.clone()
    for method in (model, model.error_map, model.reconstruct, model.loss):
        method(image, torch.tensor(FRAMES))
    assert torch.equal(image, before)


def test_scripted_equals_eager(model):
    file = scripted(model)
    for frames in ((1,), (20, 3), FRAMES):
        image, counts = images(frames), torch.tensor(frames)
        for method in ("forward", "error_map", "reconstruct"):
            ours = getattr(file, method)(image, counts)
            torch.testing.assert_close(ours, getattr(model, method)(image, counts))


def test_exported_program_takes_any_batch_and_frames(model):
    program = exported(model, images((40, 25)), torch.tensor([40, 25]))
    for frames in ((1,), (20, 3), FRAMES):
        image, counts = images(frames), torch.tensor(frames)
        torch.testing.assert_close(program(image, counts), model(image, counts))


def test_runs_on_fake_cuda(model):
    score = run_on_fake_cuda(model, images(), torch.tensor(FRAMES))
    assert score.device.type == "cuda"
    assert score.shape == (len(FRAMES),)


@pytest.mark.parametrize("name", BUILD)
def test_gradients_reach_every_parameter(name):
    model = BUILD[name]()
    model.loss(images(), torch.tensor(FRAMES)).backward()
    for parameter_name, parameter in model.named_parameters():
        # A bias in front of batch normalisation has no effect.
        free = parameter_name.endswith("bias") and parameter.ndim == 1
        assert parameter.grad is not None, parameter_name
        assert free or (parameter.grad != 0).any(), parameter_name


@pytest.mark.parametrize("name", BUILD)
def test_padding_does_not_train(name):
    """Loss and running statistics are the same, whatever follows a clip."""
    states = []
    for value in (0.0, 50.0):
        torch.manual_seed(0)
        model = BUILD[name]()
        image = images()
        for i, n in enumerate(FRAMES):
            image[i, ..., n:] = value
        model.loss(image, torch.tensor(FRAMES)).backward()
        states.append(model.state_dict())
    for key, tensor in states[0].items():
        assert torch.equal(tensor, states[1][key]), key


@pytest.mark.parametrize("kind", [DenseAutoencoder, ConvAutoencoder, InterpolatingAutoencoder])
@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((240,), {}, r"input_shape=\[240\]: \w+Autoencoder reads images .* features=log_mel"),
        ((1, 40), {"n_frames": 0}, r"n_frames=0: must be a whole number of at least 1"),
        ((1, 40), {"bottleneck": 2.5}, r"bottleneck=2.5: must be a whole number"),
    ],
)
def test_wrong_settings_are_refused(kind, shape, options, message):
    with pytest.raises(ParameterError, match=message):
        kind(shape, **options)


@pytest.mark.parametrize("n_frames", [1, 4])
def test_a_middle_needs_neighbours(n_frames):
    with pytest.raises(ParameterError, match=rf"n_frames={n_frames}: must be odd and at least 3"):
        InterpolatingAutoencoder((1, 40), n_frames=n_frames)


def test_conv_needs_stages():
    with pytest.raises(ParameterError, match=r"n_stages=0: must be a whole number"):
        ConvAutoencoder((1, 40), channels=())
