"""Which images a figure shows: spread over the classes, with mistakes."""

import numpy as np

from alexnet_jax.inference.examples import Examples


def examples(count, images):
    """Return those chosen of (class, is_right), as places in the list."""
    chosen = Examples[int](count)
    for number, (group, is_right) in enumerate(images):
        chosen.add(number, group, is_right)
    return chosen


def test_half_are_mistakes_and_they_are_last():
    images = [(0, True)] * 10 + [(0, False)] * 10
    items, mistakes = examples(8, images).chosen()
    assert items == [0, 1, 2, 3, 10, 11, 12, 13]
    assert mistakes == 4


def test_fewer_mistakes_leave_room_for_others_and_the_reverse():
    items, mistakes = examples(8, [(0, True)] * 10 + [(0, False)]).chosen()
    assert (len(items), mistakes) == (8, 1)
    items, mistakes = examples(8, [(0, False)] * 10 + [(0, True)]).chosen()
    assert (len(items), mistakes) == (8, 7)
    items, mistakes = examples(8, [(0, True)] * 3).chosen()
    assert (items, mistakes) == ([0, 1, 2], 0)
    assert examples(1, [(0, False), (0, True)]).chosen() == ([1], 0)
    assert examples(1, [(0, False)]).chosen() == ([0], 1)


def test_classes_take_turns_also_if_the_images_come_class_by_class():
    images = [(group, True) for group in range(5) for _ in range(100)]
    items, _ = examples(8, images).chosen()
    per_class = np.bincount([images[item][0] for item in items], minlength=5)
    assert sorted(per_class) == [1, 1, 2, 2, 2]
    many = [(group, True) for group in range(1000) for _ in range(3)]
    items, _ = examples(8, many).chosen()
    assert len({many[item][0] for item in items}) == 8
    two = [(0, True)] * 50 + [(1, True)] * 50
    items, _ = examples(8, two).chosen()
    assert sum(two[item][0] for item in items) == 4


def test_mistakes_take_turns_too():
    images = [(group, group % 2 == 0) for group in range(6) for _ in range(20)]
    items, mistakes = examples(6, images).chosen()
    assert mistakes == 3
    assert [images[item][0] for item in items] == [0, 2, 4, 1, 3, 5]


def test_few_images_are_held():
    chosen = examples(8, [(number % 7, number % 2 == 0) for number in range(1000)])
    assert len(chosen._others) + len(chosen._mistakes) <= 16


def test_it_is_enough_when_there_are_both():
    assert not examples(8, [(0, True)] * 100).enough
    assert not examples(8, [(0, True)] * 100 + [(0, False)] * 3).enough
    assert examples(8, [(0, True)] * 4 + [(0, False)] * 4).enough


def test_the_sentence_counts_what_is_known():
    text = examples(8, [(0, True)] * 20 + [(1, False)] * 2 + [("x", None)]).describe("images", "z")
    assert "8 of 23 images" in text
    assert "20 right, 2 wrong, 1 of no known class" in text
    assert "the last 2 are mistakes" in text
    assert examples(8, [("x", None)] * 3).describe("files", "z") == "3 of 3 files."
