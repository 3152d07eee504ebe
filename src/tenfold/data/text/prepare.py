"""Recipe of textmix: texts to one corpus with its splits."""

from __future__ import annotations

import hashlib
import json
import lzma
from pathlib import Path

CAP = 3_600_000
"""Most bytes of a domain."""


VAL_SHARE, VAL_LEAST = 0.05, 60_000
"""The end of each domain is validation text: 5 %, at least 60 kB."""


def textmix(source: Path, out: Path) -> None:
    """<domain>.txt to <domain>.{train,val}.txt.xz and manifest.json."""
    files = sorted(source.glob("*.txt"))
    if not files:
        raise FileNotFoundError(f"{source} holds no <domain>.txt: one plain text file a domain.")
    manifest = {}
    for file in files:
        train, val = split_text(_text(file), file.name)
        for split, text in (("train", train), ("val", val)):
            packed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
            (out / f"{file.stem}.{split}.txt.xz").write_bytes(packed)
            manifest[f"{file.stem}.{split}"] = {
                "bytes": len(text),
                "xz": len(packed),
                "sha256": hashlib.sha256(text).hexdigest(),
                "distinct_bytes": len(set(text)),
            }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _text(file: Path) -> bytes:
    text = file.read_bytes().replace(b"\r\n", b"\n")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 at byte {error.start}: re-encode it.") from error
    return text


def split_text(text: bytes, name: str) -> tuple[bytes, bytes]:
    """Cap a domain at a line end, and cut its last part off, at a line end, for validation.

    Raises ValueError if the text is too short to leave anything for training.
    """
    if len(text) > CAP:
        text = text[: text.rfind(b"\n", 0, CAP) + 1]
    cut = len(text) - max(VAL_LEAST, int(len(text) * VAL_SHARE))
    cut = text.rfind(b"\n", 0, max(cut, 0)) + 1
    if cut == 0:
        raise ValueError(
            f"{name} has {len(text)} bytes: at least {VAL_LEAST} bytes become validation text, "
            "cut at a line end, and nothing is left to train on. Give a longer text."
        )
    return text[:cut], text[cut:]
