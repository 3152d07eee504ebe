"""The sets of pictures with captions that tenfold knows; COCO's captions are with its pictures."""

from __future__ import annotations

from ..dataset import ONCE, DataSet


def _refer(name: str, what: str, file: str) -> DataSet:
    return DataSet(
        name,
        ("loupe",),
        what,
        "real",
        "annotations: github.com/lichengunc/refer states none; each photo its Flickr licence",
        "github.com/lichengunc/refer",
        "13 GB with the photos of COCO's train2014",
        f"instances.json, {file} (or refs.json of the same content), images/ or train2014/",
        "unpack the archive of that name from there, and put COCO's train2014, or a link to it, "
        "inside",
        "as is",
        bring_your_own=True,
    )


SETS = (
    DataSet(
        "coco_mini_captions",
        ("loupe",),
        "159 COCO photos with 795 captions and 1363 boxes",
        "real",
        "annotations CC BY 4.0; each photo its Flickr licence, some non-commercial",
        "github.com/Obmutescence/COCO-MINI @ 644f29e",
        "3.5 MB",
        "images/<id>.webp, instances.json, captions.json (COCO)",
        ONCE,
    ),
    DataSet(
        "emoji_scenes",
        ("loupe",),
        "10,000 composed scenes of 794 emoji with captions, phrases and boxes",
        "real",
        "MIT (packages); drawings Apache-2.0 (Noto) and CC BY 4.0 (Twemoji)",
        "packages emoji-datasource-google and -twitter 16.0.0, emojibase-data 17.0.0",
        "6.5 MB",
        "sprites_{google,twitter}.webp, concepts.json, meta.json, render_check.json, "
        "{train,val,test,test_xstyle}.jsonl",
        ONCE,
    ),
    DataSet(
        "flickr30k",
        ("loupe",),
        "Flickr30k Entities: 31,783 photos with 5 sentences each, and boxes of their phrases",
        "real",
        "Flickr's terms; photos for non-commercial research and education",
        "github.com/BryanPlummer/flickr30k_entities",
        "4.4 GB",
        "Sentences/<id>.txt, Annotations/<id>.xml, {train,val,test}.txt, flickr30k-images/<id>.jpg",
        "ask for the photos at shannon.cs.illinois.edu/DenotationGraph; unpack annotations.zip of "
        "the repository beside them",
        "as is",
        bring_your_own=True,
    ),
    _refer(
        "refcoco", "RefCOCO: 142,209 sentences that each mean one of 50,000 objects", "refs(unc).p"
    ),
    _refer(
        "refcoco+",
        "RefCOCO+: 141,564 sentences without words of place, for 49,856 objects",
        "refs(unc).p",
    ),
    _refer("refcocog", "RefCOCOg: 104,560 longer sentences for 54,822 objects", "refs(umd).p"),
)
"""One entry a set."""
