"""Transcribing many files: in this process, or in several that share the machine's cores."""

import os
import pickle
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, BinaryIO

import torch

from audiotorch.audio.chunks import n_cores
from audiotorch.batch.pieces import told
from audiotorch.errors import AudioTorchError, ParameterError
from audiotorch.transcribe.lines import Task
from audiotorch.transcribe.recording import Transcriber
from audiotorch.transcribe.result import Transcript

__all__ = ["outcomes", "sensible_workers", "serve"]

Outcome = Transcript | str
"""What is said in a file, or what is wrong with it."""

# Bytes of the published checkpoints, in 16-bit numbers.
_MEGABYTES = {"tiny": 75, "base": 145, "small": 484, "medium": 1528, "turbo": 1618, "large": 3087}
# Measured at most: 0.86 GB for tiny.en (75 MB) and 1.0 GB for base (145 MB), of which Python, torch
# and whisper are 0.7 GB. The weights are 32-bit numbers, beside the checkpoint while it is read.
_WORKER_BYTES, _PER_BYTE = 700 << 20, 3


# Bytes of audio in Whisper's 30 seconds: of 16 kHz, 16 bits, or of twice as long in MP3.
_WINDOW_BYTES = 1 << 20
# A process takes as long to start as 4 windows with tiny, or 2 with base; larger models take longer
# for one. Measured on two busy cores, two processes took 31 s and one 15 s for 4 short files with
# tiny.en, 40 and 36 s for 8, 43 and 66 s for 16; with base 35 and 36 s for 2, 31 and 47 s for 4.
_START_BYTES = 320 << 20


def sensible_workers(
    model: str | os.PathLike[str], device: str | None, files: Sequence[str]
) -> int:
    """As many processes as there are cores, files, and room for models in memory.

    Fewer for a few short files, which would be done before another process has started.

    Two processes of one thread each took 8.5 s where one of two threads took 12.0 s (tiny.en, 14
    recordings, two cores). A GPU is kept busy by one.

    Args:
        model: name or path.
        device: as torch names it; `None` = CUDA where there is some, else the CPU.
        files: to be transcribed, or done already.
    """
    if (device or "").startswith("cuda") or (device is None and torch.cuda.is_available()):
        return 1
    n_bytes = _model_bytes(os.fspath(model))
    room = _free_bytes() // (_WORKER_BYTES + _PER_BYTE * n_bytes)
    n_windows = sum(1 + Task.of(file).size // _WINDOW_BYTES for file in files)
    worth = n_windows // max(1, _START_BYTES // max(1, n_bytes))
    return max(1, min(n_cores(), len(files), room, worth))


def _model_bytes(model: str) -> int:
    with suppress(OSError, ValueError):
        return os.path.getsize(model)
    # Such as "tiny.en" or "large-v3"; what is not known is as large as the largest.
    sizes = [size for name, size in _MEGABYTES.items() if name in model]
    return min(sizes, default=_MEGABYTES["large"]) << 20


def _free_bytes() -> int:
    """Memory that can be had: of the machine, or what a container may take at all."""
    free = [1 << 60]
    with suppress(OSError, ValueError), open("/proc/meminfo") as lines:
        free += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")]
    # A container's limit is "max" where there is none, which is no number.
    with suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.max") as limit:
        free.append(int(limit.read()))
    return min(free)


def outcomes(
    files: Sequence[str], options: Mapping[str, Any], workers: int
) -> Generator[tuple[Task, Outcome], None, None]:
    """Transcribe files, and give what is found as it comes.

    Args:
        files: their names, in the order in which they are begun.
        options: of `Transcriber`, which each worker makes for itself.
        workers: processes; 1 works in this one.

    Raises:
        AudioTorchError: the model cannot be loaded; no file was touched.
    """
    if not files:
        return
    if workers == 1:
        transcriber = Transcriber(**options)
        for file in files:
            task = Task.of(file)
            yield task, _attempt(transcriber, file)
        return
    pool = _Pool(files, options, min(workers, len(files)))
    try:
        yield from pool.outcomes()
    finally:
        pool.stop()


def _attempt(transcriber: Transcriber, file: str) -> Outcome:
    try:
        return transcriber(file)
    except (AudioTorchError, OSError, MemoryError) as error:
        return told(file, error)
    except Exception as error:  # whatever it made of the model, the others are still to be done
        return f"{file}: {type(error).__name__} while it was transcribed: {error}"


class _Pool:
    """A thread for each worker, which gives it files and starts another when it dies."""

    def __init__(self, files: Sequence[str], options: Mapping[str, Any], n_workers: int) -> None:
        threads = max(1, n_cores() // n_workers)
        try:
            self._greeting = pickle.dumps((threads, dict(options)))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ParameterError(
                f"workers={n_workers}: the settings cannot be sent to other processes ({error}); "
                "use workers=1"
            ) from error
        self._threads = threads
        self._files = deque(files)
        self._found: SimpleQueue[tuple[Task, Outcome, list[Any]] | BaseException | None]
        self._found = SimpleQueue()
        self._stopping = Event()
        self._workers: list[_Worker] = []
        self._running = [Thread(target=self._run, daemon=True) for _ in range(n_workers)]

    def outcomes(self) -> Iterator[tuple[Task, Outcome]]:
        for thread in self._running:
            thread.start()
        errors: list[BaseException] = []
        n_ended = 0
        while n_ended < len(self._running):
            found = self._found.get()
            if isinstance(found, tuple):
                task, outcome, caught = found
                for warning in caught:
                    warnings.warn(warning, stacklevel=2)
                yield task, outcome
            else:
                n_ended += 1
                errors += [found] if found is not None else []
        if self._files:
            raise errors[0]

    def stop(self) -> None:
        """End the workers, whatever they are at."""
        self._stopping.set()
        for worker in list(self._workers):
            worker.kill()
        for thread in self._running:
            if thread.ident is not None:
                thread.join()

    def _run(self) -> None:
        worker: _Worker | None = None
        try:
            while self._files and not self._stopping.is_set():
                worker = worker or self._started()
                try:
                    task = Task.of(self._files.popleft())
                except IndexError:
                    break  # another thread took it
                try:
                    outcome, caught = worker.ask(task.file)
                except _Died as death:
                    worker.close()
                    self._workers.remove(worker)
                    worker = None
                    outcome, caught = f"{task.file}: {death}", []
                if not self._stopping.is_set():
                    self._found.put((task, outcome, caught))
            self._found.put(None)
        except BaseException as error:
            self._found.put(error)
        finally:
            if worker is not None:
                worker.close()

    def _started(self) -> "_Worker":
        worker = _Worker(self._greeting, self._threads)
        self._workers.append(worker)
        # Between the two, `stop` may have looked for workers.
        if self._stopping.is_set():
            worker.kill()
        try:
            refused = worker.receive()
        except _Died as death:
            worker.close()
            raise ParameterError(
                f"workers={len(self._running)}: the model cannot be loaded: {death}"
            ) from death
        if refused is not None:
            worker.close()
            raise refused
        return worker


# It takes seconds until a worker listens to its parent; this looks from the start whether there is
# one. On Windows a process keeps its parent's number, and is ended by the end of its stdin alone.
_WATCH = """
import os, threading, time
def watch():
    while os.getppid() == {parent}: time.sleep(0.1)
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
"""


class _Died(Exception):
    """A worker went away; the text says how."""


class _Worker:
    """A process of its own: what kills it, as lack of memory does, kills no job.

    Not by `multiprocessing`, which would run the caller's script again in each of them.
    """

    def __init__(self, greeting: bytes, threads: int) -> None:
        # It finds what this process finds, and asks no one before it does.
        code = f"{_WATCH.format(parent=os.getpid())}\nimport sys; sys.path[:] = {sys.path!r}\n"
        code += f"from {__name__} import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,  # Ctrl-C is for the parent, which then ends it
        )
        with suppress(OSError):
            self._send(greeting)

    def ask(self, file: str) -> tuple[Outcome, list[Any]]:
        """Have a file transcribed; also give what was warned of."""
        with suppress(OSError):  # it died: told when its answer is missing
            self._send(pickle.dumps(file))
        answer: tuple[Outcome, list[Any]] = self.receive()
        return answer

    def receive(self) -> Any:
        """Wait for an answer."""
        assert self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)
        except Exception as error:  # the answer is missing, half there, or no answer
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self.kill()
            status = self._process.wait()
            if status == -9:
                raise _Died(
                    "the process that transcribed was killed, as the system does when memory is "
                    "short; take fewer --workers, or a smaller model"
                ) from error
            raise _Died(f"the process that transcribed broke down (status {status})") from error

    def kill(self) -> None:
        """End it at once, whoever waits for it."""
        self._process.kill()

    def close(self) -> None:
        """End it, and let go of what led to it."""
        self.kill()
        with suppress(OSError):  # what was not sent is lost, too
            self._process.communicate()

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()


def serve() -> None:
    """Be a worker: read settings and then files from stdin, and answer on stdout.

    It goes away with its parent, however that ended: stdin ends then.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    questions = sys.stdin.buffer
    threads, options = pickle.load(questions)
    files: SimpleQueue[str] = SimpleQueue()
    Thread(target=_listen, args=(questions, files), daemon=True).start()
    torch.set_num_threads(threads)
    try:
        transcriber = Transcriber(**options)
    except Exception as error:
        _answer(answers, error if isinstance(error, AudioTorchError) else RuntimeError(str(error)))
        return
    _answer(answers, None)
    while True:
        file = files.get()
        with warnings.catch_warnings(record=True) as caught:
            outcome = _attempt(transcriber, file)
        ours = [found.message for found in caught if isinstance(found.message, AudioTorchError)]
        _answer(answers, (outcome, ours))


def _listen(questions: BinaryIO, files: "SimpleQueue[str]") -> None:
    while True:
        try:
            files.put(pickle.load(questions))
        except (EOFError, pickle.UnpicklingError, OSError):
            os._exit(1)  # the main thread may be in the middle of a recording


def _answer(answers: BinaryIO, answer: Any) -> None:
    answers.write(pickle.dumps(answer))
    answers.flush()
