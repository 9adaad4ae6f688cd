"""Decoding at start, batches, the training order, and what is refused."""

import csv
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from audiotorch.data import AudioDataModule, AudioDataset, Batch, Clip, collate
from audiotorch.data.dataset import EpochSampler, WaveformStore
from audiotorch.errors import ParameterError

DATA = os.environ.get("AUDIOTORCH_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="AUDIOTORCH_DATA names no recordings")
RATE = 8000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three classes of 16 clips, 0.1 to 0.6 s of noise, two channels in one of them."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for label in ("10", "9", "1"):
        (root / label).mkdir()
        for i in range(16):
            shape = (int(rng.integers(800, 4800)), 2 if label == "9" else 1)
            soundfile.write(root / label / f"{label}x{i}.wav", 0.1 * rng.normal(size=shape), RATE)
    return root


@pytest.fixture
def broken(tmp_path):
    """Two classes with one clip of each kind of fault."""
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(4):
            soundfile.write(tmp_path / label / f"{i}.wav", 0.1 * rng.normal(size=4000), RATE)
    (tmp_path / "a/junk.wav").write_bytes(b"not audio at all" * 20)
    soundfile.write(tmp_path / "a/none.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "b/nan.wav", np.array([0.0, np.nan] * 2000), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "b/short.wav", np.zeros(80), RATE)
    return tmp_path


def module(root, **settings):
    data = AudioDataModule(root, sample_rate=RATE, **settings)
    data.setup()
    return data


def epoch_of(loader, epoch):
    """The batches of an epoch, as Lightning asks for them."""
    loader.sampler.set_epoch(epoch)
    return list(loader)


# --- what setup finds ----------------------------------------------------------------------------


def test_setup_labels_counts_and_parts(corpus):
    data = module(corpus, test_fraction=0.25)
    assert data.labels == ["1", "9", "10"]
    assert data.failures == []
    assert [len(data.splits.train), len(data.splits.val), len(data.splits.test)] == [30, 6, 12]
    assert data.class_counts.tolist() == [10, 10, 10]
    assert not data.fixed_schedule
    first = data.splits
    data.setup("test")
    assert data.splits is first


def test_waveforms_are_the_files_samples(corpus):
    data = module(corpus)
    for i in range(0, len(data.train_set), 7):
        waveform, target, index = data.train_set[i]
        clip = data.splits.train[i]
        samples, _ = soundfile.read(clip.path, dtype="float32", always_2d=True)
        torch.testing.assert_close(waveform, torch.from_numpy(samples.mean(axis=1)))
        assert (data.labels[target], index) == (clip.label, i)


def test_cache_limit_changes_nothing_but_memory(corpus):
    kept, decoded = module(corpus), module(corpus, cache_gb=0)
    some = module(corpus, cache_gb=2e-5)
    assert len(decoded._store._places) == 0 < len(some._store._places) < len(kept._store._places)
    for i in range(len(kept.train_set)):
        for other in (decoded, some):
            assert torch.equal(kept.train_set[i][0], other.train_set[i][0])


def test_store_spreads_over_blocks(corpus, monkeypatch):
    monkeypatch.setattr(WaveformStore, "BLOCK", 5000)
    data = module(corpus)
    assert len(data._store._blocks) > 5
    whole = AudioDataset(data.splits.train, data.labels, RATE)
    assert all(torch.equal(data.train_set[i][0], whole[i][0]) for i in range(len(whole)))


def test_bad_files_are_listed_and_skipped(broken, caplog):
    with caplog.at_level(logging.WARNING):
        data = module(broken, min_duration=0.05)
    reasons = {path.name: reason for path, reason in data.failures}
    assert set(reasons) == {"junk.wav", "none.wav", "nan.wav", "short.wav"}
    assert "readable" in reasons["junk.wav"]
    assert reasons["none.wav"] == "it holds no samples"
    assert "NaN" in reasons["nan.wav"]
    assert reasons["short.wav"] == "too short: 0.010 s, below 0.05 s"
    assert "4 of 12 files cannot be used and are skipped" in caplog.text
    assert all(name in caplog.text for name in reasons)
    used = {clip.path.name for clip in data.splits.train + data.splits.val}
    assert not used & set(reasons)


def test_bad_files_are_refused_on_request(broken):
    with pytest.raises(ParameterError, match=r"4 of 12 files cannot be used: .*junk.wav.*=skip"):
        module(broken, on_error="raise")


def test_classes_are_checked_again_without_bad_files(broken):
    for i in range(1, 4):
        (broken / f"a/{i}.wav").write_bytes(b"junk")
    with pytest.raises(ParameterError, match=r"7 of 12 files cannot be used .* 'a' has one clip"):
        module(broken)
    (broken / "a/0.wav").write_bytes(b"junk")
    for i in range(4):
        (broken / f"b/{i}.wav").unlink()
        (broken / f"b/{i}.wav").write_bytes(b"")
    with pytest.raises(ParameterError, match="12 of 12 files cannot be used, so nothing is left"):
        module(broken)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: must be an integer of at least 1"),
        ({"sample_rate": 16000.0}, "sample_rate=16000.0: must be an integer"),
        ({"num_workers": -1}, "num_workers=-1: must be an integer of at least 0"),
        ({"min_duration": -1.0}, "min_duration=-1.0: must be finite and at least 0"),
        ({"cache_gb": None}, "cache_gb=None: must be finite and at least 0"),
        ({"root": ["a", "b"]}, "root=.*'a', 'b'.*: must be one name"),
        ({"max_duration": "long"}, "max_duration='long': must be positive seconds"),
        ({"max_duration": 0.01}, r"max_duration=0\.01: must be positive seconds of at least min_"),
        ({"on_error": "ignore"}, "on_error='ignore': must be 'skip' or 'raise'"),
    ],
)
def test_settings_are_refused_early(settings, message):
    with pytest.raises(ParameterError, match=message):
        AudioDataModule(**{"root": "anywhere", **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"root=None: name the recordings: data\.root=FOLDER"),
        ({"root": "x", "pattern": "*.wav"}, r"needs data\.regex"),
        ({"manifest": "x.csv", "regex": "x"}, r"must be left out where data\.manifest"),
        ({"root": "no/such/folder"}, "must be an existing folder"),
        ({"root": ""}, "root='': must be an existing folder"),
    ],
)
def test_sources_are_refused_at_setup(settings, message):
    with pytest.raises(ParameterError, match=message):
        AudioDataModule(**settings).setup()


def test_pattern_and_manifest_reach_their_readers(corpus, tmp_path):
    by_name = module(corpus, pattern="*/*.wav", regex=r"(?P<label>\d+)x(?P<group>\d)\d*\.wav$")
    assert {clip.group for clip in by_name.splits.train} <= {str(i) for i in range(10)}
    assert by_name.splits.validation == "group"
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "kind"])
        rows.writerows((p.relative_to(corpus), p.parent.name) for p in corpus.rglob("*.wav"))
    table = AudioDataModule(
        corpus, tmp_path / "list.csv", file_column="name", label_column="kind", sample_rate=RATE
    )
    table.setup()
    assert table.splits == module(corpus).splits


@pytest.mark.parametrize(
    ("settings", "mode", "fixed"),
    [
        ({"regex": r"(?P<label>\d+)x(?P<group>\d)"}, "group", False),
        ({"regex": r"(?P<label>\d+)x(?P<group>1?)"}, "clip", True),
        ({"regex": r"(?P<label>\d+)x"}, "clip", False),
        ({"validation": "none"}, "none", True),
    ],
)
def test_fixed_schedule(corpus, settings, mode, fixed):
    data = module(corpus, **settings)
    assert (data.splits.validation, data.fixed_schedule) == (mode, fixed)
    assert bool(data.val_dataloader()) is (mode != "none")


def test_notes_reach_the_log(corpus, caplog):
    with caplog.at_level(logging.INFO):
        module(corpus, regex=r"(?P<label>\d+)x(?P<group>1?)")
    assert "3 classes; clips: 40 train, 8 validation (clip), 0 test" in caplog.text
    assert "validation figure is on seen groups" in caplog.text


# --- batches -------------------------------------------------------------------------------------


def test_collate_pads_to_the_longest():
    waveforms = [torch.randn(n) for n in (5, 9, 3)]
    batch = collate([(w, i, 10 * i) for i, w in enumerate(waveforms)])
    assert isinstance(batch, Batch)
    assert batch.waveform.shape == (3, 9)
    assert batch.lengths.tolist() == [5, 9, 3]
    assert batch.lengths.dtype == batch.target.dtype == batch.index.dtype == torch.int64
    for row, length, waveform in zip(batch.waveform, batch.lengths, waveforms, strict=True):
        assert torch.equal(row[:length], waveform)
        assert not row[length:].any()


def test_evaluation_keeps_the_order_and_every_clip(corpus):
    data = module(corpus, test_fraction=0.25, batch_size=5)
    for loader, clips in (
        (data.val_dataloader(), data.splits.val),
        (data.test_dataloader(), data.splits.test),
    ):
        assert torch.cat([batch.index for batch in loader]).tolist() == list(range(len(clips)))


def test_an_epoch_holds_each_clip_once_in_a_new_order(corpus):
    loader = module(corpus, batch_size=16).train_dataloader()
    orders = [torch.cat([b.index for b in epoch_of(loader, e)]).tolist() for e in range(3)]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize(
    ("n", "batch_size", "kept"), [(9, 4, 8), (9, 1, 9), (10, 4, 10), (1, 4, 1)]
)
def test_a_last_batch_of_one_clip_is_dropped(n, batch_size, kept):
    sampler = EpochSampler(torch.zeros(n, dtype=torch.int64), batch_size)
    assert len(sampler) == len(list(sampler)) == kept


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_workers_and_resume_change_nothing(corpus):
    options = {"batch_size": 8, "max_duration": 0.2}
    plain = module(corpus, **options).train_dataloader()
    wanted = [epoch_of(plain, e) for e in range(3)]
    workers = module(corpus, num_workers=2, **options).train_dataloader()
    # Epoch by epoch with the same persistent workers, and a fresh loader that starts at 2.
    resumed = module(corpus, **options).train_dataloader()
    for epoch, loader in ((0, workers), (1, workers), (2, workers), (2, resumed)):
        for ours, theirs in zip(epoch_of(loader, epoch), wanted[epoch], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_training_crops_move_and_evaluation_takes_whole_clips(corpus):
    data = module(corpus, max_duration=0.1)
    long = max(range(40), key=lambda i: soundfile.info(data.splits.train[i].path).frames)
    whole = module(corpus).train_set[long][0]
    crops = [data.train_set[epoch, long][0] for epoch in range(5)]
    assert {crop.shape[-1] for crop in crops} == {800}
    windows = whole.unfold(0, 800, 1)
    starts = {int((windows == crop).all(dim=1).nonzero()[0, 0]) for crop in crops}
    assert len(starts) > 2
    assert torch.equal(data.train_set[3, long][0], crops[3])
    assert torch.equal(data.val_set[0][0], module(corpus).val_set[0][0])


def test_balanced_sampling_draws_classes_equally():
    targets = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    sampler = EpochSampler(targets, 32, balanced=True)
    drawn = torch.bincount(targets[sampler.order()])
    # Binomial(1000, 1/3) has a standard deviation of 15.
    assert (drawn - 333).abs().max() < 75
    first = sampler.order()
    sampler.set_epoch(1)
    assert sampler.order() != first
    sampler.set_epoch(0)
    assert sampler.order() == first


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("n", [33, 40, 43])
def test_processes_share_the_epoch(monkeypatch, n, balanced):
    targets = torch.arange(n) % 3
    alone = EpochSampler(targets, 8, balanced=balanced).order()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append([index for _, index in EpochSampler(targets, 8, balanced=balanced)])
    assert len(shares[0]) == len(shares[1])
    together = [index for pair in zip(*shares, strict=True) for index in pair]
    # 33 clips: 17 each would leave a batch of one, so 16 each stay.
    assert len(together) == {33: 32, 40: 40, 43: 44}[n]
    assert together[:n] == alone[: len(together)]


# --- under Lightning -----------------------------------------------------------------------------


class Recorder(pl.LightningModule):
    """Keeps the clips it is given."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch):
        self.seen.append((self.current_epoch, batch.index.tolist()))
        return self.net(batch.waveform.abs().mean(dim=1, keepdim=True)).sum()

    def validation_step(self, batch):
        assert isinstance(batch, Batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_lightning_sets_the_epoch_and_resumes_it(corpus, tmp_path):
    def run(epochs, checkpoint=None):
        data, task = AudioDataModule(corpus, sample_rate=RATE, batch_size=16), Recorder()
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return task.seen

    whole = run(3)
    assert run(2) == whole[: len(whole) * 2 // 3]
    assert run(3, tmp_path / "2.ckpt") == whole[len(whole) * 2 // 3 :]
    assert {epoch for epoch, _ in whole} == {0, 1, 2}


def test_manifests_do_not_import_lightning():
    code = "import sys, audiotorch.data; sys.exit('lightning' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- real recordings -----------------------------------------------------------------------------


def some_rows(path, target, n, **wanted):
    """The first n rows of each class of a table, as a new table."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    counts = Counter()
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            key = tuple(row[name] for name in wanted.values())
            counts[key] += 1
            if counts[key] <= n:
                writer.writerow(row)
    return target


@needs_data
def test_spoken_digits_leave_a_speaker_out(tmp_path):
    fsdd = Path(DATA, "fsdd")
    table = some_rows(fsdd / "labels.csv", tmp_path / "t.csv", 2, a="digit", b="speaker")
    data = AudioDataModule(
        fsdd,
        table,
        label_column="digit",
        group_column="speaker",
        test_group="george",
        sample_rate=RATE,
    )
    data.setup()
    assert data.labels == [str(i) for i in range(10)]
    assert {clip.group for clip in data.splits.test} == {"george"}
    assert len(data.splits.test) == 20
    assert data.fixed_schedule
    batch = next(iter(data.test_dataloader()))
    frames = [soundfile.info(clip.path).frames for clip in data.splits.test]
    assert batch.lengths.tolist() == frames


@needs_data
def test_environmental_sounds_resample_to_the_asked_rate(tmp_path):
    esc = Path(DATA, "esc10")
    table = some_rows(esc / "labels.csv", tmp_path / "t.csv", 1, a="class_name", b="fold")
    data = AudioDataModule(
        esc,
        table,
        label_column="class_name",
        group_column="fold",
        test_group=4,
        sample_rate=RATE,
        max_duration=1.0,
    )
    data.setup()
    assert len(data.splits.test) == 10
    assert data.splits.notes == [
        "validation figure is on seen groups (clip validation with 3 groups)"
    ]
    assert next(iter(data.train_dataloader())).waveform.shape[1] == RATE


@needs_data
def test_commands_keep_the_tables_split(tmp_path):
    commands = Path(DATA, "arabic_commands")
    table = some_rows(commands / "labels.csv", tmp_path / "t.csv", 3, a="keyword", b="split")
    data = AudioDataModule(
        commands,
        table,
        label_column="keyword",
        group_column="contributor",
        split_column="split",
        sample_rate=16000,
    )
    data.setup()
    assert (data.splits.validation, data.splits.notes) == ("given", [])
    assert (len(data.splits.train), len(data.splits.val)) == (30, 30)
    assert not data.fixed_schedule
    assert not {c.group for c in data.splits.train} & {c.group for c in data.splits.val}


def test_dataset_alone_decodes_at_access(corpus):
    path = next(corpus.rglob("*.wav"))
    waveform, target, index = AudioDataset([Clip(path, "b")], ["a", "b"], RATE)[0]
    assert (target, index) == (1, 0)
    assert waveform.shape == (soundfile.info(path).frames,)
