"""Key maps name every tensor that they could not place, and the SPGSN map loses nothing."""

import pytest
import torch

from tenfold.systems.spgsn.config import Model
from tenfold.systems.spgsn.model import ScatteringNetwork
from tenfold.systems.spgsn.official import convert, key_map, official_state
from tenfold.weights.keymap import KeyMap, Rule

MAP = KeyMap(
    [
        Rule(r"layer(\d)\.w", r"layers.\1.weight", torch.t, torch.t),
        Rule(r"layer(\d)\.b", r"layers.\1.bias"),
        Rule(r"extra", "nowhere"),
    ],
    [(r"dead\..*", "never used")],
)
TARGET = {"layers.0.weight": (2, 3), "layers.0.bias": (2,)}


def state(**changes):
    good = {"layer0.w": torch.arange(6.0).view(3, 2), "layer0.b": torch.ones(2)}
    return good | {key.replace("__", "."): value for key, value in changes.items()}


def test_renames_and_transforms() -> None:
    converted = MAP.convert(state(dead__x=torch.zeros(1)), TARGET)
    assert converted.is_complete
    weights = converted.require_complete()
    assert torch.equal(weights["layers.0.weight"], state()["layer0.w"].T)
    assert converted.ignored == [("dead.x", "never used")]
    assert converted.report() == "2 tensors converted\nignored (never used): dead.x"


def test_lists_every_misfit() -> None:
    theirs = state(unknown=torch.zeros(1), extra=torch.zeros(1), layer0__b=torch.ones(5))
    target = TARGET | {"layers.1.weight": (1, 1)}
    converted = MAP.convert(theirs, target)
    assert converted.unused == ["unknown", "extra"]
    assert converted.missing == ["layers.1.weight"]
    assert converted.mismatched == [("layers.0.bias", (5,), (2,))]
    with pytest.raises(ValueError) as error:
        converted.require_complete()
    for line in (
        "unused: unknown",
        "unused: extra",
        "missing: layers.1.weight",
        "shape: layers.0.bias is (5,), expected (2,)",
    ):
        assert line in str(error.value)


def test_refuses_two_tensors_for_one_key() -> None:
    doubled = KeyMap([Rule("a|b", "c")])
    with pytest.raises(ValueError, match="both a and b are mapped to c"):
        doubled.convert({"a": torch.ones(1), "b": torch.ones(1)}, {"c": (1,)})


def test_there_and_back() -> None:
    template = state(dead__x=torch.full((1,), 7.0))
    back = MAP.reversed_state(MAP.convert(template, TARGET).state, template)
    assert back.keys() == template.keys()
    assert all(torch.equal(back[key], template[key]) for key in template)


def test_way_back_needs_an_inverse() -> None:
    with pytest.raises(ValueError, match="no inverse"):
        KeyMap([Rule("a", "a", torch.t)]).reversed_state({}, {"a": torch.ones(1, 1)})


def official(network: ScatteringNetwork) -> dict[str, torch.Tensor]:
    """The network's weights as the official code would save them."""
    suffixes = {
        "graphs.whole": "gc1.att1", "graphs.upper": "gc1.att_up1", "graphs.lower": "gc1.att_down1",
        "graphs.coefs": "gc1.scat_tree.f_coef", "mix_graph": "att1",
        "mix_weight": "gc2.weight", "mix_bias": "gc2.bias",
        "attention.embed": "att_Sigmoid1.fc1.weight",
        "attention.score_weight": "att_Sigmoid1.fc2.weight",
        "attention.score_bias": "att_Sigmoid1.fc2.bias",
        "attention.hidden_weight": "att_Sigmoid1.w_h", "attention.hidden_bias": "att_Sigmoid1.bs",
        "attention.query_weight": "att_Sigmoid1.w_q",
        "tree.low_weight": "gc1.scat_tree.feat_gcn.weight",
        "tree.low_bias": "gc1.scat_tree.feat_gcn.bias",
        "tree.first_weight": "gc1.scat_tree.feat_sc1.weight",
        "tree.first_bias": "gc1.scat_tree.feat_sc1.bias",
        "tree.second_weight": "gc1.scat_tree.feat_sc2.weight",
        "tree.second_bias": "gc1.scat_tree.feat_sc2.bias",
        "exchange.upper_in": "gc1.partfuse.fc_up1.weight",
        "exchange.upper_out": "gc1.partfuse.fc_up2.weight",
        "exchange.lower_in": "gc1.partfuse.fc_down1.weight",
        "exchange.lower_out": "gc1.partfuse.fc_down2.weight",
    }  # fmt: skip
    norms = {"low_norm": "bn1_conv", "band_norm": "bn1_scat", "mix_norm": "bn2_conv"}
    outside = {"embed.": "gc1.", "readout.": "gc7.", "embed_norm.": "bn1."}
    template = {}
    for key, value in network.state_dict().items():
        if key.startswith("blocks."):
            _, index, rest = key.split(".", 2)
            stem, _, leaf = rest.rpartition(".")
            name = f"{norms[stem]}.{leaf}" if stem in norms else suffixes[rest]
            name = f"gcbs.{index}.{name}"
        else:
            stem = next(prefix for prefix in outside if key.startswith(prefix))
            name = outside[stem] + key.removeprefix(stem).replace("graph", "att")
        template[name] = torch.empty_like(value)
    for index in range(len(network.blocks)):
        for leaf in ("gc1.scat_tree.feat_gcn", "gc1.scat_tree.feat_sc1", "gc2"):
            template[f"gcbs.{index}.{leaf}.att"] = torch.full((48, 48), torch.nan)
    return key_map(network.order).reversed_state(network.state_dict(), template)


def network() -> ScatteringNetwork:
    return ScatteringNetwork(Model(width=4, num_blocks=2), 15, 5, upper=[1, 3], lower=[0, 2])


def test_takes_the_official_checkpoint() -> None:
    theirs, ours = network(), network()
    state_dict = {f"module.{key}": value for key, value in official(theirs).items()}
    checkpoint = {"epoch": 3, "lr": 1e-3, "err": 8.5, "state_dict": state_dict}
    converted = convert(checkpoint, ours.order, ours.state_dict())
    assert len(converted.ignored) == 6  # three dead matrices a block are there
    ours.load_state_dict(converted.require_complete())
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_says_what_a_wrong_checkpoint_lacks() -> None:
    with pytest.raises(ValueError, match="gc1.att"):
        official_state({"gc1.weight": torch.ones(2, 2)})
