"""Windows of recordings as rows: what `audiotorch features --window` and its function do."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from test_features_command import SUFFIXES, numbers, one_line, read_table

import audiotorch as at
from audiotorch.audio import load
from audiotorch.audio.windows import read_windows
from audiotorch.batch import extract_features, pieces
from audiotorch.batch.columns import FeatureColumns
from audiotorch.cli import main
from audiotorch.errors import DecodeError

RATE = 22050
CLIPS = {"a.wav": 0.4, "deep/long.flac": 7.25, "new\nline.flac": 1.0, 'ø 犬, "x".wav': 3.3}


def write(path: Path, seconds: float, seed: int = 0, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    sweep = 0.3 * np.sin(2 * np.pi * (300 + 200 * time) * time)
    soundfile.write(path, sweep[:, None] + 0.05 * generator.standard_normal((len(time), 2)), rate)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "clips"
    for seed, (name, seconds) in enumerate(CLIPS.items()):
        write(folder / name, seconds, seed, rate=(44100, 22050, 16000, 48000)[seed])
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(folder / name) for name in CLIPS)


def spans(n_samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """By hand: starts at multiples of the hop, until a window reaches the end."""
    found = []
    for start in range(0, n_samples, hop):
        found.append((start, min(start + window, n_samples)))
        if start + window >= n_samples:
            break
    return found


def of_their_own(path: str, window: float, hop: float, module: torch.nn.Module) -> list[tuple]:
    """Each window of a file that the features take, as a clip of its own."""
    waveform = load(path, RATE)[0]
    return [
        (path, start / RATE, end / RATE, module(waveform[:, start:end].contiguous()))
        for start, end in spans(waveform.shape[1], round(window * RATE), round(hop * RATE))
        if end - start >= module.min_samples
    ]


def check(table: dict[str, list], expected: list[tuple], tolerance: float) -> None:
    """Compare a table with windows by hand; `tolerance` is a share of each column's largest."""
    places = zip(table["file"], table["start_seconds"], table["end_seconds"], strict=True)
    assert list(places) == [row[:3] for row in expected]
    lengths = np.subtract(table["end_seconds"], table["start_seconds"])
    np.testing.assert_allclose(table["seconds"], lengths, rtol=0, atol=1e-9)
    vectors = torch.cat([vector for *_, vector in expected]).numpy()
    scale = np.abs(vectors).max(axis=0)
    apart = np.abs(numbers(table) - vectors).max(axis=0) / np.maximum(scale, 1e-9)
    assert apart.max() <= tolerance, f"column {apart.argmax()}: {apart.max():.2g}"


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("window", "hop"), [(1.0, 0.5), (2.0, 2.0), (0.5, 0.8)])
def test_each_window_is_a_row(folder, tmp_path, capsys, suffix, window, hop):
    out = tmp_path / f"x{suffix}"
    command = ["features", str(folder), "--out", str(out), "--window", str(window)]
    assert main([*command, "--hop", str(hop)]) == 0
    assert "4 clips added, 0 skipped, 0 failed; 270 columns" in one_line(capsys.readouterr().out)
    table = read_table(out)
    summary = at.SummaryVector(RATE)
    place = ["file", "sample_rate", "seconds", "start_seconds", "end_seconds"]
    assert list(table) == [*place, *summary.names]
    assert set(table["sample_rate"]) == {RATE}
    expected = [row for file in files(folder) for row in of_their_own(file, window, hop, summary)]
    check(table, expected, 3e-6)


def test_numbers_are_those_of_the_window_as_a_clip(tmp_path):
    path = str(write(tmp_path / "x.wav", 9.7))
    extract_features([path], tmp_path / "x.npz", window_seconds=1.5, hop_seconds=0.7)
    expected = of_their_own(path, 1.5, 0.7, at.SummaryVector(RATE))
    # Alone or in a batch: rounding of float32.
    check(read_table(tmp_path / "x.npz"), expected, 3e-6)


def test_named_features_are_pooled_in_each_window(tmp_path):
    path = str(write(tmp_path / "x.wav", 4.0))
    names = ["rms", "tempo", "spectral_centroid"]
    out = tmp_path / "x.npz"
    extract_features([path], out, features=names, window_seconds=2.0, hop_seconds=1.0)
    table = read_table(out)
    assert table["start_seconds"] == [0.0, 1.0, 2.0]
    extractor = at.FeatureExtractor(features=names, sample_rate=RATE)
    for row, (_, window) in zip(numbers(table), read_windows(path, RATE, 2.0, 1.0), strict=True):
        found = extractor(window[None])
        rms, centroid = found["rms"][0], found["spectral_centroid"][0]
        expected = [rms.mean(), rms.std(correction=0), found["tempo"][0, 0]]
        expected += [centroid.mean(), centroid.std(correction=0)]
        np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_hop_is_the_window_where_none_is_given(tmp_path):
    path = str(write(tmp_path / "x.wav", 3.5))
    for name, given in (("a", []), ("b", ["--hop", "1"])):
        command = ["features", path, "--out", str(tmp_path / f"{name}.csv"), "--window", "1"]
        assert main([*command, *given, "--features", "rms"]) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    table = read_table(tmp_path / "a.csv")
    assert table["start_seconds"] == [0.0, 1.0, 2.0, 3.0]
    assert table["end_seconds"] == [1.0, 2.0, 3.0, 3.5]


def test_last_window_too_short_for_the_features_is_left_out(tmp_path, capsys):
    least = at.SummaryVector(RATE).min_samples
    seconds = {"under": 2.0 + (least - 1) / RATE, "enough": 2.0 + least / RATE, "none": 0.1}
    paths = {name: str(write(tmp_path / f"{name}.wav", length)) for name, length in seconds.items()}
    out = tmp_path / "x.csv"
    assert main(["features", *paths.values(), "--out", str(out), "--window", "2"]) == 1
    told, complaint = capsys.readouterr()
    assert "2 clips added, 0 skipped, 1 failed" in told
    # A recording that has no window long enough is a failure, as it is without windows.
    assert re.search(r"none\.wav: lasts 0\.100 s, the features need 0\.186 s", one_line(complaint))
    table = read_table(out)
    assert table["file"] == [paths["under"], *[paths["enough"]] * 2]
    assert table["end_seconds"] == [2.0, 2.0, seconds["enough"]]


def test_formats_hold_the_same_numbers(folder, tmp_path):
    tables = []
    for suffix in SUFFIXES:
        out = tmp_path / f"x{suffix}"
        command = ["features", str(folder), "--out", str(out), "--features", "rms,mfcc"]
        assert main([*command, "--window", "0.9", "--hop", "0.4"]) == 0
        tables.append(read_table(out))
    for table in tables[1:]:
        assert list(table) == list(tables[0])
        for name in ("file", "seconds", "start_seconds", "end_seconds"):
            assert table[name] == tables[0][name]
        np.testing.assert_array_equal(numbers(table), numbers(tables[0]))


def test_result_does_not_depend_on_the_number_of_jobs(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "_MAX_WINDOWED", 3 * RATE)
    outputs = []
    for jobs in (1, 3, 7):
        out = tmp_path / f"{jobs}.csv"
        extract_features(files(folder), out, window_seconds=0.7, hop_seconds=0.3, jobs=jobs)
        outputs.append(out.read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]


def test_real_recordings(data_root, tmp_path):
    paths = [str(path) for path in sorted((data_root / "esc10").rglob("*.*g*"))[:2]]
    paths += [str(path) for path in sorted((data_root / "music_examples").rglob("*.*g*"))[:1]]
    assert len(paths) == 3
    out = tmp_path / "x.npz"
    extract_features(paths, out, window_seconds=3.0, hop_seconds=1.5)
    summary = at.SummaryVector(RATE)
    expected = [row for path in paths for row in of_their_own(path, 3.0, 1.5, summary)]
    check(read_table(out), expected, 3e-6)


# --- use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hop", "1"], r"hop_seconds=1\.0: leads from .*; give their length, --window, too"),
        (["--window", "1", "--frames", "--features", "rms"], r"with --frames.*leave one"),
        (["--window", "0.1"], r"window_seconds=0\.1: the features need 0\.186 s; take longer"),
        (["--window", "1", "--hop", "1e-9"], r"hop_seconds=1e-09: must be .* at least one sample"),
        (["--window", "0"], r"--window: '0': must be a number of seconds above 0"),
        (["--window", "1", "--hop", "long"], r"--hop: 'long': must be a number of seconds"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(folder, tmp_path, capsys, arguments, message):
    assert main(["features", str(folder), "--out", str(tmp_path / "x.csv"), *arguments]) == 2
    complaint = one_line(capsys.readouterr().err)
    assert re.search(message, complaint), complaint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_done_is_skipped_and_what_changed_is_computed_anew(tmp_path, capsys, suffix):
    out = tmp_path / f"x{suffix}"
    paths = [str(write(tmp_path / f"{name}.wav", 2.0, seed=1)) for name in "ab"]
    command = ["--out", str(out), "--features", "rms", "--window", "0.5"]
    assert main(["features", paths[0], *command]) == 0
    assert main(["features", *paths, *command]) == 0
    assert "1 clips added, 1 skipped" in capsys.readouterr().out
    before = read_table(out)
    assert before["file"] == [paths[0]] * 4 + [paths[1]] * 4
    write(tmp_path / "a.wav", 2.7, seed=2)
    assert main(["features", *paths, *command]) == 0
    assert "1 clips added, 1 skipped" in capsys.readouterr().out
    after = read_table(out)
    assert after["file"] == [paths[1]] * 4 + [paths[0]] * 6
    assert after["end_seconds"] == [0.5, 1.0, 1.5, 2.0, 0.5, 1.0, 1.5, 2.0, 2.5, 2.7]
    np.testing.assert_array_equal(numbers(after)[:4], numbers(before)[4:])


@pytest.mark.parametrize("known", [True, False], ids=["settings known", "table alone"])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([], ["--window", "1"], r"window_seconds was None, is 1\.0|'start_seconds' is wanted"),
        (["--window", "1"], [], r"window_seconds was 1\.0, is None|'start_seconds' where 'rms"),
        (["--window", "1"], ["--window", "2"], r"window_seconds was 1\.0, is 2\.0|windows others"),
        (
            ["--window", "1"],
            ["--window", "1", "--hop", "0.5"],
            r"\(hop_seconds was 1\.0, is 0\.5\)|windows others",
        ),
    ],
)
def test_other_windows_do_not_mix(tmp_path, capsys, suffix, before, after, message, known):
    out = tmp_path / f"x{suffix}"
    path = str(write(tmp_path / "x.wav", 3.3))
    command = ["features", path, "--out", str(out), "--features", "rms"]
    assert main([*command, *before]) == 0
    if not known:
        (tmp_path / f".x{suffix}.inputs.jsonl").unlink()
    content = out.read_bytes()
    capsys.readouterr()
    assert main([*command, *after]) == 2
    complaint = one_line(capsys.readouterr().err)
    assert re.search(message, complaint), complaint
    assert out.read_bytes() == content
    assert main([*command, *before]) == 0
    assert "1 skipped" in capsys.readouterr().out


# --- long recordings ------------------------------------------------------------------------------


def test_no_more_than_some_windows_are_held(tmp_path, monkeypatch):
    """Of an hour whose decoded samples take no memory themselves, 128 times those of a piece."""
    monkeypatch.setattr(pieces, "_MAX_WINDOWED", 30 * RATE)
    decoded = computed = 0

    def hour(source, sample_rate, window_seconds, hop_seconds):
        nonlocal decoded
        for second in range(3600):
            decoded += 1
            yield float(second), torch.full((sample_rate,), second / 3600)

    ahead = []
    rows = FeatureColumns.rows

    def watched(self, waveform, lengths):
        nonlocal computed
        ahead.append(decoded - computed)
        assert waveform.numel() <= 30 * RATE
        found = rows(self, waveform, lengths)
        computed += len(lengths)
        return found

    monkeypatch.setattr(pieces, "read_windows", hour)
    monkeypatch.setattr(FeatureColumns, "rows", watched)
    (tmp_path / "x.wav").touch()
    out = tmp_path / "x.csv"
    options = {"window_seconds": 1.0, "features": ["rms"], "jobs": 2}
    report = extract_features([tmp_path / "x.wav"], out, **options)
    assert (report.n_new, decoded, computed) == (1, 3600, 3600)
    assert max(ahead) <= 4 * 30
    table = read_table(out)
    assert table["start_seconds"] == list(range(3600))
    np.testing.assert_allclose(table["rms_mean"], np.arange(3600) / 3600, atol=0.03)
    assert (np.diff(table["rms_mean"]) > 0).all()


SLOW = """
import sys, time
from audiotorch.batch import job, pieces
from audiotorch.cli import main
pieces._MAX_WINDOWED = 5 * 22050
compute = job.compute
def slow(columns, piece):
    # The fourth piece never comes, though others after it may.
    if any(part.first == 15 for part in piece.parts):
        time.sleep(600)
    return compute(columns, piece)
job.compute = slow
main(sys.argv[1:])
"""


def watch_computing(monkeypatch) -> list[int]:
    computed = []
    rows = FeatureColumns.rows

    def watched(self, waveform, lengths):
        computed.append(len(lengths))
        return rows(self, waveform, lengths)

    monkeypatch.setattr(FeatureColumns, "rows", watched)
    return computed


@pytest.mark.parametrize("change", [False, True], ids=["as it was", "file changed"])
def test_killed_job_goes_on_inside_a_long_file(tmp_path, monkeypatch, change):
    path = write(tmp_path / "long.wav", 60.2)
    command = ["features", str(path), "--features", "mfcc", "--window", "1", "--out"]
    out = tmp_path / "x.csv"
    arguments = [sys.executable, "-c", SLOW, *command, str(out), "--jobs", "2"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    journal = tmp_path / ".x.csv.partial" / "done.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") == 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert not out.exists()
    recorded = [json.loads(line) for line in journal.read_text().splitlines()]
    n_recorded = sum(part[4] for line in recorded for part in line["done"])
    assert n_recorded == 15
    with journal.open("ab") as file:
        file.write(b'{"done": [["half a li')
    with (journal.parent / "rows.f32").open("ab") as file:
        file.write(b"half a row")

    if change:
        write(path, 58.0, seed=3)
    monkeypatch.setattr(pieces, "_MAX_WINDOWED", 5 * RATE)
    whole = tmp_path / "whole.csv"
    assert main([*command, str(whole)]) == 0
    computed = watch_computing(monkeypatch)
    assert main([*command, str(out)]) == 0
    assert sum(computed) == (58 if change else 61 - 15)
    assert out.read_bytes() == whole.read_bytes()
    assert not journal.parent.exists()


def breaking(after: int):
    """Windows of a recording that is corrupt in the middle."""

    def read(source, sample_rate, window_seconds, hop_seconds):
        for k, found in enumerate(read_windows(source, sample_rate, window_seconds, hop_seconds)):
            if "bad" in source and k == after:
                raise DecodeError(f"{source}: corrupt after {k}.000 s of audio; fetch it again")
            yield found

    return read


def test_file_that_breaks_in_the_middle_leaves_no_row(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pieces, "_MAX_WINDOWED", 5 * RATE)
    for name in ("a", "bad", "z"):
        write(tmp_path / "clips" / f"{name}.wav", 20.0)
    out = tmp_path / "x.csv"
    command = ["features", str(tmp_path / "clips"), "--out", str(out), "--features", "rms"]
    command += ["--window", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(pieces, "read_windows", breaking(after=13))
        assert main(command) == 1
    told, complaint = capsys.readouterr()
    assert "2 clips added, 0 skipped, 1 failed" in told
    assert "bad.wav: corrupt after 13.000 s" in one_line(complaint)
    assert {Path(name).name for name in read_table(out)["file"]} == {"a.wav", "z.wav"}
    assert len(read_table(out)["file"]) == 40
    assert main(command) == 0
    assert "1 clips added, 2 skipped" in capsys.readouterr().out
    assert sorted(read_table(out)["start_seconds"]) == sorted(3 * list(range(20)))


@pytest.mark.parametrize("shorter_than", [2 * RATE, RATE], ids=["all windows", "the last"])
def test_windows_without_features_fail_their_file_once(tmp_path, monkeypatch, shorter_than):
    monkeypatch.setattr(pieces, "_MAX_WINDOWED", 5 * RATE)
    paths = [str(write(tmp_path / "bad.wav", 20.4)), str(write(tmp_path / "good.wav", 20.0))]
    rows = FeatureColumns.rows

    def fragile(self, waveform, lengths):
        if reading == paths[0] and bool((lengths < shorter_than).any()):
            raise RuntimeError("out of memory\nand more")
        return rows(self, waveform, lengths)

    reading = paths[0]
    told: list[int] = []
    monkeypatch.setattr(FeatureColumns, "rows", fragile)
    options = {"window_seconds": 1.0, "features": ["rms"], "advance": told.append}
    report = extract_features(paths[:1], tmp_path / "x.csv", **options)
    (failure,) = report.failures
    message = f"{paths[0]}: no features: out of memory; leave it out or cut it"
    assert (report.n_new, failure.error, sum(told)) == (0, message, 1)
    reading = paths[1]
    extract_features(paths[1:], tmp_path / "x.csv", **options)
    assert read_table(tmp_path / "x.csv")["file"] == [paths[1]] * 20
