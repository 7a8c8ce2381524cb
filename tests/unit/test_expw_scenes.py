from pathlib import Path

import cv2
import numpy as np
import pytest

from ferserve.training.data.errors import DataError
from ferserve.training.data.expw_scenes import parse_photos, read_photos


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "image").mkdir()
    for name in ("b.png", "a.png"):
        cv2.imwrite(str(tmp_path / "image" / name), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "label.lst").write_text("b.png 0 1 2 5 4 100 3\na.png 0 0 0 4 4 90 6\nb.png 1 0 0 1 1 90 0\n")
    return tmp_path


def test_expressions_stand_beside_their_boxes(folder):
    first, second = read_photos(folder)
    assert (first.name, first.expressions.tolist()) == ("a.png", [6])
    assert (second.name, second.expressions.tolist()) == ("b.png", [3, 0])
    assert second.labelled.tolist() == [[2, 1, 5, 4], [0, 0, 1, 1]]


@pytest.mark.parametrize("expression", ["7", "-1", "happy"])
def test_an_eighth_expression_is_named_with_its_line(folder, expression):
    with (folder / "label.lst").open("a") as file:
        file.write(f"a.png 1 0 0 1 1 90 {expression}\n")
    with pytest.raises(DataError, match="line 4: expected an expression 0 to 6"):
        read_photos(folder)


def test_only_this_data_set_is_taken():
    assert parse_photos("expw_scenes=/photos", option="--backgrounds") == Path("/photos")
    for text in ("lfw=/photos", "expw_scenes=", "/photos"):
        with pytest.raises(DataError, match="--backgrounds: expected expw_scenes=DIR"):
            parse_photos(text, option="--backgrounds")
