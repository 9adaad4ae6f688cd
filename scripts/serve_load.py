"""Ask `audiotorch serve` many times at once: python scripts/serve_load.py runs/first.

Clients send recordings in several formats and, among them, what a server must refuse: broken,
empty, oversized and endless files, NaN, paths for names, playlists, wrong forms and parameters.
Each answer is held against `audiotorch.predict` of the same bytes. Printed are the times, the
statuses, and what memory, open files, threads and temporary files the server has after half of
the requests and at the end. The exit status is 1 where an answer was wrong, or something grew.
"""

import argparse
import contextlib
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile

MAX_MB, MAX_SECONDS = 2.0, 30.0
MAX_GROWTH_MB = 24.0  # over the second half: what allocators keep, more or less
TOLERANCE = 1e-5
_RATE = 22050
_FIELDS = ("confidence", "score", "threshold", "p_value")


class Case(NamedTuple):
    """One request, and what must come back.

    Attributes:
        name: of the file, as it is told to the server.
        content: its bytes.
        status: of the answer; 200 and 400 where `answer` decides.
        query: behind the path.
        body: the whole body and its type, where it is no plain form of the file.
    """

    name: str
    content: bytes
    status: int | None = None
    query: str = ""
    body: tuple[bytes, str] | None = None


class Result(NamedTuple):
    """What came back.

    Attributes:
        case: what was sent.
        status: of the answer.
        answer: its JSON.
        seconds: that it took.
    """

    case: Case
    status: int
    answer: Mapping[str, Any]
    seconds: float


class State(NamedTuple):
    """What a process has.

    Attributes:
        own_mb: memory that is its own, without pages of files; 0 where there is no /proc.
        n_files: open ones.
        n_threads: threads.
        n_temporary: entries of its folder for temporary files.
    """

    own_mb: float
    n_files: int
    n_threads: int
    n_temporary: int


def sound(seconds: float = 1.5, seed: int = 0) -> np.ndarray:
    """Decaying notes over noise, `(time,)` at 22,050 Hz."""
    generator = np.random.default_rng(seed)
    time_axis = np.arange(round(seconds * _RATE)) / _RATE
    pitch = 220.0 * 2.0 ** (generator.integers(24) / 12.0)
    note = 0.4 * np.exp(-2.0 * time_axis) * np.sin(2 * np.pi * pitch * time_axis)
    return note + 0.02 * generator.standard_normal(len(time_axis))


def encoded(samples: np.ndarray, kind: str, subtype: str | None = None) -> bytes:
    """Encode samples with libsndfile: `WAV FLAC MP3 OGG`."""
    file = io.BytesIO()
    soundfile.write(file, samples, _RATE, format=kind, subtype=subtype)
    return file.getvalue()


def by_ffmpeg(samples: np.ndarray, container: str, codec: str, rate: int) -> bytes:
    """Encode samples with FFmpeg's libraries, as phones (m4a) and browsers (WebM) do."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        values = samples.astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(values, format="fltp", layout="mono")
        frame.sample_rate = _RATE
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


def good_cases(seed: int = 0) -> list[Case]:
    """Recordings in the formats that people have."""
    samples = sound(seed=seed)
    return [
        Case("clip.wav", encoded(samples, "WAV")),
        Case("clip.flac", encoded(samples, "FLAC")),
        Case("clip.mp3", encoded(samples, "MP3")),
        Case("clip.m4a", by_ffmpeg(samples, "ipod", "aac", 44100)),
        Case("clip.webm", by_ffmpeg(samples, "webm", "libopus", 48000)),
    ]


def bad_cases() -> list[Case]:
    """What people and programs send besides, or somebody who means harm."""
    wav = encoded(sound(), "WAV")
    silence = np.zeros(round(4 * MAX_SECONDS * _RATE))
    cut_form, kind = form("clip.wav", wav)
    return [
        Case("../../etc/passwd", wav),
        Case("/etc/passwd", b"/etc/passwd"),
        Case("broken.wav", b"RIFF no audio"),
        Case("noise.mp3", np.random.default_rng(0).bytes(20_000)),
        Case("empty.wav", b"", status=400),
        Case("no_samples.wav", encoded(np.zeros(0), "WAV")),
        Case("nan.wav", encoded(np.full(_RATE, np.nan), "WAV", "FLOAT")),
        Case("one_sample.wav", encoded(np.array([0.5]), "WAV")),
        Case("half.wav", wav[: len(wav) // 2]),
        Case("<script>alert(1)</script>\"'.wav", wav),
        Case("large.wav", encoded(sound(60.0), "WAV"), status=413),
        Case("long.flac", encoded(silence, "FLAC"), status=413),
        Case("list.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"),
        Case("list.ffconcat", b"ffconcat version 1.0\nfile '/etc/passwd'\n"),
        Case("clip.wav", wav, status=422, query="?windw=1"),
        Case("clip.wav", wav, status=422, query="?window=1e-9"),
        Case("clip.wav", wav, status=400, body=(cut_form[:-20], kind)),
        Case("clip.wav", wav, status=400, body=(wav, "multipart/form-data")),
        Case("clip.wav", wav, status=422, body=form("clip.wav", wav, field="sound")),
    ]


def form(name: str, content: bytes, field: str = "file") -> tuple[bytes, str]:
    """Return a form with one file, as browsers write it, and its type."""
    quoted = name.replace('"', "%22").replace("\n", "%0A").replace("\r", "%0D")
    head = f'Content-Disposition: form-data; name="{field}"; filename="{quoted}"\r\n\r\n'.encode()
    body = b"--limit\r\n" + head + content + b"\r\n--limit--\r\n"
    return body, "multipart/form-data; boundary=limit"


def ask(address: str, case: Case) -> Result:
    """Send a request and wait for its answer."""
    started = time.perf_counter()
    host = address.removeprefix("http://")
    body, kind = form(case.name, case.content) if case.body is None else case.body
    with contextlib.closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        connection.request("POST", f"/predict{case.query}", body, {"Content-Type": kind})
        response = connection.getresponse()
        answer = json.loads(response.read())
    return Result(case, response.status, answer, time.perf_counter() - started)


def ask_all(address: str, cases: Sequence[Case], n_clients: int) -> list[Result]:
    """Send requests from several clients at a time."""
    with ThreadPoolExecutor(n_clients) as pool:
        return list(pool.map(lambda case: ask(address, case), cases))


def what_is_wrong(result: Result, expected: Callable[[bytes], Mapping[str, Any]]) -> str:
    """Say what is wrong with an answer; nothing where it is right.

    Args:
        result: what came back.
        expected: fields of the right answer to these bytes, or `error`.
    """
    case, status, answer, _ = result
    right = {} if case.status is not None else expected(case.content)
    wanted = case.status or (400 if right.get("error") else 200)
    if status != wanted:
        return f"{case.name}: status {status}, not {wanted}: {answer}"
    if status != 200:
        reason = answer.get("error", "")
        return "" if reason and "\n" not in reason else f"{case.name}: no reason in one line"
    if answer["label"] != right["label"]:
        return f"{case.name}: {answer['label']!r}, not {right['label']!r}"
    pairs = [(answer.get(key), right.get(key)) for key in _FIELDS]
    both = answer.get("probabilities", {}), right["probabilities"]
    pairs += [(both[0].get(label), value) for label, value in both[1].items()]
    for found, value in pairs:
        if (found is None) != (value is None):
            return f"{case.name}: {answer}, not {right}"
        if value is not None and not abs(found - value) <= TOLERANCE * max(1.0, abs(value)):
            return f"{case.name}: {found}, not {value}"
    return ""


@contextlib.contextmanager
def serving(
    model: str, *options: str, temporary: str | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `audiotorch serve` in a process of its own; gives its address and the process.

    Args:
        model: exported file or run directory.
        options: further ones.
        temporary: folder that it shall take for temporary files.
    """
    command = [sys.executable, "-m", "audiotorch.cli", "serve", model, "--port", "0", *options]
    environment = {**os.environ, **({} if temporary is None else {"TMPDIR": temporary})}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # Jobs in the background of a shell hand on that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        if found is None:
            raise SystemExit(f"the server does not start: {process.communicate()[1]}")
        yield found[0], process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def state(pid: int, temporary: str) -> State:
    """What a process has now."""
    folder = Path(f"/proc/{pid}")
    n_temporary = len(list(Path(temporary).rglob("*")))
    if not folder.exists():
        return State(0.0, 0, 0, n_temporary)
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    own = int(status["RssAnon"].split()[0]) * 1024 / 1e6
    return State(own, len(list((folder / "fd").iterdir())), int(status["Threads"]), n_temporary)


def settled(pid: int, temporary: str, n_files: int | None = None) -> State:
    """What a process has once connections are closed: at once, or after the time to keep them."""
    for _ in range(100):
        found = state(pid, temporary)
        if n_files is None or found.n_files <= n_files:
            break
        time.sleep(0.1)
    return found


def mixed(n_requests: int) -> list[Case]:
    """Good ones and bad ones in turn, every kind as often as another."""
    good, bad = [case for seed in range(2) for case in good_cases(seed)], bad_cases()
    turns = range(-(-n_requests // 2))
    pairs = [(good[i % len(good)], bad[i % len(bad)]) for i in turns]
    return [case for pair in pairs for case in pair][:n_requests]


def expecting(model: str) -> Callable[[bytes], Mapping[str, Any]]:
    """The right answers, each found once."""
    import audiotorch as at
    from audiotorch.cli.arguments import find_model

    module = at.load_pipeline(find_model(model))
    known: dict[bytes, Mapping[str, Any]] = {}

    def expected(content: bytes) -> Mapping[str, Any]:
        if content not in known:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", at.TruncationWarning)  # the server's answer has it
                known[content] = vars(at.predict(module, content)[0])
        return known[content]

    return expected


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not pass."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", metavar="MODEL", help="exported .ts file, or a run directory")
    parser.add_argument("--requests", type=int, default=200, metavar="N", help="200")
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="8")
    options = parser.parse_args()
    limits = ["--max-mb", str(MAX_MB), "--max-seconds", str(MAX_SECONDS)]
    cases = mixed(options.requests)
    with (
        tempfile.TemporaryDirectory() as temporary,
        serving(options.model, *limits, temporary=temporary) as (address, process),
    ):
        half = len(cases) // 2
        results = ask_all(address, cases[:half], options.clients)
        before = settled(process.pid, temporary)
        started = time.perf_counter()
        results += ask_all(address, cases[half:], options.clients)
        rate = (len(cases) - half) / (time.perf_counter() - started)
        after = settled(process.pid, temporary, before.n_files)
    expected = expecting(options.model)
    wrong = [text for result in results if (text := what_is_wrong(result, expected))]
    times = [result.seconds for result in results if result.status == 200]
    statuses = Counter(result.status for result in results)
    counts = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    print(f"{len(results)} requests of {options.clients} clients, {rate:.1f} a second; {counts}")
    shares = ", ".join(f"p{100 * s:.0f} {percentile(times, s):.3f} s" for s in (0.5, 0.95))
    print(f"answers: {shares}; wrong ones: {len(wrong)}")
    print(f"at half: {before}\nat end:  {after}")
    print("\n".join(wrong), end="\n" if wrong else "")
    grown = after.own_mb > before.own_mb + MAX_GROWTH_MB or after.n_temporary
    return 1 if wrong or grown or after.n_files > before.n_files else 0


if __name__ == "__main__":
    sys.exit(main())
