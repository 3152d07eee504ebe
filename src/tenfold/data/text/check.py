"""Check of textmix: sizes and digests."""

from __future__ import annotations

import hashlib

from ..io.problems import BROKEN, Problems
from .corpus import DOMAINS, check_text, read


def check_textmix(f: Problems) -> None:
    """Every file of the manifest unpacks to the bytes and the SHA-256 it states."""
    manifest = f.json(f.folder / "manifest.json")
    if manifest is None:
        if any(f.folder.glob("*.txt")):
            f.note("there is plain text: `tenfold data prepare textmix` makes the set from it")
        return
    domains = sorted({key.rpartition(".")[0] for key in manifest})
    for key in (f"{domain}.{split}" for domain in domains for split in ("train", "val")):
        file = f.folder / f"{key}.txt.xz"
        if key not in manifest:
            f.problem("manifest.json", f"lacks {key}")
            continue
        if not f.exists(file):
            continue
        f.seen()
        try:
            text = read(file)
            check_text(text, "it")
        except BROKEN as error:
            f.problem(file, f"does not unpack to UTF-8 text: {error}")
            continue
        f.expect(file, "bytes", len(text), manifest[key]["bytes"])
        f.expect(file, "sha256", hashlib.sha256(text).hexdigest(), manifest[key]["sha256"])
    absent = [domain for domain in DOMAINS if domain not in domains]
    if absent:
        f.note(f"domains of the published mix that are absent: {', '.join(absent)}")
