import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiotorch.cli import main
from audiotorch.data.findings import NOTES, PROBLEMS

RATE = 8000


def write_noise(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(RATE)
    soundfile.write(path, samples, RATE, format="WAV")
    return path


@pytest.fixture
def clean(tmp_path) -> Path:
    for i in range(8):
        write_noise(tmp_path / f"clean/{'ab'[i % 2]}/{i}.wav", i)
    return tmp_path / "clean"


@pytest.fixture
def faulty(clean) -> Path:
    """A clip under another label, one again, one that is no audio, and names to stumble over."""
    shutil.copy(clean / "a/0.wav", clean / "b/swapped.wav")
    shutil.copy(clean / "a/2.wav", clean / "a/new\nline \x1b[31m.wav")
    (clean / "b/broken.wav").write_text("no audio")
    (clean / "a/notes.txt").write_text("no audio either")
    return clean


def test_clean_set(clean, capsys):
    assert main(["check", str(clean)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{clean}: 8 files, 8.0 seconds"
    assert "PROBLEMS: none" in told
    assert "NOTES: none" in told
    assert f"    a      4 {'#' * 40}" in told
    assert f"    1 to 1 s      8 {'#' * 40}" in told
    assert told[-1] == "nothing to fail on"


def test_report_of_faults(faulty, capsys):
    assert main(["check", str(faulty)]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    problems, rest = out.split("\nNOTES\n")
    assert "unreadable: 1 file(s): cannot be read\n    b/broken.wav: not a readable" in problems
    assert "duplicate_across_labels: 1 x one recording under several labels" in problems
    assert "under the labels a, b: a/0.wav, b/swapped.wav" in problems
    assert "sample for sample: a/2.wav, a/new\\nline \\x1b[31m.wav" in rest
    assert "not looked at, no audio by their suffix: 1 .txt" in rest
    assert out.endswith("fails on: duplicate_across_labels, unreadable\n")


def test_json_is_the_whole_report(faulty, capsys):
    assert main(["check", str(faulty), "--json"]) == 1
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    report = json.loads(out)
    assert report.keys() == {"facts", "findings", "files", "failed_on"}
    assert report["failed_on"] == ["duplicate_across_labels", "unreadable"]
    assert report["facts"]["passed_over"] == {".txt": 1}
    assert (report["facts"]["n_files"], report["facts"]["n_readable"]) == (11, 10)
    assert [finding["name"] for finding in report["findings"]] == [
        "unreadable",
        "duplicate_across_labels",
        "duplicate",
    ]
    (broken,) = (record for record in report["files"] if record["sample_rate"] is None)
    assert broken["file"] == str(faulty / "b/broken.wav")
    assert broken["findings"][0]["name"] == "unreadable"


@pytest.mark.parametrize(
    ("fail_on", "status"),
    [
        ("problems", 1),
        ("any", 1),
        ("none", 0),
        ("duplicate", 1),
        ("clipping, near_duplicate", 0),
        ("clipping,unreadable", 1),
        ("none,any", 1),
    ],
)
def test_exit_status(faulty, capsys, fail_on, status):
    assert main(["check", str(faulty), "--fail-on", fail_on]) == status


def test_notes_fail_only_on_demand(clean, capsys):
    shutil.copy(clean / "a/0.wav", clean / "a/again.wav")
    assert main(["check", str(clean)]) == 0
    assert main(["check", str(clean), "--fail-on", "any"]) == 1


def test_table_with_splits(clean, capsys):
    shutil.copy(clean / "a/0.wav", clean / "a/leak.wav")
    table = clean / "table.tsv"
    table.write_text("path\tpart\na/0.wav\ttrain\na/2.wav\ttrain\na/leak.wav\ttest\n\ttest\n")
    columns = ["--file-column", "path", "--label-column", "-", "--split-column", "part"]
    assert main(["check", str(table), *columns]) == 1
    out = capsys.readouterr().out
    assert "in the splits test, train: 0.wav, leak.wav" in out
    assert "bad_row: 1 row(s) name no recording\n    " in out
    assert "line 5: column 'path' is empty" in out
    assert out.endswith("fails on: bad_row, duplicate_across_splits\n")
    moved = clean.parent / "table.tsv"
    moved.write_text(table.read_text())
    assert main(["check", str(moved), *columns, "--root", str(clean)]) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["{}", "--fail-on", "clippings"], "--fail-on 'clippings': must be 'problems', 'any'"),
        (["{}", "--jobs", "0"], "must be a whole number of at least 1"),
        (["{}/empty"], "no audio files under"),
        (["{}/table.csv"], "did you mean 'File'?"),
        (["{}/none.csv"], "must be an existing file"),
        ([], "required: FOLDER_OR_TABLE_OR_FILE"),
    ],
)
def test_wrong_use(clean, capsys, arguments, reason):
    (clean / "empty").mkdir()
    (clean / "table.csv").write_text("File,label\na/0.wav,a\n")
    assert main(["check", *(argument.format(clean) for argument in arguments)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert reason in output.err


def test_long_lists_are_cut(tmp_path, capsys):
    for i in range(13):
        write_noise(tmp_path / f"{i:02d}.flac", i)
    assert main(["check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "lying: 13 file(s)" in out
    assert "09.flac: It is named .flac and holds WAV: rename it.\n    ... and 3 more\n" in out


def test_help_names_every_finding(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["check", "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in (*PROBLEMS, *NOTES))
