"""Scores against plain loops, NumPy and SciPy, and against the package `scores` where it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.metrics import weather
from tenfold.metrics.weather import Position

GAUSSIAN = torch.tensor([80.27, 57.1, 34.2, 11.4, -11.4, -34.2, -57.1, -80.27])
SHAPE = (2, 3, 8, 11)


@pytest.fixture
def fields() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    truth = 280 + 5 * normal(*SHAPE)
    return {
        "truth": truth,
        "pred": truth + normal(*SHAPE),
        "climatology": 280 + normal(*SHAPE[1:]),
        "ensemble": truth + 2 * normal(7, *SHAPE),
        "weights": weather.latitude_weights(GAUSSIAN),
        "valid": normal(*SHAPE[2:]) > -0.5,
    }


def looped(score, weights, valid, *fields: np.ndarray) -> np.ndarray:
    """A score of one field after the other, given its points and their weights in plain lists."""
    out = np.empty(SHAPE[:2])
    for index in np.ndindex(*SHAPE[:2]):
        kept = [(i, j) for i in range(SHAPE[2]) for j in range(SHAPE[3]) if valid[i, j]]
        w = np.array([float(weights[i]) for i, _ in kept])
        parts = [f[(..., *index, slice(None), slice(None))] for f in fields]
        out[index] = score(w / w.sum(), *([p[..., i, j] for i, j in kept] for p in parts))
    return out


def mean(w: np.ndarray, values) -> float:
    return float(sum(a * b for a, b in zip(w, values, strict=True)))


ORACLES = {
    "mse": lambda w, p, t: mean(w, [(a - b) ** 2 for a, b in zip(p, t, strict=True)]),
    "rmse": lambda w, p, t: ORACLES["mse"](w, p, t) ** 0.5,
    "bias": lambda w, p, t: mean(w, [a - b for a, b in zip(p, t, strict=True)]),
}


def kernel_crps(members: np.ndarray, y: float, fair: bool) -> float:
    m = len(members)
    pairs = sum(abs(a - b) for a in members for b in members)
    return float(np.abs(members - y).mean() - pairs / (2 * m * (m - 1 if fair else m)))


def test_latitude_weights() -> None:
    got = weather.latitude_weights(GAUSSIAN)
    cosines = np.cos(np.radians(GAUSSIAN.double().numpy()))
    np.testing.assert_allclose(got, cosines / cosines.mean(), rtol=1e-12)
    poles = weather.latitude_weights(torch.tensor([90.0, 0.0, -90.0]))
    torch.testing.assert_close(poles, torch.tensor([0.0, 3.0, 0.0]).double())
    assert poles.min() >= 0


@pytest.mark.parametrize("bad", [[91.0, 0.0], [math.nan, 0.0], [90.0, -90.0]])
def test_latitudes_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="latitude"):
        weather.latitude_weights(torch.tensor(bad))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", sorted(ORACLES))
def test_errors(fields, name: str, masked: bool) -> None:
    valid = fields["valid"] if masked else torch.ones(SHAPE[2:], dtype=torch.bool)
    pred, truth = fields["pred"].clone(), fields["truth"].clone()
    want = looped(ORACLES[name], fields["weights"], valid, pred.numpy(), truth.numpy())
    pred[..., ~valid], truth[..., ~valid] = math.nan, math.inf
    score = getattr(weather, name)
    got = score(pred, truth, fields["weights"], valid if masked else None)
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_acc(fields, masked: bool) -> None:
    valid = fields["valid"] if masked else torch.ones(SHAPE[2:], dtype=torch.bool)

    def oracle(w, p, t, c) -> float:
        a, b = np.array(p) - np.array(c), np.array(t) - np.array(c)
        return mean(w, a * b) / math.sqrt(mean(w, a * a) * mean(w, b * b))

    climatology = fields["climatology"].expand(SHAPE)
    arrays = [f.numpy() for f in (fields["pred"], fields["truth"], climatology)]
    want = looped(oracle, fields["weights"], valid, *arrays)
    broken = torch.where(valid, fields["pred"], math.nan)
    args = (broken, fields["truth"], fields["climatology"], fields["weights"])
    np.testing.assert_allclose(weather.acc(*args, valid), want, rtol=1e-10)
    same = weather.acc(fields["truth"], *args[1:])
    np.testing.assert_allclose(same, np.ones(SHAPE[:2]), rtol=1e-12)


def test_missing_points_are_not_hidden(fields) -> None:
    pred = fields["pred"].clone()
    pred[0, 1, 2, 3] = math.nan
    for score in (weather.rmse, weather.bias):
        got = score(pred, fields["truth"], fields["weights"])
        assert got.isnan().sum() == 1 and got[0, 1].isnan()
    low = torch.tensor([0.2])
    assert weather.quantiles(pred, low).isnan().sum() == 1
    nothing = torch.zeros(SHAPE[2:], dtype=torch.bool)
    assert weather.rmse(pred, fields["truth"], fields["weights"], nothing).isnan().all()
    assert weather.quantiles(pred, low, nothing).isnan().all()


def test_weights_of_another_grid(fields) -> None:
    with pytest.raises(ValueError, match="3 weights for fields of 8 rows"):
        weather.area_mean(fields["pred"], torch.ones(3))


def test_precision() -> None:
    """Pressure in float32: sums over a million points must not lose the error."""
    noise = torch.randn((1000, 1000), generator=torch.Generator().manual_seed(4))
    truth, weights = 101325 + 100 * noise, torch.ones(1000)
    pred = truth + 0.3
    mean = noise.double().mean().item()
    assert weather.area_mean(noise, weights).item() == pytest.approx(mean, rel=1e-10)
    exact = pred.numpy().astype(np.float64) - truth.numpy()
    assert weather.bias(pred, truth, weights).item() == pytest.approx(exact.mean(), rel=1e-10)
    root = np.sqrt((exact**2).mean())
    assert weather.rmse(pred, truth, weights).item() == pytest.approx(root, rel=1e-7)
    half = weather.difference(torch.tensor([[1.0]]).half(), torch.tensor([[0.9995]]).half())
    assert half.dtype == torch.float32


def test_quantile_levels() -> None:
    got = weather.quantile_levels()
    want = 1 - np.logspace(-1, -4, 50)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    with pytest.raises(ValueError, match="0 <= low <= high < 1"):
        weather.quantile_levels(5, 0.9, 1.0)


@pytest.mark.parametrize("masked", [False, True])
def test_quantiles_and_rqe(fields, masked: bool) -> None:
    levels = torch.tensor([0.0, 0.3, 0.9, 0.9999], dtype=torch.float64)
    valid = fields["valid"] if masked else torch.ones(SHAPE[2:], dtype=torch.bool)
    pred = torch.where(valid, fields["pred"], math.nan) if masked else fields["pred"]
    got = weather.quantiles(pred, levels, valid if masked else None)
    picked = fields["pred"][..., valid].numpy()
    np.testing.assert_allclose(got, np.moveaxis(np.quantile(picked, levels, axis=-1), 0, -1))
    true = np.quantile(fields["truth"][..., valid].numpy(), levels, axis=-1)
    want = ((np.quantile(picked, levels, axis=-1) - true) / true).sum(0)
    rqe = weather.rqe(pred, fields["truth"], levels, valid if masked else None)
    np.testing.assert_allclose(rqe, want, rtol=1e-10)
    weak = 280 + 0.5 * (fields["truth"] - 280)
    assert (weather.rqe(weak, fields["truth"]) < 0).all()


def test_quantiles_with_masks_of_each_field(fields) -> None:
    """Each field may have its own number of points."""
    valid = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) > 0.4
    levels = torch.tensor([0.2, 0.95])
    got = weather.quantiles(fields["pred"], levels, valid)
    for index in np.ndindex(*SHAPE[:2]):
        picked = fields["pred"][index][valid[index]].numpy()
        np.testing.assert_allclose(got[index], np.quantile(picked, levels.double()), rtol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_ensemble(fields, masked: bool) -> None:
    valid = fields["valid"] if masked else torch.ones(SHAPE[2:], dtype=torch.bool)
    ensemble, truth = fields["ensemble"].clone(), fields["truth"]
    arrays = (fields["weights"], valid, ensemble.numpy().copy())
    average = looped(
        lambda w, e, t: ORACLES["rmse"](w, [p.mean() for p in e], t), *arrays, truth.numpy()
    )
    apart = looped(lambda w, e: mean(w, [p.var(ddof=1) for p in e]) ** 0.5, *arrays)
    ensemble[..., ~valid] = math.nan
    mask = valid if masked else None
    args = (ensemble, truth, fields["weights"], mask)
    np.testing.assert_allclose(weather.ensemble_mean_rmse(*args), average, rtol=1e-10)
    np.testing.assert_allclose(weather.spread(ensemble, args[2], mask), apart, rtol=1e-10)
    np.testing.assert_allclose(weather.spread_skill(*args), apart / average, rtol=1e-10)
    fair = weather.spread_skill(*args, finite=True)
    np.testing.assert_allclose(fair, apart / average * math.sqrt(8 / 7), rtol=1e-10)


@pytest.mark.parametrize("fair", [False, True])
def test_crps(fields, fair: bool) -> None:
    arrays = (fields["ensemble"].numpy(), fields["truth"].numpy())

    def oracle(w, e, t) -> float:
        return mean(w, [kernel_crps(p, y, fair) for p, y in zip(e, t, strict=True)])

    want = looped(oracle, fields["weights"], fields["valid"], *arrays)
    ensemble = torch.where(fields["valid"], fields["ensemble"], math.nan)
    args = (ensemble, fields["truth"], fields["weights"], fields["valid"], fair)
    np.testing.assert_allclose(weather.crps(*args), want, rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=9), st.integers(-3, 3))
def test_crps_with_ties_far_from_zero(members: list[int], y: int) -> None:
    """Whole numbers tie; around 5e5, as geopotential is, nothing may cancel."""
    ensemble = torch.tensor(members, dtype=torch.float32)[:, None, None] + 5e5
    truth = torch.tensor([[float(y)]]) + 5e5
    for fair in (False, True):
        want = kernel_crps(np.array(members, dtype=np.float64), float(y), fair)
        got = float(weather.crps_points(ensemble, truth, fair))
        assert got == pytest.approx(want, abs=1e-9)


def test_crps_of_one_member_is_its_error(fields) -> None:
    one = fields["ensemble"][:1]
    points = weather.crps_points(one, fields["truth"])
    torch.testing.assert_close(points, (one[0] - fields["truth"]).abs())
    for call in (
        lambda: weather.crps_points(one, fields["truth"], fair=True),
        lambda: weather.spread(one, fields["weights"]),
    ):
        with pytest.raises(ValueError, match="needs 2 members, the ensemble has 1"):
            call()


def test_fair_crps_does_not_depend_on_size() -> None:
    """Mean over many points of the fair score of 3 members equals that of 30; the biased does not.

    Members and truth have one distribution: the exact score is 1 / sqrt(pi) of the deviation.
    """
    random = torch.Generator().manual_seed(0)
    truth = torch.randn((200, 300), generator=random)
    exact = 1 / math.sqrt(math.pi)
    for members in (3, 30):
        ensemble = torch.randn((members, 200, 300), generator=random)
        fair, biased = (
            float(weather.crps(ensemble, truth, torch.ones(200), fair=fair))
            for fair in (True, False)
        )
        assert fair == pytest.approx(exact, abs=0.006)
        assert biased == pytest.approx(exact * (1 + 1 / members), abs=0.006)


def test_exceedance_and_brier(fields) -> None:
    ensemble, truth, valid = fields["ensemble"], fields["truth"], fields["valid"]
    got = weather.exceedance_probability(ensemble, 281.0)
    assert torch.equal(got, (ensemble > 281).double().mean(0))

    def oracle(w, e, t) -> float:
        odds = [(p > 281).mean() for p in e]
        return mean(w, [(p - (y > 281)) ** 2 for p, y in zip(odds, t, strict=True)])

    want = looped(oracle, fields["weights"], valid, ensemble.numpy(), truth.numpy())
    score = weather.brier(got, truth, 281.0, fields["weights"], valid)
    np.testing.assert_allclose(score, want, rtol=1e-12)
    everywhere = torch.full(SHAPE[2:], 281.0, dtype=torch.float64)
    assert torch.equal(weather.exceedance_probability(ensemble, everywhere), got)
    with pytest.raises(ValueError, match="not within 0 to 1"):
        weather.brier(truth, truth, 281.0, fields["weights"])
    ensemble[2, 0, 0, 4, 4] = math.nan
    assert weather.exceedance_probability(ensemble, 281.0).isnan().sum() == 1
    truth[0, 1, 0, 0] = math.nan
    assert weather.brier(got, truth, 281.0, fields["weights"]).isnan().sum() == 1


def test_regions() -> None:
    """Edges count; Europe lies on both sides of Greenwich, in either convention."""
    lats = torch.arange(90.0, -91.0, -5.0)
    for lons in (torch.arange(0.0, 360.0, 2.5), torch.arange(-180.0, 180.0, 2.5)):
        masks = {name: weather.region_mask(lats, lons, name) for name in weather.REGIONS}
        counts = {name: int(mask.sum()) for name, mask in masks.items()}
        assert counts["tropics"] == 9 * 144 and counts["northern extratropics"] == 15 * 144
        assert counts["europe"] == 9 * 23 and counts["north america"] == 8 * 19
        europe = lons[masks["europe"].any(0)]
        assert sorted(((europe + 180) % 360 - 180).tolist())[::22] == [-12.5, 42.5]


def test_track_error() -> None:
    track = [Position(0.0, 10.0, 179.5), Position(6.0, 11.0, -179.5), Position(12.0, 0.0, 0.0)]
    reference = [Position(6.0, 11.0, 179.5), Position(12.0, 90.0, 77.0), Position(18.0, 1.0, 1.0)]
    got = weather.track_error(track, reference)
    assert sorted(got) == [6.0, 12.0]
    degree = math.pi * 6371 / 180
    assert got[6.0] == pytest.approx(degree * math.cos(math.radians(11)), rel=1e-4)
    assert got[12.0] == pytest.approx(90 * degree)
    with pytest.raises(ValueError, match="no hour in common"):
        weather.track_error(track[:1], reference)


def test_great_circle() -> None:
    assert weather.great_circle_km(0.0, 0.0, 0.0, 180.0) == pytest.approx(math.pi * 6371)
    lat, lon = np.array([[12.0], [-85.0]]), np.array([350.0, 10.0, 100.0])
    got = weather.great_circle_km(48.0, 11.0, lat, lon)
    a, b = np.radians(48.0), np.radians(lat)
    cosine = np.sin(a) * np.sin(b) + np.cos(a) * np.cos(b) * np.cos(np.radians(lon - 11))
    np.testing.assert_allclose(got, 6371 * np.arccos(cosine), rtol=1e-9)


def test_equal_to_the_package_scores(fields) -> None:
    """`scores` of the Australian Bureau of Meteorology, an independent and kept library."""
    pytest.importorskip("scores")
    import xarray as xr
    from scores.continuous import additive_bias, rmse
    from scores.probability import brier_score, crps_for_ensemble

    dims = ("case", "field", "lat", "lon")
    truth, pred = (xr.DataArray(fields[n].numpy(), dims=dims) for n in ("truth", "pred"))
    ensemble = xr.DataArray(fields["ensemble"].numpy(), dims=("member", *dims))
    same = {
        "preserve_dims": ["case", "field"],
        "weights": xr.DataArray(fields["weights"].numpy(), dims="lat"),
    }
    ours, weights = fields["truth"], fields["weights"]
    odds = weather.exceedance_probability(fields["ensemble"], 281.0)
    chance = xr.DataArray(odds.numpy(), dims=dims)
    pairs = [
        (weather.rmse(fields["pred"], ours, weights), rmse(pred, truth, **same)),
        (weather.bias(fields["pred"], ours, weights), additive_bias(pred, truth, **same)),
        (
            weather.crps(fields["ensemble"], ours, weights),
            crps_for_ensemble(ensemble, truth, "member", method="ecdf", **same),
        ),
        (
            weather.crps(fields["ensemble"], ours, weights, fair=True),
            crps_for_ensemble(ensemble, truth, "member", method="fair", **same),
        ),
        (
            weather.brier(odds, ours, 281.0, weights),
            brier_score(chance, (truth > 281.0).astype(float), **same),
        ),
    ]
    for got, want in pairs:
        np.testing.assert_allclose(got, want.values, rtol=1e-10)
