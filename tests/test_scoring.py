"""Error rates, against jiwer itself and distances counted by hand."""

import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from audiotorch.errors import MissingDependencyError, ParameterError
from audiotorch.transcribe.scoring import Reference, format_scores, read_references, score

jiwer = pytest.importorskip("jiwer")
normalizers = pytest.importorskip("whisper.normalizers")


def distance(a: list[str] | str, b: list[str] | str) -> int:
    """Levenshtein's."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def heard(file: str, text: str, language: str = "en", **more: Any) -> dict[str, Any]:
    return {"filepath": file, "text": text, "language": language, **more}


def known(file: str, text: str | None, language: str | None = "en") -> dict[str, Reference]:
    return {file: Reference(file, os.path.abspath(file), text, language)}


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


# --- rates ----------------------------------------------------------------------------------------

PAIRS = [
    ("ask not what your country can do", "ask not what your country can do"),
    ("ask not what your country can do", "ask what your own country could do"),
    ("ten of clubs", "tenor clubs"),
    ("red green blue", ""),
    ("", "thank you"),
    ("", ""),
    ("a b c d", "d c b a"),
]


@pytest.mark.parametrize(("said", "text"), PAIRS)
@pytest.mark.parametrize("language", ["en", "de"])
def test_errors_are_those_counted_by_hand(said, text, language):
    (row,) = score([heard("a.wav", text, language)], known("a.wav", said, language)).rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves a file open
        normalize = {
            "en": normalizers.EnglishTextNormalizer(),
            "de": normalizers.BasicTextNormalizer(),
        }[language]
    a, b = normalize(said).strip(), normalize(text).strip()
    assert (row.reference, row.hypothesis) == (a, b)
    assert (row.n_words, row.n_errors) == (len(a.split()), distance(a.split(), b.split()))
    assert (row.n_characters, row.n_character_errors) == (len(a), distance(a, b))
    if a:
        assert row.wer == jiwer.wer(a, b)
        assert row.cer == jiwer.cer(a, b)
    else:
        assert row.wer == row.cer == (math.inf if b else 0.0)


def test_totals_are_pooled_over_words_as_jiwer_does():
    kept = [(said, text) for said, text in PAIRS if said]
    references = {}
    for k, (said, _) in enumerate(kept):
        references.update(known(f"{k}.wav", said, "de"))
    scores = score([heard(f"{k}.wav", text) for k, (_, text) in enumerate(kept)], references)
    said, text = map(list, zip(*kept, strict=True))
    assert scores.wer == jiwer.wer(said, text)
    assert scores.cer == jiwer.cer(said, text)
    assert 0 < scores.wer < 1


def test_words_where_nobody_speaks_are_errors_of_the_total():
    references = known("a.wav", "red green blue white") | known("b.wav", "")
    scores = score([heard("a.wav", "red green blue white"), heard("b.wav", "you")], references)
    assert [row.wer for row in scores.rows] == [0.0, math.inf]
    assert (scores.n_words, scores.n_errors, scores.wer) == (4, 1, 0.25)
    assert "inf" in format_scores(scores).splitlines()[2]
    silent = score([heard("b.wav", "")], references)
    assert (silent.wer, silent.cer, silent.rows[0].wer) == (0.0, 0.0, 0.0)


def test_files_with_an_error_count_as_all_words_deleted_and_are_told():
    failed = {"filepath": "a.wav", "error": "cannot be decoded:\n\x1b[31mno audio"}
    scores = score([failed], known("a.wav", "red green blue"))
    (row,) = scores.rows
    assert (row.n_words, row.n_errors, row.wer, row.cer) == (3, 3, 1.0, 1.0)
    assert row.hypothesis == ""
    told = format_scores(scores)
    assert "a.wav: no transcript, all words count as errors (cannot be decoded: \\x1b" in told


def test_english_is_compared_as_whispers_authors_do():
    said = "Mr. Quilter's colour is twenty-five, [noise] and we're glad"
    text = "mister quilter's color is 25 and we are glad"
    assert score([heard("a", text)], known("a", said)).wer == 0
    assert score([heard("a", text, "de")], known("a", said, None)).wer > 0


@pytest.mark.parametrize("language", ["EN", "en-US", "English", "en_GB"])
def test_languages_go_by_several_names(language):
    assert score([heard("a", "mister")], known("a", "Mr.", language)).wer == 0


@pytest.mark.parametrize("language", ["ja", "zh", "th", "lo", "my", "yue"])
def test_languages_without_blanks_are_compared_by_characters(language):
    (row,) = score([heard("a", "广州市 地产。")], known("a", "广州市房地产", language)).rows
    assert (row.n_words, row.n_errors) == (6, 1)
    assert row.wer == row.cer == 1 / 6
    assert "compared by characters" in format_scores(
        score([heard("a", "广州市")], known("a", "广州", language))
    )


def test_korean_keeps_its_blanks_and_is_told_by_characters():
    scores = score(
        [heard("a", "길 한옆으로 걸어갔다", "ko")], known("a", "길 한 옆으로 걸어갔다.", None)
    )
    (row,) = scores.rows
    assert (row.n_words, row.n_errors) == (4, 2)
    assert row.cer == jiwer.cer("길 한 옆으로 걸어갔다", "길 한옆으로 걸어갔다")
    assert "ko: compared by characters" in format_scores(scores)


def test_translations_are_english():
    result = heard("a", "mister", "de", task="translate")
    assert score([result], known("a", "Mr.", "de")).wer == 0


def test_languages_are_told_by_themselves():
    references = known("a", "red green") | known("b", "eins zwei", "de") | known("c", "drei", "de")
    scores = score([heard("a", "red green"), heard("b", "eins"), heard("c", "drei")], references)
    assert {name: part.wer for name, part in scores.languages.items()} == {"de": 1 / 3, "en": 0.0}
    lines = format_scores(scores).splitlines()
    assert lines[0].split() == ["file", "language", "words", "errors", "WER", "CER"]
    assert [line.split()[0] for line in lines[1:4]] == ["a", "b", "c"]
    assert lines[4].split() == [
        "all",
        "de",
        "de",
        "3",
        "1",
        "0.3333",
        f"{scores.languages['de'].cer:.4f}",
    ]
    assert lines[-1].split()[:4] == ["all", "5", "1", "0.2000"]


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'audiotorch\[whisper\]'"):
        score([heard("a", "one")], known("a", "one"))


# --- matching -------------------------------------------------------------------------------------


def matched(files: list[str], references: dict[str, Reference]) -> dict[str, str]:
    """Which file each reference got: files tell their names as text."""
    scores = score([heard(file, f"file {k}", "de") for k, file in enumerate(files)], references)
    pairs = {row.file: files[int(row.hypothesis[5:])] for row in scores.rows}
    assert {*scores.without_result} == {*references} - {*pairs}
    assert {*scores.without_reference} == {*files} - {*pairs.values()}
    return pairs


def listed(folder: Path, *names: str) -> dict[str, Reference]:
    rows = "".join(f'"{name}",x\n' for name in names)
    return read_references(write(folder / "t.csv", "file,transcript\n" + rows))


def test_paths_start_from_the_tables_folder(tmp_path, monkeypatch):
    references = listed(tmp_path, "en/a.wav", "de/a.wav", f"{tmp_path}/b.wav", "../c.wav")
    files = [f"{tmp_path}/{name}" for name in ("de/a.wav", "en/a.wav", "b.wav")]
    files.append(f"{tmp_path.parent}/c.wav")
    found = matched(files, references)
    assert found == dict(
        zip(["de/a.wav", "en/a.wav", f"{tmp_path}/b.wav", "../c.wav"], files, strict=True)
    )
    monkeypatch.chdir(tmp_path / "..")
    relative = [f"{tmp_path.name}/de/a.wav", f"./{tmp_path.name}/en/a.wav"]
    assert matched(relative, references) == {"de/a.wav": relative[0], "en/a.wav": relative[1]}


@pytest.mark.parametrize(
    ("files", "names", "found"),
    [
        (["/x/en/a.wav", "/x/de/a.wav"], ["en/a.wav", "de/a.wav"], {0: 0, 1: 1}),
        (["/x/de/a.wav", "/x/fr/a.wav"], ["en/a.wav", "de/a.wav"], {0: 1, 1: 0}),  # by name alone
        (["/x/y/a.wav"], ["a.wav"], {0: 0}),
        (["/x/y/a.wav", "/x/z/a.wav"], ["a.wav"], {}),
        (["/x/a.wav"], ["en/a.wav", "de/a.wav"], {}),
        (["/x/en/a.wav", "/y/en/a.wav"], ["en/a.wav", "de/a.wav"], {}),
        (["/x/ba.wav"], ["a.wav"], {}),
        (["C:\\x\\en\\a.wav"], ["en/a.wav", "de/a.wav"], {0: 0}),
        (["/x/en/e\u0301.wav"], ["en\\\u00e9.wav"], {0: 0}),
        ([], ["a.wav"], {}),
        (["/x/a.wav"], ["b.wav"], {}),
    ],
)
def test_what_ends_alike_is_put_together(files, names, found, tmp_path):
    expected = {names[j]: files[i] for i, j in found.items()}
    assert matched(files, listed(tmp_path, *names)) == expected


def test_a_whole_path_comes_before_one_that_ends_alike(tmp_path):
    here = f"{tmp_path}/a.wav"
    assert matched(["/x/a.wav", here], listed(tmp_path, "a.wav")) == {"a.wav": here}


def test_many_files_of_one_name_are_matched_in_a_moment(tmp_path):
    names = [f"{k}/take.wav" for k in range(5000)]
    references = {name: Reference(name, f"/x/{name}", None) for name in names}
    scores = score([heard(f"/y/{name}", "one") for name in names], references)
    assert len(scores.unknown) == 5000


def test_the_last_result_of_a_file_counts():
    failed = {"filepath": "a", "error": "no"}
    assert score([failed, heard("a", "one")], known("a", "one")).wer == 0


def test_what_is_not_compared_is_told():
    references = known("a", "one") | known("b", None) | known("c", "three")
    scores = score([heard("a", "one"), heard("b", "two"), heard("\x1bd", "four")], references)
    assert [row.file for row in scores.rows] == ["a"]
    assert scores.unknown == ("b",)
    assert scores.without_reference == ("\x1bd",)
    assert scores.without_result == ("c",)
    assert format_scores(scores).splitlines()[-3:] == [
        "text not known: b",
        "no reference: \\x1bd",
        "no transcript: c",
    ]
    many = score([heard(f"{k}", "") for k in range(13)], references)
    assert "no reference: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more" in format_scores(many)


# --- tables of references -------------------------------------------------------------------------


def test_the_table_of_the_recordings(data_root):
    folder = data_root / "speech"
    references = read_references(folder / "transcripts.csv")
    assert references["en/jfk.mp3"].transcript.startswith("And so, my fellow Americans, ask")
    assert references["ja/leopard_test_ja.wav"].language == "ja"
    unknown = [name for name, row in references.items() if row.transcript is None]
    assert unknown == ["en/librispeech_2412-153948-0001.flac", "en/vosk_digits.wav"]
    assert references["none/leopard_empty.wav"].transcript == ""
    assert all(os.path.isfile(row.path) for row in references.values())
    right = [heard(row.path, row.transcript or "", row.language) for row in references.values()]
    scores = score(right, references)
    assert (scores.wer, scores.cer, len(scores.rows)) == (0.0, 0.0, len(references) - 2)
    assert scores.unknown == tuple(references[name].path for name in unknown)


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        ("t.csv", "file,transcript\na.wav,\"one, two\"\n", "utf-8"),
        ("t.csv", "file,transcript\r\na.wav,\"one, two\"\r\n\r\n", "utf-8-sig"),
        ("t.csv", "file, transcript\na.wav, \"one, two\"\n", "utf-8"),
        ("t.csv", "file;transcript\na.wav;one, two\n", "utf-8-sig"),
        ("t.csv", "file\ttranscript\na.wav\tone, two\n", "utf-8"),
        ("t.TSV", "file\ttranscript\na.wav\tone, two\n", "utf-8"),
        ("t.csv", " file , speaker,transcript ,,\n a.wav ,x,\"one, two\",,\n", "utf-8"),
        ("t.jsonl", '{"file": "a.wav", "transcript": "one, two"}\n', "utf-8"),
    ],
)  # fmt: skip
def test_tables_as_spreadsheets_write_them(name, text, encoding, tmp_path):
    path = write(tmp_path / name, text, encoding)
    assert read_references(os.fspath(path)) == {
        "a.wav": Reference("a.wav", f"{tmp_path}/a.wav", "one, two", None)
    }


def test_quotes_and_lines_within_cells(tmp_path):
    text = 'file,transcript\na.wav,"she said ""no""\nand left"\nb.wav,\n'
    references = read_references(write(tmp_path / "t.csv", text))
    assert references["a.wav"].transcript == 'she said "no"\nand left'
    assert references["b.wav"].transcript == ""


def test_an_empty_transcript_of_no_kind_says_that_nobody_speaks(tmp_path):
    text = "file,transcript,transcript_kind\na,,exact\nb,,None\nc,,\nd,one,none\n"
    references = read_references(write(tmp_path / "t.csv", text))
    assert [row.transcript for row in references.values()] == ["", None, "", "one"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has no rows; list one recording per row"),
        ("file,transcript\n", "it has no rows"),
        ("path,transcript\na,b\n", r"line 1: must have the columns .*, but has \['path'"),
        ("file,text\na,b\n", "name one 'transcript'"),
        ("file,transcript\na,one\n,two\n", "line 3: has no file; fill the cell in"),
        ("file,transcript\na,one\nb\n", "line 3: has no transcript; fill the cell in"),
        ("file,transcript\na,one\nb,two\n./a,one\n", "line 4: './a' is listed in line 2 already"),
        ("file,transcript\na,And so, my fellow\n", "line 2: has 3 cells, the header 2; put text"),
        ('file,transcript\na,"one\nb,two\n', "not a table; unexpected end of data"),
        ('file,transcript\na,"one" he said\n', "line 2: not a table"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_meant_are_refused(text, message, tmp_path):
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(ParameterError, match=message) as caught:
        read_references(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_refused_with_the_line(encoding, tmp_path):
    path = write(tmp_path / "t.csv", "file,transcript\na.wav,one\nb.wav,été\n", encoding)
    line = 3 if encoding == "latin-1" else 1
    with pytest.raises(ParameterError, match=f"t.csv', line {line}: must be UTF-8 text, save it"):
        read_references(path)


def test_missing_tables_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "no.csv"):
        with pytest.raises(ParameterError, match="must be an existing file"):
            read_references(path)


def test_results_may_come_from_json_lines(tmp_path):
    lines = [json.dumps(heard(f"{tmp_path}/a.wav", " One. "))]
    assert score(map(json.loads, lines), listed(tmp_path, "a.wav")).n_errors == 1
