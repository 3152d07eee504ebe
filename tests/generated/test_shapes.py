"""Generated shapes: a whole protocol, the same each time, whose classes can be told apart."""

import numpy as np
import pytest
import torch

from tenfold.data.images import fscil
from tenfold.generated import shapes


@pytest.fixture(scope="module")
def made() -> fscil.Protocol:
    return shapes.protocol()


def test_sizes_are_those_of_the_protocol(made):
    assert (made.name, made.base, made.way, made.shot, made.sessions) == ("shapes", 12, 3, 5, 4)
    assert torch.bincount(made.train.labels).tolist() == [40] * 12
    assert torch.bincount(made.novel.labels).tolist() == [0] * 12 + [15] * 12
    assert torch.bincount(made.test.labels).tolist() == [10] * 24
    assert made.train.images.shape[1:] == (3, 32, 32)
    assert len(set(made.classes)) == 24 and made.classes == shapes.describe()


def test_draws_share_no_photo_and_have_five_of_each_class(made):
    for session in range(4):
        rows = torch.cat([draw[session] for draw in made.support])
        assert len(set(rows.tolist())) == len(rows) == 45
        for draw in made.support:
            labels = made.novel.labels[draw[session]]
            assert labels.tolist() == [12 + 3 * session + i for i in range(3) for _ in range(5)]


def test_new_classes_are_new_combinations_of_what_base_classes_have():
    base = [set(name.split()) for name in shapes.NAMES[:12]]
    known = set().union(*base)
    assert all(set(name.split()) <= known for name in shapes.NAMES)
    assert len(known) == 14


def test_a_seed_gives_the_same_pictures_and_more_draws_change_none(made):
    again = shapes.protocol(draws=1)  # the novel pictures of one draw are fewer
    assert torch.equal(again.train.images, made.train.images)
    assert torch.equal(again.test.images, made.test.images)
    for mine, whole in zip(again.support[0], made.support[0], strict=True):
        assert torch.equal(again.novel.images[mine], made.novel.images[whole])
    assert (shapes.draw(3, ["0/a"]) != shapes.draw(3, ["1/a"])).any()


def test_no_two_pictures_are_the_same(made):
    every = torch.cat([made.train.images, made.novel.images, made.test.images]).flatten(1)
    assert len(torch.unique(every, dim=0)) == len(every)


def test_a_class_differs_from_another_in_colour_and_in_texture():
    keys = [str(i) for i in range(40)]
    mean = {
        name: shapes.draw(shapes.NAMES.index(name), keys)[:, :, 12:20, 12:20].mean((0, 2, 3))
        for name in ("plain red square", "plain blue moon", "dotted red square")
    }
    assert np.argmax(mean["plain red square"]) == 0 and np.argmax(mean["plain blue moon"]) == 2
    assert mean["dotted red square"][0] < mean["plain red square"][0] - 10


def test_fewer_classes_keep_their_session(made):
    small = shapes.protocol(base=4, way=1, shot=2, draws=1)
    assert small.classes == shapes.describe(base=4, way=1)
    assert small.classes == (*made.classes[:4], *made.classes[12::3])
    assert [len(rows) for rows in small.support[0]] == [2, 2, 2, 2]
    with pytest.raises(ValueError, match=r"data.base is 13.*shapes has 12"):
        shapes.protocol(base=13)
