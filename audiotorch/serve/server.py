"""The application on a port of this machine."""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from audiotorch.errors import ParameterError
from audiotorch.serve.refusal import need_serve

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["address_of", "make_server", "open_port", "run_server"]

_CONNECTIONS = 256
_HEADER_SECONDS = 10.0  # until a request's header is whole
_GOODBYE_SECONDS = 5


def open_port(host: str = "127.0.0.1", port: int = 8000) -> socket.socket:
    """Take a port, so that a taken one is told before a model is loaded.

    Args:
        host: name or address of this machine; `"0.0.0.0"` is every one of it.
        port: 0 takes any free one.

    Raises:
        ParameterError: the port is taken, or the host is not this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ParameterError(f"--host {host}: is no address of this machine ({error})") from error
    found = socket.socket(family, kind, protocol)
    try:
        # A port whose last connections are still fading is free.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        # Two that have bound a port know of each other from here on.
        found.listen(128)
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or error
        raise ParameterError(
            f"--host {host} --port {port}: cannot listen there ({reason}); choose another, or "
            "--port 0 for any that is free"
        ) from error
    return found


def address_of(listener: socket.socket) -> str:
    """Return a page's address.

    Args:
        listener: from `open_port`.
    """
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_server(
    app: "FastAPI", listener: socket.socket, ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until SIGINT (then `KeyboardInterrupt` is raised) or SIGTERM.

    Args:
        app: from `create_app`.
        listener: from `open_port`; closed at the end.
        ready: called once requests are answered.

    Raises:
        MissingDependencyError: uvicorn is not installed.
    """
    with listener:
        make_server(app, ready).run(sockets=[listener])


def make_server(app: "FastAPI", ready: Callable[[], None]) -> Any:
    """Make uvicorn's server.

    Args:
        app: from `create_app`.
        ready: called once requests are answered.

    Raises:
        MissingDependencyError: uvicorn is not installed.
    """
    need_serve("uvicorn")
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

    config = uvicorn.Config(
        app,
        http=_protocol(),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
    )
    return Server(config)


def _protocol() -> Any:
    """Give uvicorn's protocol, which waits for a header for ever, an end to that."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        _patience: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self._wait()
            elif self._patience is not None:
                self._patience.cancel()
                self._patience = None

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._patience is not None:
                self._patience.cancel()

        def _wait(self) -> None:
            if self._patience is None:
                self._patience = self.loop.call_later(_HEADER_SECONDS, self._give_up)

        def _give_up(self) -> None:
            self._patience = None
            # Between two requests uvicorn's own time for kept connections counts.
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

    return Protocol
