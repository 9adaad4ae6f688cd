"""What stands before the application: who may ask, and how an answer ends.

A server on one's own machine can be reached by every page that one's browser shows. Two checks
keep those out: `Host` must be a name that this server goes by, so that a stranger's domain which
resolves to 127.0.0.1 (DNS rebinding) gets nothing; and `Origin`, which browsers add to what pages
send, must be this very server.
"""

import asyncio
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any

__all__ = ["Guard", "known_hosts"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# No script, style or request but this server's own; pictures and sounds may be made in the page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; media-src 'self' blob:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "cache-control": "no-store",
}
# Of an upload that was answered before its end, what is still read, so that the client, which sends
# first and reads then, gets to see the answer.
_LINGER_SECONDS = 5.0
_LINGER_BYTES = 1 << 28


def known_hosts(host: str, names: Iterable[str] = ()) -> tuple[frozenset[str], bool]:
    """Return the names that a server goes by, and whether any address will do, too.

    An address in `Host` is no danger: rebinding takes a name. So servers for a whole network are
    asked by any address of theirs, and by this machine's name.

    Args:
        host: what it is bound to.
        names: further ones.
    """
    local = {"localhost", "127.0.0.1", "::1"}
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return frozenset({*local, host.lower(), *(name.lower() for name in names)}), False
    own = {host.lower(), socket.gethostname().lower(), *(name.lower() for name in names)}
    return frozenset(local | own), True


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class Guard:
    """An ASGI application before another one.

    Args:
        app: the one behind it.
        hosts: names in lower case that `Host` may have.
        any_address: whether it may also be any address.
    """

    def __init__(self, app: App, hosts: frozenset[str], any_address: bool) -> None:
        self._app = app
        self._hosts = hosts
        self._any_address = any_address

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[str, str] = {}
        for key, value in scope["headers"]:
            name = key.decode("latin-1")
            # A second Host or Origin is no browser's work: neither is believed.
            headers[name] = value.decode("latin-1") if name not in headers else "\0"
        exchange = _Exchange(headers, receive, send)
        if refusal := self._refusal(headers):
            await _forbid(exchange.send, refusal)
        else:
            await self._app(scope, exchange.receive, exchange.send)

    def _refusal(self, headers: dict[str, str]) -> str:
        """Why a request is not let in; nothing where it is."""
        host = headers.get("host", "")
        name = _host_name(host)
        known = name in self._hosts or (self._any_address and _address(name) is not None)
        if not known:
            return (
                f"this server does not go by the name {host!r}; ask it by the address that it "
                "printed, or start it with --allow-host NAME"
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return (
                f"requests from pages of {origin!r} are refused; use this server's own page, or "
                "ask it from a program"
            )
        return ""


def _host_name(host: str) -> str:
    """A Host header without its port, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


async def _forbid(send: Send, text: str) -> None:
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Exchange:
    """One request's upload and answer: knows whether the upload has been read to its end."""

    def __init__(self, headers: dict[str, str], receive: Receive, send: Send) -> None:
        sends = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._ended = not sends
        self._receive, self._send = receive, send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._ended = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {key.lower() for key, _ in message["headers"]}
            more = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in own]
            if not self._ended:
                more.append((b"connection", b"close"))
            message = {**message, "headers": [*message["headers"], *more]}
        elif not self._ended and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        """Read on, and keep nothing, within bounds."""
        left = _LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while not self._ended and left > 0:
                    left -= len((await self.receive()).get("body", b""))
