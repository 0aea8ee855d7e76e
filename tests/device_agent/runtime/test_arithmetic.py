import numpy as np
from threadpoolctl import threadpool_info

from device_agent.runtime.arithmetic import one_thread


def threads_of_numpy():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_numpy_multiplies_on_one_thread_for_a_while():
    np.ones((2, 2)) @ np.ones((2, 2))
    before = threads_of_numpy()
    with one_thread():
        assert threads_of_numpy() <= {1}
    assert threads_of_numpy() == before
