"""Update schemes: every gradient against the losses written out, every scheme against a plain loop of its own."""

import copy
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from trials import tiny

from vaegan_core.config import OptimizerConfig
from vaegan_core.data.frames import FrameManifest, FrameSet, Source
from vaegan_core.losses.functional import feature_matching_loss, feature_scale, gaussian_kl_divergence, pixel_loss
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.model.networks import Posterior
from vaegan_core.problems import ConfigError
from vaegan_core.training.trainer import UPDATES, Trainer, lr_factor
from vaegan_core.training.update import Draw

ALL_TERMS = {
    "loss__generator": {"recon": 0.7, "prior": 0.3},
    "loss__feature": {"recon": 0.9, "prior": 0.2},
    "loss__discriminator": {"real": 1.0, "recon": 0.4, "prior": 0.8},
    "loss__kl": {"control": "fixed", "sigma": 0.3},
}
UNTOUCHED_D = {"optimizer__discriminator": {"lr_ratio": 1e-30}}
"""Joint updates the autoencoder after D; with D standing still both schemes see the same weights."""


def network_grads(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {
        f"{network}.{name}": parameter.grad
        for network, module in trainer.update.networks.items()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


class WrittenOut:
    """The losses of one step as a textbook has them, on copies of a trainer's networks and its next batch."""

    def __init__(self, trainer: Trainer) -> None:
        self.loss = trainer.config.loss
        self.adversarial, self.variance = trainer.update.terms.adversarial, trainer.variance
        self.control = trainer.kl.control
        self.networks = {name: copy.deepcopy(network) for name, network in trainer.update.networks.items()}
        state = trainer.generator.get_state()
        self.draw = trainer._draw(trainer.step)
        trainer.generator.set_state(state)

    def code(self) -> tuple[Posterior, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Posterior, reconstruction whose gradient reaches both networks, the decoder only, and prior samples."""
        posterior = self.networks["encoder"](self.draw.x)
        z = posterior.sample(self.draw.noise)
        decoder = self.networks["decoder"]
        if any(isinstance(module, torch.nn.BatchNorm2d) for module in decoder.modules()):
            to_both, _ = decoder(torch.cat([z, self.draw.z_prior])).chunk(2)
            to_decoder, x_prior = decoder(torch.cat([z.detach(), self.draw.z_prior])).chunk(2)
        else:
            to_both, to_decoder, x_prior = decoder(z), decoder(z.detach()), decoder(self.draw.z_prior)
        return posterior, to_both, to_decoder, x_prior

    def discriminator_loss(self) -> torch.Tensor:
        discriminator, weights = self.networks["discriminator"], self.loss.discriminator
        _, x_recon, _, x_prior = self.code()
        return (
            weights.real * self.adversarial.real(discriminator(self.draw.x)[0])
            + weights.recon * self.adversarial.fake(discriminator(x_recon.detach())[0])
            + weights.prior * self.adversarial.fake(discriminator(x_prior.detach())[0])
        )

    def autoencoder_parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The generator's terms, and all others."""
        discriminator, loss = self.networks["discriminator"], self.loss
        posterior, to_both, to_decoder, x_prior = self.code()
        for_generator = to_decoder if loss.generator.gradient == "decoder" else to_both
        for_feature = to_decoder if loss.feature.gradient == "decoder" else to_both
        real = discriminator(self.draw.x)[1].detach()
        scale = feature_scale(real, loss.feature.scale_free)
        generator = loss.generator.recon * self.adversarial.generator(discriminator(for_generator)[0])
        generator = generator + loss.generator.prior * self.adversarial.generator(discriminator(x_prior)[0])
        others = (
            loss.feature.recon * feature_matching_loss(discriminator(for_feature)[1], real, scale)
            + loss.feature.prior * feature_matching_loss(discriminator(x_prior)[1], real, scale)
            + loss.pixel.weight * pixel_loss(to_both, self.draw.x, loss.pixel.kind, self.variance)
            + self.control.term(gaussian_kl_divergence(posterior), 0)
        )
        return generator, others

    def grads(self, loss: torch.Tensor, *names: str) -> dict[str, torch.Tensor]:
        named = {f"{name}.{key}": p for name in names for key, p in self.networks[name].named_parameters()}
        found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        return {key: grad for key, grad in zip(named, found, strict=True) if grad is not None}


def one_step_moves_like_adam(trainer: Trainer, start: dict[str, torch.Tensor]) -> None:
    """The first Adam step is lr * g / (|g| + eps), whatever the memory layout of g."""
    for network, module in trainer.update.networks.items():
        lr = trainer.update.optimizers[network].param_groups[0]["lr"]
        for name, parameter in module.named_parameters():
            grad = parameter.grad
            expected = start[f"{network}.{name}"] - lr * grad / (grad.abs() + 1e-8)
            assert torch.allclose(parameter, expected, atol=1e-3 * lr), name


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], rel: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= rel * gradient.norm() + 1e-9, name


NETWORKS = {
    "plain": {},
    "batch norm everywhere": {
        "model__encoder__norm": "batch",
        "model__decoder__norm": "batch",
        "model__discriminator": {"norm": "batch"},
    },
    "an inner feature map behind a norm": {
        "model__discriminator": {"feature_layer": 1, "feature_norm": "layer", "feature_activation": "leaky_relu"}
    },
}


@pytest.mark.parametrize("update", ["joint", "simultaneous"])
@pytest.mark.parametrize("networks", NETWORKS)
@pytest.mark.parametrize("adversarial", ["bce", "hinge", "lsgan"])
@pytest.mark.parametrize(
    ("generator", "feature", "feature_prior"),
    [
        ("decoder", "decoder", 0.2),
        ("decoder", "autoencoder", 0.0),
        ("autoencoder", "decoder", 0.2),
        ("autoencoder", "autoencoder", 0.0),
        ("autoencoder", "autoencoder", 0.2),
    ],
)
def test_gradients_are_those_of_the_losses_written_out(
    frame_set, frame_features, update, networks, adversarial, generator, feature, feature_prior
) -> None:
    changes = ALL_TERMS | NETWORKS[networks] | UNTOUCHED_D
    changes |= {"loss__generator": {"recon": 0.7, "prior": 0.3, "gradient": generator}}
    changes |= {"loss__feature": {"recon": 0.9, "prior": feature_prior, "gradient": feature}}
    config = tiny(**changes, loss__adversarial=adversarial, train__update=update)
    trainer = Trainer(config, frame_set, frame_features)
    textbook = WrittenOut(trainer)
    expected = textbook.grads(textbook.discriminator_loss(), "discriminator")
    expected |= textbook.grads(sum(textbook.autoencoder_parts()), "encoder", "decoder")
    trainer.train_step()
    assert_close(network_grads(trainer), expected)


@pytest.mark.parametrize("update", ["joint", "simultaneous"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_step_taken_is_adams(frame_set, frame_features, update, channels_last) -> None:
    config = tiny(loss__feature__recon=0.0, train__update=update, train__channels_last=channels_last)
    trainer = Trainer(config, frame_set, frame_features)
    named = {f"{n}.{key}": p for n, network in trainer.update.networks.items() for key, p in network.named_parameters()}
    start = {name: parameter.detach().clone() for name, parameter in named.items()}
    trainer.train_step()
    one_step_moves_like_adam(trainer, start)


@pytest.mark.parametrize("bias", [-5.0, -200.0, 200.0])
@pytest.mark.parametrize("adversarial", ["bce", "hinge"])
def test_a_saturated_discriminator_does_not_spoil_the_gradient_it_shares(
    frame_set, frame_features, bias, adversarial
) -> None:
    """Where D's own derivative is zero, the generator's cannot be had by rescaling it; it must be right anyhow."""
    config = tiny(
        loss__adversarial=adversarial,
        loss__feature={"recon": 0.0, "prior": 0.0},
        train__update="simultaneous",
        **UNTOUCHED_D,
    )
    trainer = Trainer(config, frame_set, frame_features)
    with torch.no_grad():
        trainer.discriminator.classifier[-1].bias.fill_(bias)
    textbook = WrittenOut(trainer)
    expected = textbook.grads(textbook.discriminator_loss(), "discriminator")
    expected |= textbook.grads(sum(textbook.autoencoder_parts()), "encoder", "decoder")
    trainer.train_step()
    assert_close(network_grads(trainer), expected)


@pytest.mark.parametrize("update", ["joint", "simultaneous"])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_adaptive_weight_balances_gradients_at_the_last_layer(
    frame_set, frame_features, update, spectral_norm
) -> None:
    changes = ALL_TERMS | {"loss__generator": {"recon": 0.7, "prior": 0.3, "weighting": "adaptive"}} | UNTOUCHED_D
    decoder = {"norm": "group", "spectral_norm": spectral_norm}
    config = tiny(**changes, train__update=update, model__decoder=decoder)
    trainer = Trainer(config, frame_set, frame_features)
    textbook = WrittenOut(trainer)
    for module in textbook.networks["decoder"].modules():  # one step of its power iteration, then as it stands
        if spectral_norm and isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
            _ = module.weight
    textbook.networks["decoder"].eval()
    generator, others = textbook.autoencoder_parts()
    kernel = "decoder.to_image.parametrizations.weight.original" if spectral_norm else "decoder.to_image.weight"
    weight = textbook.grads(others, "decoder")[kernel].norm() / textbook.grads(generator, "decoder")[kernel].norm()
    expected = textbook.grads(weight * generator + others, "encoder", "decoder")
    trainer.train_step()
    found = {name: grad for name, grad in network_grads(trainer).items() if not name.startswith("discriminator")}
    assert_close(found, expected, rel=1e-3)
    assert float(trainer.curves.pending[0]["generator/adaptive_weight"]) == pytest.approx(weight.item(), rel=1e-3)


# --- One Adam step per term -------------------------------------------------------------------------------------------


class PlainPerTerm:
    """The 2019 scheme as a plain loop with one torch.optim.Adam per network."""

    def __init__(self, trainer: Trainer, stale: bool) -> None:
        self.textbook, self.stale = WrittenOut(trainer), stale
        config = trainer.config.optimizer
        self.adams = {
            name: torch.optim.Adam(network.parameters(), lr=config.autoencoder.lr, betas=(0.9, 0.999))
            for name, network in self.textbook.networks.items()
        }

    def terms(self):
        """(networks to step, function that makes the term from fresh passes), in the author's order."""
        loss, adversarial, draw = self.textbook.loss, self.textbook.adversarial, self.textbook.draw
        encoder, decoder, discriminator = self.textbook.networks.values()

        def posterior():
            return encoder(draw.x)

        def recon():
            return decoder(posterior().sample(draw.noise))

        def feature():
            real = discriminator(draw.x)[1].detach()
            scale = feature_scale(real, loss.feature.scale_free)
            return loss.feature.recon * feature_matching_loss(discriminator(recon())[1], real, scale) + (
                loss.feature.prior * feature_matching_loss(discriminator(decoder(draw.z_prior))[1], real, scale)
            )

        d, g = loss.discriminator, loss.generator
        yield "discriminator", lambda: d.real * adversarial.real(discriminator(draw.x)[0])
        yield "discriminator", lambda: d.recon * adversarial.fake(discriminator(recon())[0])
        yield "decoder", lambda: g.recon * adversarial.generator(discriminator(recon())[0])
        yield "discriminator", lambda: d.prior * adversarial.fake(discriminator(decoder(draw.z_prior))[0])
        yield "decoder", lambda: g.prior * adversarial.generator(discriminator(decoder(draw.z_prior))[0])
        yield "encoder decoder", feature
        yield "encoder decoder", lambda: pixel_loss(recon(), draw.x, "mse", self.textbook.variance)
        yield "encoder", lambda: self.textbook.control.term(gaussian_kl_divergence(posterior()), 0)

    def step(self, draw: Draw) -> None:
        self.textbook.draw = draw
        gradients = [(names.split(), make) for names, make in self.terms()]
        made = [self.gradient(*each) for each in gradients] if self.stale else []
        for index, (names, make) in enumerate(gradients):
            gradient = made[index] if self.stale else self.gradient(names, make)
            for name in names:
                for parameter, grad in zip(self.textbook.networks[name].parameters(), gradient[name], strict=True):
                    parameter.grad = grad
                self.adams[name].step()

    def gradient(self, names, make):
        parameters = {name: list(self.textbook.networks[name].parameters()) for name in names}
        term = make()
        return {
            name: torch.autograd.grad(term, each, retain_graph=True, allow_unused=True)
            for name, each in parameters.items()
        }


@pytest.mark.parametrize("stale", [False, True])
def test_per_term_is_the_authors_loop(frame_set, frame_features, stale) -> None:
    """Two steps against a plain loop: weights agree to rounding."""
    update = "per_term_stale" if stale else "per_term"
    config = tiny(**ALL_TERMS, train__update=update, model__encoder__norm="group", model__decoder__norm="group")
    trainer = Trainer(config, frame_set, frame_features)
    plain = PlainPerTerm(trainer, stale)
    start = {name: copy.deepcopy(network) for name, network in trainer.update.networks.items()}
    generator = torch.Generator().manual_seed(config.train.seed)
    for step in range(2):
        noise, z_prior = (torch.randn(8, 8, generator=generator) for _ in range(2))
        plain.step(Draw(trainer.batches[step], noise, z_prior))
        trainer.train_step()
    for name, network in trainer.update.networks.items():
        moved = torch.cat([(a - b).flatten() for a, b in zip(*_parameters(network, start[name]), strict=True)])
        expected = torch.cat(
            [(a - b).flatten() for a, b in zip(*_parameters(plain.textbook.networks[name], start[name]), strict=True)]
        )
        assert (moved - expected).norm() <= 1e-4 * expected.norm(), name
        steps = {int(state["step"]) for state in trainer.update.optimizers[name].state.values()}
        assert max(steps) == 2 * {"encoder": 3, "decoder": 4, "discriminator": 3}[name]


def _parameters(*networks):
    return [list(network.parameters()) for network in networks]


@pytest.mark.parametrize("update", ["per_term", "per_term_stale"])
def test_a_term_that_weighs_nothing_takes_no_step(frame_set, frame_features, update) -> None:
    config = tiny(train__update=update, loss__pixel__weight=0.0, loss__generator={"recon": 1.0, "prior": 0.0})
    trainer = Trainer(config, frame_set, frame_features)
    trainer.train_step()
    steps = {
        name: max(int(state["step"]) for state in optimizer.state.values())
        for name, optimizer in trainer.update.optimizers.items()
    }
    assert steps == {"encoder": 2, "decoder": 2, "discriminator": 3}


# --- Options of a step ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"loss__pixel__weight": 0.0, "loss__discriminator": {"augment": "all"}}])
@pytest.mark.parametrize("update", UPDATES)
def test_measuring_gradients_changes_nothing(frame_set, frame_features, update, changes) -> None:
    def weights(log_every: int) -> list[torch.Tensor]:
        config = tiny(**(ALL_TERMS | changes), train__update=update, train__log_every=log_every)
        trainer = Trainer(config, frame_set, frame_features)
        trainer.run(lambda _: None)
        return [*trainer.autoencoder.parameters(), *trainer.discriminator.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(weights(1), weights(4), strict=True))


@pytest.mark.parametrize("update", UPDATES)
def test_gradient_norms_are_those_of_each_weighted_term(frame_set, frame_features, update) -> None:
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


def test_several_discriminator_steps_use_a_batch_each(frame_set, frame_features) -> None:
    trainer = Trainer(tiny(train__discriminator_steps=3), frame_set, frame_features)
    asked = []
    draw = trainer._draw
    trainer._draw = lambda index: asked.append(index) or draw(index)
    trainer.train_step()
    trainer.train_step()
    assert asked == [0, 1, 2, 3, 4, 5]
    steps = {name: int(next(iter(o.state.values()))["step"]) for name, o in trainer.update.optimizers.items()}
    assert steps == {"encoder": 2, "decoder": 2, "discriminator": 6}


@pytest.mark.parametrize("update", ["joint", "simultaneous"])
@pytest.mark.parametrize(
    ("equilibrium", "margin", "resting"),
    [(50.0, 1.0, "discriminator"), (0.001, 0.0005, "decoder"), (0.69, 0.5, None), (0.7, 0.0, "neither, both would")],
)
def test_balanced_updates_rest_one_side(frame_set, frame_features, update, equilibrium, margin, resting) -> None:
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


def test_the_r1_penalty_is_paid_every_so_often_and_weighted_for_it(frame_set, frame_features) -> None:
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


def test_simultaneous_pays_the_penalty_too(frame_set, frame_features) -> None:
    def gradient(update: str) -> dict[str, torch.Tensor]:
        config = tiny(loss__discriminator={"r1": 3.0}, loss__feature__recon=0.0, train__update=update, **UNTOUCHED_D)
        trainer = Trainer(config, frame_set, frame_features)
        trainer.train_step()
        return network_grads(trainer)

    assert_close(gradient("simultaneous"), gradient("joint"))


@pytest.mark.parametrize("policy", ["color", "translation", "all"])
def test_augmentation_reaches_d_and_passes_gradients(frame_set, frame_features, policy) -> None:
    config = tiny(loss__discriminator__augment=policy)
    trainer, plain = (Trainer(each, frame_set, frame_features) for each in (config, tiny()))
    for each in (trainer, plain):
        each.train_step()
    assert trainer.curves.pending[0]["train/discriminator_real"] != plain._pending[0]["train/discriminator_real"]
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
def test_the_learning_rate_follows_its_schedule(frame_set, frame_features, optimizer, expected) -> None:
    config = OptimizerConfig(**optimizer)
    assert {step: lr_factor(config, step, 100) for step in expected} == pytest.approx(expected)
    trainer = Trainer(tiny(optimizer__warmup=0.5, optimizer__discriminator__lr_ratio=2.0), frame_set, frame_features)
    trainer.train_step()
    rates = {name: each.param_groups[0]["lr"] for name, each in trainer.update.optimizers.items()}
    assert rates == pytest.approx({"encoder": 1e-3 / 6, "decoder": 1e-3 / 6, "discriminator": 2e-3 / 6})


def test_weight_decay_is_decoupled_from_the_gradient(frame_set, frame_features) -> None:
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
        ({"model__encoder__deterministic": True}, "estimator"),
        ({"loss__generator__weighting": "adaptive", "train__update": "per_term"}, "weighting"),
        (
            {"loss__generator__weighting": "adaptive", "loss__pixel__weight": 0.0, "loss__feature__recon": 0.0},
            "weighting",
        ),
        ({"model__discriminator__feature_layer": 3}, "feature_layer"),
        ({"loss__kl": {"control": "fixed", "beta": 1.0, "momentum": 0.5}}, "momentum"),
    ],
)
def test_what_cannot_go_together_is_refused_with_the_key(changes, key) -> None:
    with pytest.raises(ConfigError, match=key):
        tiny(**changes)


# --- Cost -------------------------------------------------------------------------------------------------------------


def step_gflops_per_image(**changes) -> float:
    """Of one step at the seed's size, counted by torch (multiply-add = 2)."""
    import numpy as np

    frames = np.zeros((4, 65, 121, 3), np.uint8)
    sources = (Source(name="a", split="train", start=0, count=2), Source(name="b", split="test", start=2, count=2))
    frame_set = FrameSet(frames, FrameManifest(height=65, width=121, sources=sources, made_by={}, sha256="0"))
    features = FrameFeatures.__new__(FrameFeatures)
    object.__setattr__(features, "baselines", {"train_variance": 1.0})
    size = {"model__latent_dim": 1024, "model__width": 64, "model__depth": 3}
    config = tiny(**size, train__batch_size=2, train__threads=2, train__log_every=12, **changes)
    trainer = Trainer(config, frame_set, features)
    with FlopCounterMode(display=False) as counter:
        trainer.train_step()
    return counter.get_total_flops() / 2 / 1e9


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"loss__feature__prior": 1.0, "loss__generator__gradient": "autoencoder"}, 41.1),
        ({"loss__feature__prior": 1.0, "loss__generator__gradient": "decoder"}, 45.1),
        ({"train__update": "simultaneous", "loss__generator__gradient": "autoencoder"}, 34.5),
        ({"train__update": "per_term", "loss__feature__prior": 1.0, "loss__pixel__weight": 0.0}, 69.8),
    ],
)
def test_a_step_does_each_thing_once(changes, most) -> None:
    """The seed author's code needs 67.3 GF an image: it lets two terms share some passes, where
    per_term makes fresh ones for each."""
    assert step_gflops_per_image(**changes) <= most
