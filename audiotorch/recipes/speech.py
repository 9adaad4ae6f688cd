"""Recordings as text: one, or a whole folder of them."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from audiotorch.audio import Source
from audiotorch.audio.files import find_audio
from audiotorch.errors import ParameterError
from audiotorch.recipes.vectors import skipped
from audiotorch.transcribe.folder import transcribe_folder
from audiotorch.transcribe.formats import whisper_result
from audiotorch.transcribe.lines import key, read_lines
from audiotorch.transcribe.recording import transcribe

__all__ = ["batch_transcribe_directory", "transcribe_audio"]

_RECORD = ("filepath", "filename", "language", "text", "n_segments", "duration_s")


def transcribe_audio(
    filepath: Source,
    model_size: str = "base",
    language: str | None = None,
    task: str = "transcribe",
) -> dict[str, Any]:
    """Transcribe a recording of any length with Whisper, or translate it to English.

    The `ffmpeg` program is not needed, and where nobody speaks the text is empty.
    `audiotorch.transcribe` says more, and can do more; it also loads the model once for many files.

    Args:
        filepath: the recording.
        model_size: Whisper's name of a model, such as `tiny`, `base` or `small.en`, downloaded once
            by Whisper; or the path of a checkpoint.
        language: code of what is spoken, such as `"en"`; `None` hears it.
        task: `"transcribe"`, or `"translate"` to English.

    Returns:
        As `whisper.transcribe`: `text`, `segments` with `start`, `end`, `text` and what Whisper
        says about them, `language`; and `duration_seconds`, `language_probability` and more.

    Raises:
        ParameterError: an argument that is not known.
        DecodeError: the file cannot be read.
        MissingDependencyError: openai-whisper is not installed.
    """
    return whisper_result(transcribe(filepath, model_size, language, task))


def batch_transcribe_directory(
    audio_dir: str | os.PathLike[str],
    output_jsonl: str | os.PathLike[str],
    model_size: str = "base",
    extensions: Iterable[str] = (".wav", ".mp3", ".m4a", ".flac"),
) -> list[dict[str, Any]]:
    """Transcribe the recordings of a folder, at any depth, into a file of JSON lines.

    Each line is written as soon as its file is done. Started again, finished files are not
    transcribed again, unless they or the model changed. A file that cannot be transcribed is left
    out of the list with a warning that names it; its line has `error`, and it is tried again the
    next time. `audiotorch.transcribe_folder` says more, and can do more.

    Args:
        audio_dir: the folder; hidden files and folders in it are left out.
        output_jsonl: the output; its lines hold more than the records.
        model_size: as of `transcribe_audio`; loaded once by each process that works on it.
        extensions: of the files that are transcribed, in upper case or lower.

    Returns:
        A record of each file, sorted by path: `filepath`, `filename`, `language`, `text`,
        `n_segments`, and `duration_s`, the length of the recording.

    Raises:
        ParameterError: no such folder, none of such files in it, or an output that cannot be added
            to.
        DecodeError: the model cannot be read.
        MissingDependencyError: openai-whisper is not installed.
    """
    if not os.path.isdir(audio_dir):
        raise ParameterError(f"audio_dir={os.fspath(audio_dir)!r}: must be an existing folder")
    files = find_audio([audio_dir], extensions)
    for failure in transcribe_folder(files, output_jsonl, model=model_size).failures:
        warnings.warn(skipped(Path(failure.file), failure.error), stacklevel=2)
    records = {
        key(line["filepath"]): {name: line[name] for name in _RECORD}
        for line in read_lines(output_jsonl, files)
        if "text" in line
    }
    # An earlier job may have spelt the same path otherwise.
    return [records[key(file)] | {"filepath": file} for file in files if key(file) in records]
