"""What a report's page holds, read back by Python's own HTML parser."""

import base64
import json
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from typing import Any

_VOID = {"meta", "link", "img", "input", "br", "rect"}


@dataclass
class Node:
    """An element."""

    tag: str
    attributes: dict[str, str]
    children: list["Node | str"] = field(default_factory=list)

    def all(self, tag: str, classes: str = "") -> list["Node"]:
        """Elements below, of a kind and class, in their order."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                own = set(child.attributes.get("class", "").split())
                if child.tag == tag and set(classes.split()) <= own:
                    found.append(child)
                found += child.all(tag, classes)
        return found

    @property
    def text(self) -> str:
        """What is read, but for scripts."""
        if self.tag in ("script", "style"):
            return ""
        return " ".join(c if isinstance(c, str) else c.text for c in self.children)


@dataclass
class Card:
    """A clip's card."""

    title: str
    text: str
    tone: str
    audio: bytes | None
    n_pictures: int


class Page(HTMLParser):
    """A page as a tree."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.root = Node("root", {})
        self._open = [self.root]
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(node)
        if tag not in _VOID:
            self._open.append(node)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self._open[-1].children.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        assert self._open[-1].tag == tag, f"{tag} ends {self._open[-1].tag}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    @property
    def scripts(self) -> int:
        """How many scripts the browser would run."""
        kinds = [node.attributes.get("type", "") for node in self.root.all("script")]
        return sum(kind != "application/json" for kind in kinds)

    def section(self, title: str) -> Node | None:
        """The section with a heading; None where it lacks."""
        for node in self.root.all("section"):
            if node.all("h2")[0].text.strip() == title:
                return node
        return None


@cache
def read_page(page: str) -> Page:
    """A page, read once."""
    return Page(page)


def text_of(page: str, title: str) -> str:
    """What is read in a section, blanks made one."""
    section = read_page(page).section(title)
    assert section is not None, f"no section {title}"
    return " ".join(section.text.split())


def facts(page: str, title: str) -> dict[str, str]:
    """A section's names and what they are."""
    section = read_page(page).section(title)
    assert section is not None, f"no section {title}"
    names, values = section.all("dt"), section.all("dd")
    return {k.text.strip(): v.text.strip() for k, v in zip(names, values, strict=True)}


def table_of(page: str, title: str, place: int = 0) -> list[dict[str, Any]]:
    """Rows of a section's table, as the page's script has them."""
    section = read_page(page).section(title)
    assert section is not None, f"no section {title}"
    node = section.all("div", "table")[place]
    names = [" ".join(head.text.split()) for head in node.all("th")]
    data = json.loads("".join(map(str, node.all("script")[0].children)))
    return [dict(zip(names, row, strict=True)) for row in data["rows"]]


def cards(page: str, title: str) -> list[Card]:
    """The cards of a section; none where it lacks."""
    section = read_page(page).section(title)
    found = []
    for node in [] if section is None else section.all("article"):
        tone = next((t for t in ("good", "bad") if t in node.attributes["class"].split()), "")
        sounds = [sound.attributes["src"].partition("base64,")[2] for sound in node.all("audio")]
        audio = base64.b64decode(sounds[0]) if sounds else None
        name = node.attributes["aria-label"]
        text = " ".join(node.text.split())
        found.append(Card(name, text, tone, audio, len(node.all("img"))))
    return found
