"""The page about transcripts: what is said, to search, and to hear at a click on a word."""

import itertools
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from audiotorch.audio.files import common_folder
from audiotorch.audio.io import stream
from audiotorch.errors import AudioTorchError, ParameterError, TruncationWarning
from audiotorch.report.audio import Budget, encode_mp3
from audiotorch.report.page import (
    Block,
    Facts,
    Recording,
    Section,
    Segment,
    Table,
    Text,
    Transcripts,
    render,
)
from audiotorch.report.record import number as figure

__all__ = ["transcripts_page"]

_DOUBTFUL = 0.5
_FIGURES = ("language_probability", "speech_s", "real_time_factor")  # which may lack
_BLOCK_SECONDS = 60.0
_OF_TEXT = 0.6  # of the page, that texts may take
_PART_COST, _WORD_COST = 110, 26  # bytes of what is around a segment's and a word's text
# Bits a second and samples a second: speech at the first is as good as it was, at the last just
# understood. The first that all recordings fit in is taken.
_QUALITIES = ((48_000, 22_050), (32_000, 16_000), (24_000, 16_000), (16_000, 12_000), (8000, 8000))
_MP3_FRAMES = 1.02  # headers and the last frame


class _Sound(NamedTuple):
    """The file of a line, or why there is none."""

    path: str | None
    why: str = ""


def transcripts_page(
    source: Path,
    *,
    title: str = "",
    root: Path | None = None,
    advance: Callable[[int, int], object] = lambda done, total: None,
) -> str:
    """Make the page about transcripts.

    Args:
        source: the `.jsonl` file of `audiotorch transcribe`.
        title: of the page; `""` = the name of the file.
        root: where recordings lie that were moved, or whose names are relative.
        advance: is told how many recordings are done, and of how many.

    Raises:
        ParameterError: it holds no transcripts.
    """
    lines = _read(source)
    texts = [line for line in lines if "error" not in line]
    start = common_folder([line["filepath"] for line in lines])
    budget = Budget()
    kept, with_words, told = _fitting(texts, budget)
    sounds = [_find(line, source.parent, root) for line in kept]
    quality, has_sound, about_sound = _choose(kept, sounds, budget)
    recordings = []
    for number, (line, sound) in enumerate(zip(kept, sounds, strict=True), 1):
        recordings.append(
            _recording(line, sound, quality, has_sound[number - 1], start, with_words)
        )
        advance(number, len(kept))
    facts: list[Block] = [Facts(_overview(lines))]
    sections = [Section("Overview", facts)]
    if recordings:
        blocks: list[Block] = [Transcripts(recordings, _DOUBTFUL)]
        sections.append(Section("Texts", blocks, " ".join([*told, about_sound]).strip()))
        sections.append(Section("Recordings", [_table(texts, start)]))
    if failed := [line for line in lines if "error" in line]:
        rows = [(line["filepath"][len(start) :], _reason(line)) for line in failed]
        table = Table(["File", "Why"], rows)
        sections.append(Section("Not transcribed", [table], f"{len(failed)} of {len(lines)}."))
    if not recordings and not failed:
        sections.append(Section("Texts", [Text("There are none.")]))
    seconds = sum(line["duration_s"] or 0 for line in texts)
    subtitle = f"{len(lines)} recordings, {_span(seconds)}"
    return render(
        title or source.name, subtitle + (f". Names start from {start}" if start else ""), sections
    )


def _read(source: Path) -> list[dict[str, Any]]:
    """The last line of each file; a line that a kill left unfinished at the end is passed over."""
    found: dict[str, dict[str, Any]] = {}
    with source.open("rb") as file:
        for number, data in enumerate(file, 1):
            if data.isspace():
                continue
            line = _parsed(data)
            if line is not None:
                found.pop(line["filepath"], None)
                found[line["filepath"]] = line
            elif data.endswith(b"\n"):
                raise ParameterError(
                    f"{os.fspath(source)!r}: line {number} is none of a transcription; give the "
                    "--out of `audiotorch transcribe`"
                )
    if not found:
        raise ParameterError(f"{os.fspath(source)!r}: holds no transcripts")
    return [*found.values()]


def _parsed(data: bytes) -> dict[str, Any] | None:
    """A line, with what older or other programs left out as unknown; `None` if it is none."""
    try:
        line = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("filepath"), str):
        return None
    if "error" in line:
        return line
    try:
        segments = [_segment(segment) for segment in line.get("segments") or ()]
        line["text"] = str(line["text"])
        line["duration_s"] = max(0.0, _number(line.get("duration_s")))
    except (TypeError, ValueError, LookupError, AttributeError):
        return None
    known: dict[str, Any] = {name: figure(line, name) for name in _FIGURES}
    language = line.get("language")
    known["language"] = str(language) if language else None
    return {**line, **known, "segments": segments}


def _segment(segment: Mapping[str, Any]) -> Segment:
    words = [
        (str(w["word"]), _time(w["start"]), _time(w["end"]), _number(w.get("probability"), 1.0))
        for w in segment.get("words") or ()
    ]
    channel, speaker = segment.get("channel"), segment.get("speaker")
    if speaker is None:
        speaker = "" if channel is None else f"channel {channel + 1}"
    sure = math.exp(min(0.0, _number(segment.get("avg_logprob"), 0.0)))
    start, end = _time(segment["start"]), _time(segment["end"])
    return Segment(start, end, str(segment["text"]).strip(), words, str(speaker), sure)


def _number(value: Any, missing: float = 0.0) -> float:
    """A number; JSON has null, and Python NaN, for those that it lacks."""
    found = missing if value is None else float(value)
    return found if math.isfinite(found) else missing


def _time(value: Any) -> float:
    """Seconds, without which a word cannot be sought."""
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{found} s is no time")
    return found


def _fitting(
    texts: Sequence[dict[str, Any]], budget: Budget
) -> tuple[Sequence[dict[str, Any]], bool, list[str]]:
    """What fits of the texts: words, or lines only, or not all recordings; and what is told."""
    most = int(budget.left * _OF_TEXT)
    plain = [_cost(line, False) for line in texts]
    whole = [_cost(line, True) for line in texts]
    if sum(whole) <= most:
        budget.take(sum(whole), base64=False)
        return texts, True, []
    told = ["Times are those of lines, not of words, to keep the page small."]
    n_kept, used = 0, 0
    for cost in plain:
        if used + cost > most:
            break
        n_kept, used = n_kept + 1, used + cost
    budget.take(used, base64=False)
    if n_kept < len(texts):
        told.append(f"The first {n_kept} of {len(texts)} recordings are shown.")
    return texts[:n_kept], False, told


def _cost(line: Mapping[str, Any], words: bool) -> int:
    """Bytes of a recording's texts in the page."""
    size = 1000
    for segment in line["segments"]:
        size += _PART_COST + len(segment.text.encode(errors="replace"))
        if words:
            size += sum(_WORD_COST + len(json.dumps(word[0])) for word in segment.words)
    return size


def _find(line: Mapping[str, Any], folder: Path, root: Path | None) -> _Sound:
    """Where the recording is now: where it was, or below the root with what ends its name."""
    name = line["filepath"]
    parts = Path(name).parts
    tried = [Path(name), folder / name]
    if root is not None:
        tried = [
            root.joinpath(*parts[i:])
            for i in range(1 if Path(name).is_absolute() else 0, len(parts))
        ] + tried
    for path in tried:
        try:
            if path.is_file():
                size = path.stat().st_size
                changed = line.get("size") not in (None, size)
                return _Sound(str(path), "The file changed since." if changed else "")
        except (OSError, ValueError):
            continue
    return _Sound(None, "No sound: the file is not there any more.")


def _choose(
    lines: Sequence[Mapping[str, Any]], sounds: Sequence[_Sound], budget: Budget
) -> tuple[tuple[int, int], list[bool], str]:
    """Bits and samples a second, which recordings are heard, and what is told of it."""
    order = [i for i, sound in enumerate(sounds) if sound.path is not None]
    total = sum(lines[i]["duration_s"] for i in order)
    has_sound = [False] * len(lines)
    for quality in _QUALITIES:
        if _sound_bytes(total, quality[0]) * 4 / 3 < budget.left:
            break
    # As many recordings as possible.
    for i in sorted(order, key=lambda i: lines[i]["duration_s"]):
        has_sound[i] = budget.take(_sound_bytes(lines[i]["duration_s"], quality[0]))
    told = ""
    if quality != _QUALITIES[0] and any(has_sound):
        told = f"Sound is at {quality[0] // 1000} kbit/s, to keep the page small."
    if left_out := len(order) - sum(has_sound):
        told += f" The {left_out} longest of {len(lines)} recordings have none."
    return quality, has_sound, told.strip()


def _sound_bytes(seconds: float, bits: int) -> int:
    return int(_MP3_FRAMES * seconds * bits / 8) + 2000


def _recording(
    line: Mapping[str, Any],
    sound: _Sound,
    quality: tuple[int, int],
    has_sound: bool,
    start: str,
    with_words: bool,
) -> Recording:
    segments = line["segments"]
    if not with_words:
        segments = [Segment(**{**vars(segment), "words": ()}) for segment in segments]
    data, silent = None, sound.why
    if has_sound and sound.path is not None:
        data, silent = _encoded(sound.path, line["duration_s"], *quality)
    elif sound.path is not None:
        silent = "Sound left out, to keep the page small"
    name = line["filepath"][len(start) :]
    about = [*_about(line), *([sound.why] if sound.why and sound.path else [])]
    return Recording(name, about, segments, data, silent)


def _encoded(path: str, seconds: float, bits: int, rate: int) -> tuple[bytes | None, str]:
    """The sound, if it is no longer than it was; or why there is none."""
    most = _sound_bytes(seconds, bits)
    try:
        blocks = (block[0] for block in stream(path, _BLOCK_SECONDS, rate, mono=True))
        wanted = itertools.islice(blocks, int(seconds / _BLOCK_SECONDS) + 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            data = encode_mp3(wanted, rate, bits // 1000)
    except (AudioTorchError, OSError) as error:
        return None, f"Cannot be played: {error}"
    return (data, "") if len(data) <= most else (None, "No sound: the file is another one now.")


def _about(line: Mapping[str, Any]) -> Iterator[str]:
    yield _span(line["duration_s"])
    if language := line.get("language"):
        sure = line.get("language_probability")
        yield f"language {language}" + (f" ({sure:.0%})" if sure is not None else "")
    if line.get("task") == "translate":
        yield "translated into English"
    n_words, n_doubtful = _counted(line["segments"])
    if n_words:
        yield f"{n_words} words, {n_doubtful} doubtful"
    if not line["segments"]:
        yield "nobody speaks"
    if (factor := line.get("real_time_factor")) is not None:
        yield f"real-time factor {factor:.2f}"


def _counted(segments: Sequence[Segment]) -> tuple[int, int]:
    probabilities = [word[3] for segment in segments for word in segment.words]
    return len(probabilities), sum(p < _DOUBTFUL for p in probabilities)


def _overview(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    texts = [line for line in lines if "error" not in line]
    seconds = sum(line["duration_s"] for line in texts)
    spoken = [line["speech_s"] for line in texts if line.get("speech_s") is not None]
    counts = [_counted(line["segments"]) for line in texts]
    n_words, n_doubtful = (sum(count) for count in zip(*counts, strict=True)) if counts else (0, 0)
    cost = sum(line["duration_s"] * _number(line.get("real_time_factor")) for line in texts)
    names = {os.path.basename(str(line["model"])) for line in texts if line.get("model")}
    pairs = {
        "Recordings": str(len(lines)),
        "Not transcribed": str(len(lines) - len(texts)),
        "Sound in all": _span(seconds),
        "Speech in it": _span(sum(spoken)) if spoken else "",
        "Words": f"{n_words}, {n_doubtful} doubtful" if n_words else "",
        "Languages": ", ".join(sorted({line["language"] for line in texts if line["language"]})),
        "Model": ", ".join(sorted(names)),
        "Real-time factor": f"{cost / seconds:.2f}" if seconds and cost else "",
    }
    return {name: value for name, value in pairs.items() if value}


def _table(texts: Sequence[Mapping[str, Any]], start: str) -> Table:
    rows = []
    for line in texts:
        n_words, n_doubtful = _counted(line["segments"])
        share = 100 * n_doubtful / n_words if n_words else None
        text = line["text"]
        rows.append(
            (
                line["filepath"][len(start) :],
                line.get("language"),
                line["duration_s"],
                line.get("speech_s"),
                len(text.split()),
                share,
                line.get("real_time_factor"),
                text if len(text) <= 160 else f"{text[:160]}\u2026",
            )
        )
    columns = ("File", "Language", "Seconds", "Speech, s", "Words", "Doubtful, %")
    return Table([*columns, "Real-time factor", "Text begins"], rows)


def _reason(line: Mapping[str, Any]) -> str:
    return str(line["error"]).removeprefix(f"{line['filepath']}: ")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
