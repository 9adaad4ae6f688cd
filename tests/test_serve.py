"""`audiotorch serve` answers as `predict` and `detect` do, and refuses the rest with a reason."""

import base64
import contextlib
import io
import json
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import one_line
from detectors import calibrated, image_detector, noise, vector_detector, wav
from serving import HOSTILE, LABELS, RATE, ask, classifier, connect, load_script, running, waiting

import audiotorch as at
from audiotorch.cli import main
from audiotorch.errors import MissingDependencyError, ParameterError
from audiotorch.explain import explain
from audiotorch.export import export
from audiotorch.serve import create_app
from audiotorch.serve import server as serve_server
from audiotorch.serve.guard import known_hosts

load = load_script("serve_load")

BOMB_HOURS = 10


def hours_of_silence() -> bytes:
    """Ten hours that are a few hundred kilobytes."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 1000, 1, "PCM_16", format="FLAC") as output:
        for _ in range(BOMB_HOURS):
            output.write(np.zeros(3_600_000, np.int16))
    return file.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return export(classifier(), tmp_path_factory.mktemp("run") / "model.ts")


@pytest.fixture(scope="module")
def served(model):
    """Address of the model's server on a thread, with small limits."""
    with running(at.load_pipeline(model), max_bytes=2_000_000, max_seconds=30.0) as address:
        yield address


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Path:
    pipeline = calibrated(image_detector(), "warning", "alarm")
    return export(pipeline, tmp_path_factory.mktemp("machine") / "model.ts")


@pytest.fixture(scope="module")
def watched(machine):
    with running(at.load_pipeline(machine)) as address:
        yield address


# --- a load of requests ---------------------------------------------------------------------------


def test_200_requests_of_8_clients(model, tmp_path, capsys):
    limits = ["--max-mb", str(load.MAX_MB), "--max-seconds", str(load.MAX_SECONDS)]
    cases = load.mixed(200)
    folder = str(tmp_path)
    with load.serving(str(model), *limits, temporary=folder) as (address, process):
        results = load.ask_all(address, cases[:100], 8)
        half = load.settled(process.pid, folder)
        results += load.ask_all(address, cases[100:], 8)
        # Kept connections are closed a few seconds after their last answer.
        end = load.settled(process.pid, folder, half.n_files)
    expected = load.expecting(str(model))
    assert [text for one in results if (text := load.what_is_wrong(one, expected))] == []
    statuses = {one.status for one in results}
    assert statuses == {200, 400, 413, 422}
    assert len({one.answer["label"] for one in results if one.status == 200}) > 1
    times = [one.seconds for one in results if one.status == 200]
    with capsys.disabled():
        print(f" [p95 {load.percentile(times, 0.95):.3f} s]", end="")
    assert end.n_temporary == 0
    if half.own_mb:
        assert end.own_mb < half.own_mb + load.MAX_GROWTH_MB
        assert end.n_files <= half.n_files
        assert end.n_threads <= half.n_threads


def test_the_load_notices_wrong_answers(model):
    expected = load.expecting(str(model))
    case = load.good_cases()[0]
    right = dict(expected(case.content))
    assert load.what_is_wrong(load.Result(case, 200, right, 0.1), expected) == ""
    shifted = {key: value + 1e-3 for key, value in right["probabilities"].items()}
    for status, answer in (
        (400, {"error": "no"}),
        (200, {**right, "label": "sea" if right["label"] != "sea" else "rain"}),
        (200, {**right, "probabilities": shifted}),
        (200, {**right, "confidence": None}),
    ):
        assert load.what_is_wrong(load.Result(case, status, answer, 0.1), expected)
    bad = next(case for case in load.bad_cases() if case.name == "large.wav")
    assert load.what_is_wrong(load.Result(bad, 200, right, 0.1), expected)
    assert load.what_is_wrong(load.Result(bad, 413, {"error": ""}, 0.1), expected)


# --- answers --------------------------------------------------------------------------------------


def same(found, right) -> None:
    """Equal but for the rounding of what is decoded in blocks."""
    assert set(found) == set(right)
    for key, value in right.items():
        if isinstance(value, float):
            assert found[key] == pytest.approx(value, abs=1e-5)
        elif isinstance(value, dict):
            assert found[key] == pytest.approx(value, abs=1e-5)
        else:
            assert found[key] == value


def test_an_answer_is_what_predict_prints(model, served, tmp_path, capsys):
    file = tmp_path / "clip.flac"
    soundfile.write(file, noise(1.3, 22050, 2), 22050)
    assert main(["predict", str(model), str(file), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    body, kind = load.form("clip.flac", file.read_bytes())
    answer = ask(served, body=body, headers={"Content-Type": kind})
    assert answer.status == 200
    same(answer.json, {**printed, "file": "clip.flac", "seconds": 1.3})
    # curl --data-binary says that its body is a form of fields.
    typed = {"Content-Type": "application/x-www-form-urlencoded"}
    for headers in ({}, typed, {"Content-Type": "audio/flac"}):
        raw = ask(served, body=file.read_bytes(), headers=headers).json
        same(raw, {**printed, "file": "<bytes>", "seconds": 1.3})


def test_an_answer_is_what_detect_prints(machine, watched, tmp_path, capsys):
    for level in (0.05, 0.9):
        file = tmp_path / "fan.wav"
        file.write_bytes(wav(noise(1.7, level=level)))
        assert main(["detect", str(machine), str(file), "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert "level" in printed
        answer = ask(watched, body=file.read_bytes()).json
        assert answer.pop("label") == ("anomaly" if printed["is_anomaly"] else "normal")
        same(answer, {**printed, "file": "<bytes>", "seconds": 1.7})


@pytest.mark.parametrize("pattern", ["esc10/001*/*.ogg", "fsdd/**/*.wav", "speech/**/*.flac"])
def test_real_recordings(model, served, data_root, pattern):
    files = sorted(data_root.glob(pattern))[:3]
    assert files
    module = at.load_pipeline(model)
    for file in files:
        right = at.predict(module, file)[0]
        answer = ask(served, body=file.read_bytes())
        if at.info(file).duration_seconds > 30.0:
            assert answer.status == 413
            continue
        assert answer.json["label"] == right.label
        assert answer.json["probabilities"] == pytest.approx(right.probabilities, abs=1e-5)


def test_classes_that_are_judged_by_themselves():
    pipeline = classifier(task="multilabel")
    with running(pipeline) as address:
        assert ask(address, "/model").json["task"] == "multilabel"
        content = wav(noise(1.0))
        answer = ask(address, body=content).json
    right = at.predict(pipeline, content)[0]
    same(answer["probabilities"], right.probabilities)
    assert sum(answer["probabilities"].values()) != pytest.approx(1.0, abs=0.05)


def test_an_answer_below_the_confidence_asked_for_has_no_label():
    pipeline = classifier()
    pipeline.abstain_below(1.0)
    with running(pipeline) as address:
        answer = ask(address, body=wav(noise(1.0))).json
    assert answer["label"] is None
    assert answer["confidence"] == max(answer["probabilities"].values())


def test_thresholds_that_none_can_exceed_are_none_in_json():
    pipeline = vector_detector()
    pipeline.calibrate(torch.rand(5), {"alarm": 1.0})
    pipeline.thresholds[:] = float("inf")
    with running(pipeline) as address:
        answer = ask(address, body=wav(noise(1.0)))
        assert answer.json["threshold"] is None
        assert ask(address, "/model").json["thresholds"] == {"alarm": None}


def test_windows_are_those_of_the_time_line(model, served):
    content = wav(noise(3.3))
    answer = ask(served, "/predict?window=0.7&hop=0.3", content).json
    right = [vars(one) for one in at.timeline(at.load_pipeline(model), content, 0.7, 0.3)]
    assert (answer["window_seconds"], answer["hop_seconds"]) == (0.7, 0.3)
    assert len(answer["windows"]) == len(right) > 5
    for found, one in zip(answer["windows"], right, strict=True):
        same(found, {key: one[key] for key in found})
    alone = ask(served, "/predict?window=1", content).json
    assert [one["start_seconds"] for one in alone["windows"]] == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("seconds", "n_windows"), [(0.6, 0), (1.0, 0), (1.3, 2), (5.001, 10), (29.5, 58)]
)
def test_the_server_chooses_windows(served, seconds, n_windows):
    answer = ask(served, "/predict?window=auto", wav(noise(seconds))).json
    assert len(answer["windows"]) == n_windows
    if n_windows:
        assert 0 < answer["hop_seconds"] <= answer["window_seconds"] / 2
        assert answer["windows"][-1]["end_seconds"] == pytest.approx(seconds)
        # No window is a rest that the recording's length leaves by chance.
        lengths = [one["end_seconds"] - one["start_seconds"] for one in answer["windows"]]
        assert lengths == pytest.approx([answer["window_seconds"]] * n_windows, rel=0.01)


def test_detectors_are_followed_in_their_own_windows():
    pipeline = calibrated(image_detector(window=0.8, hop=0.3), "alarm")
    with running(pipeline) as address:
        answer = ask(address, "/predict?window=auto", wav(noise(3.0))).json
    assert (answer["window_seconds"], answer["hop_seconds"]) == (0.8, 0.3)
    right = [one.score for one in at.timeline(pipeline, wav(noise(3.0)), 0.8, 0.3)]
    assert [one["score"] for one in answer["windows"]] == pytest.approx(right, rel=1e-5)


def png_width(address: str) -> int:
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"), validate=True)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">I", content[16:20])[0]


@pytest.mark.parametrize("kind", ["classifier", "map", "vector"])
def test_reasons_are_those_of_explain(kind):
    pipeline = {"classifier": classifier, "map": image_detector, "vector": vector_detector}[kind]()
    content = wav(noise(2.0))
    right = explain(pipeline, content)
    with running(pipeline) as address:
        plain = ask(address, "/predict?explain=1", content).json
        drawn = ask(address, "/predict?explain=picture&width=500&dark=1", content).json
    assert plain["reason"] == drawn["reason"] == right.reason
    assert "explanation" not in plain
    if kind == "vector":
        assert plain["deviations"] == pytest.approx(right.deviations, rel=1e-4)
    else:
        assert png_width(drawn["explanation"]) == 2 * 500


@pytest.mark.parametrize("width", [240, 800])
def test_spectrograms_are_as_wide_as_the_page_asks(served, width):
    answer = ask(served, f"/predict?spectrogram=1&width={width}", wav(noise(2.0))).json
    assert png_width(answer["spectrogram"]) == 2 * width


def test_what_is_missing_of_a_recording_is_told(served):
    content = load.encoded(load.sound(), "WAV")
    assert "warning" not in ask(served, body=content).json
    answer = ask(served, body=content[: len(content) // 2])
    assert answer.status == 200
    assert "truncated" in answer.json["warning"]
    assert answer.json["seconds"] == pytest.approx(0.75, abs=0.01)


def test_the_model_and_the_server_say_what_they_are(model, served):
    about = ask(served, "/model").json
    assert about["labels"] == LABELS
    assert (about["task"], about["sample_rate"]) == ("classification", RATE)
    assert (about["max_bytes"], about["max_seconds"]) == (2_000_000, 30.0)
    assert about["version"] == at.__version__
    assert ask(served, "/health").json == {"status": "ok"}


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("windw=1", "windw: is no parameter; there are window, hop"),
        ("window=0", "window='0': must be a number of seconds above 0, or auto"),
        ("window=nan", "window='nan': must"),
        ("window=x", "window='x': must"),
        ("window=1e-5&hop=1", "window_seconds=1e-05: must be finite and at least one sample"),
        ("window=0.0004", "window=0.0004, hop=0.0004: gives more than 2000 windows"),
        ("window=0.5&hop=0.0002", "gives more than 2000 windows"),
        ("hop=1", "hop: leads from window to window"),
        ("window=auto&hop=1", "hop: leads from window to window"),
        ("window=1&hop=-1", "hop='-1': must be a number of seconds above 0$"),
        ("explain=2", "explain='2': must be one of 0, 1, picture"),
        ("spectrogram=yes", "spectrogram='yes': must be one of 0, 1"),
        ("width=1e9", "width='1e9': must be a whole number from 240 to 1600"),
        ("width=100000", "width='100000': must"),
        ("dark=2", "dark='2': must"),
    ],
)
def test_wrong_parameters_are_named(served, query, text):
    answer = ask(served, f"/predict?{query}", wav(noise(1.0)))
    assert answer.status == 422
    assert re.search(text, answer.error), answer.error


def test_no_name_and_no_content_opens_a_file(served, tmp_path):
    """A real recording lies where names and playlists point to."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav(noise(1.0)))
    path = str(secret).encode()
    for name in (str(secret), f"../..{secret}", "secret.wav"):
        body, kind = load.form(name, b"no audio at all")
        answer = ask(served, body=body, headers={"Content-Type": kind})
        assert answer.status == 400
        assert answer.error.startswith(f"{name}: not a readable audio file")
    for content in (
        path,
        b"file://" + path,
        b"#EXTM3U\n#EXTINF:1,\n" + path + b"\n",
        b"ffconcat version 1.0\nfile '" + path + b"'\n",
        b"[playlist]\nFile1=" + path + b"\n",
    ):
        assert ask(served, body=content).status == 400
    body, kind = load.form(str(secret), wav(noise(1.0)))
    assert ask(served, body=body, headers={"Content-Type": kind}).json["file"] == str(secret)


@pytest.mark.parametrize(
    "name", [HOSTILE.replace('"', "'"), "a\tb.wav", "clip.flac", "$5 \u202e.wav"]
)
def test_names_are_only_repeated(served, name):
    body, kind = load.form(name, wav(noise(1.0)))
    assert ask(served, body=body, headers={"Content-Type": kind}).json["file"] == name
    body, kind = load.form(name, b"no audio")
    assert name.split()[0] in ask(served, body=body, headers={"Content-Type": kind}).error


def test_forms_hold_one_recording(served):
    content = wav(noise(1.0))
    body, kind = load.form("a.wav", content)
    part = body.removesuffix(b"--limit--\r\n")
    cases = {
        part + body: (422, "holds 2 parts"),
        body.replace(b'name="file"', b'name="sound"'): (422, "holds 0 parts"),
        body[:-30]: (400, "cut off before its end"),
        body.replace(b"--limit", b"--other"): (400, "broken"),
        b"": (400, "cut off before its end"),
    }
    for sent, (status, text) in cases.items():
        answer = ask(served, body=sent, headers={"Content-Type": kind})
        assert (answer.status, text in answer.error) == (status, True), answer.error
    field = b'--limit\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    mixed = ask(served, body=field + body, headers={"Content-Type": kind})
    assert mixed.json["file"] == "a.wav"
    nameless = body.replace(b'; filename="a.wav"', b"")
    assert ask(served, body=nameless, headers={"Content-Type": kind}).json["file"] == "<bytes>"


def test_nothing_compressed_and_nothing_empty(served):
    answer = ask(served, body=b"x", headers={"Content-Encoding": "gzip"})
    assert answer.status == 415
    assert "send the file as it is" in answer.error
    answer = ask(served, body=b"")
    assert answer.status == 400
    assert "holds no recording" in answer.error


def test_other_places_are_not_here(served):
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/predict", 405),
        ("POST", "/model", 405),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/page.js/../../app.py", 404),
    ):
        answer = ask(served, path, method=method)
        assert answer.status == status
        assert "POST /predict" in answer.error


# --- limits ---------------------------------------------------------------------------------------


def test_large_uploads_are_refused_before_they_are_read(served):
    with contextlib.closing(connect(served)) as connection:
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Length", str(10**12))
        connection.endheaders()  # and not a byte of it
        response = connection.getresponse()
        assert response.status == 413
        assert "larger than 2 MB" in json.loads(response.read())["error"]


def test_a_boundary_beyond_measure_is_the_clients_mistake(served):
    kind = "multipart/form-data; boundary=" + 5000 * "x"
    answer = ask(served, body=b"--x", headers={"Content-Type": kind})
    assert answer.status == 400
    assert "the form is broken" in answer.error


@pytest.mark.parametrize("form", [False, True])
def test_uploads_without_a_length_are_cut_at_the_limit(served, form):
    pieces = 160  # of 64 KB: five times the limit
    head, tail = (
        (b'--limit\r\nContent-Disposition: form-data; name="file"\r\n\r\n', b"\r\n--limit--\r\n")
        if form
        else (b"", b"")
    )
    kind = {"Content-Type": "multipart/form-data; boundary=limit"} if form else {}
    body = iter([head, *[bytes(1 << 16)] * pieces, tail])
    answer = ask(served, body=filter(None, body), headers=kind, encode_chunked=True)
    assert answer.status == 413
    assert "larger than 2 MB" in answer.error
    assert answer.headers["connection"] == "close"


def test_what_just_fits_is_taken(served):
    for n_bytes, status in ((2_000_000, 400), (2_000_001, 413)):
        body, kind = load.form("noise", bytes(n_bytes))
        for sent, headers in ((bytes(n_bytes), {}), (body, {"Content-Type": kind})):
            assert ask(served, body=sent, headers=headers).status == status


def test_hours_in_a_small_file_are_not_decoded(served):
    bomb = hours_of_silence()
    assert len(bomb) < 2_000_000
    before = load.state(os.getpid(), "/nowhere").own_mb
    peak = 0.0
    ended = threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.wait(0.005):
            peak = max(peak, load.state(os.getpid(), "/nowhere").own_mb)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for query in ("", "?window=1", "?spectrogram=1&explain=picture"):
            answer = ask(served, f"/predict{query}", bomb)
            assert answer.status == 413
            assert "lasts longer than 30 s" in answer.error
    finally:
        ended.set()
        looker.join()
    # All of it would be 1150 MB at the model's rate.
    assert peak < before + 100


def test_channels_without_number_are_refused(served):
    file = io.BytesIO()
    soundfile.write(file, np.zeros((8000, 40)), RATE, format="WAV")
    answer = ask(served, body=file.getvalue())
    assert answer.status == 400
    assert "has 40 channels; this server takes 32 at most" in answer.error


def test_slow_uploads_end(model):
    with running(at.load_pipeline(model), time_limit=0.4) as address:
        with contextlib.closing(connect(address)) as connection:
            connection.putrequest("POST", "/predict")
            connection.putheader("Content-Length", "1000")
            connection.endheaders()
            connection.send(b"RIFF")
            response = connection.getresponse()
            assert response.status == 408
            assert "took longer than 0.4 s" in json.loads(response.read())["error"]
            assert connection.sock is None  # closed, as the rest never comes
        assert ask(address, "/health").status == 200


def test_headers_that_never_end(model, monkeypatch):
    monkeypatch.setattr(serve_server, "_HEADER_SECONDS", 0.2)
    with running(at.load_pipeline(model)) as address:
        host, port = address.removeprefix("http://").split(":")
        for sent in (b"", b"GET / HT"):
            with socket.create_connection((host, int(port)), timeout=20) as line:
                line.sendall(sent)
                assert line.recv(100) == b""
        with contextlib.closing(connect(address)) as connection:
            # One that rests between whole requests is kept.
            for _ in range(3):
                connection.request("GET", "/health")
                assert connection.getresponse().read() == b'{"status":"ok"}'
                time.sleep(0.3)
            connection.sock.sendall(b"GET / HT")
            assert connection.sock.recv(100) == b""


def test_more_than_may_wait_are_sent_away():
    pipeline, model = waiting()
    content = wav(noise(1.0))
    with running(pipeline, max_waiting=2) as address:
        ask(address, body=content)  # after what is done at the start
        model.go.clear()
        asked = model.n_asked
        answers: list = []
        threads = [
            threading.Thread(target=lambda: answers.append(ask(address, body=content)))
            for _ in range(6)
        ]
        threads[0].start()
        wait_for(lambda: model.n_asked > asked)
        for thread in threads[1:]:
            thread.start()
        # One is worked on, one waits.
        wait_for(lambda: len(answers) == 4)
        for refused in answers:
            assert refused.status == 503
            assert "2 recordings are being worked on" in refused.error
            assert refused.headers["retry-after"]
        assert ask(address, "/health").status == 200  # nothing else is held up
        model.go.set()
        for thread in threads:
            thread.join(30)
        assert sorted(one.status for one in answers) == [200, 200, 503, 503, 503, 503]
        assert ask(address, body=content).status == 200


def wait_for(what):
    """What becomes true within a while."""
    for _ in range(1500):
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came")


def test_work_that_takes_too_long_is_given_up():
    pipeline, model = waiting()
    content = wav(noise(1.0))
    with running(pipeline, time_limit=1.0, max_waiting=2) as address:
        wait_for(lambda: ask(address, body=content).status == 200)
        model.go.clear()
        answer = ask(address, body=content)
        assert answer.status == 503
        assert "no answer within 1 s" in answer.error
        model.go.set()
        wait_for(lambda: ask(address, body=content).status == 200)


def test_bytes_of_all_uploads_are_bounded():
    """Clients hold all that uploads may have; one more is sent away, and none is held for good."""
    pipeline, _ = waiting()
    with running(pipeline, max_bytes=100_000) as address:
        open_ones = [connect(address) for _ in range(4)]
        for one in open_ones:
            one.putrequest("POST", "/predict")
            one.putheader("Content-Length", "100000")
            one.endheaders()
            one.send(bytes(99_999))
        refused = wait_for(lambda: (got := ask(address, body=bytes(50_000))).status == 503 and got)
        assert "too many uploads" in refused.error
        for one in open_ones:
            one.close()
        # Once they went away their bytes are free: now it is the content that is wrong.
        wait_for(lambda: ask(address, body=bytes(50_000)).status == 400)


def test_clients_that_go_away_leave_nothing(served):
    content = load.encoded(load.sound(20.0), "FLAC")
    for place in range(12):
        connection = connect(served)
        connection.putrequest("POST", "/predict?window=0.5&hop=0.05&spectrogram=1")
        connection.putheader("Content-Length", str(len(content)))
        connection.endheaders()
        # In the middle of the upload, and after it.
        connection.send(content if place % 2 else content[: len(content) // 2])
        connection.close()
    assert wait_for(lambda: ask(served, body=wav(noise(1.0))).status == 200)


def test_work_that_nobody_waits_for_is_not_done():
    pipeline, model = waiting()
    content = wav(noise(1.0))
    with running(pipeline) as address:
        ask(address, body=content)
        model.go.clear()
        before = model.n_asked
        first = threading.Thread(target=lambda: ask(address, body=content))
        first.start()
        wait_for(lambda: model.n_asked == before + 1)
        for _ in range(5):
            connection = connect(address)
            connection.request("POST", "/predict", content)
            connection.close()
        time.sleep(0.3)  # until the server has seen them go
        model.go.set()
        first.join(30)
        ask(address, body=content)
        assert model.n_asked == before + 2


def test_a_model_that_fails_is_told_without_its_inside(caplog):
    pipeline, _ = waiting(RuntimeError("secret of the inside"))
    with running(pipeline) as address:
        answer = ask(address, body=wav(noise(1.0)))
        assert answer.status == 500
        assert "secret" not in answer.error
        assert ask(address, "/health").status == 200
    assert "secret of the inside" in caplog.text


# --- who may ask ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Host": "localhost:1"}, True),
        ({"Host": "[::1]:80"}, True),
        ({"Host": "evil.example"}, False),
        ({"Host": "127.0.0.1.evil.example"}, False),
        ({"Host": "192.168.0.7"}, False),
        ({"Host": ""}, False),
        ({"Host": "localhost:8", "Origin": "http://localhost:8"}, True),
        ({"Host": "localhost:8", "Origin": "http://LOCALHOST:8"}, True),
        ({"Host": "localhost:8", "Origin": "http://localhost:9"}, False),
        ({"Host": "localhost:8", "Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "file://"}, False),
    ],
)
def test_pages_of_others_may_not_ask(served, headers, allowed):
    for path, body in (("/predict", wav(noise(1.0))), ("/model", None), ("/", None)):
        answer = ask(served, path, body, headers)
        assert answer.status == (200 if allowed else 403)
        assert not [key for key in answer.headers if key.lower().startswith("access-control")]
        if not allowed:
            assert "refused" in answer.error or "does not go by the name" in answer.error


def test_a_browser_that_asks_before_it_posts_is_told_no(served):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert ask(served, "/predict", None, headers, method="OPTIONS").status == 403


def test_names_that_a_server_goes_by():
    local, any_address = known_hosts("127.0.0.1", ["Try.Example"])
    assert {"localhost", "127.0.0.1", "::1", "try.example"} <= local
    assert not any_address
    assert not known_hosts("localhost")[1]
    names, any_address = known_hosts("0.0.0.0")
    assert any_address
    assert socket.gethostname().lower() in names
    pipeline, _ = waiting()
    with running(pipeline, host="0.0.0.0", names=["try.example"]) as address:
        for host, status in (
            ("192.168.0.7:80", 200),
            ("try.example", 200),
            ("[fe80::1]", 200),
            ("evil.example", 403),
        ):
            assert ask(address, "/health", headers={"Host": host}).status == status


def test_answers_forbid_what_the_page_does_not_need(served):
    page = ask(served, "/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "http" not in policy
    for path in ("/", "/page.js", "/chart.js", "/page.css", "/icon.svg", "/model", "/nothing"):
        answer = ask(served, path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")
        text = text.replace("http://localhost", "")
        assert "http://" not in text
        assert "https://" not in text


# --- the command ----------------------------------------------------------------------------------


def test_ctrl_c_ends_it_as_other_commands(model):
    with load.serving(str(model)) as (address, process):
        assert ask(address, "/health").status == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130
    assert one_line(err) == "audiotorch: interrupted\n"
    assert out == ""
    with pytest.raises(ConnectionRefusedError):
        ask(address, "/health")


def test_a_taken_port_is_told_in_a_line(model, served, capsys):
    port = served.rpartition(":")[2]
    assert main(["serve", str(model), "--port", port]) == 2
    err = one_line(capsys.readouterr().err)
    assert f"--port {port}: cannot listen there (Address already in use)" in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nothing.ts"], "no such file"),
        (["MODEL", "--port", "70000"], "'70000': must be a whole number from 0 to 65535"),
        (["MODEL", "--max-mb", "-1"], "'-1': must be a number of MB"),
        (["MODEL", "--timeout", "0"], "'0': must be a number of seconds above 0"),
        (["MODEL", "--host", "no.such.host.invalid"], "is no address of this machine"),
        (["MODEL", "--host", "192.0.2.1", "--port", "0"], "cannot listen there"),
    ],
)
def test_wrong_use_is_told_in_a_line(model, capsys, arguments, text):
    words = [str(model) if word == "MODEL" else word for word in arguments]
    assert main(["serve", *words]) == 2
    assert text in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "python_multipart"])
def test_a_missing_package_is_named_with_its_extra(model, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingDependencyError, match=rf'{package}: pip install "audiotorch\[serve\]"'
    ):
        serve_server.make_server(create_app(model), lambda: None)


def test_limits_must_be_above_zero(model):
    for name in ("max_bytes", "max_seconds", "time_limit", "max_waiting"):
        with pytest.raises(ParameterError, match=f"{name}=0: must be above 0"):
            create_app(model, **{name: 0})
