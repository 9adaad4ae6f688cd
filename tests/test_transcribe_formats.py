"""Transcripts as files, against Whisper's own writers."""

import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiotorch.errors import ParameterError
from audiotorch.transcribe.formats import FORMATS, whisper_result, write_transcript
from audiotorch.transcribe.result import Segment, Transcript, Word

TEXT_FORMATS = ("txt", "srt", "vtt", "tsv")


def transcript(*segments: Segment) -> Transcript:
    text = "".join(segment.text for segment in segments).strip()
    return Transcript(
        "a.wav", text, "en", 0.9, 12.5, None, 0.1, "transcribe", "tiny.en", tuple(segments)
    )


def said(*texts: str, start: float = 0.0) -> Transcript:
    return transcript(
        *(Segment(start + 2 * k, start + 2 * k + 1.5, text, "en") for k, text in enumerate(texts))
    )


def worded(start: float, *texts: str) -> Segment:
    words = tuple(
        Word(text, start + 0.31 * k, start + 0.31 * k + 0.2, 0.9) for k, text in enumerate(texts)
    )
    # As where Whisper moves a long first word: the segment starts before it.
    return Segment(start - 0.1, start + 9, "".join(texts), "en", words=words)


def whispers(result: Transcript, suffix: str) -> str:
    """What Whisper writes of the same segments."""
    utils = pytest.importorskip("whisper.utils")
    writer = {
        "txt": utils.WriteTXT,
        "srt": utils.WriteSRT,
        "vtt": utils.WriteVTT,
        "tsv": utils.WriteTSV,
        "json": utils.WriteJSON,
    }[suffix]
    file = io.StringIO()
    writer("").write_result(whisper_result(result), file=file)
    return file.getvalue()


CASES = {
    "nothing": said(),
    "one": said(" And so, my fellow Americans"),
    "two": said(" ask not", " what your country"),
    "arrow": said(" a --> b", "-->"),
    "right to left": said(" مرحبا بالعالم", " שלום"),
    "east asian": said("客観的実在の判断的知識が成立するのである。", "广州市房地产"),
    "tabs": said("\tone\ttwo "),
    "blanks within": said("  a   b  "),
    "brackets": said(" R&D <i>is</i> 3 < 4"),
    "rounded up": transcript(Segment(59.9996, 3599.9996, " a", "en")),
    "rounded to even": transcript(Segment(0.0005, 0.0015, " a", "en")),
    "an hour": said(" a", start=3600.0),
    "past 99 hours": said(" a", start=100 * 3600.0 + 61.001),
    "words": transcript(worded(1.0, " And", " so,"), worded(4.0, " my", " fel", "low.")),
    "east asian words": transcript(worded(0.5, "客観", "的")),
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_same_bytes_as_whisper(name, suffix):
    assert FORMATS[suffix](CASES[name]) == whispers(CASES[name], suffix)


@settings(deadline=None)  # Whisper takes a while to load
@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e6),
            st.floats(0, 100),
            st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])).filter(str.strip),
        )
    )
)
def test_same_bytes_as_whisper_whatever_is_said(segments):
    result = transcript(*(Segment(at, at + length, text, "en") for at, length, text in segments))
    for suffix, write in FORMATS.items():
        assert write(result) == whispers(result, suffix)


@pytest.mark.parametrize("suffix", TEXT_FORMATS)
def test_segments_without_text_are_left_out(suffix):
    silent = transcript(*(Segment(float(k), k + 0.5, "", "en") for k in range(2)))
    assert FORMATS[suffix](silent) == whispers(said(), suffix)
    between = transcript(
        Segment(0, 1, " a", "en"), Segment(1, 2, "  ", "en"), Segment(2, 3, " b", "en")
    )
    without = transcript(between.segments[0], between.segments[2])
    assert FORMATS[suffix](between) == whispers(without, suffix)


@pytest.mark.parametrize("suffix", TEXT_FORMATS)
@pytest.mark.parametrize(
    "broken", [" one\n\ntwo", "\none \r\n two\n", "one\u2028two", "one\x0btwo"]
)
def test_line_breaks_in_a_segment_become_blanks(broken, suffix):
    # An empty line would end a cue, any would end a row: Whisper's own files break there.
    assert FORMATS[suffix](said(broken)) == whispers(said(" one two"), suffix)


@pytest.mark.parametrize("suffix", ["srt", "vtt"])
def test_no_cue_holds_an_arrow_with_words_either(suffix):
    # Whisper replaces arrows in cues without words only.
    arrow, plain = (transcript(worded(1.0, " a", sign, " b")) for sign in (" -->", " ->"))
    assert FORMATS[suffix](arrow) == whispers(plain, suffix)


def test_a_segment_without_words_among_others_is_not_lost():
    mixed = transcript(worded(1.0, " a"), Segment(5.0, 6.0, " b", "en"))
    assert "00:00:05,000 --> 00:00:06,000\nb\n" in FORMATS["srt"](mixed)


def test_channels_are_told():
    two = transcript(
        Segment(0.0, 1.0, " Hello.", "en", channel=0), Segment(1.0, 2.0, " Hi.", "en", channel=1)
    )
    assert FORMATS["txt"](two) == "Channel 1: Hello.\nChannel 2: Hi.\n"
    assert FORMATS["srt"](two) == (
        "1\n00:00:00,000 --> 00:00:01,000\nChannel 1: Hello.\n\n"
        "2\n00:00:01,000 --> 00:00:02,000\nChannel 2: Hi.\n\n"
    )
    assert FORMATS["vtt"](two) == (
        "WEBVTT\n\n00:00.000 --> 00:01.000\n<v Channel 1>Hello.\n\n"
        "00:01.000 --> 00:02.000\n<v Channel 2>Hi.\n\n"
    )
    assert FORMATS["tsv"](two) == "start\tend\ttext\n0\t1000\tHello.\n1000\t2000\tHi.\n"


def test_json_has_whispers_keys_and_ours():
    result = CASES["words"]
    read = json.loads(FORMATS["json"](result))
    assert list(read)[:3] == ["text", "segments", "language"]
    assert read["text"] == "And so, my fellow."
    assert read["duration_seconds"] == 12.5
    assert set(read) == {*result.to_dict()}
    assert [segment["id"] for segment in read["segments"]] == [0, 1]
    assert read["segments"][0]["words"][1] == {
        "word": " so,",
        "start": 1.31,
        "end": 1.51,
        "probability": 0.9,
    }
    assert "words" not in whisper_result(CASES["one"])["segments"][0]


@pytest.mark.parametrize("suffix", FORMATS)
def test_written_as_utf8_by_suffix(suffix, tmp_path):
    path = tmp_path / f"é名.{suffix.upper()}"
    path.write_bytes(b"of old")
    write_transcript(CASES["east asian"], path)
    assert path.read_bytes() == whispers(CASES["east asian"], suffix).encode("utf-8")
    assert os.listdir(tmp_path) == [path.name]


def test_written_beside_a_name_as_long_as_can_be(tmp_path):
    path = tmp_path / ("名" * 83 + ".srt")
    write_transcript(CASES["one"], path)
    assert path.read_text("utf-8") == FORMATS["srt"](CASES["one"])


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("of old")
    whole = Path.write_bytes

    def full(self: Path, data: bytes) -> None:
        whole(self, data[:3])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="disk full"):
        write_transcript(CASES["one"], path)
    assert path.read_text() == "of old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["a.doc", "a", "srt"])
def test_another_suffix_is_refused(name, tmp_path):
    with pytest.raises(ParameterError, match=r"suffix must be one of \.txt, \.srt, \.vtt"):
        write_transcript(CASES["one"], tmp_path / name)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="its folder does not exist"):
        write_transcript(CASES["one"], tmp_path / "no" / "a.srt")
