"""Keeps numpy's arithmetic on one thread; onnxruntime, which does most of it, has its own."""

from contextlib import AbstractContextManager


def one_thread() -> AbstractContextManager[object]:
    """Inside, numpy multiplies matrices on the thread that asks.

    Left alone it takes every core, and its threads wait for one another in a loop: where something
    else runs as well, that cost up to ten times the work itself.
    """
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits
