"""The restricted unpickler: what it reads, and that nothing else is run or allocated."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tenfold.data.io import pickles
from tenfold.data.io.pickles import load_arrays


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "set.pkl"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_containers_and_arrays_are_read(file, protocol):
    content = {
        "list": [1, 2.5, "é", None, (True, b"x")],
        "float64": np.arange(6.0).reshape(2, 3),
        "uint8": np.arange(6, dtype=np.uint8)[::2],
        "number": np.float64(1.5),
        "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big-endian": np.arange(3, dtype=">i4"),
        "objects": np.array([{"a": 1}, None, "b"], dtype=object),
    }
    file.write_bytes(pickle.dumps(content, protocol=protocol))
    got = load_arrays(file)
    assert got["list"] == content["list"] and got["number"] == 1.5
    for key in ("float64", "uint8", "turned", "big-endian", "objects"):
        assert got[key].dtype.str[1:] == content[key].dtype.str[1:]  # numpy turns byte orders
        np.testing.assert_array_equal(got[key], content[key])


def test_byte_strings_of_python_2_become_text(file):
    file.write_bytes(b"\x80\x02U\x03a\xe9bq\x01.")
    assert load_arrays(file) == "aéb"


class Attack:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_is_refused_and_not_run(file, tmp_path):
    file.write_bytes(pickle.dumps({"data": [Attack(tmp_path / "ran")]}))
    with pytest.raises(ValueError, match=r"set.pkl cannot be read: it asks for .*\.mkdir"):
        load_arrays(file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "attack",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
    ],
)
def test_other_globals_and_codecs_are_refused(file, attack):
    file.write_bytes(attack)
    with pytest.raises(ValueError, match="set.pkl cannot be read: it asks for the"):
        load_arrays(file)


def test_damage_anywhere_is_a_value_error(file):
    whole = pickle.dumps({"data": [np.zeros((2, 72))]}, protocol=2)
    for cut in range(0, len(whole), 7):
        file.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="set.pkl"):
            load_arrays(file)


def test_sizes_that_a_file_makes_up_are_not_allocated(file):
    file.write_bytes(b"\x80\x02Nr\xff\xff\xff\xff.")  # None as number 4294967295 of the memo
    assert load_arrays(file) is None
    # an ndarray of 9999999999999 numbers
    file.write_bytes(b"cnumpy\nndarray\n((L9999999999999L\nttR.")
    assert load_arrays(file).size == 0


def test_a_file_that_is_too_large_is_not_opened(file, monkeypatch):
    file.write_bytes(pickle.dumps([1]))
    monkeypatch.setattr(pickles, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="set.pkl has .* bytes, more than the 10 that"):
        load_arrays(file)
