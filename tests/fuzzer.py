"""Damage audio files at random, with a seed, and see that loading survives it.

    python tests/fuzzer.py --count 5000 --seed 0 --jobs 2
    python tests/fuzzer.py --seed 0 --index 1234 --keep case.bin   # one case again, in this process

Each case is a file of the format zoo (under AUDIOTORCH_DATA) or one encoded on the spot, with one
to four mutations. `load`, `info`, and now and then a part or a stream of it must return finite
samples or raise DecodeError: no other exception, no crash, one warning a call at most, nothing over
10 s or 2 GB. Cases run in processes of their own, so that a crash or hang is seen and named.
"""

import argparse
import io
import math
import os
import random
import re
import resource
import select
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import soundfile
import torch
from decoders import encode

import audiotorch as at
from audiotorch.audio.io import stream
from audiotorch.errors import DecodeError, ParameterError, TruncationWarning

SECONDS = 10.0  # a call may take
CASE_SECONDS = 4 * SECONDS  # before a worker counts as hung
MEGABYTES = 2048  # a process may hold, torch included
LARGEST = 300_000  # bytes of a file that are kept
RATE = 48000

ENCODED = {
    "adts.aac": ("aac", {}),
    "aac.m4a": ("aac", {}),
    "alac.m4a": ("alac", {}),
    "opus.webm": ("libopus", {}),
    "flac.mkv": ("flac", {}),
    "wmav2.wma": ("wmav2", {"b": "128000"}),
    "ac3.ac3": ("ac3", {}),
    "eac3.eac3": ("eac3", {}),
    "wavpack.wv": ("wavpack", {"sample_format": "s16p"}),
    "flac.oga": ("flac", {}),
    "opus.opus": ("libopus", {}),
    "pcm.avi": ("pcm_s16le", {}),
    "mp3.avi": ("mp3", {}),
    "aac.ts": ("aac", {}),
    "mp2.mpg": ("mp2", {}),
    "pcm.mov": ("pcm_s24be", {}),
    "lame.mp3": ("mp3", {}),
    "mp2.mp2": ("mp2", {}),
    "tta.tta": ("tta", {"sample_format": "s16"}),
    "alac.caf": ("alac", {}),
    "float.w64": ("pcm_f32le", {}),
    "aac.flv": ("aac", {}),
    "aac.3gp": ("aac", {}),
    "speech.amr": ("libopencore_amrnb", {"rate": 8000}),
    "pcm.aiff": ("pcm_s16be", {}),
    "ima.wav": ("adpcm_ima_wav", {}),
    "float.nut": ("pcm_f32le", {}),
    "surround.mp4": ("aac", {"layout": "5.1"}),
    "surround.mkv": ("ac3", {"layout": "5.1"}),
}


class Seed(NamedTuple):
    """A sound file to damage."""

    name: str
    content: bytes


class Failure(NamedTuple):
    """A case that went wrong."""

    seed: int
    index: int
    what: str


# --- what is damaged ------------------------------------------------------------------------------


def corpus(folder: Path) -> list[Seed]:
    """The zoo, and kinds it has few of, made in `folder`; in an order of their own."""
    root = os.environ.get("AUDIOTORCH_DATA")
    zoo = sorted(Path(root, "format_zoo").rglob("*")) if root else []
    files = [path for path in zoo if path.is_file() and path.suffix not in (".csv", ".md")]
    return [Seed(p.name, p.read_bytes()[:LARGEST]) for p in (*files, *_encode(folder))]


def _encode(folder: Path) -> Iterator[Path]:
    time_axis = np.arange(RATE // 2) / RATE
    tones = [0.1 * np.sin(2 * np.pi * f * time_axis) for f in (220, 330, 440, 55, 660, 770)]
    sound = np.array(tones, np.float32)
    for name, (codec, options) in ENCODED.items():
        keywords: dict[str, Any] = dict(options)
        rate = keywords.pop("rate", RATE)
        n_channels = 6 if "layout" in keywords else 1 if rate == 8000 else 2
        yield encode(folder / name, sound[:n_channels], rate, codec, **keywords)
    for name, kind, subtype in (
        ("vorbis.ogg", "OGG", "VORBIS"),
        ("pcm.rf64", "RF64", "PCM_24"),
        ("float.wav", "WAV", "DOUBLE"),
        ("ulaw.au", "AU", "ULAW"),
    ):
        soundfile.write(folder / name, sound[:2].T, RATE, format=kind, subtype=subtype)
        yield folder / name


def _place(rng: random.Random, content: bytes) -> int:
    """A position, as often as not among the headers at the front."""
    end = min(len(content), 600) if rng.random() < 0.5 else len(content)
    return rng.randrange(end) if end else 0


def _length(rng: random.Random, content: bytes) -> int:
    return min(len(content), int(2 ** rng.uniform(0, 14)))


def _flip(rng: random.Random, content: bytes, _: Seed) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 64) if changed else 0):
        changed[_place(rng, content)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng: random.Random, content: bytes, _: Seed) -> bytes:
    start, n = _place(rng, content), _length(rng, content)
    filling = rng.choice([bytes(n), b"\xff" * n, rng.randbytes(n)])
    return content[:start] + filling + content[start + n :]


def _truncate(rng: random.Random, content: bytes, _: Seed) -> bytes:
    return content[: _place(rng, content)]


def _behead(rng: random.Random, content: bytes, _: Seed) -> bytes:
    return content[_place(rng, content) :]


def _insert(rng: random.Random, content: bytes, _: Seed) -> bytes:
    start = _place(rng, content)
    return content[:start] + rng.randbytes(_length(rng, content)) + content[start:]


def _remove(rng: random.Random, content: bytes, _: Seed) -> bytes:
    start = _place(rng, content)
    return content[:start] + content[start + _length(rng, content) :]


def _duplicate(rng: random.Random, content: bytes, _: Seed) -> bytes:
    start, n = _place(rng, content), _length(rng, content)
    again = content[start : start + n] * rng.choice([1, 1, 2, 20])
    return content[: start + n] + again + content[start + n :]


def _splice(rng: random.Random, content: bytes, other: Seed) -> bytes:
    head = other.content[: _place(rng, other.content)]
    return head + content[rng.choice([0, len(head), _place(rng, content)]) :]


def _size_field(rng: random.Random, content: bytes, _: Seed) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        width = rng.choice([2, 4, 4, 8])
        top = (1 << 8 * width) - 1
        value = rng.choice([0, 1, top // 2, top // 2 + 1, top, top - 1, rng.randrange(top)])
        start = _place(rng, content) & ~1
        changed[start : start + width] = value.to_bytes(width, rng.choice(["little", "big"]))
    return bytes(changed)


MUTATIONS: tuple[Callable[[random.Random, bytes, Seed], bytes], ...] = (
    _flip,
    _flip,
    _overwrite,
    _truncate,
    _behead,
    _insert,
    _remove,
    _duplicate,
    _splice,
    _splice,
    _size_field,
    _size_field,
)


def make_case(seeds: list[Seed], seed: int, index: int) -> tuple[str, str, bytes, random.Random]:
    """A case by its two numbers: a name for the file, what was done, content, chance to go on."""
    rng = random.Random(f"{seed}/{index}")
    victim, other = rng.choice(seeds), rng.choice(seeds)
    content, done = victim.content, []
    for _ in range(rng.choice([1, 1, 1, 2, 2, 4])):
        mutation = rng.choice(MUTATIONS)
        content = mutation(rng, content, other)
        spliced = f" of {other.name}" if mutation is _splice else ""
        done.append(mutation.__name__.strip("_") + spliced)
    name = victim.name if rng.random() < 0.9 else other.name
    return f"case{Path(name).suffix}", f"{victim.name}: {', '.join(done)}", content, rng


# --- what must hold -------------------------------------------------------------------------------


class Broken(Exception):
    """A promise of the loader's that did not hold."""


def _call(read: Callable[..., Any], name: str, *arguments: Any, **keywords: Any) -> Any:
    """A call's result and whether it warned; (None, False) if it refused as it may."""
    start = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = read(*arguments, **keywords)
        except DecodeError as error:
            result, text = None, str(error)
            if not text.startswith(name):
                raise Broken(f"the error does not name the file: {text!r}") from error
        except ParameterError as error:
            if not (keywords.get("offset") and str(error).startswith("offset=")):
                raise
            result = None
    seconds = time.monotonic() - start
    if seconds > SECONDS:
        raise Broken(f"{seconds:.1f} s")
    if [w.category for w in caught] not in ([], [TruncationWarning]):
        raise Broken(f"warnings: {[str(w.message)[:200] for w in caught]}")
    return result, bool(caught) and result is not None


def _check_waveform(waveform: Any) -> None:
    if waveform.dim() != 2 or waveform.dtype != torch.float32:
        raise Broken(f"{waveform.dtype}, {tuple(waveform.shape)}")
    if not bool(waveform.isfinite().all()):
        raise Broken("non-finite samples")


def check_case(path: Path, content: bytes, rng: random.Random) -> str:
    """Load one damaged file in every way.

    Returns:
        What became of it, `loaded`, `warned` or `refused`.

    Raises:
        Exception: anything that was not promised.
    """
    path.write_bytes(content)
    form = rng.choice(["path", "path", "path", "bytes", "file"])
    name = str(path) if form == "path" else "<bytes>" if form == "bytes" else "<BytesIO>"

    def source() -> Any:
        return path if form == "path" else content if form == "bytes" else io.BytesIO(content)

    loaded, warned = _call(at.load, name, source(), None, mono=False)
    _call(at.info, name, source())
    if loaded is None:
        if rng.random() < 0.2:
            _call(at.load, name, source(), offset=0.1)
        return "refused"
    waveform, rate = loaded
    _check_waveform(waveform)
    n = waveform.shape[1]
    if rng.random() < 0.2:
        resampled, _ = _call(at.load, name, source())
        if resampled is not None:
            _check_waveform(resampled[0])
    if rng.random() < 0.4 and n:
        start, length = rng.randrange(n), rng.randrange(1, n + 1)
        part = {"offset": (start + 0.25) / rate, "duration": (length + 0.25) / rate}
        found, part_warned = _call(at.load, name, source(), None, mono=False, **part)
        if found is not None:
            _check_waveform(found[0])
        wanted = waveform[:, start : start + length].shape
        if not warned and not part_warned and (found is None or found[0].shape != wanted):
            raise Broken(f"{part} of {tuple(waveform.shape)}: {found and tuple(found[0].shape)}")
    if rng.random() < 0.3:
        size, wanted_rate = rng.choice([0.05, 0.7, 30.0]), rng.choice([None, None, 16000])
        blocks, _ = _call(lambda s: list(stream(s, size, wanted_rate)), name, source())
        due = n if wanted_rate is None else math.ceil(n * (wanted_rate / rate))
        n_streamed = sum(block.shape[1] for block in blocks or ())
        if blocks is None or n_streamed != due:
            raise Broken(f"stream at {wanted_rate}: {blocks and n_streamed} samples, load: {due}")
    return "warned" if warned else "loaded"


# --- processes ------------------------------------------------------------------------------------


def _work(seed: int) -> None:
    """Take case numbers from standard input and answer each by a line; run as a process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = corpus(folder)
        print("ready", flush=True)
        for line in sys.stdin:
            file, _, content, rng = make_case(seeds, seed, int(line))
            try:
                answer = check_case(folder / file, content, rng)
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(last.filename).name}:{last.lineno}"
                answer = f"failed {type(error).__name__}: {error} ({place})"
            print(answer.replace("\n", " ")[:600], flush=True)
            peak = peak_megabytes()
            if peak > MEGABYTES:
                raise MemoryError(f"{peak} MB")


def peak_megabytes() -> int:
    """The most memory this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        # Of this program alone: getrusage counts what the process was forked from, too.
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(found.group(1)) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


class _Worker:
    """A process that runs cases; made anew when it dies."""

    def __init__(self, seed: int, log: IO[bytes]) -> None:
        self.log = log
        command = [sys.executable, __file__, "--worker", "--seed", str(seed)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0
        )
        if self._line(120) != "ready":
            raise RuntimeError(f"no worker: {self._last_words()}")

    def _resident(self) -> int:
        """Megabytes the process holds now; 0 where the system does not tell."""
        status = Path(f"/proc/{self.process.pid}/statm")
        if not status.exists():
            return 0
        return int(status.read_text().split()[1]) * resource.getpagesize() >> 20

    def _line(self, seconds: float) -> str:
        """The next line; empty if the process died, or had to be killed."""
        end = time.monotonic() + seconds
        while not select.select([self.process.stdout], [], [], 0.05)[0]:
            # Killed at once: a shared machine must not run out of memory.
            for name, over in (
                ("hangs", time.monotonic() > end),
                (f"over {MEGABYTES} MB", self._resident() > MEGABYTES),
            ):
                if over:
                    self.process.kill()
                    return f"failed {name}"
        return self.process.stdout.readline().decode().strip()

    def _last_words(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_bytes()[-400:].decode(errors="replace")

    def run(self, index: int) -> str:
        self.process.stdin.write(b"%d\n" % index)
        answer = self._line(CASE_SECONDS)
        if answer:
            return answer
        return f"failed crash: status {self.process.wait()}: {self._last_words()}"

    def close(self) -> None:
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def _next(indices: Iterator[int], lock: threading.Lock) -> int | None:
    with lock:
        return next(indices, None)


def run(seed: int, count: int, jobs: int) -> tuple[list[Failure], dict[str, int]]:
    """Run cases 0 to `count`: those that failed, and how many came to which end."""
    failures: list[Failure] = []
    ends = {"loaded": 0, "warned": 0, "refused": 0, "failed": 0}
    indices = iter(range(count))
    lock = threading.Lock()

    def work() -> None:
        worker: _Worker | None = None
        with tempfile.NamedTemporaryFile() as log:
            while (index := _next(indices, lock)) is not None:
                if worker is None or worker.process.poll() is not None:
                    worker = _Worker(seed, log)
                answer = worker.run(index)
                with lock:
                    ends[answer.split()[0]] += 1
                    if answer.startswith("failed"):
                        failures.append(Failure(seed, index, answer.removeprefix("failed ")))
            if worker is not None:
                worker.close()

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(failures), ends


def _again(seed: int, index: int, keep: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        file, what, content, rng = make_case(corpus(Path(name)), seed, index)
        print(f"{file}, {len(content)} bytes: {what}", flush=True)
        if keep is not None:
            keep.write_bytes(content)
        print(check_case(Path(name) / file, content, rng))


def main() -> int:
    """Run the command; its status is 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000, help="cases to run")
    parser.add_argument("--seed", type=int, default=0, help="of the random damage")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--index", type=int, help="run this case alone, in this process")
    parser.add_argument("--keep", type=Path, help="with --index: where to write the damaged file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _work(arguments.seed)
        return 0
    if arguments.index is not None:
        _again(arguments.seed, arguments.index, arguments.keep)
        return 0
    start = time.monotonic()
    failures, ends = run(arguments.seed, arguments.count, arguments.jobs)
    with tempfile.TemporaryDirectory() as name:
        seeds = corpus(Path(name))
        for failure in failures:
            what = make_case(seeds, failure.seed, failure.index)[1]
            print(f"seed {failure.seed} index {failure.index}: {what}: {failure.what}")
    told = ", ".join(f"{n} {end}" for end, n in ends.items())
    print(f"{arguments.count} cases in {time.monotonic() - start:.0f} s: {told}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
