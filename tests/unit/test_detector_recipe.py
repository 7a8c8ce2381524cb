from dataclasses import replace

import pytest

from ferserve.training.data.errors import DataError
from ferserve.training.detector.recipe import DetectorRecipe, View, ferdet


@pytest.mark.parametrize(
    ("group", "field", "value", "expected"),
    [
        ("scenes", "photo_share", 1.5, "photo_share: expected 0 to 1, got 1.5"),
        ("scenes", "empty_share", 0.9, "photo_share . empty_share: expected at most 1"),
        ("scenes", "min_exact_px", 5.0, "min_exact_px: expected min_face_px or more, got 5.0"),
        ("scenes", "max_rotation_deg", 200.0, "max_rotation_deg: expected 0 to 180, got 200.0"),
        ("scenes", "max_faces", 0, "max_faces: expected more than 0, got 0"),
        ("objective", "exact_score", 0.0, "exact_score: expected more than 0, at most 1, got 0.0"),
        ("objective", "box_weight", -1.0, "box_weight: expected 0 or more, got -1.0"),
    ],
)
def test_groups_name_the_field_and_the_value(group, field, value, expected):
    with pytest.raises(ValueError, match=expected):
        replace(getattr(ferdet(), group), **{field: value})


def test_a_view_is_whole_cells():
    with pytest.raises(ValueError, match="size_px: expected a positive multiple of 32, got 300"):
        View(size_px=300, pictures=1)


@pytest.mark.parametrize("field", ["epochs", "steps_per_epoch", "aside_photos", "selection_photos"])
def test_counts_are_positive(field):
    with pytest.raises(ValueError, match=f"{field}: expected more than 0, got 0"):
        replace(ferdet(), **{field: 0})


def test_views_take_turns():
    recipe = ferdet()
    assert [recipe.view(step).size_px for step in range(5)] == [320, 448, 320, 640, 320]


def test_a_recipe_comes_back_from_its_run(tmp_path):
    (tmp_path / "recipe.json").write_text(ferdet().to_json())
    assert DetectorRecipe.read(tmp_path) == ferdet()
    assert DetectorRecipe.read(tmp_path).sha256 == ferdet().sha256
    assert replace(ferdet(), seed=2).sha256 != ferdet().sha256


@pytest.mark.parametrize("content", [None, "{}", "not JSON"])
def test_a_folder_without_a_recipe_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "recipe.json").write_text(content)
    with pytest.raises(DataError, match="expected"):
        DetectorRecipe.read(tmp_path)
