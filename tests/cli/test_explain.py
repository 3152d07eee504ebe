"""`tenfold explain`: files of CLIP's layouts, what is written, and inputs that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clip_files import MERGES, TEXT, clip, write_merges
from PIL import Image
from safetensors.torch import save_file

from tenfold.weights.clip_export import official_names, write_clip

Call = Callable[..., tuple[int, str, str]]
QUICK = ["--pictures", "16", "--regions", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dual encoders in both layouts, and a photo."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "hf", clip(), "transformers")
    write_merges(folder / "hf")
    write_clip(folder / "oc", clip(), "open_clip")
    write_merges(folder / "oc")
    photo = np.random.RandomState(0).randint(0, 256, (30, 60, 3)).astype(np.uint8)
    Image.fromarray(photo).save(folder / "a <b>.png")
    Image.fromarray(photo[:1].repeat(3, 1)).save(folder / "thin.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    return folder


def test_what_is_written(call: Call, folder: Path, tmp_path: Path) -> None:
    photo = folder / "a <b>.png"
    words = ["a red <i>dog</i>", "--against", "the sky", "--box", "16,1,40,25", *QUICK]
    code, said, progress = call("explain", folder / "hf", photo, *words, "--out", tmp_path / "x")
    assert code == 0 and "16 photos and 8 sentences" in progress
    files = [Path(line) for line in said.splitlines()]
    assert [file.name for file in files] == [
        "prediction.jsonl", "explanation.html", "explanation.png", "explanation.json",
    ]  # fmt: skip
    found = json.loads(files[3].read_text())
    assert found["words"] == ["a", "red", "<i>dog</i>"] and found["against"] == ["the sky"]
    assert np.shape(found["interactions"]["value"]) == (9, 3)
    assert np.shape(found["right_less_wrong"]["standard_error"]) == (9,)
    assert np.shape(found["box"]["together"]["value"]) == (2,)
    assert np.shape(found["quality"]["curves"]["pairs"]["deletion"]) == (13,)
    assert found["logits"][0] / found["scale"] == pytest.approx(found["logits"][0] / 20, rel=1e-5)
    page = files[1].read_text()
    assert "<i>dog" not in page and "&lt;i&gt;dog" in page and "a &lt;b&gt;.png" in page
    assert "http" not in page.replace("http-equiv", "") and page.count("data:image/png") > 8
    assert Image.open(files[2]).size[0] > 900
    # the same weights in another layout, written beside the weights
    code, _, _ = call("explain", folder / "oc", photo, *words)
    assert code == 0
    again = json.loads((folder / "oc/predictions/a <b>.png/explanation.json").read_text())
    assert again | {"encoder": ""} == found | {"encoder": ""}
    code, said, _ = call("explain", folder / "oc", photo, "red", *QUICK, "--no-judge")
    assert code == 0 and "a <b>.png-2/explanation.json" in said
    code, _, error = call("explain", folder / "oc", photo, "sky", *QUICK, "--out", tmp_path / "x")
    assert code == 2 and "holds another prediction" in error


def test_what_cannot_be_used(call: Call, folder: Path, tmp_path: Path) -> None:
    made, hf, photo = clip(), folder / "hf", folder / "a <b>.png"
    state = official_names(made.state)
    vision = {k: v for k, v in state.items() if k.startswith("visual.")}
    save_file(vision, tmp_path / "vision.safetensors")
    save_file({k: v for k, v in state.items() if k not in vision}, tmp_path / "text.safetensors")
    narrow = clip(text=replace(TEXT, dim=15)).state["text.text_projection"]
    save_file(state | {"text_projection": narrow}, tmp_path / "two.safetensors")
    (tmp_path / "other.txt").write_text("#version\n" + "\n".join(f"{a} {b}" for a, b in MERGES[:5]))
    merges = ["--merges", hf / "merges.txt"]
    cases: list[tuple[list[object], str]] = [
        ([hf, photo, " "], "the sentence has no word"),
        ([hf, photo, "a red dog " * 9], "tokens with start and end, of which CLIP reads 16"),
        ([hf, photo, "red \udce9"], r"the sentence 'red \udce9' is no text in UTF-8"),
        ([hf, photo, "red", "--against", "sky", ""], "a sentence of --against is empty"),
        ([hf, folder / "broken.jpg", "red"], "broken.jpg is not a picture"),
        ([hf, folder / "no.jpg", "red"], "no.jpg is not there"),
        ([hf, folder / "thin.png", "red"], "it has 180 x 1 pixels, too narrow"),
        ([hf, photo, "red", "--out", photo], "a <b>.png"),
        ([hf, photo, "red", "--box", "0,0,70,20"], "does not lie in the photo of 60 x 30 pixels"),
        ([hf, photo, "red", "--box", "0,0,5,20"], "the encoder does not see the box 0,0,5,20"),
        ([hf, photo, "red", "--box", "a"], "a box is four numbers"),
        ([hf, photo, "red", "--pictures", "0"], "pictures must be 8 to 65536, got 0"),
        ([hf, photo, "red", "--pictures", "9"], "give --pictures of at least 11"),
        ([hf, photo, "red", "--texts", "99999999"], "texts must be 2 to 65536"),
        ([hf, photo, "red", "--absent", "tokens"], "left out grey or removed, not 'tokens'"),
        ([hf, photo, "red", "--merges", tmp_path / "no"], "is not there"),
        ([hf, photo, "red", "--merges", tmp_path / "other.txt"], "tokens, the table of merges 519"),
        ([tmp_path / "vision.safetensors", photo, "red", *merges], "no token_embedding.weight"),
        ([tmp_path / "text.safetensors", photo, "red", *merges], "no class_embedding"),
        ([tmp_path / "two.safetensors", photo, "red", *merges], "they are of two spaces"),
        ([tmp_path / "none", photo, "red"], "does not exist; give a run folder or a checkpoint"),
        ([folder, photo, "red"], "holds no weights.safetensors"),
        ([photo, photo, "red"], "cannot be read as tensors alone"),
    ]
    for words, message in cases:
        code, said, error = call("explain", *words, *([] if "--pictures" in words else QUICK))
        assert (code, said) == (2, ""), words
        last = error.splitlines()[-1]
        assert last.startswith("tenfold: ") and message in last, (words, error)
        assert len([line for line in error.splitlines() if line.startswith("tenfold")]) == 1
