import torch

from vaegan_core.losses.augment import CUTOUT, Augmentation


def augmentation(policy: str, **uniform: float) -> Augmentation:
    """With its random numbers set by name."""
    made = Augmentation(policy, 2, torch.Generator().manual_seed(0))
    names = ("brightness", "saturation", "contrast", "down", "right", "hole_y", "hole_x")
    for name, value in uniform.items():
        made._uniform[names.index(name)] = value
    return made


IMAGES = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_middle_of_every_color_change_is_no_change() -> None:
    unchanged = augmentation("color", brightness=0.5, saturation=0.5, contrast=0.5)(IMAGES)
    assert torch.allclose(unchanged, IMAGES, atol=1e-6)


def test_color_changes_by_hand() -> None:
    brighter = augmentation("color", brightness=1.0, saturation=0.5, contrast=0.5)(IMAGES)
    assert torch.allclose(brighter, IMAGES + 0.5, atol=1e-6)
    gray = augmentation("color", brightness=0.5, saturation=0.0, contrast=0.5)(IMAGES)
    assert torch.allclose(gray, IMAGES.mean(1, keepdim=True).expand_as(IMAGES), atol=1e-6)
    flat = augmentation("color", brightness=0.5, saturation=0.5, contrast=0.0)(IMAGES)
    mean = IMAGES.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(flat, mean + 0.5 * (IMAGES - mean), atol=1e-6)


def test_translation_moves_by_up_to_an_eighth_and_fills_with_zeros() -> None:
    still = augmentation("translation", down=0.5, right=0.5)(IMAGES)
    assert torch.equal(still, IMAGES)
    moved = augmentation("translation", down=0.0, right=0.999)(IMAGES)
    assert torch.equal(moved[:, :, 2:, :-3], IMAGES[:, :, :-2, 3:])
    assert moved[:, :, :2].abs().max() == 0
    assert moved[:, :, :, -3:].abs().max() == 0


def test_the_hole_is_zero_and_the_rest_untouched() -> None:
    centered = {"brightness": 0.5, "saturation": 0.5, "contrast": 0.5, "down": 0.5, "right": 0.5}
    cut = augmentation("all", **centered, hole_y=0.5, hole_x=0.5)(IMAGES)
    hole = cut[0, 0] == 0
    assert hole.float().mean().item() == CUTOUT**2
    assert torch.allclose(cut[:, :, ~hole], IMAGES[:, :, ~hole], atol=1e-6)


def test_one_draw_treats_all_kinds_of_image_alike_and_passes_the_gradient() -> None:
    made = Augmentation("all", 2, torch.Generator().manual_seed(0))
    assert torch.equal(made(IMAGES), made(IMAGES))
    images = IMAGES.clone().requires_grad_()
    made(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_every_image_has_a_draw_of_its_own_from_the_generator() -> None:
    one, again, other = (Augmentation("all", 2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    same = IMAGES[:1].expand(2, -1, -1, -1)
    assert torch.equal(one(IMAGES), again(IMAGES)), "a resumed training draws the same"
    assert not torch.allclose(one(IMAGES), other(IMAGES))
    assert not torch.allclose(one(same)[0], one(same)[1])


def test_all_is_color_translation_and_a_hole() -> None:
    centered = {"brightness": 0.5, "saturation": 0.5, "contrast": 0.5, "down": 0.5, "right": 0.5}
    far = {"hole_y": 0.0, "hole_x": 0.0}  # of the corner, which is zero as well
    brighter = augmentation("all", **(centered | {"brightness": 1.0}), **far)(IMAGES)
    moved = augmentation("all", **(centered | {"down": 0.0}), **far)(IMAGES)
    seen = (slice(None), slice(None), slice(4, None), slice(6, None))
    assert torch.allclose(brighter[seen], (IMAGES + 0.5)[seen], atol=1e-6)
    assert torch.allclose(moved[seen], IMAGES[:, :, 2:-2, 6:], atol=1e-6)


def test_a_hole_is_centered_on_the_pixel_that_was_drawn() -> None:
    centered = {"brightness": 0.5, "saturation": 0.5, "contrast": 0.5, "down": 0.5, "right": 0.5}
    ones = torch.ones(2, 3, 16, 24)
    cut = augmentation("all", **centered, hole_y=4.5 / 16, hole_x=0.0)(ones)
    rows, columns = (cut[0, 0] == 0).nonzero().T
    assert (rows.min().item(), rows.max().item()) == (1, 7), "the row of index 4 and 3 to each side"
    assert (columns.min().item(), columns.max().item()) == (0, 5), "6 to the right of the edge"
