"""`tenfold export` and `tenfold convert`: files for and from other tools."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

from tenfold.core.errors import UsageError, require_file_or_folder
from tenfold.systems import able, refusal, system_class

from .arguments import parse, path_or, positional, say


def export(rest: list[str]) -> None:
    """Export a trained network to ONNX or torch.export, checked equal to eager."""

    def verb(
        run: Annotated[Path, *positional("RUN")],
        to: Literal["onnx", "torch", "official"] = "onnx",
        out: str = "",
        part: str = "",
        size: tuple[int, int] = (0, 0),
    ) -> None:
        """Export a trained network and check that it equals eager at two batch sizes.

        Args:
            run: Run folder or .safetensors file.
            to: onnx (needs the extra `export`), torch (torch.export, a .pt2 file), or official:
                files as the authors' own, where a system has such ({official}).
            out: Output file, of official ones a new or empty folder; by default beside the weights.
                An earlier file of --to onnx or torch is replaced, what others wrote is not.
            part: Which network, where a system has several ({parts}; itpn: backbone, or a task's
                name).
            size: Height and width of pictures, where the network takes any ({parts}), as in
                `--size 256 192`; the file is then for that size.
        """
        from tenfold.core import lock
        from tenfold.core.capabilities import Exports, ExportsOfficial, ExportsParts
        from tenfold.core.checkpoint import read_header
        from tenfold.runner.export import export_checked
        from tenfold.runner.weights import load, weights_of

        weights = weights_of(run)
        name, _ = read_header(weights)
        system = load(system_class(name), run)
        if to == "official":
            if part or any(size):
                raise UsageError(
                    f"{'--part' if part else '--size'} is of --to onnx and torch; official files "
                    "are of the whole network"
                )
            if not isinstance(system, ExportsOfficial):
                raise refusal(name, "export official files")
            folder = path_or(weights.parent / "official", out)
            if folder.is_symlink() and not out:
                raise ValueError(f"{folder} is a link, which is not followed; give --out")
            with lock.locked(folder, "exporting"):
                written = system.export_official(folder)
            for path in written:
                say(path)
            return
        suffix = ".onnx" if to == "onnx" else ".pt2"
        target = path_or(weights.with_name(name + suffix), out)
        if target.is_dir():
            target /= name + suffix
        if part or any(size):
            if not isinstance(system, ExportsParts):
                raise refusal(name, "export a part")
            what = system.export_part(part, size)
        elif isinstance(system, Exports):
            what = system.export()
        else:
            raise refusal(name, "export")
        held = nullcontext() if out else lock.locked(target.parent, "exporting")
        with held:
            worst = export_checked(what, to, target)
        say(f"{target}  (largest difference from eager: {worst:.2g})")

    verb.__doc__ = (verb.__doc__ or "").format(
        official=able("export official files"), parts=able("export a part")
    )
    parse(verb, rest, "tenfold export", ["--to", "--out", "--part", "--size"])


def convert(rest: list[str]) -> None:
    """Convert an official checkpoint to our safetensors."""

    def verb(
        system: Annotated[str, *positional("SYSTEM")],
        checkpoint: Annotated[Path, *positional("CKPT")],
        out: str = "",
        partial: bool = False,
    ) -> None:
        """Convert an official checkpoint; every unmatched key is listed.

        Args:
            system: Name of the system.
            checkpoint: File, or folder of files, as its authors' code writes it; read without
                executing anything.
            out: Output folder; by default the checkpoint's name without its endings, so that a
                folder needs --out. It can be given to evaluate, predict and export like a run.
            partial: Write even if keys are missing or unused.
        """
        from tenfold.core.capabilities import Converts
        from tenfold.files import require_empty
        from tenfold.runner.weights import save_converted

        cls = system_class(system)
        if not issubclass(cls, Converts):
            raise UsageError(
                f"{system} has no official checkpoints to convert; systems that have: "
                f"{able('convert')}"
            )
        require_file_or_folder(checkpoint)
        folder = path_or(checkpoint.with_name(checkpoint.name.split(".")[0]), out)
        require_empty(folder, "--out")
        made, account = cls.convert(checkpoint)
        say(account.report())
        if not partial:
            account.require_complete()
        say(save_converted(folder, system, made, account.report()))

    parse(verb, rest, "tenfold convert", ["--out", "--partial"])
