"""How right transcripts are: word and character error rates against what was really said."""

import math
import os
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from audiotorch.data.tables import read_rows
from audiotorch.errors import MissingDependencyError, ParameterError, printable

__all__ = ["Reference", "Score", "Scores", "format_scores", "read_references", "score"]

# Written without blanks between words, so that each character counts as one.
_WITHOUT_BLANKS = frozenset({"ja", "lo", "my", "th", "yue", "zh"})
# Korean has blanks, but where they stand is a matter of taste.
_BY_CHARACTERS = _WITHOUT_BLANKS | {"ko"}
_MAX_NAMED = 10


@dataclass(frozen=True)
class Reference:
    """What is said in a recording.

    Args:
        file: the recording, as the table names it.
        path: the recording, relative names taken from the table's folder.
        transcript: what is said; empty where nobody speaks, `None` where it is not known.
        language: code of the language, such as `"en"`; `None` where the table does not say.
    """

    file: str
    path: str
    transcript: str | None
    language: str | None = None


@dataclass(frozen=True)
class Score:
    """How right the transcript of one recording is.

    Args:
        file: the recording, as the table of references names it.
        language: code of the language, as the table or else the result has it; empty if neither.
        reference: what is said, normalised.
        hypothesis: what was heard, normalised.
        n_words: of the reference; characters where the language has no blanks.
        n_errors: words substituted, deleted and inserted.
        n_characters: of the reference, blanks included where the language has them.
        n_character_errors: characters substituted, deleted and inserted.
        error: why there is no transcript, where there is none; all words count as deleted.
    """

    file: str
    language: str
    reference: str
    hypothesis: str
    n_words: int
    n_errors: int
    n_characters: int
    n_character_errors: int
    error: str | None = None

    @property
    def wer(self) -> float:
        """Word error rate: 0 is right; infinite where nobody speaks and words were heard."""
        return _rate(self.n_errors, self.n_words)

    @property
    def cer(self) -> float:
        """Character error rate."""
        return _rate(self.n_character_errors, self.n_characters)


@dataclass(frozen=True)
class Scores:
    """How right transcripts are.

    Args:
        rows: each recording, in the order of the references.
        unknown: recordings with a transcript whose reference says that their text is not known.
        without_reference: recordings with a transcript that no reference is for.
        without_result: references that there is no transcript for.
    """

    rows: tuple[Score, ...]
    unknown: tuple[str, ...] = ()
    without_reference: tuple[str, ...] = ()
    without_result: tuple[str, ...] = ()

    @property
    def n_words(self) -> int:
        """Words in all references."""
        return sum(row.n_words for row in self.rows)

    @property
    def n_errors(self) -> int:
        """Words wrong in all transcripts."""
        return sum(row.n_errors for row in self.rows)

    @property
    def wer(self) -> float:
        """Word errors of all recordings over the words of all."""
        return _rate(self.n_errors, self.n_words)

    @property
    def cer(self) -> float:
        """Character errors of all recordings over the characters of all."""
        errors = sum(row.n_character_errors for row in self.rows)
        return _rate(errors, sum(row.n_characters for row in self.rows))

    @property
    def languages(self) -> dict[str, "Scores"]:
        """The recordings of each language by themselves."""
        names = sorted({row.language for row in self.rows})
        return {
            name: Scores(tuple(row for row in self.rows if row.language == name)) for name in names
        }


def read_references(path: str | os.PathLike[str]) -> dict[str, Reference]:
    """Read what is said in recordings from a table.

    Its columns are `file`, relative to the table's folder or absolute, `transcript`, and where
    there are some `language` and `transcript_kind`. An empty transcript says that nobody speaks; of
    the kind `none`, that nothing is known of the text.

    Args:
        path: `.csv` (with commas, semicolons or tabs), `.tsv` or `.jsonl`, in UTF-8.

    Returns:
        The references by `file`, in the table's order.

    Raises:
        ParameterError: no such table, a column is missing, or a row cannot be what is meant; the
            text names the line.
    """
    table = Path(path).expanduser()
    if not table.is_file():
        raise ParameterError(f"reference='{path}': must be an existing file; check the path")
    columns, rows = read_rows(table, "reference", strict=True)
    for column in ("file", "transcript"):
        if column not in columns:
            raise ParameterError(
                f"reference='{path}', line 1: must have the columns file and transcript, but has "
                f"{columns}; name one '{column}'"
            )
    references: dict[str, Reference] = {}
    lines: dict[str, int] = {}
    for line, cells in rows:
        name = cells["file"].strip()
        if not name or "transcript" not in cells:
            lacking = "transcript" if name else "file"
            raise ParameterError(f"{path}, line {line}: has no {lacking}; fill the cell in")
        file = os.path.abspath(table.parent / name)
        if file in lines:
            raise ParameterError(
                f"{path}, line {line}: '{name}' is listed in line {lines[file]} already; each file "
                "must stand once, drop one of the rows"
            )
        lines[file] = line
        text = cells["transcript"].strip()
        unknown = not text and cells.get("transcript_kind", "").strip().lower() == "none"
        language = cells.get("language", "").strip() or None
        references[name] = Reference(name, file, None if unknown else text, language)
    return references


def score(results: Iterable[Mapping[str, Any]], references: Mapping[str, Reference]) -> Scores:
    """Compare transcripts with what was really said, as Whisper's authors do.

    Text is normalised first: case, punctuation, brackets, and for English spelling, contractions
    and numbers. Languages without blanks (`ja lo my th yue zh`) are compared character by
    character.

    A result is matched to the reference of the same path, else to the one whose path agrees in most
    of its last parts, at least the file's name; where that leaves two, to none of them. The last
    result of a file counts.

    Args:
        results: `filepath`, `text` and `language` of each recording, as `transcribe_folder` writes
            them; one with `error` counts as all words deleted.
        references: from `read_references`.

    Raises:
        MissingDependencyError: jiwer or openai-whisper is not installed.
    """
    by_file = {str(result["filepath"]): result for result in results}
    matches = _matches(list(by_file), list(references.values()))
    rows = [
        _score(reference, by_file[matches[name]])
        for name, reference in references.items()
        if name in matches and reference.transcript is not None
    ]
    unknown = [matches[name] for name in matches if references[name].transcript is None]
    without_result = [
        name
        for name, reference in references.items()
        if name not in matches and reference.transcript is not None
    ]
    matched = set(matches.values())
    without_reference = [file for file in by_file if file not in matched]
    return Scores(tuple(rows), tuple(unknown), tuple(without_reference), tuple(without_result))


def format_scores(scores: Scores) -> str:
    """Return a table of recordings, languages and all, and what could not be compared.

    Args:
        scores: from `score`.
    """
    lines = [("file", "language", "words", "errors", "WER", "CER")]
    lines += [(printable(row.file), row.language, *_figures(row)) for row in scores.rows]
    languages = scores.languages
    for name, part in languages.items() if len(languages) > 1 else ():
        lines.append((f"all {name or 'without language'}", name, *_figures(part)))
    lines.append(("all", "", *_figures(scores)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*table, *_notes(scores)])


def _figures(part: Score | Scores) -> tuple[str, str, str, str]:
    return str(part.n_words), str(part.n_errors), f"{part.wer:.4f}", f"{part.cer:.4f}"


def _notes(scores: Scores) -> Iterable[str]:
    by_characters = sorted(_BY_CHARACTERS & {*map(_code, scores.languages)})
    if by_characters:
        yield f"{', '.join(by_characters)}: compared by characters, as is the custom; see CER"
    for row in scores.rows:
        if row.error is not None:
            told = " ".join(row.error.split())
            yield printable(f"{row.file}: no transcript, all words count as errors ({told})")
    for told, files in (
        ("text not known", scores.unknown),
        ("no reference", scores.without_reference),
        ("no transcript", scores.without_result),
    ):
        if files:
            yield f"{told}: {_some(files)}"


def _some(files: Sequence[str]) -> str:
    more = f" and {len(files) - _MAX_NAMED} more" if len(files) > _MAX_NAMED else ""
    return printable(", ".join(files[:_MAX_NAMED])) + more


def _rate(errors: int, count: int) -> float:
    return errors / count if count else math.inf if errors else 0.0


# --- matching -------------------------------------------------------------------------------------


def _matches(files: Iterable[str], references: Iterable[Reference]) -> dict[str, str]:
    """The file of each reference that has one, by the reference's name.

    From whole paths down to names alone, files and references that end alike are put together.
    Those of which there are two on a side are left out, as nothing tells which is meant.
    """
    sides = [
        [(_parts(file), file) for file in files],
        [(_parts(reference.path), reference.file) for reference in references],
    ]
    matches: dict[str, str] = {}
    for n_parts in range(max((len(p) for side in sides for p, _ in side), default=0), 0, -1):
        alike: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
        for place, side in enumerate(sides):
            for parts, name in side:
                if len(parts) >= n_parts:
                    alike.setdefault(parts[-n_parts:], ([], []))[place].append(name)
        done: tuple[set[str], set[str]] = set(), set()
        for found, named in alike.values():
            if found and named:
                done[0].update(found)
                done[1].update(named)
                if len(found) == len(named) == 1:
                    matches[named[0]] = found[0]
        sides = [[pair for pair in side if pair[1] not in done[k]] for k, side in enumerate(sides)]
    return matches


def _parts(path: str) -> tuple[str, ...]:
    # Written alike whatever system the path is from; the root is a part too.
    path = unicodedata.normalize("NFC", os.path.abspath(path))
    return tuple(path.replace("\\", "/").split("/"))


# --- errors ---------------------------------------------------------------------------------------


def _score(reference: Reference, result: Mapping[str, Any]) -> Score:
    jiwer = _jiwer()
    language = reference.language or result.get("language") or ""
    error = result.get("error")
    code = "en" if result.get("task") == "translate" else _code(language)
    normalize = _normalizer(code)
    said, heard = (
        normalize(text or "").strip()
        for text in (reference.transcript, None if error else result.get("text"))
    )
    words = jiwer.process_words(said, heard)
    if code in _WITHOUT_BLANKS:
        characters = jiwer.process_characters(said.replace(" ", ""), heard.replace(" ", ""))
    else:
        characters = jiwer.process_characters(said, heard)
    return Score(
        *(reference.file, language, said, heard, *_counts(words), *_counts(characters)),
        error=None if error is None else str(error),
    )


def _counts(found: Any) -> tuple[int, int]:
    """How many words or characters a reference has, and how many are wrong."""
    kept = found.hits + found.substitutions + found.deletions
    return kept, found.substitutions + found.deletions + found.insertions


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise MissingDependencyError(
            "error rates need jiwer: pip install 'audiotorch[whisper]'"
        ) from error
    return jiwer


def _whisper(part: str) -> Any:
    try:
        return import_module(f"whisper.{part}")
    except ImportError as error:
        raise MissingDependencyError(
            "error rates need openai-whisper, which normalises text: pip install "
            "'audiotorch[whisper]'"
        ) from error


def _code(language: str) -> str:
    """`en` of `en`, `EN`, `en-US` or `English`."""
    name = language.strip().lower().replace("_", "-").partition("-")[0]
    return str(_whisper("tokenizer").TO_LANGUAGE_CODE.get(name, name))


@cache
def _normalizer(code: str) -> Callable[[str], str]:
    normalizers = _whisper("normalizers")
    if code == "en":
        with warnings.catch_warnings():
            # It leaves the file of its spellings to be closed by itself.
            warnings.simplefilter("ignore", ResourceWarning)
            return normalizers.EnglishTextNormalizer()
    return normalizers.BasicTextNormalizer(split_letters=code in _WITHOUT_BLANKS)
