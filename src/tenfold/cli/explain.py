"""`tenfold explain`: which patches of a photo and words of a sentence act together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from .arguments import flags_of, parse, positional, say


def explain(rest: list[str]) -> None:
    """Explain why a dual encoder matches a photo and a sentence: patches, words, boxes."""
    import tyro

    from tenfold.systems.loupe.explain.options import ExplainOptions

    asked = ExplainOptions()

    def verb(
        checkpoint: Path, photo: Path, sentence: str, out: str = "", merges: str = "",
        activation: Literal["", "quick_gelu", "gelu"] = "",
        device: Literal["auto", "cpu", "cuda"] = "auto", options: Any = asked,
    ) -> None:  # fmt: skip
        """Explain a match of a photo and a sentence; writes a page, a picture and JSON.

        Example: tenfold explain ViT-B-32.pt dog.jpg "a dog on the grass"
        --against "a cat on a sofa" --box 40,60,200,220

        Args:
            checkpoint: Run folder of loupe, or a dual encoder of CLIP's kind: OpenAI's .pt, a file
                or folder of open_clip or of transformers. Nothing in it is executed.
            photo: A picture.
            sentence: What is said of it.
            out: Output folder; by default predictions/<photo> beside the weights, with -2 and so on
                where another prediction lies.
            merges: Table of tokens (bpe_simple_vocab_16e6.txt.gz or merges.txt); by default that
                beside the weights, or in $TENFOLD_DATA/clip_text.
            activation: Of a CLIP whose files do not say it; by default QuickGELU, as OpenAI's.
            device: Where to compute; auto takes a GPU if there is one.
            options: What is asked.
        """
        from tenfold.runner import explain

        folder = Path(out) if out else None
        written = explain.run(
            checkpoint, photo, sentence, folder, options, merges, activation, device,
            lambda line: say(line, file=sys.stderr),
        )  # fmt: skip
        for path in written:
            say(path)

    verb.__annotations__ = {
        "checkpoint": Annotated[Path, *positional("CHECKPOINT")],
        "photo": Annotated[Path, *positional("PHOTO")],
        "sentence": Annotated[str, *positional("SENTENCE")],
        "out": str,
        "merges": str,
        "activation": Literal["", "quick_gelu", "gelu"],
        "device": Literal["auto", "cpu", "cuda"],
        "options": Annotated[ExplainOptions, tyro.conf.arg(name="")],
        "return": None,
    }
    flags = ["--out", "--merges", "--activation", "--device", *flags_of(ExplainOptions)]
    parse(verb, rest, "tenfold explain", flags)
