"""Label-free thresholds on maps whose best threshold is known, and the sign of tau."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from tenfold.systems.usage import principle, threshold
from tenfold.systems.usage.seed_metrics import Sweep
from tenfold.systems.usage.threshold import Seeds


def disc(level: float = 0.2, seed: int = 0) -> tuple[Seeds, torch.Tensor]:
    """A bright disc whose map is 1 inside, falls to `level` around it, and its truth."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(48.0), indexing="ij")
    far = ((y - 20).square() + (x - 24).square()).sqrt()
    inside = far < 12
    noise = 6 * torch.randn(40, 48, 3, generator=generator)
    image = (60 + 120 * inside[..., None] + noise).clamp(0, 255).to(torch.uint8)
    one = level + (1 - level) * torch.sigmoid((12 - far) * 2)
    maps = torch.stack([one / one.max(), torch.zeros(40, 48)])

    def score(pictures: torch.Tensor) -> torch.Tensor:
        return pictures.float().mean(-1).flatten(1).gt(120).float().mean(1)

    return Seeds(image, maps, maps.roll(1, 2), score), inside.long()


def chosen(names: Sequence[str], pictures: Sequence[Seeds]) -> dict[str, threshold.Choice]:
    return threshold.choose(names, [threshold.look(names, one) for one in pictures])


@pytest.mark.parametrize("level", [0.1, 0.3])
def test_choices_find_the_disc(level: float) -> None:
    pictures = [disc(level, seed) for seed in range(2)]
    sweep = Sweep(3, [i / 100 for i in range(100)])
    for seeds, truth in pictures:
        sweep.add(seeds.maps, truth)
    curve = sweep.curve()
    assert float(curve.miou.max()) > 90 > 60 > float(curve.miou[0])
    choices = chosen(list(threshold.CRITERIA), [seeds for seeds, _ in pictures])
    for name, choice in choices.items():
        assert choice.name == name and choice.looks_at == "pictures"
        assert len(choice.curve) == len(choice.thresholds) > 10
        assert level < choice.threshold < 0.95, name
        assert threshold.loss(choice, curve) < 20, (name, choice.threshold)
    best = threshold.swept(curve)
    assert "masks of the same pictures" in str(best) and threshold.loss(best, curve) == 0
    assert threshold.validation(curve).looks_at == "masks of other pictures"


def test_a_choice_beyond_the_sweep_is_not_taken_for_its_end() -> None:
    """Papers sweep to 0.59; a map that is high all about its object asks for more."""
    seeds, truth = disc(0.6)
    choice = chosen(["activation"], [seeds])["activation"]
    assert choice.threshold > 0.6
    sweeps = {most: Sweep(3, [i / 100 for i in range(most)]) for most in (60, 100)}
    for sweep in sweeps.values():
        sweep.add(seeds.maps, truth)
    short, whole = (sweep.curve() for sweep in sweeps.values())
    with pytest.raises(ValueError, match=r"threshold 0\.\d+ was not measured: .* 0 to 0\.59"):
        threshold.loss(choice, short)
    assert float(short.miou.max()) < 20 and float(whole.miou.max()) == 100
    assert 0 < threshold.loss(choice, whole) < 10
    assert short.at(0.594) == 59 and whole.at(0.994) == 99


def test_activation_is_where_kept_activation_exceeds_area_most() -> None:
    seeds, _ = disc()
    choice = chosen(["activation"], [seeds])["activation"]
    assert choice.threshold == pytest.approx(float(seeds.maps[0].mean()), abs=1e-6)
    peak = choice.thresholds[choice.curve.index(max(choice.curve))]
    assert peak == pytest.approx(choice.threshold, abs=0.02)


def test_otsu_is_the_loop() -> None:
    values = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(0))
    seeds = Seeds(torch.zeros(9, 9, 3, dtype=torch.uint8), values)
    flat = ((values.flatten().double() * 100).floor() + 0.5) / 100
    between = {}
    for step in range(1, 100):
        low, high = flat[flat < step / 100], flat[flat > step / 100]
        if len(low) and len(high):
            between[step / 100] = len(low) * len(high) * float(low.mean() - high.mean()) ** 2
    wanted = max(between, key=lambda t: between[t])
    assert chosen(["otsu"], [seeds])["otsu"].threshold == pytest.approx(wanted)


def test_total_and_otsu_of_pictures() -> None:
    values = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0))
    values[1:] /= 5
    image = torch.zeros(9, 9, 3, dtype=torch.uint8)
    several = chosen(["total", "otsu_picture", "otsu", "activation"], [Seeds(image, values)])
    assert several["total"].threshold == pytest.approx(float(values.sum(0).mean()))
    highest = Seeds(image, values.amax(0, keepdim=True))
    one = chosen(["total", "otsu", "activation"], [highest])
    assert one["total"].threshold == one["activation"].threshold
    assert one["total"].threshold == several["activation"].threshold
    assert several["otsu_picture"].threshold == one["otsu"].threshold
    peak = several["total"].thresholds[int(torch.tensor(several["total"].curve).argmax())]
    assert peak == pytest.approx(several["total"].threshold, abs=0.02)
    crowd = chosen(["total"], [Seeds(image, torch.ones(3, 9, 9))])
    assert crowd["total"].threshold == 0.99  # 1 would keep nothing


def test_evidence_is_the_score_of_the_seed_and_of_the_rest() -> None:
    seeds, _ = disc()
    kept, rest = threshold.median_evidence([None, threshold.evidence(seeds, 0.5)])
    assert kept == pytest.approx(1, abs=0.05) and rest == pytest.approx(0, abs=0.05)


def test_mutual_information_of_known_pairs() -> None:
    counts = torch.tensor([[[5, 0], [0, 5]], [[4, 4], [4, 4]], [[8, 0], [0, 0]]])
    found = threshold.mutual_information(counts)
    torch.testing.assert_close(found, torch.tensor([2.0, 1.0, 1.0]).double().log())


def test_pictures_that_say_nothing() -> None:
    image = torch.zeros(4, 5, 3, dtype=torch.uint8)
    empty = Seeds(image, torch.zeros(2, 4, 5), None, lambda pictures: torch.zeros(len(pictures)))
    assert not chosen(("activation", "otsu", "confidence", "edges"), [empty])
    assert threshold.evidence(empty, 0.3) is None and threshold.median_evidence([None]) == (0, 0)
    with pytest.raises(ValueError, match="needs the maps of another view"):
        chosen(["stability"], [empty])
    with pytest.raises(ValueError, match="needs the classifier's score"):
        threshold.evidence(Seeds(image, empty.maps), 0.3)
    with pytest.raises(ValueError, match="no criterion 'mean'; there are activation"):
        chosen(["mean"], [])
    with pytest.raises(ValueError, match="from 0 to below 1, got 1"):
        threshold.fixed(1.0)
    assert str(threshold.fixed(0.3)) == "0.30 (fixed: looks at nothing)"


def test_the_sign_of_tau() -> None:
    sweep = Sweep(3, (0.5,))
    sweep.add(
        torch.tensor([[[0.9, 0.9, 0.9, 0.1]], [[0.0, 0.0, 0.0, 0.9]]]), torch.tensor([[1, 0, 0, 0]])
    )
    assert principle.recommend_tau(sweep.curve()).tau == 0.2
    assert principle.by_errors(37.8, 23.8).tau == 0.2
    assert principle.by_errors(10.0, 20.0, 0.1).tau == -0.1
    assert principle.by_errors(10.0, 10.0).tau == 0
    assert principle.by_evidence(0.8, 0.2).tau > 0 > principle.by_evidence(0.3, 0.6).tau
    assert principle.by_evidence(0.5, 0.5).tau == 0
    assert principle.by_family("cnn").tau < 0 < principle.by_family("transformer").tau
    assert "under-activated" in str(principle.by_errors(10.0, 20.0))
