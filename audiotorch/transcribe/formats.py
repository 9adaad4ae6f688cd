"""Transcripts as text files: plain text, subtitles, tables and JSON, byte for byte as Whisper's."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from audiotorch.audio.whole import written_whole
from audiotorch.errors import ParameterError
from audiotorch.transcribe.result import Segment, Transcript

__all__ = ["FORMATS", "whisper_result", "write_transcript"]


def whisper_result(transcript: Transcript) -> dict[str, Any]:
    """Return a transcript as `whisper.transcribe` does, a dict of plain values, and with more keys.

    Whisper's `text`, `segments` (each with `id start end text temperature avg_logprob
    compression_ratio no_speech_prob`, and `words` where they were asked for) and `language`; all
    else that the transcript and its segments hold. Whisper's `seek` and `tokens` are not kept.

    Args:
        transcript: what is said.
    """
    fields = transcript.to_dict()
    segments = []
    for place, segment in enumerate(fields["segments"]):
        words = list(segment.pop("words"))
        segments.append({"id": place, **segment, **({"words": words} if transcript.words else {})})
    whispers = {"text": fields["text"], "segments": segments, "language": fields["language"]}
    return {**whispers, **{name: value for name, value in fields.items() if name not in whispers}}


def _txt(transcript: Transcript) -> str:
    return "".join(
        f"{_speaker(segment, '{}: ')}{_line(segment)}\n" for segment in _spoken(transcript)
    )


def _srt(transcript: Transcript) -> str:
    cues = enumerate(_cues(transcript, "{}: ", _srt_time), 1)
    return "".join(f"{number}\n{cue}\n" for number, cue in cues)


def _vtt(transcript: Transcript) -> str:
    return "WEBVTT\n\n" + "".join(f"{cue}\n" for cue in _cues(transcript, "<v {}>", _vtt_time))


def _tsv(transcript: Transcript) -> str:
    rows = (
        f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t"
        f"{_line(segment).replace(chr(9), ' ')}\n"
        for segment in _spoken(transcript)
    )
    return "start\tend\ttext\n" + "".join(rows)


def _json(transcript: Transcript) -> str:
    return json.dumps(whisper_result(transcript))


FORMATS: Mapping[str, Callable[[Transcript], str]] = {
    "txt": _txt,
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
    "json": _json,
}
"""What writes a transcript, by suffix.

The same bytes as Whisper's own writers, but for what would break the file: a segment without text
gives no line and no cue, line breaks within a segment become blanks, and `-->` in a cue becomes
`->` with word times too. Where channels were transcribed one by one, text and cues tell which one
speaks, counted from 1.
"""


def write_transcript(transcript: Transcript, path: str | os.PathLike[str]) -> None:
    """Write a transcript as a file, in UTF-8; the suffix chooses the format.

    The file appears under its name only when it is complete.

    Args:
        transcript: what is said.
        path: ends in one of `FORMATS`; an existing file is replaced.

    Raises:
        ParameterError: another suffix, or a missing folder.
        OSError: the folder is read-only or the disk full.
    """
    path = Path(path)
    write = FORMATS.get(path.suffix.lower().removeprefix("."))
    if write is None:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise ParameterError(f"path={str(path)!r}: its suffix must be one of {known}")
    if not path.parent.is_dir():
        raise ParameterError(f"path={str(path)!r}: its folder does not exist; create it first")
    with written_whole(path) as partial:
        partial.write_bytes(write(transcript).encode("utf-8"))


def _spoken(transcript: Transcript) -> Iterator[Segment]:
    return (segment for segment in transcript.segments if segment.text.strip())


def _line(segment: Segment) -> str:
    lines = (line.strip() for line in segment.text.splitlines())
    return " ".join(line for line in lines if line)


def _speaker(segment: Segment, mark: str) -> str:
    return "" if segment.channel is None else mark.format(f"Channel {segment.channel + 1}")


def _cues(transcript: Transcript, mark: str, told: Callable[[float], str]) -> Iterator[str]:
    """Times and text of each segment; from its first word to its last where there are words."""
    for segment in _spoken(transcript):
        first, last = (segment.words[0], segment.words[-1]) if segment.words else (segment, segment)
        text = _speaker(segment, mark) + _line(segment).replace("-->", "->")
        yield f"{told(first.start)} --> {told(last.end)}\n{text}\n"


def _srt_time(seconds: float) -> str:
    hours, minutes, rest = _clock(seconds)
    return f"{hours:02d}:{minutes},{rest}"


def _vtt_time(seconds: float) -> str:
    hours, minutes, rest = _clock(seconds)
    return f"{hours:02d}:{minutes}.{rest}" if hours else f"{minutes}.{rest}"


def _clock(seconds: float) -> tuple[int, str, str]:
    """Hours, minutes with seconds, and milliseconds."""
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return hours, f"{minutes:02d}:{whole:02d}", f"{milliseconds:03d}"
