import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.flop_counter import FlopCounterMode

from vaegan_core.config.model import DecoderConfig, DiscriminatorConfig, ModelConfig
from vaegan_core.model.averaging import lerp_all, update_average
from vaegan_core.model.modes import frozen, mixes_batch, singular_vectors, spectral_norms
from vaegan_core.model.networks import Autoencoder, Decoder, Discriminator, Encoder, ResidualBlock
from vaegan_core.model.sizes import downsampled


def parameters(module: torch.nn.Module) -> float:
    """In millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_sizes_follow_the_seed() -> None:
    assert downsampled((65, 121), 3) == [(65, 121), (33, 61), (17, 31), (9, 16)]


def test_parameter_counts_are_the_authors_at_full_size() -> None:
    config, size = ModelConfig(latent_dim=1024, width=64, depth=3), (65, 121)
    with torch.device("meta"):
        networks = Encoder(config, size), Decoder(config, size), Discriminator(config, size)
    assert [round(parameters(network), 2) for network in networks] == [76.53, 40.45, 21.44]


@pytest.mark.parametrize("size", [(33, 61), (17, 31), (32, 64), (20, 37)])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group", "layer"])
def test_any_size_depth_and_norm_come_out_as_they_went_in(size: tuple[int, int], depth: int, norm: str) -> None:
    own = {"norm": norm}
    config = ModelConfig(latent_dim=5, width=4, depth=depth, encoder=own, decoder=own, discriminator=own)
    model, discriminator = Autoencoder(config, size), Discriminator(config, size)
    x = torch.rand(3, 3, *size) * 2 - 1
    posterior = model.encoder(x)
    assert posterior.mean.shape == posterior.logvar.shape == (3, 5)
    x_recon = model.decoder(posterior.mean)
    assert x_recon.shape == x.shape
    assert x_recon.abs().max() <= 1
    logits, features = discriminator(x)
    assert logits.shape == (3,)
    assert features.shape[:2] == (3, min(8 * 4, 4 * 2 ** (depth - 1)))
    assert mixes_batch(discriminator) == (norm == "batch" and depth > 1)


@pytest.mark.parametrize("width", range(2, 130, 2))
def test_group_norm_takes_every_width(width: int) -> None:
    own = {"norm": "group"}
    decoder = own | {"residual_blocks": 1}
    config = ModelConfig(latent_dim=2, width=width, depth=3, encoder=own, decoder=decoder, discriminator=own)
    with torch.device("meta"):
        networks = Autoencoder(config, (17, 17)), Discriminator(config, (17, 17))
    norms = [m for network in networks for m in network.modules() if isinstance(m, nn.GroupNorm)]
    assert norms
    for norm in norms:
        sizes = (n for n in range(8, norm.num_channels + 1) if norm.num_channels % n == 0)
        assert norm.num_groups == norm.num_channels // next(sizes, norm.num_channels), (
            "of at least eight channels, and as small as that allows"
        )


def test_the_seeds_feature_map_is_linear_in_the_image() -> None:
    config = ModelConfig(latent_dim=5, width=4, depth=2)
    discriminator = Discriminator(config, (17, 31)).double()
    a, b = torch.randn(2, 1, 3, 17, 31, dtype=torch.float64).unbind()
    combined = discriminator.features(2 * a - 3 * b)
    expected = 2 * discriminator.features(a) - 3 * discriminator.features(b)
    assert torch.allclose(combined, expected)
    leaky = Discriminator(config.model_copy(update={"discriminator": _leaky()}), (17, 31)).double()
    assert not torch.allclose(leaky.features(2 * a - 3 * b), 2 * leaky.features(a) - 3 * leaky.features(b))


def _leaky() -> Any:
    return DiscriminatorConfig(feature_activation="leaky_relu")


def test_instance_norm_makes_the_posterior_mean_blind_to_a_color_offset() -> None:
    """MEASURES 3: a strong lead for the seed's question on instance norm. The borders are reflected, so it is exact."""
    torch.manual_seed(0)
    x = torch.rand(4, 3, 17, 31) - 0.5
    for norm, blind in (("instance", True), ("none", False)):
        encoder = Encoder(ModelConfig(latent_dim=8, width=8, depth=2, encoder={"norm": norm}), (17, 31))
        mean, shifted = encoder(x).mean, encoder(x + 0.3).mean
        change = ((shifted - mean).norm() / mean.norm()).item()
        assert (change < 1e-3) == blind


def test_spectral_norm_bounds_every_layer() -> None:
    config = ModelConfig(latent_dim=5, width=4, depth=2, discriminator={"spectral_norm": True})
    discriminator = Discriminator(config, (17, 31))
    x = torch.randn(2, 3, 17, 31)
    for _ in range(50):
        discriminator(x)
    for module in discriminator.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_spectral_norm_reaches_every_layer_of_every_network(network: str) -> None:
    config = ModelConfig(latent_dim=5, width=4, depth=2, **{network: {"spectral_norm": True}})
    model = Autoencoder(config, (17, 31))
    x = torch.randn(2, 3, 17, 31)
    for _ in range(50):
        model.decoder(model.encoder(x).mean)
    layers = [m for m in getattr(model, network).modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    assert len(layers) == len(spectral_norms(getattr(model, network))) == {"encoder": 3, "decoder": 4}[network]
    for layer in layers:
        weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1.0, abs=0.05)


def test_the_average_is_torchs_over_parameters_and_buffers() -> None:
    config = ModelConfig(latent_dim=5, width=4, depth=2, encoder={"norm": "batch"})
    model, x = Autoencoder(config, (17, 31)), torch.randn(4, 3, 17, 31)
    expected = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    averaged = copy.deepcopy(model)
    for step in range(3):
        model.encoder(x)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        expected.update_parameters(model)
        update_average(averaged, model, 0.9 if step else 0.0)
    for (name, found), wanted in zip(averaged.state_dict().items(), expected.module.state_dict().values(), strict=True):
        assert torch.allclose(found.double(), wanted.double(), atol=1e-6) or "num_batches" in name, name
    assert averaged.state_dict()["encoder.blocks.0.1.num_batches_tracked"] == 3


def test_averaged_spectral_vectors_are_unit_vectors() -> None:
    config = ModelConfig(latent_dim=5, width=4, depth=2, decoder={"spectral_norm": True})
    first, second = Decoder(config, (17, 31)), Decoder(config, (17, 31))
    update_average(first, second, 0.5)
    assert all(vector.norm().item() == pytest.approx(1.0) for vector in singular_vectors(first))


def test_a_deterministic_encoder_is_a_linear_map_behind_the_blocks() -> None:
    own = {"norm": "none", "deterministic": True, "latent_norm": "batch"}
    encoder = Encoder(ModelConfig(latent_dim=5, width=4, depth=2, encoder=own), (17, 31))
    assert encoder.posterior.bias is None
    posterior = encoder(torch.randn(16, 3, 17, 31))
    assert posterior.logvar is None
    assert posterior.sample(torch.randn(16, 5)) is posterior.mean
    assert torch.allclose(posterior.mean.mean(0), torch.zeros(5), atol=1e-5)
    assert torch.allclose(posterior.mean.var(0, unbiased=False), torch.ones(5), atol=1e-2)
    assert mixes_batch(encoder)


def test_the_log_variance_stays_within_its_limit() -> None:
    x = 100 * torch.randn(4, 3, 17, 31)
    own = {"norm": "none"}
    free, bounded = (
        Encoder(ModelConfig(latent_dim=5, width=4, depth=2, encoder=own | extra), (17, 31))
        for extra in ({}, {"logvar_limit": 2.0})
    )
    bounded.load_state_dict(free.state_dict())
    assert free(x).logvar.abs().max() > 2.0 >= bounded(x).logvar.abs().max()
    assert torch.allclose(bounded(x).logvar, 2.0 * torch.tanh(free(x).logvar / 2.0))


@pytest.mark.parametrize(("layer", "channels", "size"), [(0, 2, (17, 31)), (1, 8, (9, 16)), (2, 8, (5, 8))])
def test_any_convolution_can_be_the_feature_map(layer: int, channels: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    config = ModelConfig(latent_dim=5, width=4, depth=2, discriminator={"feature_layer": layer})
    discriminator, x = Discriminator(config, (17, 31)), torch.randn(2, 3, 17, 31)
    logits, features = discriminator(x)
    assert features.shape == (2, channels, *size)
    torch.manual_seed(0)
    last = Discriminator(ModelConfig(latent_dim=5, width=4, depth=2), (17, 31))
    assert torch.allclose(last(x)[0], logits), "which map is phi changes nothing about D's verdict"


def test_a_norm_at_the_end_of_the_feature_map_normalizes_it() -> None:
    config = ModelConfig(latent_dim=5, width=4, depth=2, discriminator={"feature_norm": "batch"})
    _, features = Discriminator(config, (17, 31))(torch.randn(6, 3, 17, 31))
    assert torch.allclose(features.mean((0, 2, 3)), torch.zeros(8), atol=1e-5)
    assert torch.allclose(features.var((0, 2, 3), unbiased=False), torch.ones(8), atol=1e-2)


def test_the_decoders_activation_is_as_configured() -> None:
    leaky = Decoder(ModelConfig(latent_dim=5, width=4, depth=2, decoder={"activation": "leaky_relu"}), (17, 31))
    assert sum(isinstance(module, nn.LeakyReLU) for module in leaky.modules()) == 2


# --- Options of the networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(33, 61), (17, 31), (32, 64), (20, 37)])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group", "layer"])
@pytest.mark.parametrize("spectral", [False, True])
def test_every_option_keeps_the_sizes_and_gives_all_parameters_a_gradient(
    size: tuple[int, int], depth: int, norm: str, spectral: bool
) -> None:
    torch.manual_seed(0)
    own = {"norm": norm, "spectral_norm": spectral, "residual_blocks": 2}
    both = {"decoder": own | {"upsampling": "resize"}, "discriminator": own | {"patch_head": True}}
    config = ModelConfig(latent_dim=5, width=4, depth=depth, **both)
    decoder, discriminator = Decoder(config, size), Discriminator(config, size)
    images = decoder(torch.randn(3, 5))
    assert images.shape == (3, 3, *size)
    logits, _ = discriminator(images)
    assert logits.shape == (3, 1 + math.prod(downsampled(size, depth)[-1]))
    logits.square().sum().backward()
    for network in (decoder, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@pytest.mark.parametrize(("upsampling", "flat"), [("transposed", False), ("resize", True)])
def test_a_resize_convolution_draws_no_checkerboard_on_a_flat_map(upsampling: str, flat: bool) -> None:
    own = {"upsampling": upsampling}
    upsample = Decoder(ModelConfig(latent_dim=5, width=4, depth=2, decoder=own), (17, 31)).blocks[0]
    grown = upsample(torch.ones(1, 8, 5, 8))
    assert grown.shape == (1, 8, 9, 16)
    assert (grown.std(dim=(2, 3)).max() < 1e-5) == flat


def test_resizing_repeats_every_pixel_twice() -> None:
    upsample = Decoder(ModelConfig(latent_dim=5, width=4, depth=2, decoder={"upsampling": "resize"}), (17, 31)).blocks[
        0
    ]
    maps = torch.randn(1, 8, 5, 8)
    doubled = maps.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(next(upsample.children())(maps), doubled[:, :, :9, :16])


def gflops(network: nn.Module, *shape: int) -> float:
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *shape))
    return counter.get_total_flops()


def test_the_cost_of_options_is_as_their_keys_say() -> None:
    """Multiply-adds per level, against the convolution that halves or doubles there."""
    size = (64, 64)
    config = ModelConfig(latent_dim=5, width=8, depth=3, decoder={"residual_blocks": 1})
    plain = Decoder(config, size)
    resize = Decoder(config.model_copy(update={"decoder": DecoderConfig(upsampling="resize")}), size)
    assert gflops(resize.blocks[0], 32, 8, 8) == 1.44 * gflops(plain.blocks[0], 32, 8, 8)
    residual = [gflops(plain.blocks[2], 32, 16, 16) / gflops(plain.blocks[0], 32, 8, 8)]
    residual += [gflops(plain.blocks[6], 16, 32, 32) / gflops(plain.blocks[4], 32, 16, 16)]
    assert residual == [2.88, 1.44]
    layers = Discriminator(config.model_copy(update={"discriminator": DiscriminatorConfig(residual_blocks=1)}), size)
    convolutions = [*layers.features, *layers.classifier]
    shapes = {1: (4, 64, 64), 2: (16, 32, 32), 3: (16, 32, 32), 4: (32, 16, 16), 5: (32, 16, 16), 6: (32, 8, 8)}
    cost = {index: gflops(convolutions[index], *shape) for index, shape in shapes.items()}
    assert [cost[2] / cost[1], cost[4] / cost[3], cost[6] / cost[5]] == [2.88, 1.44, 0.72]


def test_a_residual_block_starts_near_the_identity_and_is_its_formula() -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(8, "instance", "relu"), torch.randn(2, 8, 9, 16)
    first, norm, last = block.branch[1], block.branch[2], block.branch[4]
    assert torch.allclose(block(x), x + 0.1 * last(norm(first(x.relu())).relu()))
    assert (block(x) - x).norm() < 0.1 * x.norm()


def test_residual_blocks_of_its_own_level_leave_the_feature_map_alone() -> None:
    size = (17, 31)
    x = torch.randn(2, 3, *size)
    config = ModelConfig(latent_dim=5, width=4, depth=2, discriminator={"residual_blocks": 1, "feature_layer": 1})
    discriminator = Discriminator(config, size)
    assert torch.equal(discriminator(x)[1], discriminator.features[1](discriminator.features[0](x)))
    last = Discriminator(ModelConfig(latent_dim=5, width=4, depth=2, discriminator={"residual_blocks": 1}), size)
    assert not torch.allclose(last.features(-x), -last.features(x)), "one of an earlier level leads to it"
    assert torch.allclose(discriminator.features(-x), -discriminator.features(x), atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_patch_is_as_wide_as_the_docstring_says(depth: int) -> None:
    size = (65, 121)
    config = ModelConfig(latent_dim=5, width=8, depth=depth, discriminator={"patch_head": True})
    discriminator, x = Discriminator(config, size), torch.randn(1, 3, *size, requires_grad=True)
    logits = discriminator(x)[0][:, 1:].unflatten(1, downsampled(size, depth)[-1])
    logits[0, logits.shape[1] // 2, logits.shape[2] // 2].backward()
    assert x.grad is not None
    rows, columns = x.grad[0].abs().sum(0).nonzero(as_tuple=True)
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == 4 * 2**depth + 1


def test_a_patch_head_leaves_the_verdict_on_the_whole_image_alone() -> None:
    x, size = torch.randn(2, 3, 17, 31), (17, 31)
    plain = Discriminator(ModelConfig(latent_dim=5, width=4, depth=2), size)
    both = Discriminator(ModelConfig(latent_dim=5, width=4, depth=2, discriminator={"patch_head": True}), size)
    missing = both.load_state_dict(plain.state_dict(), strict=False)
    assert missing.missing_keys == ["patch_head.weight", "patch_head.bias"]
    assert torch.equal(both(x)[0][:, 0], plain(x)[0])


def test_frozen_networks_change_nothing_and_take_no_gradient() -> None:
    for own in ({"norm": "batch"}, {"spectral_norm": True}):
        discriminator = Discriminator(ModelConfig(latent_dim=5, width=4, depth=2, discriminator=own), (17, 31))
        before = {name: tensor.clone() for name, tensor in discriminator.state_dict().items()}
        x = torch.randn(4, 3, 17, 31, requires_grad=True)
        with frozen(discriminator):
            logits, _ = discriminator(x)
        logits.sum().backward()
        assert x.grad is not None
        assert all(parameter.grad is None for parameter in discriminator.parameters())
        after = discriminator.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before if "num_batches" not in name)
        assert all(parameter.requires_grad for parameter in discriminator.parameters())
        discriminator(x)
        assert any(not torch.equal(before[name], discriminator.state_dict()[name]) for name in before)


# --- Functions on private parts of PyTorch ----------------------------------------------------------------------------


def test_the_power_iteration_advances_in_training_mode_only() -> None:
    layer = spectral_norm(nn.Linear(40, 30))
    (norm,) = spectral_norms(layer)
    before = [vector.clone() for vector in singular_vectors(layer)]
    norm.eval()
    layer(torch.randn(2, 40))
    assert all(torch.equal(a, b) for a, b in zip(before, singular_vectors(layer), strict=True))
    norm.train()
    layer(torch.randn(2, 40))
    assert not all(torch.equal(a, b) for a, b in zip(before, singular_vectors(layer), strict=True))


def test_singular_vectors_belong_to_the_largest_singular_value() -> None:
    layer = spectral_norm(nn.Linear(4, 3), n_power_iterations=50)
    weight = layer.parametrizations.weight.original.detach()
    layer(torch.randn(2, 4))
    left, right = singular_vectors(layer)
    assert (left @ weight @ right).item() == pytest.approx(torch.linalg.svdvals(weight)[0].item(), rel=1e-4)
    assert singular_vectors(nn.Linear(4, 3)) == []


def test_lerp_all_moves_every_tensor_toward_its_partner() -> None:
    tensors, others = [torch.zeros(2), torch.ones(3, 1)], [torch.ones(2), torch.full((3, 1), 5.0)]
    lerp_all(tensors, others, 0.25)
    assert torch.equal(tensors[0], torch.full((2,), 0.25))
    assert torch.equal(tensors[1], torch.full((3, 1), 2.0))
