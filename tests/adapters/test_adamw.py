import math

import pytest
import torch

from adapters.adamw import AdamW, Clock


def clock(count, *, total=100, warmup=10, rate=0.5):
    return Clock(*(torch.tensor(float(value)) for value in (rate, count, total, warmup)))


@pytest.mark.parametrize(
    ("count", "share"),
    [
        (1, 0.1),
        (5, 0.5),
        (10, 1.0),
        (55, 0.55),  # half way down to a tenth
        (32.5, 0.1 + 0.9 * (0.5 + math.sqrt(0.125))),  # a quarter of the way
        (100, 0.1),
        (130, 0.1),  # after the end it stays
    ],
)
def test_the_rate_rises_in_a_line_and_falls_in_a_cosine(count, share):
    assert clock(count).rate_now().item() == pytest.approx(0.5 * share, rel=1e-5)


def test_without_warm_up_the_first_step_is_at_the_peak():
    assert clock(1, total=1e6, warmup=0).rate_now().item() == pytest.approx(0.5, rel=1e-5)


def test_a_training_of_warm_up_alone_never_divides_by_zero():
    assert clock(3, total=3, warmup=3).rate_now().item() == pytest.approx(0.5)


@pytest.mark.parametrize("size", [0.01, 100.0])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_twenty_steps_are_torch_s(size, decay):
    """torch's AdamW, clip_grad_norm_ and LambdaLR, on gradients below and above the clip."""
    generator = torch.Generator().manual_seed(0)
    ours = {"matrix": torch.randn(5, 7, generator=generator), "gate": torch.randn(3)}
    theirs = {name: weight.clone().requires_grad_() for name, weight in ours.items()}
    adamw = AdamW(betas=(0.9, 0.98), decay=decay, clip=1.0, undecayed=frozenset({"gate"}))
    groups = [
        {"params": [theirs["matrix"]], "weight_decay": decay},
        {"params": [theirs["gate"]], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.5, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: clock(done + 1, total=20, warmup=4, rate=1.0).rate_now().item()
    )
    moments = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in ours.items()}
    for count in range(1, 21):
        gradients = {
            name: size * torch.randn(w.shape, generator=generator) for name, w in ours.items()
        }
        for name, weight in theirs.items():
            weight.grad = gradients[name].clone()
        norm = torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        optimizer.step()
        schedule.step()
        assert adamw.norm(gradients).item() == pytest.approx(norm.item(), rel=1e-5)
        moved = adamw.step(
            ours, gradients, moments, adamw.norm(gradients), clock(count, total=20, warmup=4)
        )
        ours = {name: step.weight for name, step in moved.items()}
        moments = {name: (step.first, step.second) for name, step in moved.items()}
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name].detach(), rtol=1e-4, atol=1e-5)


def test_a_weight_without_a_gradient_stays():
    weights = {"still": torch.ones(2), "gate": torch.ones(1)}
    adamw = AdamW(betas=(0.9, 0.98), decay=0.0, clip=1.0, undecayed=frozenset())
    zeros = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    moments = {name: (zero, zero) for name, zero in zeros.items()}
    moved = adamw.step(weights, zeros, moments, adamw.norm(zeros), clock(1))
    assert all(torch.equal(moved[name].weight, weight) for name, weight in weights.items())
