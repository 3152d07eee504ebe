"""Official checkpoints of LDC and its relatives: what is read, what is refused, the way back."""

import re

import pytest
import torch
from torch import Tensor

from tenfold.nn.resnet import ResNet
from tenfold.systems.ldc.official import (
    convert,
    kind_of,
    official_state,
    read_official,
    size_of,
    to_official,
)

CLASSES, WIDTH = 7, 2
WIDE = 10
"""Width of a ResNet-18 whose features are not 64, as in version 1 of LDC on larger pictures."""


def cec(kind: str = "resnet20", width: int = WIDTH, classes: int = CLASSES) -> dict[str, Tensor]:
    """What CEC saves for session 0: encoder and class vectors."""
    torch.manual_seed(0)
    encoder = ResNet(kind, width)
    state = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    return {**state, "fc.weight": torch.randn(classes, encoder.dim)}


def ldc(kind: str = "resnet20", width: int = WIDTH) -> dict[str, Tensor]:
    """What version 2 of LDC saves."""
    state = cec(kind, width)
    dim = state["fc.weight"].shape[1]
    linear = {f"layer{i}.0.weight": torch.randn(dim, dim) for i in (1, 2, 4)}
    dead = {"layer_out2.0.weight": torch.randn(512, 512), "layer3.weight": torch.randn(dim, dim)}
    head = {
        "layer_6.0.weight": torch.randn(2, 2, 3, 3),
        "layer_6.2.weight": torch.randn(1, 2, 3, 3),
    }
    covariance = torch.eye(dim, dtype=torch.float64) * 3
    return {
        **state, **linear, **dead, **head, "gate": torch.ones(9), "gates": torch.ones(9),
        "mem_feat": torch.rand(CLASSES, dim), "mean_cov": covariance,
    }  # fmt: skip


def ours(kind: str = "resnet20", width: int = WIDTH, classes: int = CLASSES) -> dict[str, Tensor]:
    """The state of our network before anything is loaded."""
    encoder = ResNet(kind, width)
    dim = encoder.dim
    unit = {f"unit.layer{i}.weight": torch.zeros(dim, dim) for i in (1, 2, 4)}
    return {
        **{f"encoder.{key}": torch.zeros_like(v) for key, v in encoder.state_dict().items()},
        **unit,
        "unit.layer_6.0.weight": torch.zeros(2, 2, 3, 3),
        "unit.layer_6.2.weight": torch.zeros(1, 2, 3, 3),
        "classifier": torch.zeros(classes, dim),
        "means": torch.zeros(classes, dim, dtype=torch.float64),
        "covariance": torch.zeros(dim, dim, dtype=torch.float64),
    }


def reasons(account) -> dict[str, str]:
    return dict(account.ignored)


def prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{key}": value for key, value in state.items()}


@pytest.mark.parametrize("wrap", [lambda s: s, prefixed, lambda s: {"params": prefixed(s)}])
def test_every_way_of_saving(tmp_path, wrap) -> None:
    torch.save(wrap(cec()), tmp_path / "base.pth")
    state = read_official(tmp_path / "base.pth")
    assert state.keys() == cec().keys()
    assert all(torch.equal(state[key], value) for key, value in cec().items())


@pytest.mark.parametrize("kind", ["resnet20", "resnet18"])
def test_sizes(kind) -> None:
    size = size_of(ldc(kind))
    dim = WIDTH * (4 if kind == "resnet20" else 8)
    assert (size.kind, size.width, size.dim) == (kind, WIDTH, dim)
    assert (size.num_classes, size.has_head) == (CLASSES, True)
    assert kind_of(cec(kind)) == kind and not size_of(cec(kind)).has_head


def test_all_of_ldc_arrives() -> None:
    given, target = ldc(), ours()
    account = convert(official_state({"params": prefixed(given)}), target)
    got = account.require_complete()
    assert got.keys() == target.keys()
    places = {
        "classifier": "fc.weight", "means": "mem_feat", "covariance": "mean_cov",
        "unit.layer1.weight": "layer1.0.weight", "unit.layer2.weight": "layer2.0.weight",
        "unit.layer4.weight": "layer4.0.weight", "unit.layer_6.0.weight": "layer_6.0.weight",
        "unit.layer_6.2.weight": "layer_6.2.weight",
    }  # fmt: skip
    for name, value in got.items():
        assert value.dtype == target[name].dtype, name
        assert torch.equal(value, given[places.get(name, name)].to(value.dtype)), name
    left_out = {"layer_out2.0.weight", "layer3.weight", "gate", "gates"}
    assert reasons(account) == dict.fromkeys(left_out, "LDC's code never uses it")


def test_base_of_cec_keeps_our_unit_and_says_so() -> None:
    account = convert({**cec(), "slf_attn.w_qs.weight": torch.ones(2, 2)}, ours())
    got = account.require_complete()
    assert {key.split(".")[0] for key in got} == {"encoder", "classifier"}
    kept = {key for key, why in account.ignored if why.startswith("ours")}
    assert kept == ours().keys() - got.keys()
    assert "CEC's attention" in reasons(account)["slf_attn.w_qs.weight"]


def test_version_1_has_no_covariance_head() -> None:
    given = {key: value for key, value in ldc().items() if not key.startswith("layer_6")}
    account = convert(given, ours())
    account.require_complete()
    kept = [key for key, why in account.ignored if why.startswith("ours")]
    assert kept == ["unit.layer_6.0.weight", "unit.layer_6.2.weight"]


def test_classes_beyond_those_asked_for_are_listed() -> None:
    given = {**ldc(), "dummy_orthogonal_classifier.weight": torch.ones(3, 8)}
    given["mem_feat"] = torch.cat([torch.ones(4, 8), torch.zeros(196, 8)])  # 200 rows, 4 seen
    account = convert(given, ours(classes=4))
    got = account.require_complete()
    assert torch.equal(got["classifier"], given["fc.weight"][:4])
    assert torch.equal(got["means"], torch.ones(4, 8, dtype=torch.float64))
    beyond = [key for key, why in account.ignored if why == "classes that were not asked for"]
    assert beyond == ["fc.weight[4:]", "mem_feat[4:]"]
    assert "virtual" in reasons(account)["dummy_orthogonal_classifier.weight"]
    too_many = convert(cec(), ours(classes=CLASSES + 1))
    assert too_many.mismatched == [("classifier", (CLASSES, 8), (CLASSES + 1, 8))]


def test_covariance_of_the_fixed_size_is_listed_as_unusable() -> None:
    given = {**ldc("resnet18", WIDE), "mean_cov": torch.eye(64)}
    account = convert(given, ours("resnet18", WIDE))
    assert "covariance" not in account.require_complete()
    assert reasons(account)["mean_cov"] == "unusable: 64 x 64 whatever the 80 features"
    fitting = convert({**ldc(width=16), "mean_cov": torch.eye(64)}, ours(width=16))
    assert torch.equal(fitting.require_complete()["covariance"], torch.eye(64).double())
    other = convert({**ldc(), "mean_cov": torch.eye(3)}, ours())
    assert other.mismatched == [("covariance", (3, 3), (8, 8))] and not other.is_complete


def test_statistics_that_were_never_filled_are_not_taken() -> None:
    given = {**ldc(), "mem_feat": torch.zeros(CLASSES, 8), "mean_cov": torch.zeros(8, 8)}
    account = convert(given, ours())
    assert not {"means", "covariance"} & account.require_complete().keys()
    assert "zeros" in reasons(account)["mem_feat"] and "zeros" in reasons(account)["mean_cov"]


def test_what_does_not_match_is_listed() -> None:
    given = ldc()
    given["layer9.weight"] = torch.ones(1)
    given["encoder.layer3.3.conv1.weight"] = torch.ones(8, 8, 3, 3)  # a deeper network
    given["layer1.0.weight"] = torch.ones(8, 4)
    given["layer_6.0.weight"] = torch.ones(())
    del given["layer2.0.weight"], given["encoder.bn1.bias"]
    account = convert(official_state(given), ours())
    assert account.unused == ["layer9.weight", "encoder.layer3.3.conv1.weight"]
    assert sorted(account.missing) == ["encoder.bn1.bias", "unit.layer2.weight"]
    assert [key for key, *_ in account.mismatched] == [
        "unit.layer1.weight",
        "unit.layer_6.0.weight",
    ]
    with pytest.raises(ValueError, match="layer9"):
        account.require_complete()


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", ["resnet20", "resnet18"])
def test_back_to_official_and_here_again(tmp_path, kind, memory) -> None:
    encoder = ResNet(kind, WIDTH).to(memory_format=memory)
    state = {f"encoder.{key}": v for key, v in encoder.state_dict(keep_vars=True).items()}
    state["classifier"] = torch.nn.Parameter(torch.randn(CLASSES, encoder.dim))
    torch.save(to_official({**ours(kind), **state}, CLASSES + 2), tmp_path / "ours.pth")
    saved = torch.load(tmp_path / "ours.pth", weights_only=True)["params"]
    assert saved.keys() == prefixed(cec(kind)).keys()
    assert all(v.is_contiguous() and not v.requires_grad for v in saved.values())
    assert torch.equal(saved["module.fc.weight"][CLASSES:], torch.zeros(2, encoder.dim))
    got = convert(read_official(tmp_path / "ours.pth"), ours(kind)).require_complete()
    assert got.keys() == state.keys()
    assert all(torch.equal(got[key], value) for key, value in state.items())
    with pytest.raises(ValueError, match="num_classes is 3"):
        to_official(state, 3)


def test_vectors_of_turned_pictures_stay_here() -> None:
    state = ours()
    four = torch.arange(4.0 * CLASSES)[:, None].expand(-1, state["classifier"].shape[1])
    made = to_official({**state, "classifier": four.clone()})["params"]["module.fc.weight"]
    assert made[:, 0].tolist() == [4.0 * label for label in range(CLASSES)]


class Evil:
    def __reduce__(self):
        return print, ("this must never run",)


def spoilt(**changes: object) -> dict[str, object]:
    return {**cec(), **{key.replace("__", "."): value for key, value in changes.items()}}


EXPANDED = torch.ones(1).expand(10**9, 8)
NAN = torch.full((CLASSES, 8), float("nan"))
LARGE = torch.ones(1000, 3, 3, 3)


@pytest.mark.parametrize(
    ("checkpoint", "reason"),
    [
        (Evil(), "holds code"),
        ({"params": {"fc.weight": Evil()}}, "holds code"),
        ([1, 2], "no dictionary"),
        ({}, "no dictionary"),
        ({"params": 3}, "no dictionary"),
        ({"fc.weight": torch.ones(2, 2)}, "has no encoder.conv1.weight"),
        ({"epoch": 3, **cec()}, "'epoch' is a int"),
        ({1: torch.ones(1), **cec()}, "'1' is a Tensor"),
        ({"bad\nname": torch.ones(1).to_sparse(), **cec()}, r"'bad\\nname' is sparse"),
        ({**cec(), "module.fc.weight": torch.ones(1)}, "'fc.weight' twice"),
        (spoilt(fc__weight=EXPANDED), "bytes of data"),
        (spoilt(fc__weight=torch.ones(7, 8, device="meta")), "has no data"),
        (spoilt(fc__weight=NAN), "fc.weight holds values that are not finite"),
        (spoilt(fc__weight=torch.ones(7, 8, dtype=torch.int64)), "torch.int64"),
        (spoilt(fc__weight=torch.ones(7, 9)), "do not belong together"),
        (spoilt(fc__weight=torch.ones(0, 8)), "do not belong together"),
        (spoilt(fc__weight=torch.tensor(1.0)), "do not belong together"),
        (spoilt(encoder__conv1__weight=torch.ones(2)), "shape \\(2,\\)"),
        (spoilt(encoder__conv1__weight=LARGE, fc__weight=torch.ones(1, 4000)), "layer3.0.conv2"),
        (spoilt(encoder__bn1__running_var=-torch.ones(2)), "negative variance"),
        (spoilt(encoder__layer4__0__conv1__weight=torch.ones(1)), "4 stages"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, capsys, checkpoint, reason) -> None:
    path = tmp_path / "odd.pth"
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=reason) as caught:
        read_official(path)
    assert "odd.pth" in str(caught.value) and "\n" not in str(caught.value)
    assert "never run" not in capsys.readouterr().out


def test_damaged_files(tmp_path) -> None:
    path = tmp_path / "base.pth"
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        read_official(path)
    torch.save(cec(), path)
    whole = path.read_bytes()
    for damaged in (b"", b"no checkpoint", whole[:100], whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged, or holds code") as caught:
            read_official(path)
        assert "\n" not in str(caught.value)
