"""Where training begins, and how it is held there."""

import numpy as np
import pytest
import torch

from adapters.adamw import Clock
from device_agent.training.start import Start, rate_at


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.05), (20, 1.0), (40, 4.0), (7, 0.0)])
def test_the_rate_is_the_compiled_steps_own(total, warmup):
    for count in range(1, total + 1):
        numbers = [torch.tensor(float(x)) for x in (2e-3, count, total, warmup)]
        assert rate_at(count, 2e-3, total, warmup) == pytest.approx(
            float(Clock(*numbers).rate_now()), rel=1e-5
        )


def test_a_pull_minimises_the_proximal_term():
    rng = np.random.default_rng(0)
    begun, now = (rng.normal(size=(3, 4)).astype(np.float32) for _ in range(2))
    moved = {"w": now.copy()}
    Start({"w": begun}, rival=False, proximal=2.0).pull(moved, rate=0.25)
    found = torch.tensor(now, dtype=torch.float64, requires_grad=True)
    # argmin of |w - now|^2 / (2 rate) + mu/2 |w - begun|^2, by Newton: the term is quadratic.
    loss = ((found - torch.tensor(now)) ** 2).sum() / 0.5 + (
        (found - torch.tensor(begun)) ** 2
    ).sum()
    (gradient,) = torch.autograd.grad(loss, found)
    best = now - gradient.numpy() / (2 / 0.5 + 2)
    np.testing.assert_allclose(moved["w"], best, rtol=1e-5)
