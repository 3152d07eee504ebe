"""Folders of official Pangu-Weather files as our configuration, and files run as they are."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from systems.pangu.onnx_cases import LEVELS, SMALL, Case, case, grid

from tenfold.systems.pangu.model import Pangu
from tenfold.systems.pangu.onnx import network as official
from tenfold.systems.pangu.onnx.network import OnnxNetwork, convert_folder
from tenfold.systems.pangu.onnx.writer import write_onnx

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Case, Path]:
    made, path = case(), tmp_path_factory.mktemp("onnx") / "pangu_weather_24.onnx"
    write_onnx(path, made.network, made.statistics)
    return made, path


def test_folder(written, tmp_path) -> None:
    made, _ = written
    other = case(seed=5)
    write_onnx(tmp_path / "pangu_weather_24.onnx", made.network, made.statistics, counter=5)
    write_onnx(tmp_path / "pangu_weather_6.onnx", other.network, other.statistics, bias="compact")
    names = replace(official.NAMES, levels=LEVELS[:5])
    found = convert_folder(tmp_path, names)
    assert found.leads == (6, 24) and found.model == SMALL
    assert found.grid == replace(made.network.grid, step=6)
    for lead, one in ((24, made), (6, other)):
        network = Pangu(found.model, found.grid)
        network.load_state_dict(found.weights[lead].state)
        assert torch.equal(network.embed.upper.weight, one.network.embed.upper.weight)
        assert np.array_equal(found.statistics(lead).std_upper, one.statistics[1])
    assert convert_folder(tmp_path / "pangu_weather_24.onnx", names).leads == (24,)
    with pytest.raises(ValueError, match="5 levels, not 13"):
        convert_folder(tmp_path)
    with pytest.raises(ValueError, match="3 constant maps, not 1: give the names"):
        convert_folder(tmp_path, replace(names, constants=("land",)))
    with pytest.raises(ValueError, match="17 latitudes, not 2; 48 longitudes, not 1"):
        convert_folder(tmp_path, replace(names, latitudes=(1.0, 0.0), longitudes=(0.0,)))
    larger = case(where=grid(5, 17, 96), seed=1)
    write_onnx(tmp_path / "pangu_weather_3.onnx", larger.network, larger.statistics)
    with pytest.raises(ValueError, match=r"lon 48 \(96\)"):
        convert_folder(tmp_path, names)
    (tmp_path / "pangu_weather_3.onnx").rename(tmp_path / "pangu_weather_024.onnx")
    with pytest.raises(ValueError, match="both say 24 hours"):
        convert_folder(tmp_path, names)
    (tmp_path / "pangu_weather_024.onnx").rename(tmp_path / "pangu.onnx")
    with pytest.raises(ValueError, match="rename it"):
        convert_folder(tmp_path, names)
    with pytest.raises(FileNotFoundError, match="pangu_weather_24.onnx"):
        convert_folder(tmp_path / "absent")


def test_onnx_network_checks_its_input(written) -> None:
    made, path = written
    upper, surface = made.state()
    network = OnnxNetwork(path)
    assert network.shapes == ((5, 5, 17, 48), (4, 17, 48))
    with pytest.raises(ValueError, match=r"takes input of shape \(batch, 5, 5, 17, 48\), got"):
        network(upper[..., 1:], surface[..., 1:])
    with pytest.raises(ValueError, match=r"input_surface in float32, got torch\.float64"):
        network(upper, surface.double())
    upper[1, 2, 3, 4, 5] = torch.nan
    with pytest.raises(ValueError, match=r"input has 1 values.*\(1, 2, 3, 4, 5\)"):
        network(upper, surface)
    network.close()
    assert network(*made.state())[0].shape == upper.shape  # opened again
    with pytest.raises(ValueError, match="not on 'tpu'"):
        OnnxNetwork(path, "tpu")
    with pytest.raises(FileNotFoundError):
        OnnxNetwork(path.with_name("absent.onnx"))


def test_a_silent_fall_back_to_the_cpu_is_said_aloud(written) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.warns(RuntimeWarning, match="RUNS ON THE CPU although cuda was asked for"):
        assert OnnxNetwork(written[1], "cuda").shapes[0] == (5, 5, 17, 48)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert OnnxNetwork(written[1]).shapes[1] == (4, 17, 48)
