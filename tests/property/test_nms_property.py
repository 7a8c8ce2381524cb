import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ferserve.faces.detectors.nms import suppress

# Small whole numbers, so that boxes overlap often and no intersection over union is near a threshold by rounding.
SIDES = st.integers(1, 12)
BOXES = st.tuples(st.integers(0, 20), st.integers(0, 20), SIDES, SIDES).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
FACES = st.lists(st.tuples(BOXES, st.integers(1, 9)), max_size=25)
THRESHOLDS = st.sampled_from([0.0, 0.3, 0.45, 0.99])


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def naive(boxes, scores, max_overlap):
    kept = []
    for index in sorted(range(len(boxes)), key=lambda index: -scores[index]):
        if all(overlap(boxes[index], boxes[other]) <= max_overlap for other in kept):
            kept.append(index)
    return kept


def arrays(faces):
    boxes = np.array([box for box, _ in faces], np.float32).reshape(-1, 4)
    return boxes, np.array([score / 10 for _, score in faces], np.float32)


@given(FACES, THRESHOLDS)
def test_as_the_naive_way(faces, max_overlap):
    boxes, scores = arrays(faces)
    kept = suppress(boxes, scores, max_overlap=max_overlap)
    assert kept.tolist() == naive(boxes.tolist(), scores.tolist(), max_overlap)


@given(FACES, THRESHOLDS)
def test_what_is_kept_stays_kept(faces, max_overlap):
    boxes, scores = arrays(faces)
    kept = suppress(boxes, scores, max_overlap=max_overlap)
    again = suppress(boxes[kept], scores[kept], max_overlap=max_overlap)
    assert again.tolist() == list(range(len(kept)))
