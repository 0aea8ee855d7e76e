"""How many threads numpy's arithmetic takes. onnxruntime is told by itself, numpy's library is not."""

from contextlib import AbstractContextManager


def arithmetic_threads(count: int) -> AbstractContextManager[object]:
    """Inside, numpy multiplies matrices on ``count`` threads.

    Left alone it takes every core, and waits for them in a loop: on a busy machine that is most of the
    time that it costs.
    """
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(count, user_api="blas")
    return limits
