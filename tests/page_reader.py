"""Reports read back by a parser that is not ours."""

import base64
import json
from html.parser import HTMLParser


class Page(HTMLParser):
    """What a parser that is not ours finds: tags with attributes, data of scripts, visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list = []
        self.text = ""
        self._json = self._hidden = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("script", "style", "title")
        self._json = dict(attrs).get("type") == "application/json"

    def handle_endtag(self, tag):
        self._json = self._hidden = False

    def handle_data(self, data):
        if self._json:
            self.data.append(json.loads(data))
        elif not self._hidden:
            self.text += data

    def count(self, tag: str, **wanted: str) -> int:
        return sum(
            name == tag and all(attrs.get(k) == v for k, v in wanted.items())
            for name, attrs in self.tags
        )

    def sounds(self) -> list[bytes]:
        return [
            base64.b64decode(attrs["src"].removeprefix("data:audio/mpeg;base64,"))
            for tag, attrs in self.tags
            if tag == "audio"
        ]
