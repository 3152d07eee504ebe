"""Activation maps on disk: peers' forms, ours, and files that were made to harm."""

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib import format as npy

from tenfold.data.images import cam_files
from tenfold.data.io.pickles import load_npy

MAPS = {1: np.random.default_rng(0).random((3, 4)).astype(np.float32)}
MAPS[4] = 1 - MAPS[1]
STACKED = np.stack(list(MAPS.values()))


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "2007_000032.npy"


def pickled(content: bytes) -> bytes:
    """An npy file of one object whose pickle is `content`."""
    head = io.BytesIO()
    npy.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": ()})
    return head.getvalue() + content


@pytest.mark.parametrize(
    "content",
    [
        MAPS,
        {np.int64(key): value for key, value in MAPS.items()},
        {str(key): np.asfortranarray(value) for key, value in MAPS.items()},
        {"keys": torch.tensor([1, 4]), "cam": torch.zeros(2, 1, 1), "high_res": STACKED},
        {"keys": np.array([1, 4]), "cam": torch.from_numpy(np.repeat(STACKED, 2, 2))[:, :, ::2]},
        {"keys": torch.tensor([0, 1, 4])[1:], "cam": torch.from_numpy(STACKED).double()},
    ],
)
def test_peers_files_are_read(file, content):
    np.save(file, content)
    found = cam_files.read(file, 6)
    np.testing.assert_array_equal(found[[1, 4]], STACKED)
    assert found.shape == (6, 3, 4) and not found[[0, 2, 3, 5]].any()
    assert cam_files.read_setting(file) == {}


def test_names_of_numpy_1_and_2(file):
    np.save(file, MAPS)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    content = file.read_bytes()
    assert new in content or old in content
    for one, other in ((old, new), (new, old)):
        # the length of the text stands before it
        swapped = content.replace(bytes([len(one)]) + one, bytes([len(other)]) + other)
        protocol_3 = pickle.dumps(np.array(MAPS, dtype=object), protocol=2)
        file.write_bytes(swapped)
        np.testing.assert_array_equal(cam_files.read(file, 5)[1], MAPS[1])
        file.write_bytes(pickled(protocol_3.replace(one, other)))
        np.testing.assert_array_equal(cam_files.read(file, 5)[1], MAPS[1])


def test_ours_are_written_and_read(tmp_path):
    file = tmp_path / "deep" / "a.npz"
    cam_files.write(file, MAPS, {"scales": [1.0, 0.5], "flips": True})
    first = file.read_bytes()
    found = cam_files.read(file, 5)
    np.testing.assert_array_equal(found[[1, 4]], STACKED.astype(np.float16))
    assert found.dtype == np.float32 and not found[[0, 2, 3]].any()
    assert cam_files.read_setting(file) == {"scales": [1.0, 0.5], "flips": True}
    cam_files.write(file, dict(reversed(MAPS.items())), {"scales": [1.0, 0.5], "flips": True})
    assert file.read_bytes() == first
    cam_files.write(file, {})
    assert cam_files.read(file, 5).shape == (5, 0, 0)
    with pytest.raises(ValueError, match="several sizes"):
        cam_files.write(file, {0: np.zeros((2, 3)), 1: np.zeros((3, 2))})
    with pytest.raises(ValueError, match="maps hold NaN, or more than 65504"):
        cam_files.write(file, {0: np.full((2, 3), np.nan)})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({20: MAPS[1]}, "maps of class 20, but there are 20 classes, counted from 0"),
        ({"bird": MAPS[1]}, "'bird' is no number of a class"),
        ({0: MAPS[1], 1: np.zeros((2, 2))}, "maps of one size by class"),
        ({0: [1, 2]}, "maps of one size by class"),
        ({0: np.full((2, 2), np.inf)}, "no finite numbers"),
        ({0: np.zeros((0, 4))}, "maps without a pixel"),
        ({0: np.zeros(4)}, r"shape \(1, 4\)"),
        ({0: np.array([["a"]])}, "maps that are no numbers"),
        ({1: MAPS[1], "1": MAPS[1]}, "two maps of one class"),
        ({"keys": np.array([0, 0]), "cam": STACKED}, "two maps of one class"),
        ({"keys": np.array([0]), "cam": STACKED}, "for 1 classes"),
        ({"keys": np.array([0.5, 1]), "cam": STACKED}, "keys must be class numbers"),
        ({}, "maps of one size by class"),
        ([1, 2], "shape"),
        ("text", "holds a str"),
    ],
)
def test_what_does_not_fit_is_named(file, content, said):
    np.save(file, np.array(content, dtype=object))
    with pytest.raises(ValueError, match=f"2007_000032.npy.*{said}"):
        cam_files.read(file, 20)


def test_sizes_are_bounded(file, tmp_path, monkeypatch):
    np.save(file, MAPS)
    cam_files.write(tmp_path / "a.npz", MAPS)
    monkeypatch.setattr(cam_files, "MOST_BYTES", 4 * 12 * 5 - 1)
    for name in (file, tmp_path / "a.npz"):
        with pytest.raises(ValueError, match="5 maps of 4 x 3 need 240 bytes, more than 239"):
            cam_files.read(name, 5)
    with pytest.raises(FileNotFoundError, match="b.npy is not there"):
        cam_files.read(tmp_path / "b.npy", 5)


# --- files that were made to harm ----------------------------------------------------------------


class Attack:
    def __init__(self, call: object, *arguments: object) -> None:
        self.what = call, arguments

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize(
    "attack",
    [
        lambda place: Attack(os.system, f"touch {place}"),
        lambda place: Attack(os.mkdir, str(place)),
        lambda place: Attack(eval, f"open({str(place)!r}, 'w')"),
        lambda place: Attack(torch.load, str(place)),
        lambda place: Attack(np.memmap, str(place), "u1", "w+", 0, (9,)),
    ],
)
def test_code_is_not_run(file, tmp_path, attack):
    place = tmp_path / "ran"
    for content in ({0: attack(place)}, {0: MAPS[1], attack(place): MAPS[4]}):
        np.save(file, np.array(content, dtype=object) if len(content) == 1 else content)
        with pytest.raises(ValueError, match="asks for the global|unhashable"):
            cam_files.read(file, 20)
    inner = pickle.dumps(attack(place))
    file.write_bytes(pickled(pickle.dumps({0: Attack(torch.storage._load_from_bytes, inner)})))
    with pytest.raises(ValueError, match="asks for the global"):
        cam_files.read(file, 20)
    assert not place.exists()


def test_a_storage_that_lies_is_refused(file):
    tensor = torch.arange(6.0)
    np.save(file, {"keys": torch.tensor([0]), "cam": tensor.view(1, 2, 3)})
    whole = file.read_bytes()
    assert cam_files.read(file, 1).shape == (1, 2, 3)
    # the last number of the storage before its data: how many there are
    length = struct.pack("<q", 6) + struct.pack("<f", 0)
    assert whole.count(length) == 1
    file.write_bytes(whole.replace(length, struct.pack("<q", 2**40) + struct.pack("<f", 0)))
    with pytest.raises(ValueError, match="npy is damaged or cut off: a tensor of 6 numbers"):
        cam_files.read(file, 1)
    # sizes and steps beyond the storage
    for size, stride in (((2**20, 2**19), (0, 0)), ((2, 3), (3, 2)), ((-1, 3), (3, 1))):
        rebuild = Attack(
            torch._utils._rebuild_tensor_v2, _storage(tensor), 0,
            size, stride, False, {},
        )  # fmt: skip
        file.write_bytes(pickled(pickle.dumps({0: rebuild})))
        with pytest.raises(ValueError, match="npy is damaged or cut off: a tensor"):
            cam_files.read(file, 1)


def _storage(tensor: torch.Tensor) -> object:
    return torch.storage.TypedStorage(
        wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True
    )


def test_nested_memos_and_huge_shapes_cost_no_memory(file):
    bomb: object = []
    for _ in range(60):  # 2 ** 60 lists if anyone walked through
        bomb = [bomb, bomb]
    for content in ({0: bomb}, {"keys": bomb, "cam": STACKED}, {bomb_key(): STACKED}):
        np.save(file, content)
        with pytest.raises(ValueError, match="2007_000032.npy"):
            cam_files.read(file, 2)
    for attack in (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(L99999999999L"
        b"\ntcnumpy\ndtype\n(S'f4'\ntRI00\nS'x'\ntb.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(L99999999999L"
        b"\ntcnumpy\ndtype\n(S'O'\ntRI00\n(lp0\ntb.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",  # a bytearray of a terabyte
        b"cnumpy\ndtype\n(S'V99999999'\ntR.",
        b"cnumpy\ndtype\n(S'O'\ntR(I3\nS'<'\nN(S'a'\nt(dI8\nI8\nI0\ntb.",  # fields
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O'\ntRS'abcdefgh'\ntR.",
        b"cnumpy\nndarray\n(dS'a'\nI1\nsb.",  # state of a function
    ):
        file.write_bytes(pickled(attack))
        with pytest.raises(ValueError, match="2007_000032.npy (cannot be read|is damaged)"):
            cam_files.read(file, 2)


def bomb_key() -> tuple:
    found: tuple = ()
    for _ in range(20):
        found = (found, found)
    return found


def test_truncated_files_are_named(file, tmp_path):
    np.save(file, {"keys": torch.tensor([0]), "cam": torch.rand(1, 2, 3)})
    cam_files.write(tmp_path / "a.npz", MAPS, {"a": 1})
    for path, step in ((file, 37), (tmp_path / "a.npz", 29)):
        whole = path.read_bytes()
        for cut in range(0, len(whole) - 1, step):
            path.write_bytes(whole[:cut])
            with pytest.raises(ValueError, match=path.name):
                cam_files.read(path, 6)
    np.save(file, np.zeros((2, 3, 4)))
    assert load_npy(file).shape == (2, 3, 4)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="should hold 24 numbers of type float64"):
        cam_files.read(file, 2)
