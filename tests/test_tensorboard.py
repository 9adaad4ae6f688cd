"""What TensorBoard shows of a run, read back from its files, and `answers.csv` beside it."""

import io
import json
import os
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.audio import metadata as audio_metadata
from tensorboard.plugins.hparams import backend_context
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter

from audiotorch.answers import AnswerTable
from audiotorch.audio import load
from audiotorch.data.datamodule import AudioDataModule
from audiotorch.data.demo import write_corpus
from audiotorch.errors import ParameterError
from audiotorch.plot import new_figure
from audiotorch.training.board import excerpt, settings_of, write_picture, write_text_card
from audiotorch.training.build import config_dir
from audiotorch.training.checkpoint import load_checkpoint_pipeline
from audiotorch.training.input_drawings import one_a_class
from audiotorch.training.projector import choose_points, sprites, write_projector
from audiotorch.training.train import main, train

ODD = 'a $b$ <i>"\t\U0001f40c'
SMALL = [
    "features=word_image",
    "features.n_frames=16",
    "features.n_mels=16",
    "model.channels=[4,8]",
    "trainer.accelerator=cpu",
    "data.test_fraction=0.3",
    "data.augment.mixup=0.5",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of ten clips, one of which has a name that spreadsheets stumble over."""
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root / "all", n_devices=10, n_takes=1)
    for label, name in (("rise", ODD), ("fall", "fall"), ("steps", "steps")):
        (root / "some" / name).mkdir(parents=True)
        for k, file in enumerate(sorted((root / "all" / label).glob("*.flac"))):
            shutil.copyfile(file, root / "some" / name / f"{name[0]}\n\udce9{k}.flac")
    return root / "some"


@pytest.fixture(scope="module")
def sweep(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of four epochs, and which were told as finished."""
    root = tmp_path_factory.mktemp("sweep")
    told: list[Path] = []

    def finished(run_dir: Path) -> None:
        assert {"model.ts", "metrics.json", "answers.csv"} <= set(os.listdir(run_dir))
        told.append(run_dir)

    arguments = [f"data.root={corpus}", *SMALL, "trainer.max_epochs=4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audiotorch.training.results.export", lambda _, path, **__: path.touch())
        sweeping = ["-m", "task.optimizer.lr=0.001,0.01", f"hydra.sweep.dir={root}"]
        assert main([*sweeping, *arguments], finished) == 0
    assert told == [root / "0", root / "1"]
    return root


def values(folder: Path) -> Iterator[tuple[Any, int]]:
    """Every value of the event files right in a folder, with its step."""
    for file in sorted(folder.glob("events*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                yield value, event.step


def of_plugin(folder: Path, plugin: str) -> dict[str, list[tuple[int, Any]]]:
    """Steps and data by tag."""
    found: dict[str, list[tuple[int, Any]]] = {}
    kinds: dict[str, str] = {}
    for value, step in values(folder):
        kind = kinds.setdefault(value.tag, value.metadata.plugin_data.plugin_name)
        if kind == plugin:
            data = tensor_util.make_ndarray(value.tensor)
            found.setdefault(value.tag, []).append((step, data))
    return found


def picture(data: np.ndarray) -> np.ndarray:
    """A picture's pixels, `(height, width, 3)`."""
    image = Image.open(io.BytesIO(data[2]))
    assert (image.width, image.height) == (int(data[0]), int(data[1]))
    return np.asarray(image.convert("RGB"))


def test_curves(sweep: Path):
    scalars = of_plugin(sweep / "0" / "tb", "scalars")
    assert {"train/loss_step", "train/loss_epoch", "val/loss", "val/acc", "train/lr"} <= set(
        scalars
    )
    # The figures of the exported weights are no further points of the curves.
    assert len(scalars["val/acc"]) == len(scalars["train/loss_epoch"]) == 4
    lr = [float(value) for _, value in scalars["train/lr"]]
    assert lr[0] == pytest.approx(max(lr), rel=0.3)
    assert lr[-1] < 0.5 * max(lr)


def test_pictures(sweep: Path):
    images = of_plugin(sweep / "0" / "tb", "images")
    steps = [step for step, _ in images["val/confusion_matrix"]]
    assert len(steps) == 4
    assert steps == sorted(set(steps))
    assert {"test/confusion_matrix", *(f"train_input/{k}" for k in (1, 2, 3))} <= set(images)
    assert "train_input/4" not in images
    for tag, shown in images.items():
        for _, data in shown:
            assert picture(data).std() > 10, tag
    # Beside a clip stands the same augmented: not the same picture.
    drawn = picture(images["train_input/1"][0][1]).astype(float)
    left, right = np.array_split(drawn[40:-60], 2, axis=1)
    width = min(left.shape[1], right.shape[1]) - 60
    assert np.abs(left[:, -width:-5] - right[:, -width:-5]).mean() > 5


def test_hardest_clips_are_heard_seen_and_told(sweep: Path, corpus: Path):
    board = sweep / "0" / "tb"
    table = AnswerTable.read(sweep / "0").part("test")
    order = np.argsort(-table.losses, kind="stable")
    sounds, texts = of_plugin(board, "audio"), of_plugin(board, "text")
    images = of_plugin(board, "images")
    for rank, row in enumerate(order[:4], start=1):
        tag = f"test_hardest/{rank}"
        (_, text) = texts[f"{tag}/text_summary"][0]
        told = text.item().decode() if text.ndim == 0 else text[0].decode()
        lines = told.splitlines()
        assert all(line.startswith("    ") for line in lines)
        assert f"loss {table.losses[row]:.2f}" in lines[0]
        assert Path(table.files[row]).name.replace("\n\udce9", "\\n\\udce9") in lines[1]
        (_, blobs) = sounds[f"{tag}/sound"][0]
        # One sound, and of no picture's tag: TensorBoard would show empty players.
        assert blobs.shape == (1,)
        with wave.open(io.BytesIO(blobs[0])) as wav:
            rate, n = wav.getframerate(), wav.getnframes()
            heard = np.frombuffer(wav.readframes(n), dtype="<i2") / 32767
        clip = load(table.files[row], rate)[0][0].numpy()
        np.testing.assert_allclose(heard, clip / np.abs(clip).max(), atol=1e-4)
        assert f"{tag}/picture" in images
    assert not set(sounds) & set(images)


def test_sounds_are_wav_to_tensorboard(sweep: Path):
    told = {
        value.tag: value.metadata.plugin_data.content
        for value, _ in values(sweep / "0" / "tb")
        if value.metadata.plugin_data.plugin_name == "audio"
    }
    wav = audio_metadata.Encoding.Value("WAV")
    assert told
    for content in told.values():
        assert audio_metadata.parse_plugin_metadata(content).encoding == wav


def test_projector(sweep: Path, corpus: Path):
    from google.protobuf import text_format

    board = sweep / "0" / "tb"
    config = text_format.Parse((board / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (points,) = config.embeddings
    assert points.tensor_name == "embedding:00000"
    vectors = np.loadtxt(board / points.tensor_path, delimiter="\t")
    lines = (board / points.metadata_path).read_text(encoding="utf-8").split("\n")
    header, rows = lines[0].split("\t"), [line.split("\t") for line in lines[1:-1]]
    assert header == ["label", "answer", "part", "file"]
    assert all(len(row) == 4 for row in rows)
    table = AnswerTable.read(sweep / "0")
    assert len(vectors) == len(rows) == len(table)
    assert {row[0] for row in rows} == {ODD.replace("\t", "\\t"), "fall", "steps"}
    size = points.sprite.single_image_dim
    sprite = np.asarray(Image.open(board / points.sprite.image_path))
    columns = int(np.ceil(np.sqrt(len(rows))))
    assert list(size) == [40, 40]
    assert sprite.shape == (40 * columns, 40 * columns, 3)
    # Points are what the exported weights make of the clips, each beside its name and answer.
    pipeline: Any = load_checkpoint_pipeline(sweep / "0")
    answers = {
        (Path(f).name, a, p)
        for f, a, p in zip(table.files, table.answers, table.parts, strict=True)
    }
    for vector, (label, answer, part, file) in zip(vectors, rows, strict=True):
        given = {name for name in os.listdir(corpus) if name.replace("\t", "\\t") == label}
        name = file.rpartition("/")[2].replace("\\n\\udce9", "\n\udce9")
        clip = load(corpus / given.pop() / name, pipeline.sample_rate)[0]
        with torch.no_grad():
            expected = pipeline.model.embed(*pipeline.front(clip))[0]
        np.testing.assert_allclose(vector, expected, atol=2e-4)
        assert (name, answer.replace("\\t", "\t"), part) in answers


def sweep_table(sweep: Path) -> Any:
    """What TensorBoard makes of the settings that runs wrote, as its table shows them."""
    contents: dict[str, dict[str, bytes]] = {}
    for file in sorted(sweep.rglob("events*")):
        run = str(file.parent.relative_to(sweep))
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == hparams_metadata.PLUGIN_NAME:
                    content = value.metadata.plugin_data.content
                    contents.setdefault(run, {})[value.tag] = content
    context = backend_context.Context(None)
    infos = context._compute_hparam_infos(contents)
    starts = {
        run: hparams_metadata.parse_session_start_info_plugin_data(
            tags[hparams_metadata.SESSION_START_INFO_TAG]
        )
        for run, tags in contents.items()
    }
    return contents, {info.name: info for info in infos}, starts


def test_names_of_curves_are_text(tmp_path: Path, quick: Any, corpus: Path):
    odd = tmp_path / "odd"
    for name, label in (("fall", "a\udcff"), ("steps", "b")):
        shutil.copytree(corpus / name, odd / label)
    quick(tmp_path / "run", f"data.root={odd}")
    scalars = of_plugin(tmp_path / "run" / "tb", "scalars")
    assert {"val/recall/a\\udcff", "val/recall/b"} <= set(scalars)
    assert set(AnswerTable.read(tmp_path / "run").truth) == {"a\udcff", "b"}


def test_a_sweep_is_one_table_of_what_differs(sweep: Path):
    contents, infos, starts = sweep_table(sweep)
    assert set(contents) == {"0/tb/final", "1/tb/final"}
    # One run's list of settings would stand for all.
    assert not any(hparams_metadata.EXPERIMENT_TAG in tags for tags in contents.values())
    assert [name for name, info in infos.items() if info.differs] == ["task.optimizer.lr"]
    rates = [starts[f"{k}/tb/final"].hparams["task.optimizer.lr"].number_value for k in (0, 1)]
    assert rates == [0.001, 0.01]
    assert starts["0/tb/final"].hparams["model"].string_value == "CNN"
    assert starts["0/tb/final"].hparams["data.augment.circular"].bool_value is True
    for run in ("0", "1"):
        metrics = json.loads((sweep / run / "metrics.json").read_text())
        scalars = of_plugin(sweep / run / "tb" / "final", "scalars")
        assert set(scalars) == {
            f"final/{part}/{name}" for part in ("val", "test") for name in ("acc", "f1", "ece")
        }
        for tag, [(_, value)] in scalars.items():
            assert float(value) == pytest.approx(metrics[tag.removeprefix("final/")])


def test_event_files_stay_moderate(sweep: Path):
    files = [file for file in (sweep / "0" / "tb").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 4e6


def test_answers_are_those_of_the_figures(sweep: Path, corpus: Path):
    metrics = json.loads((sweep / "1" / "metrics.json").read_text())
    table = AnswerTable.read(sweep / "1")
    assert table.parts_present == ["val", "test"]
    assert list(table.labels) == sorted([ODD, "fall", "steps"])
    for part in ("val", "test"):
        rows = table.part(part)
        assert len(rows) == metrics[f"{part}_clips"]
        assert rows.right.mean() == pytest.approx(metrics[f"{part}/acc"])
        found = confusion_matrix(rows.truth.astype(str), rows.answers.astype(str))
        assert found.tolist() == metrics[f"{part}/confusion_matrix"]
        assert rows.losses.mean() == pytest.approx(metrics[f"{part}/loss"], abs=1e-4)
    pipeline = load_checkpoint_pipeline(sweep / "1")
    for i in range(len(table)):
        assert Path(table.files[i]).parent == corpus / table.truth[i]
        with torch.no_grad():
            shares = pipeline(load(table.files[i], pipeline.sample_rate)[0])[0]
        np.testing.assert_allclose(table.probabilities[i], shares, atol=1e-5)


@pytest.fixture
def quick(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One epoch, without exporting."""
    monkeypatch.setattr("audiotorch.training.results.export", lambda *_, **__: None)

    def start(run_dir: Path, *overrides: str, finished: Any = None) -> dict[str, Any]:
        settings = [f"data.root={corpus}", *SMALL, "trainer.max_epochs=1", *overrides]
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return train(compose("train", settings), run_dir, finished)

    return start


def test_a_directory_used_again(quick: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    quick(tmp_path)
    (tmp_path / "report.html").touch()
    assert (tmp_path / "answers.csv").is_file()
    with caplog.at_level("INFO"):
        quick(tmp_path, "data.validation=none", "data.test_fraction=0", "model.channels=[4,4]")
    assert not (tmp_path / "answers.csv").exists()
    assert not (tmp_path / "report.html").exists()
    assert "there is no answers.csv" in caplog.text
    # Settings and points are the second run's, of whose clips all were fitted on.
    assert len(list((tmp_path / "tb" / "final").iterdir())) == 1
    _, _, starts = sweep_table(tmp_path)
    assert starts["tb/final"].hparams["model.channels"].string_value == "[4, 4]"
    lines = (tmp_path / "tb/00000/embedding/metadata.tsv").read_text().splitlines()
    assert lines[0] == "label\tpart\tfile"
    assert len(lines) == 31
    assert len(np.loadtxt(tmp_path / "tb/00000/embedding/tensors.tsv", ndmin=2)[0]) == 8


def failing(error: Exception) -> Any:
    def finished(run_dir: Path) -> None:
        raise error

    return finished


@pytest.mark.parametrize("error", [ParameterError("no\x1bpicture"), OSError("disk full")])
def test_what_fails_afterwards_does_not_lose_the_run(
    quick: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
):
    metrics = quick(tmp_path, finished=failing(error))
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert "no report: " + str(error).replace("\x1b", "\\x1b") in caplog.text


def test_a_fault_of_ours_is_not_hidden_and_false_asks_for_nothing(quick: Any, tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        quick(tmp_path, finished=failing(ZeroDivisionError()))
    quick(tmp_path, "report=false", finished=failing(ZeroDivisionError()))


def test_text_is_no_markdown_and_any_tag_is_written(tmp_path: Path):
    with SummaryWriter(str(tmp_path)) as writer:
        write_text_card(writer, "a\udcff", "<b> **x**\t\udcff\nnext")
        figure = new_figure(2, 1)
        figure.add_subplot().imshow(np.eye(3))
        write_picture(writer, "b\udcff\n", figure, 3)
    ((_, text),) = of_plugin(tmp_path, "text")["a\\udcff/text_summary"]
    assert text.item() == b"    <b> **x**\\t\\udcff\n    next"
    ((step, data),) = of_plugin(tmp_path, "images")["b\\udcff\\n"]
    assert step == 3
    assert picture(data).shape == (100, 200, 3)


def test_points_with_names_of_all_kinds(tmp_path: Path):
    rows = [{"label": "a\tb\nc", "file": "\udcff.wav"}, {"label": "", "file": "x"}]
    vectors = np.array([[1.0, np.nan, 3e-9], [1.0, 2.0, 5e-9]])
    with SummaryWriter(str(tmp_path)) as writer:
        write_projector(writer, vectors, rows, ["label", "file"], torch.zeros(2, 3, 40, 40))
        write_projector(writer, vectors[:, 1:2], rows, ["label"], torch.zeros(2, 3, 40, 40))
    folder = tmp_path / "00000/embedding"
    assert (folder / "metadata.tsv").read_text() == "label\tfile\na\\tb\\nc\t\\udcff.wav\n\tx\n"
    found = np.loadtxt(folder / "tensors.tsv")
    np.testing.assert_allclose(found, vectors[:, [0, 2]], atol=1e-4)


def test_long_vectors_keep_their_distances(tmp_path: Path):
    vectors = np.random.default_rng(0).normal(size=(20, 2000))
    rows = [{"label": str(i)} for i in range(20)]
    with SummaryWriter(str(tmp_path)) as writer:
        write_projector(writer, vectors, rows, ["label"], torch.zeros(20, 3, 40, 40))
    found = np.loadtxt(tmp_path / "00000/embedding/tensors.tsv")
    assert found.shape == (20, 20)
    apart = np.linalg.norm(vectors[0] - vectors[1:], axis=1)
    np.testing.assert_allclose(np.linalg.norm(found[0] - found[1:], axis=1), apart, rtol=1e-3)


def test_points_are_balanced_and_clips_of_each_class_shown(corpus: Path):
    data = AudioDataModule(corpus, sample_rate=8000, test_fraction=0.5)
    data.setup()
    points = choose_points({"train": data.train_set, "test": data.test_set}, n=6)
    assert {name for name, _, _ in points} == {"test"}
    assert sorted(int(clips.targets[i]) for _, clips, i in points) == [0, 0, 1, 1, 2, 2]
    assert len(set(points)) == 6
    alone = choose_points({"train": data.train_set, "test": []})  # type: ignore[dict-item]
    assert len(alone) == len(data.train_set)
    shown = [int(data.train_set.targets[i]) for i in one_a_class(data.train_set)]
    assert shown == [0, 1, 2]
    drawn = sprites(points)
    assert drawn.shape == (6, 3, 40, 40)
    assert 0 <= float(drawn.min()) < 0.1
    assert float(drawn.max()) > 0.9


def test_sprites_show_low_below_and_time_to_the_right(tmp_path: Path):
    import soundfile

    time = np.arange(8000) / 8000
    sound = np.where(time < 0.5, np.sin(2 * np.pi * 200 * time), np.sin(2 * np.pi * 3000 * time))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(3):
            soundfile.write(tmp_path / name / f"{k}.wav", sound, 8000)
    data = AudioDataModule(tmp_path, sample_rate=8000, validation="none")
    data.setup()
    bright = sprites([("train", data.train_set, 0)])[0].sum(0)
    assert int(bright[:, 5].argmax()) > 30
    assert int(bright[:, -5].argmax()) < 10


def test_excerpt_is_the_loudest_part():
    clip = torch.zeros(1000)
    clip[600:640] = 1.0
    start, part = excerpt(clip, 40)
    assert (start, len(part)) == (600, 40)
    assert bool((part == 1.0).all())
    assert excerpt(clip, 1000)[0] == 0
    assert excerpt(torch.cat([torch.ones(3), torch.zeros(9)]), 3)[0] == 0


def test_settings_are_told_once_and_classes_by_name():
    found = settings_of(
        {
            "seed": 1,
            "ckpt_path": None,
            "data": {"seed": 1, "sample_rate": 8000, "root": "x\udcff", "_target_": "a.B"},
            "features": {"_target_": "a.Mel", "sample_rate": 8000},
            "task": {"optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True}},
        }
    )
    assert found == {
        "seed": 1,
        "data.root": "x\\udcff",
        "features": "Mel",
        "features.sample_rate": 8000,
        "task.optimizer": "AdamW",
    }
