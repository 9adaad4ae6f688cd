"""How many cores a computation uses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

__all__ = ["threads", "use_one_thread"]


def use_one_thread() -> None:
    """Keep torch and the BLAS libraries of numpy and scipy to one thread, from now on."""
    threadpool_limits(1, user_api="blas")
    torch.set_num_threads(1)


@contextmanager
def threads(n_threads: int) -> Iterator[None]:
    """Let torch use so many threads, and BLAS one.

    Args:
        n_threads: threads.
    """
    before = torch.get_num_threads()
    with threadpool_limits(1, user_api="blas"):
        torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
