"""Targets: scenes, masks and boxes that go along where their images are moved, what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dense.small import TASKS, scenes
from turncoat.data import load, save
from turncoat.data.batches import DeviceSplit, batches, moved_images
from turncoat.data.moves import VISIBLE, Moves, area, moved
from turncoat.data.scenes import made
from turncoat.data.store import counts
from turncoat.data.targets import VOID, faults, packed, per_class
from turncoat.errors import TurncoatError

SIDE, CROP = 12, 3


def offsets(rows, columns):
    return torch.tensor([[[row] for row in rows], [[column] for column in columns]])


@pytest.mark.parametrize("task", TASKS)
def test_scenes_are_the_same_for_the_same_seed_and_their_digits_are_of_one_split(task):
    data = scenes(task)
    again = scenes.__wrapped__(task)
    assert all(np.array_equal(data.splits[part].labels, again.splits[part].labels) for part in data.splits)
    assert data.overlap == {"train/validation": 0, "train/test": 0, "validation/test": 0}
    assert sum(counts(data)["train"]["per_class"]) >= 2 * len(data.train)


def test_scenes_of_a_split_hang_on_no_other_split():
    small, large = (made("detection", counts, 0) for counts in ((5, 3, 6), (9, 4, 4)))
    for few, many in zip(small, large, strict=True):
        same = min(len(few.images), len(many.images))
        assert np.array_equal(few.images[:same], many.images[:same])


def test_masks_and_boxes_of_a_scene_agree():
    """Both tasks see the same scenes: a box is the extent of its digit's pixels, but for digits of one kind."""
    masks, boxes = scenes("segmentation"), scenes("detection")
    assert np.array_equal(masks.train.images, boxes.train.images)
    seen = 0
    for mask, rows in zip(masks.train.labels, boxes.train.labels, strict=True):
        rows = rows[rows[:, 0] >= 0]
        for kind, x1, y1, x2, y2 in rows.astype(int):
            assert (mask[y1:y2, x1:x2] == kind + 1).any()
            if (rows[:, 0] == kind).sum() == 1:
                across, down = np.nonzero(mask == kind + 1)[::-1]
                assert (across.min(), down.min(), across.max() + 1, down.max() + 1) == (x1, y1, x2, y2)
                seen += 1
    assert seen > 20


@pytest.mark.parametrize("task", TASKS)
def test_a_data_set_comes_back_from_its_folder_with_its_task(task, tmp_path):
    save(scenes(task), tmp_path / "scenes")
    again = load(tmp_path / "scenes")
    assert again.task == task
    assert np.array_equal(again.test.labels, scenes(task).test.labels)
    (tmp_path / "scenes" / "test_labels.npy").write_bytes(b"x")
    with pytest.raises(TurncoatError, match=r"test_labels.npy: differs from its checksum"):
        load(tmp_path / "scenes")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2 * CROP), st.integers(0, 2 * CROP), st.booleans(), st.integers(0, 10_000))
def test_a_mask_moves_as_its_image_and_a_box_stays_round_its_pixels(row, column, mirrored, seed):
    source = np.random.RandomState(seed)
    top, left = source.randint(0, SIDE - 3, 2)
    height, width = source.randint(2, 4, 2)
    image = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)
    image[0, 0, top : top + height, left : left + width] = 200
    mask = (image[0] > 0).to(torch.uint8)
    box = torch.tensor([[[0.0, left, top, left + width, top + height], [-1.0] * 5]])
    moves = Moves(offsets([row], [column]), torch.tensor([[[[mirrored]]]]))
    there = moved_images(image, moves, CROP)[0, 0] > 0
    masks = moved("segmentation", mask, moves, CROP, (SIDE, SIDE))[0]
    assert torch.equal(masks == 1, there)
    outside = moved_images(torch.ones_like(image), moves, CROP)[0, 0] == 0
    assert torch.equal(masks == VOID, outside)
    rows = moved("detection", box, moves, CROP, (SIDE, SIDE))[0]
    assert bool((rows[1] == -1).all())
    left_over = float(there.sum()) / (height * width)
    if left_over >= VISIBLE + 1e-6:
        down, across = (there.nonzero()[:, axis] for axis in (0, 1))
        extent = [across.min(), down.min(), across.max() + 1, down.max() + 1]
        assert rows[0, 1:].tolist() == [float(value) for value in extent]
    elif left_over < VISIBLE - 1e-6:
        assert bool((rows[0] == -1).all())


@pytest.mark.parametrize("task", ["classification", *TASKS])
def test_a_batch_of_every_task_is_drawn_alike(task):
    """The order and the moves of images hang on the seed alone, whatever the labels are."""
    images = torch.randint(0, 255, (8, 1, SIDE, SIDE), dtype=torch.uint8)
    labels = {
        "classification": torch.arange(8),
        "segmentation": images[:, 0] % 3,
        "detection": torch.tensor([[[0.0, 1, 1, 5, 5]]]).repeat(8, 1, 1),
    }
    plain = batches(DeviceSplit(images, labels["classification"]), 4, CROP, True, 0, 1)
    mine = batches(DeviceSplit(images, labels[task], task), 4, CROP, True, 0, 1)
    for one, other in zip(plain, mine, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.index, other.index)
        if task == "segmentation":
            inside = other.labels != VOID
            assert torch.equal(other.labels[inside], (other.images[:, 0] * 255).round().to(torch.uint8)[inside] % 3)


def test_what_is_counted_and_what_is_refused():
    boxes = packed([np.array([[0, 1, 1, 4, 4], [2, 0, 0, 9, 9]]), np.empty((0, 5)), np.array([[2, 1, 2, 3, 4]])])
    assert boxes.shape == (3, 2, 5)
    assert per_class("detection", boxes, 3) == [1, 0, 2]
    assert float(area(torch.tensor(boxes[0, 1, 1:]))) == 81
    assert faults("detection", boxes, 3, (9, 9)) == ""
    assert "of a class beyond the 2" in faults("detection", boxes, 2, (9, 9))
    assert "outside the image" in faults("detection", boxes, 3, (8, 9))
    assert "of no area" in faults("detection", packed([np.array([[0, 3, 1, 3, 4]])]), 3, (9, 9))
    masks = np.array([[[0, 1], [VOID, 4]]], np.uint8)
    assert per_class("segmentation", masks, 5) == [1, 1, 0, 0, 1]
    assert faults("segmentation", masks, 5, (2, 2)) == ""
    assert faults("segmentation", masks, 4, (2, 2)) == "masks hold 4, beyond the 4 classes"
