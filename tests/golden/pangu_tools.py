"""Checks of the golden cases of metrics, schedules, noise and tracks; all is read from the case."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import torch

from golden.harness import Case
from tenfold.metrics import weather
from tenfold.metrics.weather import great_circle_km
from tenfold.systems.pangu.aggregation import chain, hourly
from tenfold.systems.pangu.cyclone import Tracker, track
from tenfold.systems.pangu.lows import minima, vorticity
from tenfold.systems.pangu.noise import Noise, angles, fractal, perlin

TERM = re.compile(r"\s*([+-]?)\s*(?:([\d.]+)\s*\*\s*)?(N\(\w+\)|[A-Za-z]\w*|[\d.]+)\s*")


def combined(case: Case, name: str, expression: str, made: dict[str, np.ndarray]) -> np.ndarray:
    """A field by its formula, such as `10 + N(pred) + 0.5*N(truth)`: N(x) is the input x."""
    total, at = np.zeros(()), 0
    while at < len(expression):
        term = TERM.match(expression, at)
        assert term, f"{case.json_path}: cannot read {name} = {expression!r}"
        sign, factor, what = term.groups()
        if what.startswith("N("):
            value = case.input(what[2:-1]).astype(np.float64)
        elif what[0].isalpha():
            assert what in made, f"{case.json_path}: {name} = {expression!r} needs {what!r} first"
            value = made[what]
        else:
            value = np.float64(what)
        total = total + float(sign + (factor or "1")) * value
        at = term.end()
    return total


def fields_of(case: Case) -> dict[str, np.ndarray]:
    """The fields that the case makes of its inputs, by its formulas; ens_i is made for each i."""
    config, made = case.spec["config"], {}
    for statement in config["fields"].split(";"):
        plain = re.sub(r"\s\([^)]*\)\s*$", "", statement)  # a comment
        name, _, expression = (part.strip() for part in plain.partition("="))
        if not expression:
            continue
        each = range(config["members"]) if name.endswith("_i") else [None]
        for i in each:
            own = name if i is None else name.replace("_i", str(i))
            said = expression if i is None else expression.replace(name, own)
            made[own] = combined(case, own, said, made)
    return made


def check_metrics(case: Case) -> None:
    config = case.spec["config"]
    rows = config["shape_VHW"][1]
    assert config["latitudes"].startswith("90 - j*180/(nlat-1)"), config["latitudes"]
    latitudes = 90 - torch.arange(rows, dtype=torch.float64) * 180 / (rows - 1)
    made = {name: torch.from_numpy(field) for name, field in fields_of(case).items()}
    pred, truth, climatology = (made[name] for name in ("pred", "truth", "climatology"))
    weights = weather.latitude_weights(latitudes)
    stated = re.search(r"(\d+) quantile levels between ([\d.]+) and ([\d.]+\d)", case.spec["notes"])
    levels = weather.quantile_levels()
    if stated:
        levels = weather.quantile_levels(int(stated[1]), float(stated[2]), float(stated[3]))
    got = {
        "lat_weights": weights,
        "rmse": weather.rmse(pred, truth, weights),
        "acc": weather.acc(pred, truth, climatology, weights),
        "rqe": weather.rqe(pred, truth, levels),
        "rqe_quantile_levels": levels,
        "bias": weather.bias(pred, truth, weights),
    }
    members = [made[f"ens{i}"] for i in range(config.get("members", 0))]
    if members:
        ensemble = torch.stack(members)
        got |= {
            "ens_mean_rmse": weather.ensemble_mean_rmse(ensemble, truth, weights),
            "spread": weather.spread(ensemble, weights),
            "spread_skill_ratio": weather.spread_skill(ensemble, truth, weights),
            "crps_biased": weather.crps(ensemble, truth, weights),
            "crps_fair": weather.crps(ensemble, truth, weights, fair=True),
        }
    case.compare_all(got)


def check_schedule(case: Case) -> None:
    config = case.spec["config"]
    for models, chains in config.get("chains", {}).items():
        leads = [int(m) for m in models.split("+")]
        for hours, want in chains.items():
            assert list(chain(int(hours), leads)) == want, (models, hours)
    calls = hourly(config["hours"], config.get("models", [24, 6, 3, 1]))
    got = {
        "hourly_model": np.array([call.model for call in calls]),
        "hourly_source_hour": np.array([call.source for call in calls]),
    }
    assert [call.hour for call in calls] == list(range(1, config["hours"] + 1))
    for name in case.arrays:
        if name.startswith("n_calls_"):
            leads = [int(m) for m in name.removeprefix("n_calls_").split("_")]
            got[name] = np.array([len(chain(hours, leads)) for hours in config["leads"]])
    case.compare_all(got)


def check_perlin(case: Case) -> None:
    config = case.spec["config"]
    rows, columns = config["shape"]
    period = (config["res"][0], config["res"][1])
    plain, tiled = (
        Noise(
            config["noise_scale"],
            period,
            config["octaves"],
            config["persistence"],
            config["lacunarity"],
            tileable,
        )
        for tileable in (False, True)
    )

    def seeded() -> np.random.RandomState:
        return np.random.RandomState(config["seed"])

    open_noise = fractal((rows, columns), plain, seeded())[0]
    got = {
        "single_octave": perlin(angles(period, seeded()), (rows, columns))[0],
        "fractal": open_noise,
        "fractal_tileable_lon": fractal((rows, columns), tiled, seeded())[0],
        "perturbation": plain.amplitude * open_noise,
    }
    case.compare_all(got)


def storm_fields(
    lat: np.ndarray, lon: np.ndarray, k: int, storm: dict
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pressure and wind of a synthetic storm at step k, by the formula of the goldens' README."""
    phi, lam = np.radians(lat)[:, None], np.radians(lon)[None]
    la = storm["la0"] + storm["dlat"] * k
    lo = (storm["lo0"] + storm["dlon"] * k) % 360
    r = great_circle_km(la, lo, lat[:, None], lon[None])
    depth = 4000.0 * (max(0.0, 1 - k / storm["decay"]) if storm.get("decay") else 1.0)
    msl = 101000 - depth * np.exp(-((r / 300) ** 2)) + 5 * np.cos(3 * phi) * np.cos(2 * lam)
    if storm.get("decoy", True):
        aside = great_circle_km(la + 3.4, lo + 0.8, lat[:, None], lon[None])
        msl = msl - 900 * np.exp(-((aside / 110) ** 2))
    turning = 45 * (depth / 4000) * (r / 150) * np.exp(0.5 * (1 - (r / 150) ** 2))
    turning = -turning if storm.get("south") else turning
    dx = ((lon[None] - lo + 180) % 360 - 180) * np.cos(phi)
    dy = lat[:, None] - la
    h = np.hypot(dx, dy) + 1e-9
    return msl, -turning * dy / h + 3, turning * dx / h


def check_tracker(case: Case) -> None:
    config = case.spec["config"]
    lat, lon = (np.linspace(*config[name][:2], int(config[name][2])) for name in ("lat", "lon"))
    for name, storm in config["cases"].items():
        steps = range(storm["T"])
        states = [storm_fields(lat, lon, k, storm) for k in steps]
        msl, u, v = (np.stack(f) for f in zip(*states, strict=True))
        fields = {"msl": msl, "u": u, "v": v, "u10": u, "v10": v}
        centres = [
            (storm["la0"] + storm["dlat"] * k, (storm["lo0"] + storm["dlon"] * k) % 360)
            for k in steps
        ]
        tracker = Tracker(lat, lon, centres[0])
        found = track(tracker, [6.0 * k for k in steps], fields, np.zeros_like(msl[0]))
        rows = np.array([[p.lat, p.lon, p.msl, p.wind] for p in found]).reshape(-1, 4)
        if f"{name}_true" in case.arrays:
            case.compare(f"{name}_true", np.array(centres))
        if f"{name}_track" in case.arrays:
            # The goldens are float32: a pressure of 1e5 Pa has a last digit of 0.008.
            case.compare(f"{name}_track", rows, rtol=2e-7)
            assert bool(tracker.ended) == (len(case.arrays[f"{name}_track"]) < storm["T"])
        for key in case.arrays:
            patch = re.fullmatch(rf"{re.escape(name)}_(vort|msl)_step(\d+)_(\d+)x(\d+)", key)
            if patch:
                at, size = int(patch[2]), (int(patch[3]), int(patch[4]))
                check_patch(case, key, lat, lon, states[at], (found[at].lat, found[at].lon), size)


def check_patch(
    case: Case, key: str, lat: np.ndarray, lon: np.ndarray, state, at, size: tuple[int, int]
) -> None:
    """The points around a position of a track."""
    msl, u, v = state
    i, j = int(np.abs(lat - at[0]).argmin()), int(np.abs(lon - at[1]).argmin())
    rows = np.arange(size[0]) + i - size[0] // 2
    columns = (np.arange(size[1]) + j - size[1] // 2) % len(lon)
    assert minima(msl)[i, j]
    if "_msl_" in key:
        case.compare(key, msl[np.ix_(rows, columns)], rtol=2e-7)
    else:
        case.compare(key, vorticity(u, v, lat, lon)[np.ix_(rows, columns)], rtol=1e-5, atol=1e-9)


CHECKS: dict[str, Callable[[Case], None]] = {
    "metrics": check_metrics,
    "schedule": check_schedule,
    "perlin": check_perlin,
    "tracker": check_tracker,
}
