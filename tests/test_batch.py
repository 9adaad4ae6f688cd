import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiotorch.batch import Failure, extract_features, job, pieces
from audiotorch.batch.columns import FeatureColumns
from audiotorch.batch.journal import Clip, Journal
from audiotorch.batch.output import Output
from audiotorch.batch.tables import Block, open_table
from audiotorch.errors import ParameterError

SETTINGS = {"features": ["rms"], "sample_rate": 8000}


def clip(file: str, n_rows: int = 1, value: float = 0.5) -> Clip:
    return Clip(file, 10, 20, 1.5, np.full((n_rows, 3), value, np.float32))


def rows(journal: Journal, file: str) -> np.ndarray:
    return np.concatenate(list(journal.rows(journal.entries[file], 2)))


# --- journal --------------------------------------------------------------------------------------


def test_journal_gives_back_what_was_recorded(tmp_path):
    folder = tmp_path / "journal"
    with Journal(folder, SETTINGS, 3) as journal:
        journal.append([clip("a", 5, 1.0), clip("new\nline \udcff", 1, 2.0)], {"bad": "empty"})
        journal.append([clip("bad", 2, 3.0)], {"b": "short"})
    with Journal(folder, SETTINGS, 3) as journal:
        assert list(journal.entries) == ["a", "new\nline \udcff", "bad"]
        assert journal.failures == {"b": "short"}
        assert journal.entries["a"][:4] == (10, 20, 1.5, 5)
        np.testing.assert_array_equal(rows(journal, "a"), np.full((5, 3), 1.0))
        np.testing.assert_array_equal(rows(journal, "bad"), np.full((2, 3), 3.0))
        assert [len(part) for part in journal.rows(journal.entries["a"], 2)] == [2, 2, 1]
        journal.remove()
    assert list(tmp_path.iterdir()) == []


def part(file: str, first: int, n_rows: int, last: bool = False, mtime_ns: int = 20) -> Clip:
    rows = np.arange(first, first + n_rows, dtype=np.float32)[:, None].repeat(3, axis=1)
    return Clip(file, 10, mtime_ns, float(first + n_rows), rows, first, last)


def test_file_in_parts_is_finished_with_the_last_that_lacked(tmp_path):
    folder = tmp_path / "journal"
    with Journal(folder, SETTINGS, 3) as journal:
        assert journal.append([part("a", 2, 3), part("b", 0, 2)], {}) == []
        assert journal.append([part("a", 5, 1, last=True)], {"a": "short"}) == []
        assert (list(journal.entries), journal.failures) == ([], {"a": "short"})
    with Journal(folder, SETTINGS, 3) as journal:
        assert sorted(journal.parts["a"]) == [2, 5]
        assert journal.append([clip("c"), part("a", 0, 2)], {}) == ["c", "a"]
        assert journal.failures == {}
        assert list(journal.parts) == ["b"]
    with Journal(folder, SETTINGS, 3) as journal:
        assert list(journal.entries) == ["c", "a"]
        assert journal.entries["a"][:4] == (10, 20, 6.0, 6)
        np.testing.assert_array_equal(rows(journal, "a")[:, 0], np.arange(6))


def test_parts_of_a_file_that_changed_since_do_not_count(tmp_path):
    with Journal(tmp_path / "journal", SETTINGS, 3) as journal:
        journal.append([part("a", 0, 2), part("a", 2, 2)], {})
        journal.append([part("a", 4, 1, last=True, mtime_ns=21)], {})
        assert list(journal.entries) == []
        assert journal.append([part("a", 0, 4, mtime_ns=21)], {}) == ["a"]
        assert journal.entries["a"][:4] == (10, 21, 5.0, 5)


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_journal_cut_anywhere_loses_at_most_the_last_batches(tmp_path, cut):
    folder = tmp_path / "journal"
    with Journal(folder, SETTINGS, 3) as journal:
        for name in "abcd":
            journal.append([clip(name, 2, ord(name))], {})
    lines = (folder / "done.jsonl").read_bytes()
    (folder / "done.jsonl").write_bytes(lines[: len(lines) - cut])
    with Journal(folder, SETTINGS, 3) as journal:
        kept = list(journal.entries)
        assert kept == list("abcd")[: lines[: len(lines) - cut].count(b"\n")]
        journal.append([clip("new", 2, 7.0)], {})
    with Journal(folder, SETTINGS, 3) as journal:
        assert list(journal.entries) == [*kept, "new"]
        for name in kept:
            np.testing.assert_array_equal(rows(journal, name), np.full((2, 3), ord(name)))
        np.testing.assert_array_equal(rows(journal, "new"), np.full((2, 3), 7.0))


def test_lines_whose_rows_did_not_reach_the_disk_do_not_count(tmp_path):
    folder = tmp_path / "journal"
    with Journal(folder, SETTINGS, 3) as journal:
        journal.append([clip("a")], {})
        journal.append([clip("b")], {})
    content = (folder / "rows.f32").read_bytes()
    (folder / "rows.f32").write_bytes(content[:-1])
    with Journal(folder, SETTINGS, 3) as journal:
        assert list(journal.entries) == ["a"]
    assert (folder / "rows.f32").read_bytes() == content[:12]


def test_journal_is_written_by_one_job_only(tmp_path):
    with Journal(tmp_path / "journal", SETTINGS, 3) as journal:
        journal.append([clip("a")], {})
        with pytest.raises(ParameterError, match="another job is writing this output"):
            Journal(tmp_path / "journal", SETTINGS, 3, fresh=True)
    with Journal(tmp_path / "journal", SETTINGS, 3) as journal:
        assert list(journal.entries) == ["a"]


@pytest.mark.parametrize(
    ("first", "second", "kept", "fresh"),
    [
        (False, False, True, False),
        (True, True, True, True),
        (True, False, True, True),
        (False, True, False, True),
    ],
)
def test_fresh_job_goes_on_with_a_fresh_job_only(tmp_path, first, second, kept, fresh):
    with Journal(tmp_path / "journal", SETTINGS, 3, fresh=first) as journal:
        journal.append([clip("a")], {})
    with Journal(tmp_path / "journal", SETTINGS, 3, fresh=second) as journal:
        assert bool(journal.entries) == kept
        assert journal.fresh == fresh


def test_journal_of_other_settings_is_refused_unless_empty_or_fresh(tmp_path):
    folder = tmp_path / "journal"
    with Journal(folder, SETTINGS, 3):
        pass
    with Journal(folder, {"features": ["mfcc"]}, 3) as journal:
        journal.append([clip("a")], {})
    with pytest.raises(ParameterError, match=r"features was \['mfcc'\], is \['rms'\].*--overwrite"):
        Journal(folder, SETTINGS, 3)
    with Journal(folder, SETTINGS, 3, fresh=True) as journal:
        assert journal.entries == {}


# --- tables ---------------------------------------------------------------------------------------


def blocks(n: int) -> list[Block]:
    """Blocks of 1, 2 ... rows with numbers of all sizes."""
    generator = np.random.default_rng(0)
    found = []
    for i in range(n):
        size = (i + 1, 4)
        values = generator.standard_normal(size) * 10.0 ** generator.integers(-38, 38, size)
        position = np.arange(i + 1, dtype=np.int32)
        found.append(
            Block([f"f{i}"] * (i + 1), position, position[:, None] / 3, values.astype(np.float32))
        )
    found[0].values[0] = [np.nan, np.inf, -np.inf, -0.0]
    return found


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz", ".CSV"])
@pytest.mark.parametrize("numbers", [7, 1 << 16], ids=["small blocks", "large blocks"])
def test_table_reads_back_bit_by_bit(tmp_path, monkeypatch, suffix, numbers):
    monkeypatch.setattr("audiotorch.batch.tables._BLOCK", numbers)
    path = tmp_path / f"x{suffix}"
    table = open_table(path)
    columns = ["file", "frame", "seconds", "a", "b", "c", "d"]
    written = blocks(6)
    table.write(path, columns, 21, iter(written))
    assert table.columns(path) == columns
    read = list(table.blocks(path))
    assert len(read) > 1 or numbers > 7
    expected_files = [name for block in written for name in block.file]
    assert [name for block in read for name in block.file] == expected_files
    assert [name for part in table.files(path) for name in part] == expected_files
    for field in ("frame_or_rate", "seconds", "values"):
        expected = np.concatenate([getattr(block, field) for block in written])
        found = np.concatenate([getattr(block, field) for block in read])
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_rows_of_a_block_are_kept_by_choice():
    block = blocks(3)[2].keep([True, False, True])
    assert block.file == ["f2", "f2"]
    assert block.frame_or_rate.tolist() == [0, 2]
    assert block.values.shape == (2, 4)


def test_table_that_cannot_be_replaced_is_left_as_it_is(tmp_path):
    output = Output(tmp_path / "x.csv")
    columns = FeatureColumns(["rms"])
    output.folder.mkdir()
    one = Block(["a"], np.zeros(1, np.int32), np.zeros((1, 1)), np.ones((1, 2), np.float32))
    output.write(columns, [one], 1, {"a": (1, 2)}, {})
    before = output.path.read_bytes()

    def broken():
        yield one
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        output.write(columns, broken(), 2, {"b": (1, 2)}, output.finished())
    assert output.path.read_bytes() == before
    assert output.finished() == {"a": (1, (1, 2))}


# --- job ------------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{i:02}.wav" for i in range(20)]
    for i, path in enumerate(paths):
        soundfile.write(path, 0.1 * generator.standard_normal(8000 + 500 * i), 16000)
    return paths


def test_function_tells_what_it_did(clips, tmp_path):
    clips[3].write_bytes(b"")
    told = []
    out = tmp_path / "x.npz"
    # The same file by another name is one file, though two were asked for.
    files = [*clips, Path(str(clips[0]).replace("/00", "/./00"))]
    report = extract_features(files, out, features=["rms"], advance=told.append)
    assert (report.n_new, report.n_skipped, report.n_columns) == (19, 0, 2)
    (failure,) = report.failures
    assert failure == Failure(str(clips[3]), failure.error)
    assert "empty" in failure.error
    assert sum(told) == 21
    report = extract_features(clips[:5], out, features=["rms"])
    assert (report.n_new, report.n_skipped, len(report.failures)) == (0, 4, 1)


def test_wrong_number_of_jobs_is_refused(clips, tmp_path):
    with pytest.raises(ParameterError, match="jobs=0: must be at least 1"):
        extract_features(clips, tmp_path / "x.csv", jobs=0)


def test_settings_of_the_process_stay(clips, tmp_path):
    torch.set_num_threads(2)
    try:
        extract_features(clips, tmp_path / "x.csv", features=["rms"], jobs=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_portions_are_bounded_in_files_and_bytes():
    tasks = [pieces.Task(f"{i}", size, 0) for i, size in enumerate([1] * 20 + [3 << 18] * 3 + [1])]
    found = list(pieces.portions(tasks))
    assert [len(portion) for portion in found] == [16, 5, 1, 2]
    assert [task for portion in found for task in portion] == tasks


def test_long_files_are_not_held_together(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "_MAX_SAMPLES", 30_000)
    sizes = []
    rows = FeatureColumns.rows

    def watched(self, waveform, lengths):
        sizes.append(waveform.numel())
        return rows(self, waveform, lengths)

    monkeypatch.setattr(FeatureColumns, "rows", watched)
    report = extract_features(clips, tmp_path / "x.csv", features=["rms"])
    assert report.n_new == 20
    assert max(sizes) <= 30_000


def test_work_runs_ahead_by_a_bounded_number_of_portions(monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    begun = 0
    lock = threading.Lock()

    def compute(columns, piece):
        nonlocal begun
        with lock:
            begun += 1
        time.sleep(0.002)
        return [], piece.failures

    monkeypatch.setattr(job, "compute", compute)
    with ThreadPoolExecutor(2) as pool:
        taken = 0
        portions = (iter([pieces.Piece([], {f"{i}": ""}, more=False)]) for i in range(50))
        for _, failures in job._results(pool, None, portions, ahead=4):
            taken += len(failures)
            assert begun - taken <= 2 * 4
        assert taken == 50


def test_one_long_file_keeps_all_threads_at_work(monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    together = threading.Barrier(3, timeout=30)

    def compute(columns, piece):
        together.wait()  # passed by three threads at once only
        return [], piece.failures

    monkeypatch.setattr(job, "compute", compute)
    file = (pieces.Piece([], {f"{i}": ""}, more=i < 8) for i in range(9))
    with ThreadPoolExecutor(3) as pool:
        found = list(job._results(pool, None, [file], ahead=6))
    assert [name for _, failures in found for name in failures] == [f"{i}" for i in range(9)]


def test_one_clip_without_features_does_not_stop_the_others(clips, tmp_path, monkeypatch):
    rows = FeatureColumns.rows

    def fragile(self, waveform, lengths):
        if bool((lengths == 11025).any()):  # the first clip, of half a second
            raise RuntimeError("out of memory\nand more")
        return rows(self, waveform, lengths)

    monkeypatch.setattr(FeatureColumns, "rows", fragile)
    report = extract_features(clips, tmp_path / "x.csv", features=["rms"])
    assert report.n_new == 19
    (failure,) = report.failures
    assert failure.error == f"{clips[0]}: no features: out of memory; leave it out or cut it"


def test_files_of_a_killed_job_are_kept_though_not_asked_for(clips, tmp_path, monkeypatch):
    out = tmp_path / "x.csv"
    compute = job.compute

    def killed(columns, piece):
        if len(piece.parts) < 16:
            raise SystemExit
        return compute(columns, piece)

    with monkeypatch.context() as patch:
        patch.setattr(job, "compute", killed)
        with pytest.raises(SystemExit):
            extract_features(clips, out, features=["rms"], jobs=1)
    report = extract_features(clips[-1:], out, features=["rms"])
    assert report.n_new == 17
    found = [name for files in open_table(out).files(out) for name in files]
    assert found == [str(clips[-1]), *map(str, clips[:16])]


def test_kill_after_the_table_was_replaced_repeats_no_row(clips, tmp_path, monkeypatch):
    out = tmp_path / "x.csv"
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract_features(clips, out, features=["rms"])
    before = out.read_bytes()
    extract_features(clips, out, features=["rms"])
    assert out.read_bytes() == before
    assert not (tmp_path / ".x.csv.partial").exists()


def test_failures_beside_the_table_are_lines_of_json(clips, tmp_path):
    clips[0].write_bytes(b"")
    out = tmp_path / "x.csv"
    extract_features(clips[:2], out, features=["rms"])
    failures = tmp_path / "x.csv.failures.jsonl"
    (line,) = map(json.loads, failures.read_text().splitlines())
    assert set(line) == {"file", "error"}
    assert line["file"] == str(clips[0])
    # What an editor left half-written does not stop the next job.
    failures.write_text(failures.read_text() + '{"file": "x"}\n{"fi')
    clips[0].write_bytes(clips[1].read_bytes())
    extract_features(clips[:2], out, features=["rms"])
    assert not failures.exists()
