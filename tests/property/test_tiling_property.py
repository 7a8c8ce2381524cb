from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ferserve.faces.detectors.tiling import EDGE_PX, OVERLAP_PX, SINGLE_PX, sizes, tiles, whole_faces

LENGTHS = st.integers(1, 6000)
WINDOWS = st.tuples(st.sampled_from([256, 480, 640, 1024]), st.sampled_from([256, 640, 1024]))


def inside(tile, window_px, width, height):
    return (
        0 <= tile.x0 < tile.x1 <= width
        and 0 <= tile.y0 < tile.y1 <= height
        and tile.x1 - tile.x0 <= window_px[0]
        and tile.y1 - tile.y0 <= window_px[1]
    )


@given(LENGTHS, LENGTHS, WINDOWS)
def test_tiles_lie_inside_and_cover_every_pixel(width, height, window_px):
    found = tiles(width, height, window_px=window_px)
    assert all(inside(tile, window_px, width, height) for tile in found)
    # They form a grid, so that it is enough to look along each axis.
    for spans, length in (
        (sorted({(tile.x0, tile.x1) for tile in found}), width),
        (sorted({(tile.y0, tile.y1) for tile in found}), height),
    ):
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(after[0] < before[1] for before, after in pairwise(spans))
    columns, rows = len({tile.x0 for tile in found}), len({tile.y0 for tile in found})
    assert len(found) == columns * rows


@given(st.data(), LENGTHS, LENGTHS, WINDOWS)
def test_every_face_smaller_than_the_overlap_is_whole_in_one_tile(data, width, height, window_px):
    largest = OVERLAP_PX - 2 * EDGE_PX
    face_w = data.draw(st.integers(1, min(largest, width)))
    face_h = data.draw(st.integers(1, min(largest, height)))
    x0, y0 = data.draw(st.integers(0, width - face_w)), data.draw(st.integers(0, height - face_h))
    box = np.array([[x0, y0, x0 + face_w, y0 + face_h]], np.float32)
    in_one = [
        tile
        for tile in tiles(width, height, window_px=window_px)
        if tile.x0 <= x0 and tile.y0 <= y0 and x0 + face_w <= tile.x1 and y0 + face_h <= tile.y1
        if whole_faces(box, tile, width_px=width, height_px=height)[0]
    ]
    assert in_one


@given(LENGTHS, LENGTHS, WINDOWS)
def test_a_face_over_a_tiles_inner_edge_is_left_to_another(width, height, window_px):
    for tile in tiles(width, height, window_px=window_px):
        for x_edge, inner in ((tile.x0, tile.x0 > 0), (tile.x1, tile.x1 < width)):
            middle = (tile.y0 + tile.y1) / 2
            box = np.array([[x_edge - 8, middle - 1, x_edge + 8, middle + 1]], np.float32)
            clear_of_y = tile.y0 + EDGE_PX <= middle - 1
            kept = whole_faces(box, tile, width_px=width, height_px=height)[0]
            assert not (inner and kept)
            assert kept or inner or not clear_of_y


@given(LENGTHS, LENGTHS, WINDOWS, st.floats(0.01, 1.0))
def test_scales_fall_until_one_window_holds_the_picture(width, height, window_px, scale):
    found = list(sizes(width, height, scale=scale, window_px=window_px))
    assert found[0] == (max(1, round(width * scale)), max(1, round(height * scale)))
    assert all(max(after) < max(before) for before, after in pairwise(found))
    assert found[-1][0] <= window_px[0]
    assert found[-1][1] <= window_px[1]
    assert max(found[-1]) <= SINGLE_PX
    # What the tiles of one scale cut, the next one still shows with a quarter of its pixels.
    assert all(max(after) >= max(before) / 4 - 1 for before, after in pairwise(found))
