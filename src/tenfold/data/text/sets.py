"""The texts that tenfold knows."""

from __future__ import annotations

from ..dataset import DataSet, Download

_SHAKESPEARE = Download(
    (
        "https://raw.githubusercontent.com/karpathy/char-rnn/"
        "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
    ),
    "drama_en.txt",
    "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    1_115_394,
)


SETS = (
    DataSet(
        "textmix",
        ("ppmoe",),
        "four public text domains, 10.5 MB: prose and drama, English and Spanish, Python manuals",
        "real",
        "public-domain works; docs_py: PSF Licence Version 2",
        "github.com/GITenberg (2600, 2701, 2000), karpathy/char-rnn @ 6f9487a, python3.11-doc",
        "2.8 MB",
        "<domain>.{train,val}.txt.xz, manifest.json (bytes, sha256 of the raw text)",
        "`tenfold data get textmix FOLDER` fetches drama_en.txt; put other domains beside it as "
        "<domain>.txt, then `tenfold data prepare textmix FOLDER OUT`",
        "recipe",
        (_SHAKESPEARE,),
    ),
)
"""One entry a set."""
