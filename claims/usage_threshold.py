"""What thresholds chosen without masks lose against the best threshold of the sweep.

    python claims/usage_threshold.py [--seeds 0 1]

Frozen EfficientNet-Lite0 (ImageNet's weights, $TENFOLD_EFFICIENTNET_LITE0) and a linear head for
each temperature and seed, on 200 pictures of `coco_wsss`, 0.15 of which are held out: 10 epochs of
Adam, whole pictures of 256 x 256, maps of one scale and both flips. The temperature of the other
claim (claims.py) was taken here, by the held-out pictures. The criterion `activation` was chosen
before, on all training pictures of the set (it lost at most 0.2 points with average pooling, tau
0.2 and tau -0.3).

`look_at` looks once at pictures with their maps, their classifier's score and their truth,
`compare` gives the rows of one seed network on one set; `worst` sums up rows of many. A wider run,
with a rule that was fixed before it, is `usage_criteria.py`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tenfold.core import dist, log
from tenfold.core.seed import generator
from tenfold.data.images.image_labels import Item, read_image, read_mask
from tenfold.metrics.iou import IGNORED
from tenfold.report.markdown import md_table
from tenfold.systems.usage import claims, data, inference, pretrained, principle, seeds, threshold
from tenfold.systems.usage.config import Config
from tenfold.systems.usage.kept import KeptNetwork, without_memory
from tenfold.systems.usage.loss import generation_loss
from tenfold.systems.usage.model import Networks
from tenfold.systems.usage.networks import Precision, SeedNetwork
from tenfold.systems.usage.seed_metrics import THRESHOLDS, Curve, Sweep
from tenfold.systems.usage.system import Usage
from tenfold.systems.usage.threshold import Choice, Seeds
from tenfold.systems.usage.views import normalised, square

HERE = Path(__file__).parent
FIXED = 0.3
"""What a user who chooses nothing might take."""
SWEPT = (*THRESHOLDS, *(i / 100 for i in range(len(THRESHOLDS), 100)))
"""Papers sweep to 0.59, and criteria choose up to 0.99: each is measured where it is."""
SETS = ("coco_wsss",)
TAUS = (0.0, -0.2, 0.1, 0.2)
SIGNS = (-0.2, 0.2)
"""Temperatures that say which sign is better."""
SLOW = {"edges": 24, "confidence": 10}
"""Criteria that take long, which look at so many pictures with tau 0; confidence with the first
seed alone."""


@dataclass(frozen=True)
class Row:
    """One choice on one set with one seed network."""

    where: str
    name: str
    threshold: float
    miou: float
    lost: float
    """Points of mIoU below the best threshold."""


@dataclass(frozen=True)
class Looked:
    """What is known of a picture after one look at it."""

    exceeded: Int[Tensor, "truth winner step"]
    """Its counts for the sweep (`Sweep.exceeded`)."""
    found: dict[str, Tensor]
    """What criteria found."""
    share: float
    """Of foreground, by the truth."""


def look_at(
    num_classes: int,
    pictures: Iterable[tuple[Seeds, Int[Tensor, "height width"]]],
    names: Sequence[str] = tuple(threshold.CRITERIA),
    seen: Mapping[str, Collection[int]] | None = None,
) -> list[Looked]:
    """Look at each picture once.

    `num_classes` counts the background. `seen` has the pictures that a criterion looks at, where
    these are not all.
    """
    looked = []
    for row, (one, truth) in enumerate(pictures):
        sweep = Sweep(num_classes, SWEPT)
        sweep.add(one.maps, truth)
        asked = [n for n in names if seen is None or n not in seen or row in seen[n]]
        counted = truth[truth != IGNORED]
        share = float((counted > 0).double().mean()) if len(counted) else 0.0
        # of one picture: half of the memory for the counts of all
        looked.append(Looked(sweep.exceeded.int(), threshold.look(asked, one), share))
    return looked


def compare(
    where: str, num_classes: int, looked: Sequence[Looked], names: Sequence[str]
) -> tuple[list[Row], Curve]:
    """Rows of all choices, the swept one first, and the curve of the sweep."""
    sweep = Sweep(num_classes, SWEPT)
    sweep.exceeded += torch.stack([one.exceeded for one in looked]).sum(0)
    curve = sweep.curve()
    choices: list[Choice] = [threshold.swept(curve), threshold.fixed(FIXED)]
    choices += threshold.choose(names, [one.found for one in looked]).values()
    rows = [
        Row(
            where,
            choice.name,
            choice.threshold,
            float(curve.miou[curve.at(choice.threshold)]),
            threshold.loss(choice, curve),
        )
        for choice in choices
    ]
    return rows, curve


def worst(rows: Iterable[Row]) -> dict[str, float]:
    """The most that each choice lost anywhere."""
    found: dict[str, float] = {}
    for row in rows:
        found[row.name] = max(found.get(row.name, 0.0), row.lost)
    return found


def table(rows: Sequence[Row]) -> str:
    """Rows as Markdown."""
    head = ["set and network", "choice", "threshold", "mIoU", "lost"]
    cells = [
        [row.where, row.name, f"{row.threshold:.2f}", f"{row.miou:.1f}", f"{row.lost:.1f}"]
        for row in rows
    ]
    return "\n".join(md_table(head, cells, words=2))


# --- seed networks on two sets -------------------------------------------------------------------


def main() -> None:
    """Train heads, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    file = os.environ.get(claims.WEIGHTS, "")
    if not file or not Path(file).is_file():
        raise SystemExit(f"set ${claims.WEIGHTS} to ImageNet's weights of EfficientNet-Lite0")
    torch.set_num_threads(1)
    rows: list[Row] = []
    advice: list[dict[str, object]] = []
    for name in SETS:
        cfg = claims.pretrained(file)
        cfg = Usage.complete(replace(cfg, data=replace(cfg.data, name=name)))
        if cfg.data.name != name:
            raise SystemExit(f"{name} was not found; set TENFOLD_DATA")
        found = of_set(cfg, args.seeds)
        rows += found[0]
        advice += found[1]
    with dist.started("cpu") as world:
        environment = log.environment(world)
    numbers = " ".join(str(seed) for seed in args.seeds)
    environment["command"] = f"python claims/usage_threshold.py --seeds {numbers}"
    write(rows, advice, environment)


def of_set(cfg: Config, numbers: Sequence[int]) -> tuple[list[Row], list[dict[str, object]]]:
    """Rows of all networks of one set, and what temperatures were recommended and were best."""
    networks = Networks(cfg)
    pretrained.begin(networks, cfg)
    sets = data.open_sets(cfg.data)
    items, held = ([item for item in sets.split(name).items if item.labels]
                   for name in ("train", "validation"))  # fmt: skip
    features = torch.stack([features_of(networks.seed, cfg, item) for item in items])
    of_held = torch.stack([features_of(networks.seed, cfg, item) for item in held])
    labels = torch.stack([data.one_hot(item.labels, len(cfg.classes)) for item in items])
    rows, advice = [], []
    for number in numbers:
        best, validation = {}, {}
        for tau in TAUS:
            train_head(networks.seed, features, labels, tau, cfg, number)
            names = ["activation", "otsu", "stability"]
            names += [n for n in SLOW if tau == 0 and (n == "edges" or number == numbers[0])]
            seen = {name: range(0, len(items), max(1, len(items) // SLOW[name])) for name in SLOW}
            count = len(cfg.classes) + 1
            where = f"{cfg.data.name}, tau {tau:g}, seed {number}"
            looked = look_at(count, pictures(networks.seed, cfg, items, features), names, seen)
            some, curve = compare(where, count, looked, names)
            print(table(some), flush=True)
            rows += some
            best[tau] = float(curve.miou.max())
            others = look_at(count, pictures(networks.seed, cfg, held, of_held), ())
            curve_held = compare("", count, others, ())[1]
            validation[tau] = float(curve_held.miou.max())
            print(f"tau {tau:g}: {validation[tau]:.2f} of validation pictures", flush=True)
            if tau == 0:
                told = principle.recommend_tau(curve)
        better = max(SIGNS, key=best.__getitem__)
        advice.append(
            {
                "set": cfg.data.name, "seed": number, "recommended": told.tau,
                "reason": told.reason, "best mIoU": {f"{tau:g}": best[tau] for tau in TAUS},
                "validation mIoU": {f"{tau:g}": validation[tau] for tau in TAUS},
                "hit": told.tau == better,
            }
        )  # fmt: skip
        print(advice[-1], flush=True)
    return rows, advice


@torch.no_grad()
def features_of(
    network: SeedNetwork, cfg: Config, item: Item
) -> Float[Tensor, "view channel rows columns"]:
    """What the frozen backbone finds in a picture and in its mirror."""
    image = square(read_image(item), cfg.seeds.size)
    views = normalised(torch.stack([image, image.flip(2)]), cfg.model.colours)
    return network.features(views).last


def train_head(
    network: SeedNetwork,
    features: Float[Tensor, "picture view channel rows columns"],
    labels: Float[Tensor, "picture class"],
    tau: float,
    cfg: Config,
    seed: int,
) -> None:
    """Train the last convolution anew, as the runs of the claim do."""
    draw = generator(seed, "usage threshold")
    weight = network.head.weight
    torch.nn.init.xavier_uniform_(weight, generator=draw)
    optim = torch.optim.Adam([weight], cfg.optim.lr)
    matrix = partial(weight.flatten, 1)  # a product for each picture copies no features
    size, count = cfg.data.batch_size, len(features)
    for _ in range(cfg.steps * size // count):
        for rows in torch.randperm(count, generator=draw).split(size):
            views = torch.randint(0, 2, (len(rows),), generator=draw)
            seen = zip(rows.tolist(), views.tolist(), strict=True)
            maps = torch.stack([matrix() @ features[at].flatten(1) for at in seen])
            loss, _ = generation_loss(maps, labels[rows], tau, tau)
            optim.zero_grad()
            loss.backward()
            optim.step()


def pictures(
    network: KeptNetwork,
    cfg: Config,
    items: Sequence[Item],
    features: Tensor,
    precision: Precision = "float32",
) -> Iterator[tuple[Seeds, Tensor]]:
    """Pictures with their maps, the classifier's score (in a precision) and the truth."""
    whole = without_memory(network, precision)
    for item, found in zip(items, features, strict=True):
        picture = read_image(item)
        size = (picture.shape[0], picture.shape[1])
        with torch.no_grad():
            maps = network.head(found)[:, list(item.labels)].relu()
        mirrored = maps[1].flip(2)

        def placed(one: Tensor, own: Item = item, size: tuple[int, int] = size) -> Tensor:
            full = one.new_zeros(len(cfg.classes), *size)
            full[list(own.labels)] = seeds.merged([one], size, "psa")
            return full

        def score(images: Tensor, own: Item = item) -> Tensor:
            logits = inference.class_logits(whole, cfg, list(images.numpy()))
            return logits[:, list(own.labels)].mean(1)

        truth = read_mask(item)
        assert truth is not None
        image = torch.from_numpy(picture.copy())
        one = Seeds(image, placed(maps[0] + mirrored), placed(mirrored), score)
        yield one, torch.from_numpy(truth.copy()).long()


def write(
    rows: Sequence[Row], advice: Sequence[dict[str, object]], environment: dict[str, object]
) -> None:
    """The two files."""
    result = {
        "rows": [asdict(row) for row in rows], "worst": worst(rows), "tau": list(advice),
        "environment": environment,
    }  # fmt: skip
    (HERE / "usage-threshold.json").write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        "# USAGE: thresholds without masks",
        "",
        (__doc__ or "").split("\n\n")[2].replace("\n", " "),
        "",
        "Which criterion to take is asked in a wider run, whose rule was fixed before it: "
        "[usage-criteria.md](usage-criteria.md). Rows of clothing_parsing that once stood here are "
        "void: norms of the frozen backbone were in training mode.",
        "",
        "Points of mIoU that a choice loses against the best threshold (`swept`), mean and most "
        f"over {len({row.where for row in rows})} networks. {_slow()}",
        "",
        *summary(rows),
        "",
        "## Temperature",
        "",
        "Recommended by FP and FN of the usual classifier's seeds (tau 0) at their best threshold; "
        "a hit is the better of -0.2 and 0.2 by the best mIoU of seeds.",
        "",
        *tau_table(advice),
        "",
        f"Hits: {sum(bool(one['hit']) for one in advice)} of {len(advice)}.",
        "",
        "The best mIoU of seeds of the pictures that were held out for validation:",
        "",
        *validation_table(advice),
        "",
        "## Every network",
        "",
        table(rows),
        "",
        f"{environment['cpu']}, one thread, torch {environment['torch']}, "
        f"{environment['date']}, commit {environment['commit']}: `{environment['command']}`",
        "",
    ]
    (HERE / "usage-threshold.md").write_text("\n".join(lines))


def _slow() -> str:
    return (
        f"`edges` looked at {SLOW['edges']} pictures, with tau 0 alone, `confidence` at "
        f"{SLOW['confidence']}, with the first seed; the others at all."
    )


def summary(rows: Sequence[Row]) -> list[str]:
    """What every choice lost on each set."""
    cells = []
    for choice in dict.fromkeys(row.name for row in rows):
        line = [choice]
        for name in SETS:
            lost = [r.lost for r in rows if r.name == choice and r.where.startswith(f"{name},")]
            shown = f"{sum(lost) / len(lost):.1f} (most {max(lost):.1f})" if lost else "none"
            line.append(shown)
        cells.append(line)
    return md_table(["choice", *SETS], cells)


def tau_table(advice: Sequence[dict[str, object]]) -> list[str]:
    """The recommended temperature beside what each gave."""
    cells = []
    for one in advice:
        best = one["best mIoU"]
        assert isinstance(best, dict)
        cells.append(
            [f"{one['set']}, seed {one['seed']}", f"{one['recommended']:+g}", str(one["reason"])]
            + [f"{best[f'{tau:g}']:.1f}" for tau in TAUS]
            + ["hit" if one["hit"] else "miss"]
        )
    heads = [f"mIoU, tau {tau:g}" for tau in TAUS]
    return md_table(["network", "recommended", "because of", *heads, "hit"], cells, words=3)


def validation_table(advice: Sequence[dict[str, object]]) -> list[str]:
    """What each temperature gave on pictures that no head learned from."""
    cells = []
    for one in advice:
        found = one["validation mIoU"]
        assert isinstance(found, dict)
        cells.append(
            [f"{one['set']}, seed {one['seed']}", *(f"{found[f'{tau:g}']:.1f}" for tau in TAUS)]
        )
    return md_table(["network", *(f"tau {tau:g}" for tau in TAUS)], cells)


if __name__ == "__main__":
    main()
