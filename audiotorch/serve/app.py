"""The application: a page, and answers as JSON."""

import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from torch import nn

from audiotorch.errors import ParameterError
from audiotorch.serve.answer import Asker
from audiotorch.serve.guard import Guard, known_hosts
from audiotorch.serve.question import Question
from audiotorch.serve.refusal import Gone, Refused, need_serve, sentence
from audiotorch.serve.upload import Budget, read_upload
from audiotorch.serve.work import Worker

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["create_app"]

_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/chart.js": ("chart.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_UPLOADS = 4  # of the largest size, that may be in memory together
_GONE = 499  # nobody reads it


def create_app(
    model: str | os.PathLike[str] | nn.Module,
    *,
    max_bytes: int = 50_000_000,
    max_seconds: float = 120.0,
    time_limit: float = 60.0,
    max_waiting: int = 16,
    device: str | None = None,
    host: str = "127.0.0.1",
    names: Iterable[str] = (),
) -> "FastAPI":
    """Make an ASGI application that answers recordings with a model.

    `GET /` is a page to try it; `POST /predict` answers a recording, the part `file` of a form or
    the whole body, with what `audiotorch predict --json` or `detect --json` prints, and `seconds`;
    `?window=1&hop=0.5` adds `windows`, `?explain=1` a `reason`; `GET /model` tells labels, rate and
    task, `GET /health` that it runs. Errors are `{"error": one sentence}` with a status of 400 and
    above. No path that a request names is opened, uploads stay in memory. Only this server's own
    page may ask it from a browser: `Host` must be a name that it goes by, `Origin` itself.

    Args:
        model: exported `.ts` file, or a Pipeline, eager or exported, of any task.
        max_bytes: of a recording as it is sent.
        max_seconds: that a recording may last, decoded.
        time_limit: seconds for the upload and, again, for waiting and answering.
        max_waiting: recordings that may wait or be answered at a time; more are told to come back.
        device: `"cpu"`, `"cuda"` ...: the model is moved there; `None` = where it is.
        host: the address that the server is bound to, which is what `Host` is held against.
        names: further names that it goes by.

    Raises:
        DecodeError: `model` is no exported file.
        ParameterError: a limit is not above 0, the model's answers have no names, or the device is
            not there.
        MissingDependencyError: FastAPI is not installed.
    """
    limits = {"max_bytes": max_bytes, "max_seconds": max_seconds, "time_limit": time_limit}
    for name, value in {**limits, "max_waiting": max_waiting}.items():
        if not 0 < value < float("inf"):
            raise ParameterError(f"{name}={value!r}: must be above 0")
    fastapi = need_serve("fastapi")
    need_serve("python_multipart")
    asker = Asker(model, max_seconds, device)
    worker = Worker(max_waiting)
    app: FastAPI = fastapi.FastAPI(
        title="audiotorch",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        lifespan=_life(worker, asker),
    )
    budget = Budget(_UPLOADS * max_bytes)
    _add_answers(app, asker, worker, budget, max_bytes, time_limit)
    _add_page(app)
    _add_errors(app)
    hosts, any_address = known_hosts(host, names)
    app.add_middleware(Guard, hosts=hosts, any_address=any_address)
    return app


def _life(worker: Worker, asker: Asker) -> Callable[[Any], Any]:
    @asynccontextmanager
    async def life(_: Any) -> Any:
        worker.start(asker.warm_up)
        try:
            yield
        finally:
            worker.close()

    return life


def _add_answers(
    app: "FastAPI",
    asker: Asker,
    worker: Worker,
    budget: Budget,
    max_bytes: int,
    time_limit: float,
) -> None:
    from fastapi import Request, Response
    from fastapi.responses import JSONResponse

    about = {**asker.about(), "max_bytes": max_bytes}

    @app.get("/model")
    async def model() -> Response:
        return JSONResponse(about)

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        question = Question.read(request.query_params)
        worker.check()  # before an upload is read that would be refused after it
        with budget.share() as share:
            upload = await read_upload(request, max_bytes, time_limit, share)
            answer = await worker.run(
                lambda deadline: asker.answer(upload, question, deadline),
                time_limit,
                _gone(request),
            )
        return JSONResponse(answer)


async def _gone(request: Any) -> None:
    """Wait until the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_page(app: "FastAPI") -> None:
    from fastapi import Response

    def give(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
        content = (files("audiotorch.serve") / "page" / name).read_bytes()

        async def file() -> Response:
            return Response(content, media_type=kind)

        return file

    for path, (name, kind) in _PAGE.items():
        app.get(path)(give(name, kind))


def _add_errors(app: "FastAPI") -> None:
    from fastapi import Request, Response
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return JSONResponse(sentence(error), error.status, error.headers)

    @app.exception_handler(Gone)
    async def gone(_: Request, error: Gone) -> Response:
        return JSONResponse(sentence(error), _GONE)

    @app.exception_handler(HTTPException)
    async def wrong_place(request: Request, error: HTTPException) -> Response:
        places = "GET /, POST /predict, GET /model and GET /health"
        text = f"{request.method} {request.url.path}: is not here; there are {places}"
        return JSONResponse(sentence(Refused(404, text)), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        text = "the server failed at this recording; its log says why"
        return JSONResponse({"error": text}, 500)
