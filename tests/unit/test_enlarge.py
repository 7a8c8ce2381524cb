import pytest
import torch

from ferserve.training.enlarge import S1_VIEWS, S4_VIEWS, Enlargement, add_channel_noise, enlarge


def _crops(count=2, channels=1, side=48):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, side, side, channels), dtype=torch.uint8, generator=generator)


def _enlarge(settings, seed=0, crops=None, size=48):
    crops = _crops() if crops is None else crops
    labels = torch.arange(len(crops))
    return enlarge(crops, labels, settings, size_px=size, generator=torch.Generator().manual_seed(seed))


def test_two_hundred_views_of_each_half_of_them_mirrored():
    views, labels = _enlarge(S4_VIEWS)
    assert views.shape == (400, 48, 48, 1)
    assert views.dtype == torch.uint8
    assert labels.tolist() == [0] * 200 + [1] * 200
    assert torch.equal(views[0::2], views[1::2].flip(2))
    assert len({view.numpy().tobytes() for view in views}) == 400


def test_patches_hold_the_area_that_the_paper_prints():
    # A picture whose value is the column: a patch's range of values is its side.
    ramp = torch.arange(200, dtype=torch.uint8).expand(1, 200, 200)[..., None]
    views, _ = _enlarge(Enlargement(mirror=False), crops=ramp, size=200)
    sides = (views.amax(dim=(1, 2, 3)).float() - views.amin(dim=(1, 2, 3)).float() + 1) / 200
    assert sides.min() >= 0.85**0.5 - 0.01
    assert sides.max() <= 1.0
    assert sides.std() > 0.01
    assert views[:, 0, 0, 0].float().std() > 1.0  # and they begin at different columns


def test_noise_differs_from_channel_to_channel_and_has_its_size():
    grey = torch.full((4, 48, 48, 3), 128, dtype=torch.uint8)
    views, labels = _enlarge(S1_VIEWS, crops=grey)
    assert labels.tolist() == [0, 1, 2, 3]
    noise = views.float() - 128.0
    assert noise.std() == pytest.approx(0.05 * 255, rel=0.05)
    assert not torch.equal(views[..., 0], views[..., 1])
    flat = noise.permute(3, 0, 1, 2).flatten(1)
    assert torch.corrcoef(flat)[0, 1].abs() < 0.05


def test_no_noise_and_no_patch_is_the_picture():
    views, _ = _enlarge(Enlargement(patches=1, min_area=1.0, mirror=False))
    assert torch.equal(views, _crops())
    x = torch.zeros(1, 3, 2, 2)
    assert add_channel_noise(x, 0.0, generator=torch.Generator()) is x


def test_one_seed_gives_one_set_of_views():
    settings = Enlargement(patches=3, noise=0.1)
    assert torch.equal(_enlarge(settings, seed=4)[0], _enlarge(settings, seed=4)[0])
    assert not torch.equal(_enlarge(settings, seed=4)[0], _enlarge(settings, seed=5)[0])


def test_settings_name_field_and_value():
    with pytest.raises(ValueError, match="patches: expected 1 to 100, got 101"):
        Enlargement(patches=101)
    with pytest.raises(ValueError, match="min_area: expected more than 0, at most 1, got 0"):
        Enlargement(min_area=0)
    with pytest.raises(ValueError, match="noise: expected 0 to 1, got 2"):
        Enlargement(noise=2)
