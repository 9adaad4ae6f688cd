"""Servers for tests: on a thread or in a process, with models that answer, wait or fail."""

import contextlib
import http.client
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiotorch.features import SpectrogramImage
from audiotorch.models import CNN
from audiotorch.pipeline import Pipeline
from audiotorch.serve import address_of, create_app, open_port
from audiotorch.serve.server import make_server

RATE = 8000
HOSTILE = '<img src=x onerror=alert(1)> "quoted" \N{DOG FACE} $x$'
LABELS = ["rain", HOSTILE, "clock", "sea"]


def load_script(name: str) -> Any:
    """A script of this repository as a module."""
    path = Path(__file__).resolve().parent.parent / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where NamedTuple looks for annotations
    spec.loader.exec_module(module)
    return module


def classifier(**options: Any) -> Pipeline:
    """An untrained network, whose answers differ from sound to sound."""
    torch.manual_seed(0)
    features = SpectrogramImage(RATE, n_fft=512, hop_length=128, n_mels=32)
    model = CNN(len(LABELS), features.output_shape, channels=(8, 16))
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.dim() == 2:
            parameter.data *= 40.0
    return Pipeline(features, model, labels=LABELS, sample_rate=RATE, **options).eval()


class Waiting(nn.Module):
    """Answers while it is let, and fails with an error if it is to."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.go = threading.Event()
        self.go.set()
        self.n_asked = 0
        self._error = error

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        self.n_asked += 1
        self.go.wait(30)
        if self._error is not None:
            raise self._error
        return torch.zeros(len(x), len(LABELS))


def waiting(error: Exception | None = None) -> tuple[Pipeline, Waiting]:
    features = SpectrogramImage(RATE, n_fft=512, hop_length=128, n_mels=32)
    model = Waiting(error)
    return Pipeline(features, model, labels=LABELS, sample_rate=RATE).eval(), model


@contextlib.contextmanager
def running(model: Any, **options: Any) -> Iterator[str]:
    """Serve a model on a thread; at the end neither thread nor port is left."""
    ready, before = threading.Event(), set(threading.enumerate())
    listener = open_port(port=0)
    address = address_of(listener)
    server = make_server(create_app(model, **options), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(30)
        yield address
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
    assert not thread.is_alive()
    left = {one.name for one in set(threading.enumerate()) - before}
    assert not [name for name in left if name.startswith("audiotorch-serve")]


class Answer:
    """What a server answered."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The one sentence that says what is wrong."""
        assert self.status >= 400
        assert set(self.json) == {"error"}
        text = self.json["error"]
        assert text
        assert "\n" not in text
        assert "Traceback" not in text
        return text


def ask(
    address: str,
    path: str = "/predict",
    body: Any = None,
    headers: dict[str, str] | None = None,
    method: str | None = None,
    **options: Any,
) -> Answer:
    """One request: a body is posted as it is, unless its type says otherwise."""
    method = method or ("GET" if body is None else "POST")
    with contextlib.closing(connect(address)) as connection:
        connection.request(method, path, body, headers or {}, **options)
        return Answer(connection.getresponse())


def connect(address: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
