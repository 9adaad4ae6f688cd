import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import one_line
from conftest import table as listing

from audiotorch import features
from audiotorch.audio import load
from audiotorch.batch import job, pieces
from audiotorch.cli import main
from audiotorch.features import FEATURES
from audiotorch.features.feature import Feature

RATE = 22050
SUFFIXES = (".csv", ".parquet", ".npz")
PLACE = ("file", "frame", "sample_rate", "seconds", "start_seconds", "end_seconds")
SECONDS = {"a.wav": 0.5, "b æøå 犬.flac": 1.2, 'new\nline, and "quote".wav': 0.7, "deep/c.OGG": 1.0}


def write_clip(path: Path, seconds: float, seed: int = 0, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal((round(seconds * rate), 2))
    container = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}[path.suffix.lower()]
    soundfile.write(path, samples, rate, format=container)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Recordings of several lengths, with names that tables and terminals could stumble over."""
    folder = tmp_path_factory.mktemp("corpus") / "clips"
    for seed, (name, seconds) in enumerate(SECONDS.items()):
        write_clip(folder / name, seconds, seed, rate=(8000, 16000, 44100)[seed % 3])
    write_clip(folder / ".hidden" / "no.wav", 0.5)
    write_clip(folder / "._no.wav", 0.5)
    (folder / "notes.txt").write_text("not audio")
    return folder


def read_table(path: Path) -> dict[str, list]:
    """Any of the formats as named columns."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            names, *rows = csv.reader(file)
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        numbers = {name: [float(text) for text in columns[name]] for name in names[1:]}
        return {"file": list(columns["file"]), **numbers}
    if path.suffix == ".parquet":
        from pyarrow import parquet

        table = parquet.read_table(path)
        place = [name in PLACE for name in table.schema.names]
        kinds = [str(kind) for kind in table.schema.types]
        assert {kind for kind, known in zip(kinds, place, strict=True) if not known} == {"float"}
        return table.to_pydict()
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["values"].dtype == np.float32
        left = {name: arrays[name].tolist() for name in PLACE if name in arrays}
        return left | dict(
            zip(arrays["columns"].tolist(), arrays["values"].T.tolist(), strict=True)
        )


def numbers(table: dict[str, list]) -> np.ndarray:
    """What the features are, without the columns that say of what."""
    columns = [column for name, column in table.items() if name not in PLACE]
    return np.stack([np.array(column, np.float32) for column in columns], 1)


def files(folder: Path) -> list[str]:
    return sorted(str(folder / name) for name in SECONDS)


def forbid_decoding(monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr(pieces, "read_clip", refuse)


def watch_decoding(monkeypatch) -> list[str]:
    decoded: list[str] = []
    read_clip = pieces.read_clip

    def watched(file, *settings):
        decoded.append(file)
        return read_clip(file, *settings)

    monkeypatch.setattr(pieces, "read_clip", watched)
    return decoded


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_summary_is_one_row_a_clip(folder, tmp_path, capsys, suffix):
    out = tmp_path / f"x{suffix}"
    assert main(["features", str(folder), "--out", str(out)]) == 0
    told, complaint = capsys.readouterr()
    assert one_line(told) == f"{out}: 4 clips added, 0 skipped, 0 failed; 270 columns\n"
    assert complaint == ""
    table = read_table(out)
    summary = features.SummaryVector(RATE)
    assert list(table) == ["file", "sample_rate", "seconds", *summary.names]
    assert table["file"] == files(folder)
    assert table["sample_rate"] == [RATE] * 4
    for file, seconds, row in zip(table["file"], table["seconds"], numbers(table), strict=True):
        waveform, _ = load(file)
        assert seconds == waveform.shape[1] / RATE
        expected = summary(waveform)[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f".x{suffix}.inputs.jsonl",
        out.name,
    ]


def test_formats_hold_the_same_numbers(folder, tmp_path):
    tables = []
    for suffix in SUFFIXES:
        out = tmp_path / f"x{suffix}"
        assert main(["features", str(folder), "--out", str(out), "--features", "rms,mfcc"]) == 0
        tables.append(read_table(out))
    assert tables[0]["file"] == tables[1]["file"] == tables[2]["file"]
    assert list(tables[0]) == list(tables[1]) == list(tables[2])
    np.testing.assert_array_equal(numbers(tables[0]), numbers(tables[1]))
    np.testing.assert_array_equal(numbers(tables[0]), numbers(tables[2]))


class Peak(Feature):
    """One number a clip, as tempo is."""

    def __init__(self, sample_rate: int = 22050) -> None:
        super().__init__()

    def derive(self, x, lengths=None):
        return x.abs().amax(dim=1, keepdim=True)


@pytest.fixture
def peak(monkeypatch) -> None:
    monkeypatch.setitem(FEATURES, "peak", Peak)


@pytest.mark.usefixtures("peak")
def test_named_features_are_pooled(folder, tmp_path):
    out = tmp_path / "x.csv"
    command = ["features", str(folder), "--out", str(out), "--sample-rate", "16000"]
    assert main([*command, "--features", "mfcc, peak,rms"]) == 0
    table = read_table(out)
    mfcc = [f"mfcc_{kind}_{row}" for kind in ("mean", "std") for row in range(13)]
    assert list(table)[1:] == ["sample_rate", "seconds", *mfcc, "peak", "rms_mean", "rms_std"]
    extractor = features.FeatureExtractor(features=["mfcc", "peak", "rms"], sample_rate=16000)
    for file, row in zip(table["file"], numbers(table), strict=True):
        found = extractor(load(file, 16000)[0])
        parts = []
        for feature in found.values():
            one = feature[0].numpy()
            parts += [one] if one.ndim == 1 else [one.mean(axis=1), one.std(axis=1)]
        expected = np.concatenate(parts)
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_are_one_row_each(folder, tmp_path, suffix):
    out = tmp_path / f"x{suffix}"
    command = ["features", str(folder), "--out", str(out), "--features", "mfcc,rms", "--frames"]
    assert main(command) == 0
    table = read_table(out)
    assert list(table) == ["file", "frame", "seconds", *(f"mfcc_{i}" for i in range(13)), "rms"]
    extractor = features.FeatureExtractor(features=["mfcc", "rms"], sample_rate=RATE)
    found = [extractor(load(file)[0]) for file in files(folder)]
    counts = [feature["rms"].shape[-1] for feature in found]
    assert table["file"] == [
        f for f, n in zip(files(folder), counts, strict=True) for _ in range(n)
    ]
    assert table["frame"] == [frame for n in counts for frame in range(n)]
    np.testing.assert_allclose(table["seconds"], np.array(table["frame"]) * 512 / RATE, rtol=1e-6)
    expected = np.concatenate([torch.cat([*feature.values()], 1)[0].T for feature in found])
    np.testing.assert_allclose(numbers(table), expected, rtol=1e-3, atol=1e-3)


def test_result_does_not_depend_on_the_number_of_jobs(folder, tmp_path):
    for i in range(40):
        write_clip(tmp_path / "many" / f"{i}.wav", 0.3 + 0.01 * i, seed=i)
    outputs = []
    for jobs in ("1", "3"):
        out = tmp_path / f"{jobs}.csv"
        command = ["features", str(tmp_path / "many"), str(folder), "--out", str(out)]
        assert main([*command, "--jobs", jobs, "--features", "mfcc,rms"]) == 0
        outputs.append(out.read_bytes())
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("frames", [[], ["--frames"]], ids=["clips", "frames"])
def test_what_is_done_is_skipped_and_new_files_are_added(
    folder, tmp_path, capsys, monkeypatch, suffix, frames
):
    out = tmp_path / f"x{suffix}"
    command = ["--out", str(out), "--features", "mfcc", *frames]
    assert main(["features", str(folder / "deep"), *command]) == 0
    first = read_table(out)
    assert main(["features", str(folder), *command]) == 0
    assert "3 clips added, 1 skipped" in capsys.readouterr().out
    table = read_table(out)
    old, new = str(folder / "deep" / "c.OGG"), [f for f in files(folder) if "deep" not in f]
    assert list(dict.fromkeys(table["file"])) == [old, *new]
    np.testing.assert_array_equal(numbers(table)[: len(first["file"])], numbers(first))

    before = out.read_bytes()
    forbid_decoding(monkeypatch)
    assert main(["features", *files(folder), str(folder), *command]) == 0
    assert "0 clips added, 4 skipped" in capsys.readouterr().out
    assert out.read_bytes() == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_changed_file_is_computed_anew(tmp_path, capsys, suffix):
    out = tmp_path / f"x{suffix}"
    paths = [write_clip(tmp_path / "clips" / name, 0.5, seed=1) for name in ("a.wav", "b.wav")]
    command = ["features", str(tmp_path / "clips"), "--out", str(out), "--features", "rms"]
    assert main(command) == 0
    before = read_table(out)
    write_clip(paths[0], 0.9, seed=2)
    assert main(command) == 0
    assert "1 clips added, 1 skipped" in capsys.readouterr().out
    after = read_table(out)
    assert after["file"] == [str(paths[1]), str(paths[0])]
    assert after["seconds"] == [0.5, 0.9]
    assert after["rms_mean"][0] == before["rms_mean"][1]


def test_overwrite_computes_all_anew(folder, tmp_path, capsys):
    out = tmp_path / "x.csv"
    command = ["features", "--out", str(out), "--features"]
    assert main([*command, "mfcc", str(folder)]) == 0
    assert main([*command, "rms", str(folder / "deep"), "--overwrite"]) == 0
    assert "1 clips added, 0 skipped" in capsys.readouterr().out
    assert list(read_table(out)) == ["file", "sample_rate", "seconds", "rms_mean", "rms_std"]
    assert len(read_table(out)["file"]) == 1


@pytest.mark.parametrize("known", [True, False], ids=["settings known", "table alone"])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (["mfcc"], ["mfcc,rms"], r"features was \['mfcc'\]|holds 29 columns|'none' where 'rms"),
        (["mfcc"], ["mfcc", "--frames"], r"frames was False|'sample_rate' where 'frame'"),
        (["rms"], ["rms", "--sample-rate", "16000"], r"sample_rate was 22050|not 16000 Hz"),
        (
            ["rms", "--frames"],
            ["rms", "--frames", "--sample-rate", "16000"],
            r"sample_rate was 22050|not 16000 Hz",
        ),
    ],
)
def test_other_settings_do_not_mix(folder, tmp_path, capsys, suffix, before, after, message, known):
    out = tmp_path / f"x{suffix}"
    command = ["features", str(folder), "--out", str(out), "--features"]
    assert main([*command, *before]) == 0
    if not known:
        (tmp_path / f".x{suffix}.inputs.jsonl").unlink()
    content = out.read_bytes()
    capsys.readouterr()
    assert main([*command, *after]) == 2
    complaint = one_line(capsys.readouterr().err)
    assert re.search(message, complaint), complaint
    assert "--overwrite" in complaint
    assert out.read_bytes() == content
    assert main([*command, *before]) == 0
    assert "4 skipped" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"no table", b"file,sample_rate,seconds,rms\n1,2\n"])
def test_other_files_are_not_replaced(folder, tmp_path, capsys, suffix, content):
    out = tmp_path / f"x{suffix}"
    out.write_bytes(content)
    assert main(["features", str(folder), "--out", str(out), "--features", "rms"]) == 2
    assert "--overwrite" in one_line(capsys.readouterr().err)
    assert out.read_bytes() == content
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_table_is_told(folder, tmp_path, capsys, suffix):
    out = tmp_path / f"x{suffix}"
    command = ["features", str(folder), "--out", str(out), "--features", "rms"]
    assert main(command) == 0
    content = out.read_bytes()
    out.write_bytes(content[: len(content) - 40])
    capsys.readouterr()
    assert main(command) == 2
    complaint = one_line(capsys.readouterr().err)
    assert re.search(r"cannot be read back .*--overwrite", complaint), complaint
    assert main([*command, "--overwrite"]) == 0
    assert len(read_table(out)["file"]) == 4


def bad_files(folder: Path) -> dict[str, str]:
    """Files of each kind that cannot be used, and what is said about them."""
    folder.mkdir()
    (folder / "corrupt.wav").write_bytes(b"RIFF no audio")
    (folder / "empty.wav").write_bytes(b"")
    soundfile.write(folder / "nothing.wav", np.zeros((0, 1)), RATE)
    for name, value in (("nan.wav", np.nan), ("infinite.wav", np.inf)):
        soundfile.write(folder / name, np.full((RATE, 1), value), RATE, "FLOAT")
    write_clip(folder / "short.wav", 0.01)
    cut = write_clip(folder / "cut.flac", 1.0)
    cut.write_bytes(cut.read_bytes()[:9000])
    return {
        "corrupt.wav": r"not a readable audio file.*convert",
        "cut.flac": r"corrupt|truncated.*(?i:fetch)",
        "empty.wav": r"empty \(0 bytes\); fetch",
        "infinite.wav": r"NaN or infinite samples.*repair",
        "missing.wav": r"no such file; check the path",
        "nan.wav": r"NaN or infinite samples.*repair",
        "nothing.wav": r"holds no samples; leave it out",
        "short.wav": r"lasts 0\.010 s, the features need 0\.\d+ s; pad the clip",
    }


def test_bad_files_are_listed_recorded_and_tried_again(folder, tmp_path, capsys):
    out = tmp_path / "x.csv"
    bad = tmp_path / "bad"
    expected = bad_files(bad)
    command = ["features", str(folder), str(bad), str(bad / "missing.wav"), "--out", str(out)]
    assert main(command) == 1
    told, complaints = capsys.readouterr()
    assert "4 clips added, 0 skipped, 8 failed" in told
    assert read_table(out)["file"] == files(folder)
    lines = dict(zip(sorted(expected), sorted(complaints.splitlines()), strict=True))
    records = (tmp_path / "x.csv.failures.jsonl").read_text().splitlines()
    recorded = {row["file"]: row["error"] for row in map(json.loads, records)}
    assert len(recorded) == 8
    for name, message in expected.items():
        assert lines[name].startswith("audiotorch: ")
        assert name in lines[name]
        assert re.search(message, lines[name]), lines[name]
        assert re.search(message, recorded[str(bad / name)])

    assert main(command) == 1
    assert "0 clips added, 4 skipped, 8 failed" in capsys.readouterr().out
    for name in expected:
        write_clip(bad / name, 0.6)
    assert main(["features", str(bad / "short.wav"), "--out", str(out)]) == 0
    assert len((tmp_path / "x.csv.failures.jsonl").read_text().splitlines()) == 7
    assert main(command) == 0
    assert "7 clips added, 5 skipped, 0 failed" in capsys.readouterr().out
    assert not (tmp_path / "x.csv.failures.jsonl").exists()
    assert len(read_table(out)["file"]) == 12


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_but_bad_files_leaves_an_empty_table(folder, tmp_path, suffix):
    out = tmp_path / f"x{suffix}"
    (tmp_path / "bad.wav").write_bytes(b"")
    command = ["features", "--out", str(out), "--features", "rms"]
    assert main([*command, str(tmp_path / "bad.wav")]) == 1
    assert main([*command, str(folder)]) == 0
    assert len(read_table(out)["file"]) == 4


def test_name_that_is_no_unicode_is_told(tmp_path, capsys):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")
    os.rename(write_clip(tmp_path / "a.wav", 0.5), path)
    command = ["features", os.fsdecode(path), "--out", str(tmp_path / "x.csv")]
    assert main([*command, "--features", "rms"]) == 1
    assert re.search(r"caf\\udce9\.wav: .*; rename it", one_line(capsys.readouterr().err))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"required: --out"),
        (["--out", "x.xlsx"], r"must end in one of \.parquet \.csv \.npz"),
        (["--out", "x"], r"must end in one of"),
        (["--out", "missing/x.csv"], r"folder does not exist; create it"),
        (["--out", "folder.csv"], r"is a folder; name a file"),
        (["--out", "protected.csv"], r"write-protected"),
        (["--out", "x.csv", "--features", "mfcc,loud"], r"'loud' unknown; .*summary.* rms .* mfcc"),
        (["--out", "x.csv", "--features", "summary,mfcc"], r"'summary' unknown; .*alone"),
        (["--out", "x.csv", "--features", "mfcc,mfcc"], r"each once"),
        (["--out", "x.csv", "--features", ""], r"'' unknown"),
        (["--out", "x.csv", "--frames"], r"summary.*one row a clip"),
        (
            ["--out", "x.csv", "--frames", "--features", "mfcc,peak"],
            r"no frames: peak; leave that",
        ),
        (["--out", "x.csv", "--jobs", "0"], r"--jobs.*must be a whole number"),
        (["--out", "x.csv", "--sample-rate", "-1"], r"--sample-rate"),
        (["--out", "x.csv", "--sample-rate", "100"], r"sample_rate=100: not for .* such as 22050"),
    ],
)
@pytest.mark.usefixtures("peak")
def test_wrong_use_is_one_line_and_status_2(
    folder, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "protected.csv").touch(0o444)
    forbid_decoding(monkeypatch)
    assert main(["features", str(folder), *arguments]) == 2
    complaint = one_line(capsys.readouterr().err)
    assert re.search(message, complaint), complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv", "protected.csv"]


def test_parquet_without_pyarrow_is_told_first(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    forbid_decoding(monkeypatch)
    assert main(["features", str(folder), "--out", str(tmp_path / "x.parquet")]) == 2
    assert 'pip install "audiotorch[table]"' in one_line(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_folder_without_rights_is_told(folder, tmp_path, capsys, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["features", str(folder), "--out", str(tmp_path / "x.csv")]) == 2
    assert "Permission denied" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(("limit", "n_left"), [(3500, 7), (9000, 0)], ids=["journal", "table"])
def test_full_disk_loses_nothing(tmp_path, capsys, monkeypatch, limit, n_left):
    """A file that grows beyond the limit is refused by the system, as on a full disk."""
    monkeypatch.chdir(tmp_path)
    for i in range(40):
        write_clip(Path(f"clips/{i:02}.wav"), 0.3, seed=i)
    command = ["--out", "x.csv", "--features", "mfcc", "--jobs", "1"]
    assert main(["features", "clips/39.wav", *command]) == 0
    before = Path("x.csv").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        status = main(["features", "clips", *command])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2
    complaint = one_line(capsys.readouterr().err)
    assert re.search(r"cannot be written .*is kept: give room", complaint), complaint
    assert Path("x.csv").read_bytes() == before
    decoded = watch_decoding(monkeypatch)
    assert main(["features", "clips", *command]) == 0
    assert len(decoded) == n_left
    assert len(read_table(Path("x.csv"))["file"]) == 40


SLOW = """
import sys, time
from audiotorch.batch import job
from audiotorch.cli import main
from audiotorch.features import FEATURES
from audiotorch.features.feature import Feature
compute = job.compute
def slow(columns, piece):
    if len(SEEN) == 2:
        time.sleep(600)
    SEEN.append(piece)
    return compute(columns, piece)
SEEN = []
job.compute = slow
main(sys.argv[1:])
"""


@pytest.fixture
def many(tmp_path) -> Path:
    for i in range(50):
        write_clip(tmp_path / "clips" / f"{i:02}.wav", 0.3 + 0.01 * (i % 7), seed=i)
    return tmp_path / "clips"


def test_killed_job_goes_on_where_it_was(many, tmp_path, capsys, monkeypatch):
    out, whole = tmp_path / "x.csv", tmp_path / "whole.csv"
    command = ["features", str(many), "--features", "mfcc", "--out"]
    assert main([*command, str(whole)]) == 0
    arguments = [sys.executable, "-c", SLOW, *command, str(out), "--jobs", "1"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    journal = tmp_path / ".x.csv.partial" / "done.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") == 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    capsys.readouterr()
    assert main([*command, str(out)]) == 2
    assert "another job" in one_line(capsys.readouterr().err)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert not out.exists()
    with journal.open("ab") as file:
        file.write(b'{"done": [["half a li')

    assert main(["features", str(many), "--features", "rms", "--out", str(out)]) == 2
    assert "other settings" in one_line(capsys.readouterr().err)
    decoded = watch_decoding(monkeypatch)
    assert main([*command, str(out)]) == 0
    assert len(decoded) == 50 - 2 * 16
    assert out.read_bytes() == whole.read_bytes()
    assert not journal.parent.exists()


def test_stopped_overwriting_goes_on_by_the_same_command(many, tmp_path, monkeypatch):
    out, whole = tmp_path / "x.csv", tmp_path / "whole.csv"
    assert main(["features", str(many), "--features", "mfcc", "--out", str(whole)]) == 0
    assert main(["features", str(many), "--features", "rms", "--out", str(out)]) == 0
    before = out.read_bytes()
    compute = job.compute

    def stop(columns, piece):
        if len(piece.parts) < 16:
            raise SystemExit
        return compute(columns, piece)

    command = ["features", str(many), "--features", "mfcc", "--out", str(out), "--overwrite"]
    with monkeypatch.context() as patch:
        patch.setattr(job, "compute", stop)
        with pytest.raises(SystemExit):
            main([*command, "--jobs", "1"])
    assert out.read_bytes() == before
    decoded = watch_decoding(monkeypatch)
    assert main(command) == 0
    assert len(decoded) == 2
    assert out.read_bytes() == whole.read_bytes()
    assert main(command) == 0
    assert len(decoded) == 2 + 50


def test_control_c_keeps_what_is_done(tmp_path, capsys, monkeypatch):
    for i in range(20):
        write_clip(tmp_path / "clips" / f"{i:02}.wav", 0.3, seed=i)
    out = tmp_path / "x.csv"
    command = ["features", str(tmp_path / "clips"), "--features", "rms", "--out", str(out)]
    compute = job.compute

    def interrupted(columns, piece):
        if len(piece.parts) < 16:
            raise KeyboardInterrupt
        return compute(columns, piece)

    with monkeypatch.context() as patch:
        patch.setattr(job, "compute", interrupted)
        assert main([*command, "--jobs", "1"]) == 130
    assert one_line(capsys.readouterr().err) == "audiotorch: interrupted\n"
    assert main(command) == 0
    assert len(read_table(out)["file"]) == 20


def test_progress_bar_is_for_terminals_only(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    command = ["features", str(folder), "--out", str(tmp_path / "x.csv"), "--features", "rms"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "4/4" in err
    assert "\r" not in out
    assert err.endswith("\r\x1b[K")


def test_real_recordings(data_root, tmp_path):

    rows = listing(data_root / "esc10" / "labels.csv")[::40]
    paths = [str(data_root / "esc10" / row["file"]) for row in rows]
    out = tmp_path / "x.npz"
    assert main(["features", *paths, "--out", str(out)]) == 0
    table = read_table(out)
    summary = features.SummaryVector(RATE)
    for path, row in zip(paths, numbers(table), strict=True):
        expected = summary(load(path)[0])[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
