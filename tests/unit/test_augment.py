from dataclasses import replace

import pytest
import torch

from ferserve.training.augment import augment
from ferserve.training.crops import to_input
from ferserve.training.recipe import Augmentation

STILL = Augmentation(
    min_area=1.0, max_zoom_out=1.0, max_rotation_deg=0.0, max_shift=0.0, flip=False,
    contrast=0.0, brightness=0.0, erase_probability=0.0, erase_max_area=0.0,
)  # fmt: skip


def _crops(count=4, side=48):
    return torch.randint(0, 256, (count, side, side, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _view(settings, seed=0, size=48, crops=None):
    generator = torch.Generator().manual_seed(seed)
    return augment(_crops() if crops is None else crops, settings, size_px=size, generator=generator)


@pytest.mark.parametrize("size", [48, 64, 96])
def test_no_augmentation_is_what_serving_sees(size):
    assert torch.allclose(_view(STILL, size=size), to_input(_crops(), size_px=size), atol=1e-4)


def test_flip_mirrors_some_and_leaves_the_others():
    crops = _crops(32)
    view = _view(replace(STILL, flip=True), crops=crops)
    plain = to_input(crops, size_px=48)
    mirrored = [torch.allclose(v, p.flip(-1), atol=1e-4) for v, p in zip(view, plain, strict=True)]
    same = [torch.allclose(v, p, atol=1e-4) for v, p in zip(view, plain, strict=True)]
    assert all(m or s for m, s in zip(mirrored, same, strict=True))
    assert 4 < sum(mirrored) < 28


def test_noise_has_its_size_and_is_each_channels_own():
    grey = torch.full((4, 48, 48, 3), 128, dtype=torch.uint8)
    difference = _view(replace(STILL, noise=0.05), crops=grey) - to_input(grey, size_px=48)
    # A twentieth of the range from -1 to 1.
    assert difference.std().item() == pytest.approx(0.1, rel=0.05)
    assert torch.corrcoef(difference.transpose(0, 1).flatten(1))[0, 1].abs() < 0.05


def test_one_seed_gives_one_view():
    busy = Augmentation(
        min_area=0.8, max_zoom_out=1.1, max_rotation_deg=20.0, max_shift=0.1, flip=True,
        contrast=0.3, brightness=0.3, erase_probability=0.5, erase_max_area=0.2,
    )  # fmt: skip
    assert torch.equal(_view(busy, seed=5), _view(busy, seed=5))
    assert not torch.equal(_view(busy, seed=5), _view(busy, seed=6))
    assert _view(busy).abs().max() <= 1.0


def test_erasing_blanks_one_rectangle():
    white = torch.full((16, 48, 48, 1), 255, dtype=torch.uint8)
    view = _view(replace(STILL, erase_probability=1.0, erase_max_area=0.2), crops=white)
    blank = (view == 0.0).double().mean(dim=(1, 2, 3))
    assert (blank > 0).all()
    assert (blank < 0.25).all()


def test_settings_name_field_and_value():
    with pytest.raises(ValueError, match="min_area: expected more than 0, at most 1, got 0"):
        Augmentation(
            min_area=0.0, max_zoom_out=1.0, max_rotation_deg=0.0, max_shift=0.0, flip=False,
            contrast=0.0, brightness=0.0, erase_probability=0.0, erase_max_area=0.0,
        )  # fmt: skip
