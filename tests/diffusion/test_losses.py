import math

import torch

from armchair.diffusion.losses import bound_term, hybrid_loss, prior_term, simple_loss
from armchair.diffusion.process import Prediction, add_noise, posterior
from armchair.diffusion.schedules import cosine_schedule

SCHEDULE = cosine_schedule(20)
GENERATOR = torch.Generator().manual_seed(0)
X_0 = torch.randint(0, 256, (4, 3, 4, 4), generator=GENERATOR) / 127.5 - 1
NOISE = torch.randn(4, 3, 4, 4, generator=GENERATOR)


def test_the_simple_loss_is_a_mean_for_each_example() -> None:
    torch.testing.assert_close(simple_loss(X_0, NOISE), ((X_0 - NOISE) ** 2).mean(dim=(1, 2, 3)))


def test_a_right_prediction_with_the_posteriors_variance_costs_nothing() -> None:
    t = torch.tensor([1, 5, 10, 19])
    x_t = add_noise(SCHEDULE, X_0, t, NOISE)
    cost = bound_term(SCHEDULE, X_0, x_t, t, Prediction(X_0, torch.zeros_like(X_0)))
    torch.testing.assert_close(cost, torch.zeros(4), atol=1e-6, rtol=0)


def test_the_divergence_in_closed_form() -> None:
    """KL of two normals, the predicted one with a mean off by d and the larger variance."""
    t = torch.tensor([7])
    x_0, x_t = X_0[:1], add_noise(SCHEDULE, X_0[:1], t, NOISE[:1])
    cost = bound_term(SCHEDULE, x_0, x_t, t, Prediction(x_0 + 0.1, torch.ones_like(x_0)))
    a_t, a_s = SCHEDULE.alpha_bar[7].item(), SCHEDULE.alpha_bar[6].item()
    weights, beta = posterior(a_t, a_s), 1 - a_t / a_s
    d = weights.x_0_weight * 0.1
    nats = 0.5 * (math.log(beta / weights.variance) + (weights.variance + d**2) / beta - 1)
    torch.testing.assert_close(cost, torch.tensor([nats / math.log(2)]), rtol=1e-4, atol=1e-6)


def test_the_first_timestep_is_a_likelihood_over_levels() -> None:
    """The mass of all 256 levels adds up to 1."""
    levels = torch.arange(256) / 127.5 - 1
    x_0 = levels.view(256, 1, 1, 1)
    t = torch.zeros(256, dtype=torch.int64)
    prediction = Prediction(torch.full_like(x_0, 0.3), torch.full_like(x_0, 0.5))
    bits = bound_term(SCHEDULE, x_0, torch.zeros_like(x_0), t, prediction)
    torch.testing.assert_close(torch.exp2(-bits.double()).sum().item(), 1.0, rtol=1e-5, atol=0)


def test_the_bound_moves_the_variance_alone() -> None:
    """The mean inside the bound passes no gradient (section 3.1 of improved DDPM)."""
    t = torch.tensor([0, 3, 10, 19])
    output = torch.randn(4, 6, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    simple, bound = hybrid_loss(SCHEDULE, X_0, t, NOISE, output, "noise")
    assert simple.shape == bound.shape == (4,)
    (gradient,) = torch.autograd.grad(bound.sum(), output, retain_graph=True)
    assert not gradient[:, :3].any()
    assert bool(gradient[:, 3:].any())
    (gradient,) = torch.autograd.grad(simple.sum(), output)
    assert not gradient[:, 3:].any()
    torch.testing.assert_close(simple, simple_loss(output[:, :3], NOISE))


def test_the_weight_of_the_bound() -> None:
    """0.001 of the sum over T timesteps."""
    t = torch.tensor([2, 3, 10, 19])
    output = torch.cat([NOISE, torch.zeros_like(NOISE)], dim=1)
    _, bound = hybrid_loss(SCHEDULE, X_0, t, NOISE, output, "noise")
    x_t = add_noise(SCHEDULE, X_0, t, NOISE)
    bits = bound_term(SCHEDULE, X_0, x_t, t, Prediction(X_0, torch.full_like(X_0, 0.5)))
    torch.testing.assert_close(bound, 0.001 * 20 * bits, rtol=1e-3, atol=1e-6)


def test_what_is_left_of_the_picture_at_the_end() -> None:
    a = SCHEDULE.alpha_bar[-1].item()
    x_0 = torch.full((1, 3, 2, 2), 0.5)
    nats = 0.5 * (a * 0.25 + (1 - a) - 1 - math.log(1 - a))
    torch.testing.assert_close(
        prior_term(SCHEDULE, x_0), torch.tensor([nats / math.log(2)]), rtol=1e-4, atol=1e-9
    )
