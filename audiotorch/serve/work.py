"""The one thread that works, the queue before it, and the time that a request has."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from audiotorch.serve.refusal import Gone, Refused

__all__ = ["Deadline", "Worker"]

_T = TypeVar("_T")


class Deadline:
    """When a request's work ends, done or not; looked at between its steps.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._stopped = False

    def stop(self) -> None:
        """Let the work end at its next step: nobody waits for it."""
        self._stopped = True

    def check(self) -> None:
        """Go on only while there is time.

        Raises:
            Refused: it is over.
            Gone: nobody waits.
        """
        if self._stopped:
            raise Gone("nobody waits for the answer")
        if time.monotonic() > self._end:
            raise self.passed()

    def passed(self) -> Refused:
        """What is said when the time is over."""
        text = f"no answer within {self._seconds:g} s; send a shorter part, or try again later"
        return Refused(503, text, {"retry-after": "5"})


class Worker:
    """A thread that does one job after the other, outside the event loop.

    One thread: torch spreads its own work over the cores, and neither exported modules nor
    matplotlib promise anything to several.

    Args:
        most: jobs that may wait or be done at a time.
    """

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="audiotorch-serve")
        self._most = most
        self._n_jobs = 0
        self._lock = threading.Lock()

    def start(self, first: Callable[[], object]) -> None:
        """Start the thread, with something that nobody waits for.

        Args:
            first: what it does before all jobs.
        """
        self._pool.submit(first)

    def check(self) -> None:
        """Refuse more work than may wait.

        Raises:
            Refused: the queue is full.
        """
        if self._n_jobs >= self._most:
            text = f"{self._most} recordings are being worked on; try again in a few seconds"
            raise Refused(503, text, {"retry-after": "2"})

    async def run(
        self, job: Callable[[Deadline], _T], seconds: float, gone: Awaitable[object]
    ) -> _T:
        """Do a job in its turn.

        Args:
            job: is given its deadline, which it looks at between its steps.
            seconds: to wait and to work.
            gone: ends when the client goes away.

        Raises:
            Refused: the queue is full, or the time is over.
            Gone: the client went away.
        """
        self.check()
        deadline = Deadline(seconds)
        with self._lock:
            self._n_jobs += 1
        future = self._pool.submit(job, deadline)
        future.add_done_callback(self._count_down)
        answer = asyncio.wrap_future(future)
        leaving = asyncio.ensure_future(gone)
        both: set[asyncio.Future[Any]] = {answer, leaving}
        try:
            await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            raise Gone("the client went away") if leaving.done() else deadline.passed()
        finally:
            deadline.stop()
            answer.cancel()
            leaving.cancel()

    def _count_down(self, _: object) -> None:
        with self._lock:
            self._n_jobs -= 1

    def close(self) -> None:
        """End the thread; what waits is dropped."""
        self._pool.shutdown(cancel_futures=True)
