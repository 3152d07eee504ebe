"""Maps, tracks and plumes: right pictures, right numbers in them, and words for bad input."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tenfold.viz import lead_time, maps
from tenfold.viz.map_axes import _earth, map_axes, near
from tenfold.viz.maps import Style, style_of

LAT, LON = np.linspace(84, -84, 15), np.arange(24) * 15.0


@pytest.fixture(autouse=True)
def no_landcheck(monkeypatch):
    """As if the package were absent (an import of None fails), and nothing were remembered."""
    monkeypatch.setitem(sys.modules, "landcheck", None)
    _earth.cache_clear()
    yield
    _earth.cache_clear()


def wave(turn: float = 0.0) -> np.ndarray:
    y, x = np.deg2rad(LAT)[:, None], np.deg2rad(LON - turn)
    return 54000 - 5000 * np.sin(y) ** 2 + 1500 * np.cos(y) * np.sin(4 * x)


def opened(picture: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image


def drawn(monkeypatch, call):
    """The figure that a function draws, with its bytes."""
    figures = []

    def keep(figure, fmt, dpi=180):
        figures.append(figure)
        return encode(figure, fmt, dpi)

    encode = maps.encoded
    monkeypatch.setattr(maps, "encoded", keep)
    picture = call()
    return figures, picture


def test_styles_lead_from_si_units_to_those_of_forecasters():
    assert style_of("z500")(np.array([54000.0])) == pytest.approx(550.65, abs=0.01)
    assert style_of("msl")(np.array([101325.0])) == 1013.25
    assert style_of("t2m")(np.array([273.15])) == 0
    assert style_of("q850")(np.array([0.01])) == 10
    assert (style_of("z850").contours, style_of("z").contours, style_of("z200").contours) == (
        (4, 8, 12)
    )
    assert style_of("u10").centred and style_of("v500").centred and not style_of("t850").centred
    assert style_of("salinity") == Style()
    change = style_of("t850").difference
    assert change.unit == "K" and change(np.array([2.0])) == 2 and change.centred


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_map_is_a_picture_of_its_theme(theme):
    where = map_axes(LAT, LON)
    image = opened(maps.field_map(wave(), where, style_of("z500"), theme=theme))
    assert image.format == "PNG" and image.width == 1296 and image.height < 900
    corner = image.convert("L").getpixel((2, 2))
    assert corner > 240 if theme == "light" else corner < 60
    svg = maps.field_map(wave(), where, fmt="svg")
    assert b"<svg" in svg and svg == maps.field_map(wave(), where, fmt="svg")


@pytest.mark.parametrize("fill", [np.nan, np.inf, 0.0, 5e4])
def test_awkward_fields_are_drawn(fill):
    where = map_axes(LAT, LON)
    for style in (Style(), style_of("z500"), style_of("u10")):
        assert maps.field_map(np.full((15, 24), fill), where, style).startswith(b"\x89PNG")
    holes = wave()
    holes[3:5] = np.nan
    assert opened(maps.field_map(holes, where, style_of("z500"))).format == "PNG"


def test_panels_share_a_scale_and_say_the_weighted_rmse(monkeypatch):
    truth = wave()
    forecast = truth + np.where(LAT > 0, 3.0, 0.0)[:, None] * 98.0665  # 3 dam in the north
    truth[0] = np.nan
    figures, _ = drawn(
        monkeypatch,
        lambda: maps.panels(forecast, truth, map_axes(LAT, LON), style_of("z500"), title="24 h"),
    )
    first, second, third = figures[0].axes[:3]
    assert first.get_title("left") == "24 h forecast" and second.get_title("left") == "truth"
    weights = np.cos(np.deg2rad(LAT[1:]))
    expected = np.sqrt(9 * weights[LAT[1:] > 0].sum() / weights.sum())
    assert third.get_title("left") == f"forecast − truth, RMSE {expected:.3g} dam"
    limits = [one.collections[0].get_clim() for one in (first, second, third)]
    assert limits[0] == limits[1] and limits[2][0] == -limits[2][1]
    assert len(figures[0].axes) == 5  # two colour bars
    assert first.get_xlim() == (0, 360)  # closed at the edge


def test_ensemble_shows_mean_and_unbiased_spread(monkeypatch):
    members = np.stack([np.full((15, 24), 280.0 + k) for k in (-2, 0, 2)]) + LON / 1000
    figures, _ = drawn(
        monkeypatch,
        lambda: maps.ensemble(members, map_axes(LAT, LON), style_of("t2m"), title="t2m"),
    )
    mean, spread, _, bar = figures[0].axes
    assert mean.get_title("left") == "t2m mean of 3 members"
    # 2 K everywhere (biased: 1.63); a constant is shown from half to one and a half of it
    assert spread.collections[0].get_clim() == pytest.approx((1, 3)) and bar.get_xlabel() == "K"


def test_differences_of_a_constant_field_are_white(monkeypatch):
    figures, _ = drawn(monkeypatch, lambda: maps.panels(wave(), wave(), map_axes(LAT, LON)))
    assert figures[0].axes[2].get_title("left").startswith("forecast − truth, RMSE 0")


def test_regions_keep_their_shape_and_label_degrees(monkeypatch):
    where = map_axes(np.linspace(60, 20, 9), np.linspace(-140, -52.5, 12))
    assert not where.is_global and map_axes(LAT, LON).is_global
    assert not map_axes(LAT, LON[:-1]).is_global
    figures, _ = drawn(monkeypatch, lambda: maps.field_map(np.random.rand(9, 12), where))
    axes = figures[0].axes[0]
    assert axes.get_xlim() == (-140, -52.5) and axes.get_ylim() == (20, 60)
    assert axes.get_aspect() == pytest.approx(1 / np.cos(np.deg2rad(40)))
    figures[0].canvas.draw()
    words = {label.get_text() for label in axes.get_xticklabels() + axes.get_yticklabels()}
    assert {"120°W", "60°W", "40°N"} <= words


@pytest.mark.parametrize(
    ("degrees", "words"),
    [(0, "0°"), (360, "0°"), (190, "170°W"), (180, "180°"), (-180, "180°"), (540, "180°")],
)
def test_longitudes_are_read_in_any_convention(degrees, words):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    maps._frame(axes, (-200.0, 560.0), (-80.0, 80.0), "#fff")
    assert axes.xaxis.get_major_formatter()(float(degrees), 0) == words


def test_coast_of_a_land_mask_lies_at_its_half_and_crosses_the_edge():
    land = np.zeros((15, 24))
    land[5:9, [23, 0, 1]] = 1.0  # over the edge of the map, 345 to 15 degrees
    lines = map_axes(LAT, LON, land).coast
    points = np.concatenate(lines)
    assert points[:, 0].max() == 360 and points[:, 0].min() == 0
    inside = points[(points[:, 0] > 16) & (points[:, 0] < 344)]
    assert set(np.round(inside[:, 0], 6)) <= {22.5, 337.5}
    assert points[:, 1].max() == pytest.approx((LAT[4] + LAT[5]) / 2)
    assert map_axes(LAT, LON).coast == ()


def test_coast_of_the_earth_is_asked_in_its_own_convention(monkeypatch):
    asked = []

    class LandCheck:
        def is_land(self, lon: float, lat: float) -> bool:
            asked.append((lon, lat))
            return -80 < lon < -40 and 0 < lat < 30

    monkeypatch.setitem(sys.modules, "landcheck", SimpleNamespace(LandCheck=LandCheck))
    monkeypatch.setattr("tenfold.viz.map_axes.SAMPLES", 70_000)
    axis = np.linspace(250, 350, 21)
    points = np.concatenate(map_axes(np.linspace(40, -40, 17), axis).coast)
    assert min(asked)[0] >= -180 and max(asked)[0] <= 180
    np.testing.assert_allclose(points.min(0), (280, 0), atol=1)
    np.testing.assert_allclose(points.max(0), (320, 30), atol=1)
    globe = np.concatenate(map_axes(LAT, LON).coast)  # the land lies at 280 to 320 degrees
    np.testing.assert_allclose(globe.min(0), (280, 0), atol=1)
    land = np.zeros((17, 21))
    assert map_axes(np.linspace(40, -40, 17), axis, land, earth=False).coast == ()


def test_the_real_package_knows_the_earth(monkeypatch):
    monkeypatch.delitem(sys.modules, "landcheck")
    pytest.importorskip("landcheck")
    points = np.concatenate(map_axes([-10.0, -45.0], [110.0, 160.0]).coast)
    assert np.abs(points - (153.6, -28.6)).sum(1).min() < 0.5  # Australia's easternmost point


def test_near_turns_by_whole_circles():
    np.testing.assert_allclose(near(np.array([1.0, 190.0, 350.0]), 0.0), [1, -170, -10])
    turned, values = map_axes(LAT, LON).rolled(np.tile(LON, (15, 1)), 180.0 + 90)
    assert turned.longitudes[0] == 90 and (np.diff(turned.longitudes) == 15).all()
    np.testing.assert_array_equal(values[0], turned.longitudes % 360)
    assert turned.is_global


def test_a_wide_region_is_not_joined_over_what_it_has_not():
    """Isobars between the two ends of a region would be of no field."""
    x = np.arange(0.0, 201.0, 10.0)
    turned, values = map_axes(LAT, x).rolled(np.tile(x, (15, 1)), 10.0)
    there = np.isfinite(values[0])
    assert turned.longitudes[~there].tolist() == [-80.0]  # between -160 and 0
    np.testing.assert_array_equal(values[0][there], turned.longitudes[there] % 360)
    closed, last = turned.closed(values)
    assert closed[-1] == 190 and last[0, -1] == 190
    whole, values = map_axes(LAT, x).rolled(np.tile(x, (15, 1)), 100.0)
    assert whole.longitudes.tolist() == x.tolist() and np.isfinite(values).all()


def test_a_track_over_the_date_line_is_one_line(monkeypatch):
    track = [(20.0, 170, 0, 990.0), (25.0, 178, 6, np.nan), (30.0, -174, 12, 980.0)]
    other = [(20.0, 171, 0, 990.0), (24.0, -179, 24, 985.0)]
    msl = 101000 + wave() / 50
    figures, picture = drawn(
        monkeypatch,
        lambda: maps.track_map({"storm": track, "model": other}, msl=msl, where=map_axes(LAT, LON)),
    )
    axes = figures[0].axes[0]
    low, high = axes.get_xlim()
    assert high - low < 60
    x = axes.lines[0].get_xdata() - axes.lines[0].get_xdata()[0]
    np.testing.assert_allclose(x, [0, 8, 16])
    words = [text.get_text() for text in axes.texts]
    assert "0 h, 990 hPa" in words and "12 h, 980 hPa" in words
    assert opened(picture).format == "PNG"
    assert maps.track_map({"bare": track[1:2]}).startswith(b"\x89PNG")


def test_animation_has_a_frame_an_hour_in_one_scale():
    frames = np.stack([wave(turn) for turn in (0, 10, 20)])
    where, style = map_axes(LAT, LON), style_of("z500")
    one = opened(maps.animation(frames, [0, 6, 12], where, style, fps=5, width=4))
    assert (one.format, one.n_frames, one.info["duration"]) == ("GIF", 3, 200)
    two = opened(maps.animation(frames, [0, 6, 12], where, style, truth=frames, width=4))
    assert two.height > 1.5 * one.height and two.width == one.width
    one.seek(0)
    first = np.asarray(one.convert("RGB")).astype(int)
    one.seek(2)
    assert np.abs(np.asarray(one.convert("RGB")) - first).max() > 50


def test_error_and_plume_over_lead_time(monkeypatch):
    figures = []
    encode = lead_time.encoded
    monkeypatch.setattr(lead_time, "encoded", lambda f, fmt: figures.append(f) or encode(f, fmt))
    lines = {"ours": ([0, 24, 48], [0.0, 1.0, np.nan]), "persistence": ([24, 48], [2.0, 3.0])}
    assert opened(lead_time.error_over_lead(lines, unit="dam", title="z500")).format == "PNG"
    axes = figures[0].axes[0]
    assert axes.get_ylabel() == "RMSE (dam)" and axes.get_ylim()[0] == 0
    hours = np.arange(0, 121, 24)
    members = np.outer([-1.0, 0, 4], hours / 24)
    lead_time.plume(hours, members, members[0], title="t2m", unit="°C")
    axes = figures[1].axes[0]
    np.testing.assert_allclose(axes.lines[3].get_ydata(), hours / 24)  # after three members
    assert axes.lines[4].get_label() == "truth" and 24 in axes.get_xticks()
    assert lead_time.plume(hours, members).startswith(b"\x89PNG")


def test_bad_input_says_what_is_wrong():
    where = map_axes(LAT, LON)
    field = wave()
    frames = np.stack([field, field])
    for words, call in {
        "shape .14, 24. do not lie on a grid of 15": lambda: maps.field_map(field[1:], where),
        "shape .15, 23. do not lie": lambda: maps.panels(field[:, 1:], field[:, 1:], where),
        "at least 2 members, got 1": lambda: maps.ensemble(frames[:1], where),
        "2 frames and 1 hours": lambda: maps.animation(frames, [6], where),
        "truth of shape": lambda: maps.animation(frames, [6, 12], where, truth=frames[:1]),
        "1 to 240 frames": lambda: maps.animation(frames[:0], [], where),
        "finite positions": lambda: maps.track_map({"a": [(np.nan, 0.0, 0, 990.0)]}),
        r"tracks: \['a'\]": lambda: maps.track_map({"a": []}),
        "monotone latitudes": lambda: map_axes([10.0, 20, 15], LON),
        "rising longitudes": lambda: map_axes(LAT, LON[::-1]),
        "within 360 degrees": lambda: map_axes(LAT, [0.0, 200, 400]),
        "do not lie": lambda: map_axes(LAT, LON, np.zeros((24, 15))),
        "'a': 2 values for 1 hours": lambda: lead_time.error_over_lead({"a": ([1], [1.0, 2.0])}),
        "members: 2 values for 3 hours": lambda: lead_time.plume([0, 6, 12], np.ones((4, 2))),
    }.items():
        with pytest.raises(ValueError, match=words):
            call()
