"""Options of a training step: measuring, several D steps, balance, R1, augmentation, schedules; and its cost."""

import copy
import math
from typing import Any

import pytest
import torch
from textbook import ALL_TERMS, NETWORK_OPTIONS, UNTOUCHED_D, WrittenOut, assert_close, network_grads
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from trials import tiny

from vaegan_core.config.training import OptimizerConfig
from vaegan_core.data.frames import FrameManifest, FrameSet, Source
from vaegan_core.losses.functional import gaussian_kl_divergence
from vaegan_core.losses.terms import REAL
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.metrics.layouts import Layouts
from vaegan_core.problems import ConfigError
from vaegan_core.training.trainer import UPDATES, Trainer, lr_factor


@pytest.mark.parametrize("changes", [{}, {"loss__pixel__weight": 0.0, "loss__discriminator": {"augment": "all"}}])
@pytest.mark.parametrize("update", UPDATES)
def test_measuring_gradients_changes_nothing(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str, changes: Any
) -> None:
    def weights(log_every: int) -> list[torch.Tensor]:
        config = tiny(**(ALL_TERMS | changes), train__update=update, train__log_every=log_every)
        trainer = Trainer(config, frame_set, frame_features)
        trainer.run(lambda _: None)
        return [*trainer.autoencoder.parameters(), *trainer.discriminator.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(weights(1), weights(4), strict=True))


@pytest.mark.parametrize("update", UPDATES)
def test_gradient_norms_are_those_of_each_weighted_term(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str
) -> None:
    config = tiny(**(ALL_TERMS | UNTOUCHED_D), train__update=update, train__log_every=1)
    trainer = Trainer(config, frame_set, frame_features)
    for name in ("encoder", "decoder"):  # the later steps of per_term see moved weights otherwise
        trainer._learning_rates[list(trainer.update.networks).index(name)] = 0.0
    textbook = WrittenOut(trainer)
    trainer.train_step()
    values = trainer.curves.pending[0]
    _, x_recon, _, _ = textbook.code()
    pixel = 2 * (x_recon - textbook.draw.x) / x_recon.numel() / trainer.variance
    assert float(values["gradient/decoder/pixel"]) == pytest.approx(pixel.norm().item(), rel=1e-4)
    posterior = textbook.networks["encoder"](textbook.draw.x)
    term = textbook.control.term(gaussian_kl_divergence(posterior), 0)
    kl = torch.autograd.grad(term, [posterior.mean, posterior.logvar])
    norm = math.hypot(*(each.norm().item() for each in kl))
    assert float(values["gradient/encoder/kl"]) == pytest.approx(norm, rel=1e-4)
    reaching = {name.removeprefix("gradient/encoder/") for name in values if name.startswith("gradient/encoder/")}
    assert reaching == {"feature_recon", "pixel", "kl"}, "the generator's stops at the decoder, prior samples have none"


@pytest.mark.parametrize(("update", "terms"), [("joint", 1), ("per_term", 3), ("per_term_stale", 3)])
def test_several_discriminator_steps_use_a_batch_each(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str, terms: int
) -> None:
    trainer = Trainer(tiny(train__discriminator_steps=3, train__update=update), frame_set, frame_features)
    asked, judged = [], []
    draw, judge = trainer._draw, trainer.update.judge
    trainer._draw = lambda index: asked.append(index) or draw(index)
    trainer.update.judge = lambda images, *more: judged.append(images.get(REAL)) or judge(images, *more)
    trainer.train_step()
    trainer.train_step()
    assert asked == [0, 1, 2, 3, 4, 5]
    real = [images for images in judged if images is not None]
    assert all(any(torch.equal(trainer.batches[index], images) for images in real) for index in asked)
    steps = {name: int(next(iter(o.state.values()))["step"]) for name, o in trainer.update.optimizers.items()}
    assert steps["discriminator"] == 6 * terms
    assert update != "joint" or steps == {"encoder": 2, "decoder": 2, "discriminator": 6}


@pytest.mark.parametrize("update", ["joint", "simultaneous"])
@pytest.mark.parametrize(
    ("equilibrium", "margin", "resting"),
    [(50.0, 1.0, "discriminator"), (0.001, 0.0005, "decoder"), (0.69, 0.5, None), (0.7, 0.0, "neither, both would")],
)
def test_balanced_updates_rest_one_side(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str, equilibrium: float, margin: float, resting: Any
) -> None:
    """An untrained D's losses are about log 2 = 0.69 on real and on fake images, one above and one below."""
    balance = {"equilibrium": equilibrium, "margin": margin}
    trainer = Trainer(tiny(train__balance=balance, train__update=update), frame_set, frame_features)
    with torch.no_grad():
        trainer.discriminator.classifier[-1].bias.add_(0.1)
    before = {name: copy.deepcopy(network.state_dict()) for name, network in trainer.update.networks.items()}
    trainer.train_step()
    for name, network in trainer.update.networks.items():
        unchanged = all(torch.equal(p, before[name][key]) for key, p in network.named_parameters())
        assert unchanged == (name == resting), name


def test_the_r1_penalty_is_paid_every_so_often_and_weighted_for_it(
    frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    def gradient(r1: float, step: int) -> dict[str, torch.Tensor]:
        config = tiny(loss__discriminator={"r1": r1, "r1_every": 4}, **UNTOUCHED_D)
        trainer = Trainer(config, frame_set, frame_features)
        trainer.step = step
        trainer.train_step()
        return {name: grad for name, grad in network_grads(trainer).items() if name.startswith("discriminator")}

    trainer = Trainer(tiny(), frame_set, frame_features)
    x = trainer.batches[4].requires_grad_()
    parameters = {f"discriminator.{name}": p for name, p in trainer.discriminator.named_parameters()}
    (image_gradient,) = torch.autograd.grad(trainer.discriminator(x)[0].sum(), x, create_graph=True)
    penalty = 4 * 3.0 / 2 * image_gradient.square().sum(dim=(1, 2, 3)).mean()
    expected = torch.autograd.grad(penalty, list(parameters.values()), allow_unused=True)
    with_r1, without = gradient(3.0, 4), gradient(0.0, 4)
    for (name, _), of_penalty in zip(parameters.items(), expected, strict=True):
        if of_penalty is not None:
            assert (with_r1[name] - without[name] - of_penalty).norm() <= 1e-3 * of_penalty.norm() + 1e-7, name
    not_due, never = gradient(3.0, 5), gradient(0.0, 5)
    assert all(torch.equal(not_due[name], never[name]) for name in never)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("adversarial", ["bce", "relativistic"])
def test_r2_is_the_penalty_on_fake_images_by_their_weights(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str, adversarial: Any
) -> None:
    """gamma/2 |grad D|^2 with 3/4 of it on reconstructions and 1/4 on prior samples, times `r1_every`."""
    weights = {"real": 0.0, "recon": 0.6, "prior": 0.2, "r2": 3.0, "r1_every": 4}
    config = tiny(loss__discriminator=weights, loss__adversarial=adversarial, train__update=update, train__log_every=1)
    trainer = Trainer(config, frame_set, frame_features)
    textbook = WrittenOut(trainer)
    _, x_recon, _, x_prior = textbook.code()
    expected = 0.0
    for share, images in ((0.75, x_recon), (0.25, x_prior)):
        x = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(textbook.networks["discriminator"](x)[0].sum(), x)
        expected += share * 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean().item()
    trainer.train_step()
    trainer.train_step()
    due, not_due = trainer.curves.pending
    assert float(due["train/r2"]) == pytest.approx(expected, rel=1e-4)
    assert "train/r1" not in due
    assert "train/r2" not in not_due
    steps = max(int(state["step"]) for state in trainer.update.optimizers["discriminator"].state.values())
    assert steps == {"per_term": 5, "per_term_stale": 5}.get(update, 2)


@pytest.mark.parametrize("adversarial", ["bce", "relativistic"])
def test_the_gradient_of_both_penalties_reaches_the_discriminator(
    frame_set: FrameSet, frame_features: FrameFeatures, adversarial: Any
) -> None:
    config = tiny(loss__discriminator={"r1": 2.0, "r2": 3.0, "r1_every": 4}, loss__adversarial=adversarial)
    trainer = Trainer(config, frame_set, frame_features)
    textbook = WrittenOut(trainer)
    expected = textbook.grads(textbook.discriminator_loss(), "discriminator")
    trainer.train_step()
    found = network_grads(trainer)
    assert_close({name: grad for name, grad in found.items() if name.startswith("discriminator")}, expected)


def test_the_penalty_of_two_heads_is_of_their_weighted_sum(frame_set: FrameSet, frame_features: FrameFeatures) -> None:
    trainer = Trainer(tiny(loss__discriminator={"r1": 1.0}, **NETWORK_OPTIONS), frame_set, frame_features)
    x = trainer.batches[0].requires_grad_()
    logits = trainer.discriminator(x)[0]
    output = 0.6 * logits[:, 0] + 0.8 * logits[:, 1:].mean(dim=1)
    (gradient,) = torch.autograd.grad(output.sum(), x)
    expected = 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()
    found = trainer.update.penalties({"real": trainer.batches[0]}, 0)
    assert [value.item() for value in found.values()] == [pytest.approx(expected.item(), rel=1e-5)]


@pytest.mark.parametrize("adversarial", ["bce", "relativistic"])
@pytest.mark.parametrize("networks", [{}, NETWORK_OPTIONS])
def test_simultaneous_pays_the_penalties_too(
    frame_set: FrameSet, frame_features: FrameFeatures, networks: dict[str, Any], adversarial: str
) -> None:
    def gradient(update: str) -> dict[str, torch.Tensor]:
        own = {"loss__discriminator": {"r1": 3.0, "r2": 2.0}, "loss__feature__recon": 0.0, **networks}
        config = tiny(**own, loss__adversarial=adversarial, train__update=update, **UNTOUCHED_D)
        trainer = Trainer(config, frame_set, frame_features)
        trainer.train_step()
        return network_grads(trainer)

    assert_close(gradient("simultaneous"), gradient("joint"))


@pytest.mark.parametrize("policy", ["color", "translation", "all"])
def test_augmentation_reaches_d_and_passes_gradients(
    frame_set: FrameSet, frame_features: FrameFeatures, policy: Any
) -> None:
    config = tiny(loss__discriminator__augment=policy)
    trainer, plain = (Trainer(each, frame_set, frame_features) for each in (config, tiny()))
    for each in (trainer, plain):
        each.train_step()
    assert trainer.curves.pending[0]["train/discriminator_real"] != plain.curves.pending[0]["train/discriminator_real"]
    assert all(grad.isfinite().all() for grad in network_grads(trainer).values())


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ({}, {0: 1.0, 50: 1.0, 99: 1.0}),
        ({"warmup": 0.1}, {0: 0.1, 4: 0.5, 9: 1.0, 99: 1.0}),
        ({"decay": "linear"}, {0: 1.0, 50: 0.5, 75: 0.25}),
        ({"decay": "cosine"}, {0: 1.0, 50: 0.5, 75: 0.5 * (1 + math.cos(0.75 * math.pi))}),
        ({"warmup": 0.1, "decay": "linear"}, {4: 0.5 * 0.96, 50: 0.5}),
    ],
)
def test_the_learning_rate_follows_its_schedule(
    frame_set: FrameSet, frame_features: FrameFeatures, optimizer: Any, expected: Any
) -> None:
    config = OptimizerConfig(**optimizer)
    assert {step: lr_factor(config, step, 100) for step in expected} == pytest.approx(expected)
    trainer = Trainer(tiny(optimizer__warmup=0.5, optimizer__discriminator__lr_ratio=2.0), frame_set, frame_features)
    trainer.train_step()
    rates = {name: each.param_groups[0]["lr"] for name, each in trainer.update.optimizers.items()}
    assert rates == pytest.approx({"encoder": 1e-3 / 6, "decoder": 1e-3 / 6, "discriminator": 2e-3 / 6})


def test_weight_decay_is_decoupled_from_the_gradient(frame_set: FrameSet, frame_features: FrameFeatures) -> None:
    """Weight decay shrinks weights by lr * decay per step, beside the gradient's step."""
    config = tiny(optimizer__autoencoder={"lr": 1e-3, "weight_decay": 0.5})
    decayed, plain = (Trainer(each, frame_set, frame_features) for each in (config, tiny()))
    start = [p.detach().clone() for p in plain.autoencoder.parameters()]
    for each in (decayed, plain):
        each.train_step()
    for a, b, before in zip(decayed.autoencoder.parameters(), plain.autoencoder.parameters(), start, strict=True):
        assert torch.allclose(b - a, 1e-3 * 0.5 * before, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"train__update": "simultaneous", "train__discriminator_steps": 2}, "discriminator_steps"),
        ({"train__update": "per_term", "train__balance": {"equilibrium": 0.7, "margin": 0.3}}, "balance"),
        ({"loss__discriminator__r1": 1.0, "model__discriminator__norm": "batch"}, "r1"),
        ({"loss__discriminator__r1": 1.0, "model__discriminator__feature_norm": "batch"}, "r1"),
        ({"loss__discriminator__r2": 1.0, "model__discriminator__norm": "batch"}, "set r2 to 0"),
        ({"loss__discriminator": {"r2": 1.0, "recon": 0.0, "prior": 0.0}}, "averaged over fake images"),
        ({"loss__adversarial": "relativistic", "train__balance": {"equilibrium": 0.7, "margin": 0.3}}, "balance"),
        ({"model__encoder__deterministic": True}, "estimator"),
        ({"loss__generator__weighting": "adaptive", "train__update": "per_term"}, "weighting"),
        (
            {"loss__generator__weighting": "adaptive", "loss__pixel__weight": 0.0, "loss__feature__recon": 0.0},
            "weighting",
        ),
        ({"model__discriminator__feature_layer": 3}, "feature_layer"),
        ({"loss__kl": {"control": "fixed", "beta": 1.0, "momentum": 0.5}}, "momentum"),
        ({"loss__kl": {"control": "fixed", "beta": 1.0, "estimator": "full_batch", "free_bits": 0.5}}, "free_bits"),
        (
            {
                "loss__kl": {"control": "fixed", "beta": 1.0, "estimator": "full_batch"},
                "model__encoder__deterministic": True,
            },
            "batch_size > model.latent_dim",
        ),
        ({"loss__kl": {"control": "optimal"}}, "loss.pixel.kind log_mse"),
        ({"loss__kl": {"control": "optimal"}, "loss__pixel": {"kind": "log_mse"}}, "loss.pixel.weight > 0"),
        ({"loss__kl": {"control": "optimal", "per_dimension": True}}, "per_dimension"),
        ({"loss__heads__patch": 1.0}, "patch_head: true"),
        ({"model__discriminator__patch_head": True}, "patch_head to false"),
        ({"loss__heads__whole": 0.0}, "whole or patch"),
    ],
)
def test_what_cannot_go_together_is_refused_with_the_key(changes: Any, key: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        tiny(**changes)


# --- Cost -------------------------------------------------------------------------------------------------------------


def step_gflops_per_image(width: int = 64, **changes: Any) -> float:
    """FLOPs of one step at the seed's size, or with less width, counted by torch (multiply-add = 2), not computed."""
    import numpy as np

    frames = np.zeros((4, 65, 121, 3), np.uint8)
    sources = (Source(name="a", split="train", start=0, count=2), Source(name="b", split="test", start=2, count=2))
    frame_set = FrameSet(frames, FrameManifest(height=65, width=121, sources=sources, made_by={}, sha256="0"))
    features = FrameFeatures.__new__(FrameFeatures)
    object.__setattr__(features, "baselines", {"train_variance": 1.0})
    object.__setattr__(features, "space", None)
    object.__setattr__(features, "layouts", Layouts.__new__(Layouts))
    size = {"model__latent_dim": 16 * width, "model__width": width, "model__depth": 3}
    config = tiny(**size, train__batch_size=2, train__threads=2, train__log_every=12, **changes)
    trainer = Trainer(config, frame_set, features)
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        trainer.train_step()
    return counter.get_total_flops() / 2 / 1e9


PATCHES = {"model__discriminator__patch_head": True, "loss__heads__patch": 1.0}


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"loss__feature__prior": 1.0, "loss__generator__gradient": "autoencoder"}, 41.1),
        ({"loss__feature__prior": 1.0, "loss__generator__gradient": "decoder"}, 45.1),
        ({"train__update": "simultaneous", "loss__generator__gradient": "autoencoder"}, 34.5),
        ({"train__update": "per_term", "loss__feature__prior": 1.0, "loss__pixel__weight": 0.0}, 69.8),
        ({"train__update": "per_term", "loss__adversarial": "relativistic"}, 77.1),
        (PATCHES, 45.1),
        (PATCHES | {"train__update": "simultaneous"}, 39.6),
        (PATCHES | {"train__update": "simultaneous", "loss__adversarial": "relativistic"}, 39.6),
    ],
)
def test_a_step_does_each_thing_once(changes: Any, most: Any) -> None:
    """The seed author's code needs 67.3 GF an image: it lets two terms share some passes, where
    per_term makes fresh ones for each."""
    assert step_gflops_per_image(**changes) <= most


@pytest.mark.parametrize("update", ["joint", "simultaneous", "per_term_stale"])
def test_pairs_cost_nothing_where_the_discriminator_sees_the_frames_anyhow(update: str) -> None:
    alone, pairs = (
        step_gflops_per_image(8, loss__adversarial=name, train__update=update) for name in ("bce", "relativistic")
    )
    assert pairs <= alone


def test_a_step_before_the_gan_starts_costs_less_than_half() -> None:
    assert step_gflops_per_image(8, loss__start=0.5) <= 0.4 * step_gflops_per_image(8)
