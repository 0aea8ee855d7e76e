import numpy as np
from threadpoolctl import threadpool_info

from device_agent.arithmetic import arithmetic_threads


def threads_of_numpy():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_numpy_multiplies_on_as_many_threads_as_it_is_told():
    np.ones((2, 2)) @ np.ones((2, 2))
    before = threads_of_numpy()
    with arithmetic_threads(1):
        assert threads_of_numpy() <= {1}
    assert threads_of_numpy() == before
