"""Checks of the golden cases of metrics, schedules, noise and tracks; all is read from the case."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from golden.harness import Case, close
from tenfold.metrics import weather
from tenfold.systems.pangu.aggregation import chain, hourly
from tenfold.systems.pangu.cyclone import Tracker, great_circle_km, minima, track, vorticity
from tenfold.systems.pangu.noise import Noise, angles, fractal, perlin


def drawn(case: Case, name: str) -> np.ndarray:
    """N of the case's rule for an input, named with or without the prefix of the case."""
    for key, shape, scale in case.spec["inputs"]:
        if key == name or key.endswith(f".{name}"):
            return case.rule(key, shape, scale).astype(np.float64)
    raise AssertionError(f"case {case.name} has no input {name}")


def check_metrics(case: Case) -> None:
    rows = case.spec["config"]["shape_VHW"][1]
    latitudes = 90 - torch.arange(rows, dtype=torch.float64) * 180 / (rows - 1)
    noise = {name: torch.from_numpy(drawn(case, name)) for name in ("pred", "truth", "climatology")}
    pred = 10 + noise["pred"] + 0.5 * noise["truth"]
    truth, climatology = 10 + noise["truth"], 10 + 0.3 * noise["climatology"]
    members = case.spec["config"]["members"]
    ensemble = torch.stack(
        [0.7 * torch.from_numpy(drawn(case, f"ens{i}")) + 0.9 * truth + 1 for i in range(members)]
    )
    weights = weather.latitude_weights(latitudes)
    levels = weather.quantile_levels(case.spec["outputs"].get("rqe_quantile_levels", [50])[0])
    got = {
        "lat_weights": weights,
        "rmse": weather.rmse(pred, truth, weights),
        "acc": weather.acc(pred, truth, climatology, weights),
        "rqe": weather.rqe(pred, truth, levels),
        "rqe_quantile_levels": levels,
        "bias": weather.bias(pred, truth, weights),
        "ens_mean_rmse": weather.ensemble_mean_rmse(ensemble, truth, weights),
        "spread": weather.spread(ensemble, weights),
        "spread_skill_ratio": weather.spread_skill(ensemble, truth, weights),
        "crps_biased": weather.crps(ensemble, truth, weights),
        "crps_fair": weather.crps(ensemble, truth, weights, fair=True),
    }
    for name in case.spec["outputs"]:
        close(got[name], case.arrays[name], what=name)


def check_schedule(case: Case) -> None:
    config = case.spec["config"]
    for models, chains in config["chains"].items():
        leads = [int(m) for m in models.split("+")]
        for hours, want in chains.items():
            assert list(chain(int(hours), leads)) == want, (models, hours)
    leads = config.get("models", [24, 6, 3, 1])
    calls = hourly(config["hours"], leads)
    got = {
        "hourly_model": np.array([call.model for call in calls]),
        "hourly_source_hour": np.array([call.source for call in calls]),
    }
    assert [call.hour for call in calls] == list(range(1, config["hours"] + 1))
    for name in case.spec["outputs"]:
        if name.startswith("n_calls_"):
            leads = [int(m) for m in name.removeprefix("n_calls_").split("_")]
            got[name] = np.array([len(chain(hours, leads)) for hours in config["leads"]])
        close(got[name], case.arrays[name], what=name)


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
    for name in case.spec["outputs"]:
        close(got[name], case.arrays[name], what=name)


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
        states = [storm_fields(lat, lon, k, storm) for k in range(storm["T"])]
        msl, u, v = (np.stack(f) for f in zip(*states, strict=True))
        fields = {"msl": msl, "u": u, "v": v, "u10": u, "v10": v}
        tracker = Tracker(lat, lon, (storm["la0"], storm["lo0"] % 360))
        hours = [6.0 * k for k in range(storm["T"])]
        found = track(tracker, hours, fields, np.zeros_like(msl[0]))
        rows = np.array([[p.lat, p.lon, p.msl, p.wind] for p in found]).reshape(-1, 4)
        want = case.arrays[f"{name}_track"]
        # The goldens are float32: a pressure of 1e5 Pa has a last digit of 0.008.
        close(rows, want, rtol=2e-7, what=f"{name} track")
        assert bool(tracker.ended) == (len(want) < storm["T"])
        if len(found):
            check_patches(case, name, lat, lon, states[0], found[0].lat, found[0].lon)


def check_patches(
    case: Case, name: str, lat: np.ndarray, lon: np.ndarray, state, at_lat: float, at_lon: float
) -> None:
    """The 9 x 9 points around the first position."""
    msl, u, v = state
    i, j = int(np.abs(lat - at_lat).argmin()), int(np.abs(lon - at_lon).argmin())
    rows, columns = np.arange(i - 4, i + 5), np.arange(j - 4, j + 5) % len(lon)
    assert minima(msl)[i, j]
    spin = vorticity(u, v, lat, lon)
    patch = np.ix_(rows, columns)
    close(spin[patch], case.arrays[f"{name}_vort_step0_9x9"], rtol=1e-5, atol=1e-9, what="vort")
    close(msl[patch], case.arrays[f"{name}_msl_step0_9x9"], rtol=2e-7, what="msl")


CHECKS: dict[str, Callable[[Case], None]] = {
    "metrics": check_metrics,
    "schedule": check_schedule,
    "perlin": check_perlin,
    "tc_tracker": check_tracker,
}
"""Start of a case's name -> its check."""

MATCHES: dict[str, Callable[[dict], bool]] = {
    "metrics": lambda spec: "members" in spec["config"] and "shape_VHW" in spec["config"],
    "schedule": lambda spec: "chains" in spec["config"],
    "perlin": lambda spec: "persistence" in spec["config"],
    "tc_tracker": lambda spec: any(name.endswith("_track") for name in spec["outputs"]),
}
"""The same start -> whether a case's contents are of that kind, whatever its name."""


def check_for(case: Case) -> Callable[[Case], None] | None:
    """The check of a case; None if it is none of these kinds."""
    return next((CHECKS[kind] for kind, fits in MATCHES.items() if fits(case.spec)), None)
