"""One self-contained HTML file out of blocks: text, facts, tables, pictures, clips, transcripts."""

import base64
import functools
import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiotorch.errors import MissingDependencyError

__all__ = [
    "Block",
    "Clip",
    "Clips",
    "Facts",
    "Picture",
    "Recording",
    "Section",
    "Segment",
    "Table",
    "Text",
    "Transcripts",
    "render",
    "shown",
]

Cell = str | int | float | None

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("page.js", "tables.js", "clips.js", "transcripts.js")
_FIRST_ROWS = 100  # of a table, which are there without JavaScript
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_TYPES = {b"\x89PNG": "image/png", b"RIFF": "image/webp", b"\xff\xd8": "image/jpeg"}


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Args:
        text: as it is shown; line breaks stay.
    """

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and what they are, in two columns.

    Args:
        pairs: what is shown, by name.
    """

    pairs: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """Rows that can be sorted by any column and filtered. Twenty thousand are no trouble.

    Args:
        columns: names.
        rows: text, numbers, or `None` where there is nothing. Numbers sort as numbers and are shown
            with four digits; NaN is nothing.
        caption: above it.
        bars: a column of numbers of at least 0 that get a bar each.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    bars: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture.

    Args:
        png: the file's content: PNG, WebP or JPEG.
        alt: what it shows, for who cannot see it.
        caption: below it.
        width: of the page that it takes at most, in CSS pixels; `None` = as wide as it is.
        x_ticks: what to write along its lower edge: where, from 0 (left) to 1, and what.
        y_ticks: what to write along its left edge: where, from 0 (bottom) to 1, and what.
        spans: it lasts from edge to edge as long as its clip's sound: so a cursor runs over it,
            and a click on it goes there.
    """

    png: bytes
    alt: str
    caption: str = ""
    width: int | None = None
    x_ticks: Sequence[tuple[float, str]] = ()
    y_ticks: Sequence[tuple[float, str]] = ()
    spans: bool = False


@dataclass(frozen=True)
class Clip:
    """A card of a recording, which can be played.

    Args:
        title: its name.
        lines: what there is to say about it; with the title, what the filter looks at.
        audio: MP3; `None` if it is left out.
        pictures: of it.
        tone: `"good"` and `"bad"` mark it.
        silent: what is said in place of the player where `audio` is `None`.
        group: heading above the first card of several that have the same.
    """

    title: str
    lines: Sequence[str]
    audio: bytes | None
    pictures: Sequence[Picture] = ()
    tone: str = ""
    silent: str = "Sound left out, to keep the page small"
    group: str = ""


@dataclass(frozen=True)
class Clips:
    """Cards in a grid, which can be filtered and played by keys.

    Args:
        clips: the cards.
        caption: above them.
    """

    clips: Sequence[Clip]
    caption: str = ""


@dataclass(frozen=True)
class Segment:
    """A stretch of speech.

    Args:
        start: seconds from the sound's start.
        end: seconds from the sound's start.
        text: what is said.
        words: text, start, end (seconds) and probability of each word, where they are known.
        speaker: who, or which channel; `""` = unknown.
        probability: of the whole, where no words are known.
    """

    start: float
    end: float
    text: str
    words: Sequence[tuple[str, float, float, float]] = ()
    speaker: str = ""
    probability: float = 1.0


@dataclass(frozen=True)
class Recording:
    """What is said in a recording.

    Args:
        title: its name.
        lines: what there is to say about it.
        segments: in their order.
        audio: MP3; `None` if it is left out.
        silent: what is said in place of the player where `audio` is `None`.
        tone: `"bad"` marks it, such as one that could not be transcribed.
    """

    title: str
    lines: Sequence[str]
    segments: Sequence[Segment]
    audio: bytes | None
    silent: str = "Sound left out, to keep the page small"
    tone: str = ""


@dataclass(frozen=True)
class Transcripts:
    """Recordings with their texts: searchable, each word leads to its time.

    Args:
        recordings: in their order.
        doubtful: words of a lower probability are marked.
    """

    recordings: Sequence[Recording]
    doubtful: float = 0.5


Block = Text | Facts | Table | Picture | Clip | Clips | Transcripts


@dataclass(frozen=True)
class Section:
    """A part of the page with its own heading and entry in the navigation.

    Args:
        title: the heading.
        blocks: what it consists of.
        note: below the heading, in a sentence or two.
    """

    title: str
    blocks: Sequence[Block]
    note: str = ""


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Make the page: one HTML file that asks for no other.

    Texts may hold anything, and are shown as what they are.

    Args:
        title: of the page.
        subtitle: below it.
        sections: from top to bottom.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    style = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    script = "\n".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    numbers = itertools.count(1)
    page: str = _template().render(
        title=title,
        subtitle=subtitle,
        policy=_policy(style, script),
        style=_markup(style),
        script=_markup(script),
        sections=[
            {
                "id": f"section-{number}",
                "title": section.title,
                "note": section.note,
                "blocks": [_view(block, f"block-{next(numbers)}") for block in section.blocks],
            }
            for number, section in enumerate(sections, 1)
        ],
    )
    return page.lstrip()


def shown(text: object) -> str:
    r"""Write out what a page would obey or lose rather than show, `\x1b` for the escape character.

    Args:
        text: from a file's name or content.
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


@functools.cache
def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependencyError("reports need jinja2: pip install jinja2") from error
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else shown(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["uri"] = _uri
    environment.globals["percent"] = _percent
    return environment.get_template("page.html.j2")


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _policy(style: str, script: str) -> Any:
    """What the browser may do with the page: nothing but show and run what is in it."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    ]
    return _markup(
        "default-src 'none'; img-src data:; media-src data: blob:; "
        f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _uri(data: bytes, kind: str = "") -> Any:
    kind = kind or next((t for start, t in _TYPES.items() if data.startswith(start)), "image/png")
    return _markup(f"data:{kind};base64,{base64.b64encode(data).decode()}")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}%"


def _json(value: Any) -> Any:
    """JSON that can stand in a script element: nothing in it ends that, or begins a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return _markup(text)


def _view(block: Block, identity: str) -> dict[str, Any]:
    """What the template needs of a block."""
    view: dict[str, Any] = {"kind": type(block).__name__, "id": identity, "block": block}
    if isinstance(block, Table):
        rows = [[_cell(value) for value in row] for row in block.rows]
        numeric = [
            any(_is_number(row[i]) for row in rows)
            and all(row[i] is None or _is_number(row[i]) for row in rows)
            for i in range(len(block.columns))
        ]
        bars = list(block.columns).index(block.bars) if block.bars else -1
        heights = [row[bars] for row in rows] if block.bars else []
        most = max((value for value in heights if isinstance(value, int | float)), default=0) or 1
        data = {"rows": rows, "numeric": numeric, "bars": bars, "most": most}
        first = [list(zip(row, numeric, strict=True)) for row in rows[:_FIRST_ROWS]]
        view |= {"data": _json(data), "first": first, "n_rows": len(rows)}
        view |= {"numeric": numeric, "bars": bars, "most": most}
    elif isinstance(block, Transcripts):
        data = {"doubtful": block.doubtful, "recordings": [*map(_spoken, block.recordings)]}
        spoken = (segment for one in block.recordings for segment in one.segments)
        has_words = any(segment.words for segment in spoken)
        view |= {"data": _json(data), "clock": _clock, "has_words": has_words}
    return view


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _cell(value: Any) -> Cell:
    """A cell as JSON can hold it, with no more digits than are looked at."""
    if value is None or isinstance(value, str):
        return None if value is None else shown(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        value = value.item() if hasattr(value, "item") else shown(value)
        return _cell(value)
    if not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, int):
        return value
    return round(value, 1) if abs(value) >= 1000 else float(f"{value:.4g}")


def _spoken(recording: Recording) -> list[Any]:
    """Segments as start, end, words and probability, rounded to what is heard."""
    return [
        [
            round(segment.start, 2),
            round(segment.end, 2),
            [
                [shown(word), round(start, 2), round(end, 2), round(probability, 3)]
                for word, start, end, probability in segment.words
            ],
            round(segment.probability, 3),
        ]
        for segment in recording.segments
    ]


def _clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are some."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
