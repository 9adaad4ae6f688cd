"""One recording out of a request's body: bounded in bytes and in time, and kept in memory alone."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from audiotorch.serve.refusal import Gone, Refused, need_serve

__all__ = ["UNNAMED", "Budget", "Upload", "read_upload"]

UNNAMED = "<bytes>"
"""What a recording without a name is called, as the library calls bytes."""

_FIELD = "file"
_FORM_BYTES = 1 << 16  # of a form around its file
_HINT = "curl -F file=@clip.wav, or curl --data-binary @clip.wav"


@dataclass(frozen=True)
class Upload:
    """A recording as it came.

    Args:
        name: as the client calls it; it is repeated, and never opened.
        content: the file's bytes.
    """

    name: str
    content: bytes | bytearray


class Budget:
    """Bytes that all uploads may hold together.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit

    @contextmanager
    def share(self) -> "Iterator[_Share]":
        """Give one request its share, and take it back at the end."""
        share = _Share(self)
        try:
            yield share
        finally:
            self._left += share.n_bytes

    def take(self, n_bytes: int) -> None:
        """Hold some more.

        Args:
            n_bytes: how many.

        Raises:
            Refused: there are not as many left.
        """
        if n_bytes > self._left:
            text = "too many uploads are being worked on; try again in a few seconds"
            raise Refused(503, text, {"retry-after": "2"})
        self._left -= n_bytes


class _Share:
    def __init__(self, budget: Budget) -> None:
        self.n_bytes = 0
        self._budget = budget

    def take(self, n_bytes: int) -> None:
        self._budget.take(n_bytes)
        self.n_bytes += n_bytes


class _Body(Protocol):
    """What becomes of a body's bytes as they come."""

    content: bytearray

    def feed(self, data: bytes) -> None: ...

    def finish(self) -> Upload: ...


async def read_upload(
    request: Any, max_bytes: int, seconds: float, share: _Share | None = None
) -> Upload:
    """Read a request's recording: the part `file` of a form, or else the whole body.

    Args:
        request: Starlette's.
        max_bytes: of the recording.
        seconds: that the upload may take.
        share: told of every byte that comes.

    Raises:
        Refused: too large, too slow, compressed, a broken form, or one without a recording.
        Gone: the client went away.
    """
    body, most = _body(request, max_bytes)
    too_large = Refused(
        413,
        f"the upload is larger than {max_bytes / 1e6:g} MB, the most that this server takes; send "
        "a shorter part or a compressed format, or start it with --max-mb",
    )
    if int(request.headers.get("content-length", 0)) > most:
        raise too_large
    try:
        async with asyncio.timeout(seconds):
            n_bytes = 0
            async for data in _stream(request):
                n_bytes += len(data)
                if n_bytes > most or len(body.content) > max_bytes:
                    raise too_large
                if share is not None:
                    share.take(len(data))
                body.feed(data)
    except TimeoutError as error:
        text = f"the upload took longer than {seconds:g} s; send less, or start with --timeout"
        raise Refused(408, text) from error
    upload = body.finish()
    if len(upload.content) > max_bytes:
        raise too_large
    return upload


async def _stream(request: Any) -> Any:
    gone = need_serve("starlette.requests").ClientDisconnect
    try:
        async for data in request.stream():
            yield data
    except gone as error:
        raise Gone("the client went away during its upload") from error


def _body(request: Any, max_bytes: int) -> tuple[_Body, int]:
    """What takes the body, and how many bytes that may have."""
    if (coding := request.headers.get("content-encoding", "identity")) != "identity":
        raise Refused(415, f"Content-Encoding: {coding} is not taken; send the file as it is")
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/"):
        return _Raw(), max_bytes
    multipart = need_serve("python_multipart.multipart")
    _, options = multipart.parse_options_header(kind)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise Refused(400, f"the form names no boundary in its Content-Type; {_HINT}")
    try:
        return _Form(multipart, boundary), max_bytes + _FORM_BYTES
    except multipart.FormParserError as error:  # a boundary that is too long
        raise Refused(400, f"the form is broken: {error}; {_HINT}") from error


class _Raw:
    """A body that is the file."""

    def __init__(self) -> None:
        self.content = bytearray()

    def feed(self, data: bytes) -> None:
        self.content += data

    def finish(self) -> Upload:
        if not self.content:
            raise Refused(400, f"the request holds no recording; {_HINT}")
        return Upload(UNNAMED, self.content)


class _Form:
    """A form, of which the first file is kept, and nothing else."""

    def __init__(self, multipart: Any, boundary: bytes) -> None:
        self.content = bytearray()
        self._name: str | None = None
        self._n_files = 0
        self._ours = self._ended = False
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._multipart = multipart
        self._parser = multipart.MultipartParser(
            boundary,
            {
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_part_data": self._on_part_data,
                "on_part_begin": self._on_part_begin,
                "on_end": self._on_end,
            },
        )

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except self._multipart.FormParserError as error:
            raise Refused(400, f"the form is broken: {error}; {_HINT}") from error

    def finish(self) -> Upload:
        if not self._ended:
            raise Refused(400, f"the form is cut off before its end; {_HINT}")
        if self._n_files != 1:
            found = f"holds {self._n_files} parts of the name {_FIELD!r}, and must hold one"
            raise Refused(422, f"the form {found}; {_HINT}")
        return Upload(self._name or UNNAMED, self.content)

    def _on_part_begin(self) -> None:
        self._ours = False

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _on_header_end(self) -> None:
        (name, value), self._header = self._header, (bytearray(), bytearray())
        if bytes(name).lower() != b"content-disposition":
            return
        _, options = self._multipart.parse_options_header(bytes(value))
        if options.get(b"name") == _FIELD.encode():
            self._n_files += 1
            self._ours = self._n_files == 1
            if self._ours:
                self._name = options.get(b"filename", b"").decode("utf-8", "replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._ours:
            self.content += data[start:end]

    def _on_end(self) -> None:
        self._ended = True
