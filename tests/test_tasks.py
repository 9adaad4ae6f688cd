import functools
import math

import lightning as L
import numpy as np
import pytest
import sklearn.metrics
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from audiotorch.data.datamodule import Batch
from audiotorch.errors import ParameterError
from audiotorch.features import MFCCStatistics, SpectrogramImage
from audiotorch.models import CNN, MLP, Ensemble, Linear
from audiotorch.pipeline import Pipeline
from audiotorch.training.augment import Augment
from audiotorch.training.progress import quiet
from audiotorch.training.tasks import ClassificationTask, balanced_weights, warmup_cosine

LABELS = ["a", "b", "c"]


def make_pipeline(model: type[nn.Module] = CNN, labels: list[str] = LABELS) -> Pipeline:
    torch.manual_seed(0)
    features = SpectrogramImage(4000, 128, 64, n_mels=16)
    settings = {"channels": (4, 8)} if model is CNN else {}
    network = model(len(labels), features.output_shape, **settings)
    return Pipeline(features, network, labels=labels, sample_rate=4000)


def make_task(pipeline: Pipeline | None = None, **settings: object) -> ClassificationTask:
    return ClassificationTask(
        pipeline or make_pipeline(), lambda p: torch.optim.SGD(p, lr=0.1), **settings
    )


def make_batches(n: int, batch: int = 8, seed: int = 1) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Batch(
            torch.randn(batch, 3000, generator=generator),
            torch.randint(2000, 3001, (batch,), generator=generator),
            torch.randint(3, (batch,), generator=generator),
            torch.arange(batch) + k * batch,
        )
        for k in range(n)
    ]


def loader(batches: list[Batch]) -> DataLoader:
    return DataLoader(batches, batch_size=None)


def make_trainer(**settings: object) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options = {"accelerator": "cpu", "enable_model_summary": False, "num_sanity_val_steps": 0}
    return L.Trainer(**{**quiet, **options, **settings})


def fit(task: ClassificationTask, train: list[Batch], epochs: int = 1) -> L.Trainer:
    trainer = make_trainer(max_epochs=epochs, log_every_n_steps=1)
    with quiet():
        trainer.fit(task, loader(train))
    return trainer


@pytest.mark.parametrize("counts", [[5, 5], [1, 3, 20], [7, 2, 2, 9]])
def test_balanced_weights_equal_sklearn(counts: list[int]):
    targets = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=targets)
    torch.testing.assert_close(
        balanced_weights(torch.tensor(counts)), torch.from_numpy(expected).float()
    )


def test_warmup_cosine_rises_then_follows_torch_cosine():
    def optimizer() -> torch.optim.Optimizer:
        return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)

    schedule = warmup_cosine(optimizer(), total_steps=50, warmup_share=0.2)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(), T_max=40)
    rates = []
    for _ in range(50):
        rates.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates[:10], 2.0 * np.arange(1, 11) / 10)
    for rate in rates[10:]:
        assert rate == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
        reference.optimizer.step()
        reference.step()
    assert schedule.get_last_lr()[0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"total_steps": 10, "warmup_share": 1.0}, r"warmup_share=1.0: must be from 0 to below 1"),
        ({"total_steps": 10, "warmup_share": -0.1}, r"warmup_share=-0.1: must be"),
        ({"total_steps": 0}, r"total_steps=0: must be at least 1 .* trainer.max_epochs"),
        ({"total_steps": math.inf}, r"total_steps=inf: must be at least 1 and finite"),
    ],
)
def test_warmup_cosine_refuses(settings: dict, match: str):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ParameterError, match=match):
        warmup_cosine(optimizer, **settings)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing=1.0: must be from 0 to below 1"),
        ({"ema_decay": 1.5}, r"ema_decay=1.5: must be from 0 to below 1"),
        ({"class_weights": "equal"}, r"class_weights='equal': must be null, or 'balanced'"),
        ({"class_weights": "balanced"}, r"class_weights='balanced': .* with class_counts"),
    ],
)
def test_task_refuses(settings: dict, match: str):
    with pytest.raises(ParameterError, match=match):
        make_task(**settings)


def test_task_refuses_one_label():
    with pytest.raises(ParameterError, match=r"labels=\['a'\]: must be two or more"):
        make_task(make_pipeline(labels=["a"]))


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_metrics_equal_sklearn(ema_decay: float | None):
    task = make_task(ema_decay=ema_decay).eval()
    batches = make_batches(4)
    trainer = make_trainer()
    with quiet():
        trainer.test(task, loader(batches), verbose=False)
    with torch.no_grad():
        logits = torch.cat([task.pipeline.logits(b.waveform, b.lengths) for b in batches])
    probabilities = logits.double().softmax(-1).numpy()
    targets = torch.cat([b.target for b in batches]).numpy()
    answers = probabilities.argmax(1)
    scores = task.scores["test"]
    assert scores["acc"] == pytest.approx(sklearn.metrics.accuracy_score(targets, answers))
    f1 = sklearn.metrics.f1_score(targets, answers, average="macro")
    assert scores["f1"] == pytest.approx(f1, abs=1e-6)
    loss = sklearn.metrics.log_loss(targets, probabilities, labels=[0, 1, 2])
    assert scores["loss"] == pytest.approx(loss, rel=1e-5)
    recall = sklearn.metrics.recall_score(targets, answers, average=None)
    assert list(scores["recall"]) == LABELS
    np.testing.assert_allclose(list(scores["recall"].values()), recall, atol=1e-9)
    confusion = sklearn.metrics.confusion_matrix(targets, answers, labels=[0, 1, 2])
    np.testing.assert_array_equal(scores["confusion_matrix"], confusion)
    # Calibration: mean distance of confidence and accuracy over 15 bins, weighted by size.
    confidence = probabilities.max(1)
    edges = np.minimum((confidence * 15).astype(int), 14)
    gaps = [
        (edges == k).mean()
        * abs((answers == targets)[edges == k].mean() - confidence[edges == k].mean())
        for k in np.unique(edges)
    ]
    assert scores["ece"] == pytest.approx(sum(gaps), abs=1e-6)


def test_a_class_without_clips_has_no_recall():
    task = make_task().eval()
    batch = make_batches(1)[0]
    batch = batch._replace(target=batch.target.clamp(max=1))
    with quiet():
        make_trainer().test(task, loader([batch]), verbose=False)
    assert task.scores["test"]["recall"]["c"] is None


def test_small_decay_averages_as_torch_does():
    # Below 0.1 the ramp never holds the decay back.
    task = make_task(ema_decay=0.05)
    reference = AveragedModel(
        task.pipeline.model, multi_avg_fn=get_ema_multi_avg_fn(0.05), use_buffers=True
    )
    for step in range(4):
        with torch.no_grad():
            for parameter in task.pipeline.model.parameters():
                parameter += 0.1 * (step + 1)
        task.on_train_batch_end()
        reference.update_parameters(task.pipeline.model)
    for own, other in zip(task.average.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own, other)


def test_average_forgets_the_start_and_is_what_is_evaluated():
    task = make_task(ema_decay=0.999)
    values = np.linspace(1, 2, 30)
    for value in values:
        with torch.no_grad():
            task.pipeline.model.head.bias.fill_(float(value))
        task.on_train_batch_end()
    expected = values[0]
    for n, value in enumerate(values[1:], start=1):
        decay = min(0.999, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    np.testing.assert_allclose(task.average.module.head.bias.numpy(), expected, rtol=1e-5)
    assert expected > 1.5
    batch = make_batches(1)[0]
    task.eval()
    x, counts = task.pipeline.front(batch.waveform, batch.lengths)
    with torch.no_grad():
        averaged = task.average.module(x, counts)
        task.use_average()
        torch.testing.assert_close(task.pipeline.model(x, counts), averaged)


def test_average_is_trained_along_and_saved(tmp_path):
    task = make_task(ema_decay=0.9)
    trainer = fit(task, make_batches(3))
    path = tmp_path / "one.ckpt"
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    name = "average.module.head.weight"
    assert int(checkpoint["state_dict"]["average.n_averaged"]) == 3
    torch.testing.assert_close(checkpoint["state_dict"][name], task.average.module.head.weight)
    assert not torch.equal(task.average.module.head.weight, task.pipeline.model.head.weight)
    assert checkpoint["audiotorch"]["labels"] == LABELS


def test_loss_is_weighted_smoothed_cross_entropy():
    counts = torch.tensor([1, 2, 9])
    settings = {"class_weights": "balanced", "class_counts": counts, "label_smoothing": 0.2}
    task = make_task(make_pipeline(Linear), **settings)
    batch = make_batches(1)[0]
    reference = make_pipeline(Linear).train()
    log_p = (
        reference.logits(batch.waveform, batch.lengths).log_softmax(-1).detach().double().numpy()
    )
    target = 0.8 * np.eye(3)[batch.target.numpy()] + 0.2 / 3
    weights = balanced_weights(counts).double().numpy()
    expected = -(target * weights * log_p).sum(1).mean()
    trainer = fit(task, [batch])
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-4)


def test_mixed_precision_leaves_augmentation_and_features_alone(monkeypatch: pytest.MonkeyPatch):
    task = make_task(augment=Augment(4000, speed=(0.9, 1.1), formant=0.1)).train()
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    images: list[Tensor] = []
    task.pipeline.model.register_forward_pre_hook(lambda _, inputs: images.append(inputs[0]))
    for mixed in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            task.training_step(make_batches(1)[0], 0)
    assert torch.equal(*images)


@pytest.mark.parametrize("features", [SpectrogramImage, MFCCStatistics])
def test_mixup_mixes_what_the_model_gets(
    monkeypatch: pytest.MonkeyPatch, features: type[nn.Module]
):
    front = features(4000, 128, 64, n_mels=20)
    model = Linear(3, front.output_shape)
    augment = Augment(4000, mixup=1.0)
    task = make_task(Pipeline(front, model, labels=LABELS, sample_rate=4000), augment=augment)
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    given: list[tuple[Tensor, Tensor]] = []
    model.register_forward_pre_hook(lambda _, inputs: given.append(inputs))
    batch = make_batches(1)[0]
    loss = task.train().training_step(batch, 0)
    # With only mixup on, waveform and image still draw their rows.
    generator = Augment.generator(42, 0, 0)
    waveform, lengths = augment.waveform(batch.waveform, batch.lengths, generator)
    x, counts = task.pipeline.front(waveform, lengths)
    if x.ndim == 4:
        augment.image(x, counts, generator)
    mixed, longer, target = augment.mix(x, counts, torch.eye(3)[batch.target], generator)
    assert not torch.equal(mixed, x)
    assert torch.equal(given[0][0], mixed)
    assert torch.equal(given[0][1], longer)
    # In training mode batch norm takes the batch's own statistics: the same answer again.
    expected = torch.nn.functional.cross_entropy(model(mixed, longer), target)
    torch.testing.assert_close(loss, expected)


def test_each_member_has_a_loss_of_its_own(monkeypatch: pytest.MonkeyPatch):
    front = MFCCStatistics(4000, 128, 64, n_mels=20)
    member = functools.partial(MLP, dropout=0.0)
    model = Ensemble(3, front.output_shape, member=member, n_members=4)
    pipeline = Pipeline(front, model, labels=LABELS, sample_rate=4000)
    task = make_task(pipeline, label_smoothing=0.1, augment=None).train()
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    batch = make_batches(1)[0]
    loss = task.training_step(batch, 0)
    answers = model.each(*pipeline.front(batch.waveform, batch.lengths)).unbind(1)
    assert len(answers) == 4
    losses = [
        nn.functional.cross_entropy(logits, batch.target, label_smoothing=0.1) for logits in answers
    ]
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_training_learns():
    batches = make_batches(4)
    tones = torch.sin(torch.arange(3000) * torch.tensor([[0.2], [0.8], [2.0]]))
    batches = [b._replace(waveform=0.1 * b.waveform + tones[b.target]) for b in batches]
    task = make_task(augment=Augment(4000, gain_db=6.0, n_freq_masks=1, freq_mask=3))
    fit(task, batches, epochs=5)
    answers = torch.cat([task.pipeline.eval()(b.waveform, b.lengths).argmax(1) for b in batches])
    targets = torch.cat([b.target for b in batches])
    assert (answers == targets).float().mean() > 0.9


def test_steps_draw_by_seed_epoch_and_step():
    def losses(seed: int, disturb: bool) -> list[float]:
        torch.manual_seed(3)
        task = make_task(
            augment=Augment(4000, gain_db=20.0, n_time_masks=1, time_mask=0.5), seed=seed
        )
        found = []
        original = task.training_step

        def step(batch: Batch, batch_idx: int) -> Tensor:
            if disturb:
                torch.rand(7)  # the global generator must not matter
            loss = original(batch, batch_idx)
            found.append(float(loss.detach()))
            return loss

        task.training_step = step
        fit(task, make_batches(2), epochs=2)
        return found

    assert losses(1, disturb=False) == losses(1, disturb=True)
    assert losses(1, disturb=False) != losses(2, disturb=False)


def test_a_diverged_training_is_stopped():
    task = make_task()
    batch = make_batches(1)[0]
    waveform = torch.full_like(batch.waveform, float("nan"))
    with (
        quiet(),
        pytest.raises(ParameterError, match=r"train/loss=nan in epoch 0: must be finite; lower"),
    ):
        make_trainer(max_epochs=1, log_every_n_steps=1).fit(
            task, loader([batch._replace(waveform=waveform)])
        )


def test_other_labels_do_not_resume():
    task = make_task()
    with pytest.raises(ParameterError, match=r"labels \['x', 'y'\].* model.init_from="):
        task.on_load_checkpoint({"audiotorch": {"labels": ["x", "y"]}})


def test_scheduler_gets_the_number_of_steps():
    seen = {}

    def scheduler(optimizer: torch.optim.Optimizer, total_steps: int):
        seen["total"] = total_steps
        return warmup_cosine(optimizer, total_steps)

    fit(make_task(scheduler=scheduler), make_batches(3), epochs=2)
    assert seen == {"total": 6}
