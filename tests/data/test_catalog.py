import subprocess
import sys
from pathlib import Path

import pytest

from tenfold.data import catalog, checks, prepare

PUBLIC = [name for name, item in catalog.SETS.items() if not item.bring_your_own]


def test_entries_are_complete():
    assert len(PUBLIC) == 17
    own = {"h36m", "3dpw", "cifar100", "mini_imagenet", "cub200", "era5"}
    own |= {"imagenet", "ade20k", "voc2012", "coco2014", "coco2017", "cityscapes"}
    own |= {"gta5", "synthia", "flickr30k", "refcoco", "refcoco+", "refcocog"}
    own |= {"ade20k_parts", "cityscapes_parts"}
    assert own == set(catalog.SETS) - set(PUBLIC)
    for name, item in catalog.SETS.items():
        assert item.name == name
        for text in (item.what, item.licence, item.origin, item.size, item.layout, item.obtain):
            assert text and "\n" not in text
        assert (item.preparation == "recipe") == (name in prepare.RECIPES)
        assert name in checks.CHECKS
        for download in item.downloads:
            assert all(url.startswith(("https://", "http://")) for url in download.urls)
            kind, _, digest = download.checksum.partition(":")
            assert len(digest) == {"md5": 32, "git": 40, "sha256": 64}[kind]
    assert len(catalog.SETS["cmu_mocap"].downloads) == 48


def test_find_prefers_the_given_path(tmp_path, monkeypatch):
    (tmp_path / "data" / "camvid").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "data"))
    assert catalog.root() == tmp_path / "data"
    assert catalog.find("camvid") == tmp_path / "data" / "camvid"
    assert catalog.find("camvid", tmp_path / "mine") == tmp_path / "mine"
    assert catalog.find("camvid", "") == tmp_path / "data" / "camvid"
    assert catalog.find("streetsim") is None
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        catalog.find("camvid", tmp_path / "nowhere")


def test_a_missing_set_is_explained(tmp_path, monkeypatch):
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    assert catalog.root() is None
    assert catalog.find("cmu_mocap") is None
    with pytest.raises(
        FileNotFoundError, match=r"TENFOLD_DATA is not set[\s\S]*data get cmu_mocap"
    ):
        catalog.find_or_explain("cmu_mocap")
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="clip_text does not exist"):
        catalog.find_or_explain("clip_text")


def test_a_mistyped_root_is_not_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "dta"))
    with pytest.raises(FileNotFoundError, match="not a folder"):
        catalog.root()


@pytest.mark.parametrize("ask", [catalog.find, catalog.info, catalog.find_or_explain, checks.check])
def test_unknown_names_get_the_nearest(ask):
    with pytest.raises(ValueError, match="'cmu_mocap'"):
        ask("cmu_mocup")
    with pytest.raises(ValueError, match="known sets are: cmu_mocap"):
        ask("zzzzzzzzz")


def test_table_and_info(tmp_path, monkeypatch):
    (tmp_path / "textmix").mkdir()
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    rows = {row.name: row for row in catalog.table()}
    assert list(rows) == list(catalog.SETS)
    assert rows["textmix"].present == str(tmp_path / "textmix")
    assert rows["camvid"].present == "not found"
    assert rows["streetsim"].kind == "simulated"
    assert rows["h36m"].bring_your_own
    for name in catalog.SETS:
        text = catalog.info(name)
        assert catalog.SETS[name].licence in text
        assert "{name}" not in text


def test_catalog_imports_nothing_heavy():
    code = (
        "import sys, tenfold.data.catalog; "
        "print([m for m in ('torch', 'numpy', 'PIL', 'urllib.request') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_docs_name_every_set():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for name in catalog.SETS:
        assert f"`{name}`" in text
