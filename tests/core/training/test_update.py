"""Update schemes: every gradient against the losses written out, every scheme against a plain loop of its own."""

import copy
from typing import Any

import pytest
import torch
from textbook import ALL_TERMS, NETWORK_OPTIONS, PENALTIES, UNTOUCHED_D, WrittenOut, assert_close, network_grads
from trials import tiny

from vaegan_core.data.frames import FrameSet
from vaegan_core.losses.functional import feature_matching_loss, feature_scale, gaussian_kl_divergence, pixel_loss
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.training.trainer import Trainer
from vaegan_core.training.update import Draw


def one_step_moves_like_adam(trainer: Trainer, start: dict[str, torch.Tensor]) -> None:
    """The first Adam step is lr * g / (|g| + eps), whatever the memory layout of g."""
    for network, module in trainer.update.networks.items():
        lr = trainer.update.optimizers[network].param_groups[0]["lr"]
        for name, parameter in module.named_parameters():
            grad = parameter.grad
            expected = start[f"{network}.{name}"] - lr * grad / (grad.abs() + 1e-8)
            assert torch.allclose(parameter, expected, atol=1e-3 * lr), name


NETWORKS = {
    "plain": {},
    "batch norm everywhere": {
        "model__encoder__norm": "batch",
        "model__decoder__norm": "batch",
        "model__discriminator": {"norm": "batch"},
    },
    "resize-convolution, residual blocks and a patch head": NETWORK_OPTIONS,
    "the same, with gradient penalties": NETWORK_OPTIONS | PENALTIES,
    "an inner feature map behind a norm": {
        "model__discriminator": {"feature_layer": 1, "feature_norm": "layer", "feature_activation": "leaky_relu"}
    },
}


@pytest.mark.parametrize("update", ["joint", "simultaneous"])
@pytest.mark.parametrize("networks", NETWORKS)
@pytest.mark.parametrize("adversarial", ["bce", "hinge", "lsgan", "relativistic"])
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
    frame_set: FrameSet,
    frame_features: FrameFeatures,
    update: str,
    networks: Any,
    adversarial: Any,
    generator: Any,
    feature: Any,
    feature_prior: Any,
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
def test_the_step_taken_is_adams(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str, channels_last: Any
) -> None:
    config = tiny(loss__feature__recon=0.0, train__update=update, train__channels_last=channels_last)
    trainer = Trainer(config, frame_set, frame_features)
    named = {f"{n}.{key}": p for n, network in trainer.update.networks.items() for key, p in network.named_parameters()}
    start = {name: parameter.detach().clone() for name, parameter in named.items()}
    trainer.train_step()
    one_step_moves_like_adam(trainer, start)


@pytest.mark.parametrize("bias", [-5.0, -200.0, 200.0])
@pytest.mark.parametrize("adversarial", ["bce", "hinge"])
def test_a_saturated_discriminator_does_not_spoil_the_gradient_it_shares(
    frame_set: FrameSet, frame_features: FrameFeatures, bias: Any, adversarial: Any
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


@pytest.mark.parametrize("adversarial", ["bce", "relativistic"])
def test_a_kind_that_weighs_nothing_for_d_still_teaches_the_decoder(
    frame_set: FrameSet, frame_features: FrameFeatures, adversarial: str
) -> None:
    changes = {"loss__discriminator": {"recon": 0.0}, "loss__feature__recon": 0.0, "loss__adversarial": adversarial}
    trainer = Trainer(tiny(**changes, **UNTOUCHED_D, train__update="simultaneous"), frame_set, frame_features)
    textbook = WrittenOut(trainer)
    expected = textbook.grads(sum(textbook.autoencoder_parts()), "encoder", "decoder")
    trainer.train_step()
    assert_close({name: g for name, g in network_grads(trainer).items() if name in expected}, expected)


OPTIMAL_SIGMA = {"loss__kl": {"control": "optimal"}, "loss__pixel": {"weight": 1.0, "kind": "log_mse"}}


@pytest.mark.parametrize("update", ["joint", "simultaneous"])
@pytest.mark.parametrize(("spectral_norm", "objective"), [(False, {}), (True, {}), (False, OPTIMAL_SIGMA)])
def test_the_adaptive_weight_balances_gradients_at_the_last_layer(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str, spectral_norm: Any, objective: Any
) -> None:
    changes = ALL_TERMS | {"loss__generator": {"recon": 0.7, "prior": 0.3, "weighting": "adaptive"}} | UNTOUCHED_D
    changes |= objective
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

    def terms(self) -> Any:
        """(networks to step, function that makes the term from fresh passes), in the author's order."""
        textbook, loss, draw = self.textbook, self.textbook.loss, self.textbook.draw
        encoder, decoder, discriminator = self.textbook.networks.values()

        def posterior() -> Any:
            return encoder(draw.x)

        def recon() -> Any:
            return decoder(posterior().sample(draw.noise))

        def feature() -> Any:
            real = discriminator(draw.x)[1].detach()
            scale = feature_scale(real, loss.feature.scale_free)
            return loss.feature.recon * feature_matching_loss(discriminator(recon())[1], real, scale) + (
                loss.feature.prior * feature_matching_loss(discriminator(decoder(draw.z_prior))[1], real, scale)
            )

        d, g = loss.discriminator, loss.generator
        if not textbook.relativistic:
            yield "discriminator", lambda: d.real * textbook.of_real() + textbook.penalties()
        elif d.r1:
            yield "discriminator", textbook.penalties
        yield "discriminator", lambda: d.recon * textbook.of_fake(recon())
        yield "decoder", lambda: g.recon * textbook.of_generator(recon())
        yield "discriminator", lambda: d.prior * textbook.of_fake(decoder(draw.z_prior))
        yield "decoder", lambda: g.prior * textbook.of_generator(decoder(draw.z_prior))
        yield "encoder decoder", feature
        yield "encoder decoder", lambda: pixel_loss(recon(), draw.x, "mse", textbook.variance)
        yield "encoder", lambda: textbook.control.term(gaussian_kl_divergence(posterior()), 0)

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

    def gradient(self, names: Any, make: Any) -> Any:
        parameters = {name: list(self.textbook.networks[name].parameters()) for name in names}
        term = make()
        return {
            name: torch.autograd.grad(term, each, retain_graph=True, allow_unused=True)
            for name, each in parameters.items()
        }


@pytest.mark.parametrize("adversarial", ["bce", "relativistic"])
@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("networks", [{"model__decoder__norm": "group"}, NETWORK_OPTIONS, NETWORK_OPTIONS | PENALTIES])
def test_per_term_is_the_authors_loop(
    frame_set: FrameSet, frame_features: FrameFeatures, stale: Any, adversarial: str, networks: Any
) -> None:
    """Two steps against a plain loop: weights agree to rounding."""
    update = "per_term_stale" if stale else "per_term"
    changes = ALL_TERMS | networks | {"model__encoder__norm": "group", "loss__adversarial": adversarial}
    config = tiny(**changes, train__update=update)
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
        # Pairs cancel the gradient of biases that all images have alike; there Adam moves by what rounding leaves.
        rel = 1e-2 if name == "discriminator" and adversarial == "relativistic" else 1e-4
        assert (moved - expected).norm() <= rel * expected.norm(), name
        steps = {int(state["step"]) for state in trainer.update.optimizers[name].state.values()}
        of_discriminator = 2 if adversarial == "relativistic" and not config.loss.discriminator.r1 else 3
        assert max(steps) == 2 * {"encoder": 3, "decoder": 4, "discriminator": of_discriminator}[name]


def _parameters(*networks: Any) -> Any:
    return [list(network.parameters()) for network in networks]


@pytest.mark.parametrize("update", ["per_term", "per_term_stale"])
@pytest.mark.parametrize(
    ("kl", "of_kl"), [({"control": "fixed", "sigma": 0.3}, 1), ({"control": "fixed", "beta": 0}, 0)]
)
def test_a_term_that_weighs_nothing_takes_no_step(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str, kl: dict[str, Any], of_kl: int
) -> None:
    generator = {"recon": 1.0, "prior": 0.0}
    config = tiny(train__update=update, loss__pixel__weight=0.0, loss__generator=generator, loss__kl=kl)
    trainer = Trainer(config, frame_set, frame_features)
    trainer.train_step()
    steps = {
        name: max(int(state["step"]) for state in optimizer.state.values())
        for name, optimizer in trainer.update.optimizers.items()
    }
    assert steps == {"encoder": 1 + of_kl, "decoder": 2, "discriminator": 3}
