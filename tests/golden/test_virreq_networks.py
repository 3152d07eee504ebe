"""Cases of ViRReq's networks and texts under other names, sizes and options, made anew."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from golden import virreq_networks, virreq_text
from golden.harness import Case, check
from golden.twins import normals, some, stored, write
from golden.virreq_fill import filled

KINDS = virreq_networks.KINDS | virreq_text.KINDS


def passes(case: Case) -> None:
    check(case, "virreq", KINDS)


def fails(case: Case, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        passes(case)


def first_picture(spec: dict) -> None:
    """Inputs of one picture: those of the rule are the first rows of the larger."""
    for entry in spec["inputs"].values():
        if len(entry["shape"]) == 4:
            entry["shape"] = [1, *entry["shape"][1:]]


@pytest.mark.parametrize("name", ["mit_tiny", "head_cpp", "head_cpp_half"])
def test_one_picture_under_another_name(tmp_path: Path, name: str) -> None:
    spec, arrays = stored("virreq", name)
    first_picture(spec)
    few = {key: array[:1] for key, array in arrays.items()}
    passes(write(tmp_path, "one", spec, few))
    key = next(iter(few))
    few[key] = few[key] + 1
    fails(write(tmp_path, "other", spec, few), f"case other: {key}")


def test_an_encoder_of_other_heads(tmp_path: Path) -> None:
    spec, arrays = stored("virreq", "mit_tiny")
    spec["config"] |= {"num_heads": [2, 2, 4, 4], "embed_dims": 8}
    with pytest.raises(RuntimeError, match="size mismatch"):
        passes(write(tmp_path, "heads", spec, arrays))


def test_fewer_names(tmp_path: Path) -> None:
    """A logit depends on its own name alone, so that others can be left out."""
    spec, arrays = stored("virreq", "head_cpp")
    spec["inputs"]["text"]["shape"][0] = 11
    spec["config"] |= {"num_semantic": 4, "num_parts": 7}
    logits = arrays["logits_all"][:, :11]
    passes(write(tmp_path, "few", spec, {
        "logits_all": logits, "logits_test_semantic": logits[:, :4],
        "argmax": logits.argmax(1).astype(np.int16),
    }))  # fmt: skip


def plain_losses(
    logits: torch.Tensor,
    config: dict,
    semantic: np.ndarray,
    parts: np.ndarray,
    instances: np.ndarray | None,
) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    """Losses and accuracies pixel by pixel, in float64."""
    count = config["num_semantic"]
    large = F.interpolate(logits, semantic.shape[1:], mode="bilinear", align_corners=False)
    got = {}
    total = logits.new_zeros(())
    for name, values, labels in (("", large[:, :count], semantic),
                                 ("_part", large[:, count:], parts)):  # fmt: skip
        others = config["part_others_weight" if name else "semantic_others_weight"]
        sums, number, hits, known = logits.new_zeros(()), 0, 0, 0
        for place in np.ndindex(labels.shape):
            label, scores = int(labels[place]), values[place[0], :, place[1], place[2]]
            possible = torch.ones(len(scores), dtype=torch.bool)
            if name and instances is not None:
                own = instances[place]
                same = (instances[place[0]] == own) & (parts[place[0]] != 255)
                possible[:] = False
                if own != 255:
                    possible[np.unique(parts[place[0]][same]).tolist()] = True
            scores = scores.masked_fill(~possible, np.log(1e-40))
            if label != 255:
                known, hits = known + 1, hits + int(scores.argmax() == label)
            if name and instances is not None and not possible.any():
                continue
            number += 1
            row = torch.cat([scores.new_zeros(1), scores]).log_softmax(0)
            sums = sums - (others * row[0] if label == 255 else row[label + 1])
        share = config["part_loss_weight"] if name else 1.0
        got[f"loss_ce{name}"] = share * sums / number
        total = total + got[f"loss_ce{name}"]
        got[f"acc_seg{name}"] = np.array([100 * hits / known], np.float32)
    return got, total


@pytest.mark.parametrize("name", ["loss_cpp", "loss_ade"])
def test_losses_of_other_sizes(tmp_path: Path, name: str) -> None:
    """Fewer concepts, other weights, labels whose sides are no multiples of the logits'."""
    spec, _ = stored("virreq", name)
    spec["config"] |= {
        "num_semantic": 2, "num_parts": 3, "semantic_others_weight": 0.3,
        "part_others_weight": 0.2, "part_loss_weight": 0.7,
    }  # fmt: skip
    for size, factor in (((7, 10), "odd"), ((6, 9), "whole")):
        shape = [2, 5, 3, 4]
        spec["inputs"] = {"logits": {"key": f"twin {factor}", "shape": shape, "scale": 3.0}}
        draw = np.random.RandomState(zlib.crc32(factor.encode()))
        semantic, parts = (
            np.where(draw.rand(2, *size) < 0.4, 255, draw.randint(0, high, (2, *size)))
            .astype(np.uint8) for high in (2, 3)
        )  # fmt: skip
        instances = None
        if "ade" in name:
            instances = draw.choice([0, 1, 255], (2, *size)).astype(np.uint8)
            parts[instances == 255] = 255
        logits = torch.from_numpy(normals(f"twin {factor}", shape, 3.0)).double().requires_grad_()
        outputs, total = plain_losses(logits, spec["config"], semantic, parts, instances)
        total.backward()
        arrays = {k: np.asarray(v.detach() if hasattr(v, "detach") else v, np.float32)
                  for k, v in outputs.items()}  # fmt: skip
        arrays |= {"gt_semantic": semantic, "gt_part": parts}
        arrays["grad_logits"] = logits.grad.float().numpy()
        if instances is not None:
            arrays["gt_instance"] = instances
        passes(write(tmp_path, f"{name} {factor}", spec, arrays))
    spec["config"]["part_others_weight"] = 0.9
    fails(write(tmp_path, "others", spec, arrays), "loss_ce_part")


def test_a_whole_network_without_some_gradients(tmp_path: Path) -> None:
    spec, arrays = stored("virreq", "virreq_full_tiny")
    names = [key for key in arrays if not key.startswith("grad_norm_backbone")]
    passes(write(tmp_path, "some", spec, some(arrays, *names)))
    first_picture(spec)
    one = {k: a[:1] for k, a in arrays.items() if k.startswith(("logits", "gt_"))}
    passes(write(tmp_path, "one", spec, one))
    one["logits"] = one["logits"] * 1.01
    fails(write(tmp_path, "wrong", spec, one), "logits")


def test_a_smaller_text_tower(tmp_path: Path) -> None:
    """One layer by torch's own module, of two heads, in both layouts."""
    spec, _ = stored("virreq", "clip_text_tower")
    texts, context, width, dim = ["a road", "x"], 6, 128, 24
    spec["config"] |= {
        "texts": texts, "context_length": context, "width": width, "layers": 1, "heads": 2,
        "embed_dim": dim, "vocab_size": 60,
    }  # fmt: skip
    spec["params"] = [
        [key, [{64: width, 192: 3 * width, 256: 4 * width, 16: context, 32: dim, 49408: 60}[n]
               for n in shape], kind, scale]
        for key, shape, kind, scale in spec["params"] if "resblocks.1" not in key
    ]  # fmt: skip
    spec["param_key_prefix"] = "twin."
    tokens = np.array([[58, 3, 17, 59, 0, 0], [58, 40, 59, 0, 0, 0]], np.int32)
    case = write(tmp_path, "small", spec, {"tokens": tokens})
    state = filled(case)
    layer = torch.nn.TransformerEncoderLayer(
        width, 2, 4 * width, 0.0, lambda x: x * torch.sigmoid(1.702 * x), batch_first=True,
        norm_first=True,
    )  # fmt: skip
    names = {"attn": "self_attn", "ln_1": "norm1", "ln_2": "norm2", "mlp.c_fc": "linear1",
             "mlp.c_proj": "linear2"}  # fmt: skip
    own = {}
    for key, value in state.items():
        if key.startswith("transformer.resblocks.0."):
            key = key.removeprefix("transformer.resblocks.0.")
            part = next(p for p in names if key.startswith(p + "."))
            own[names[part] + key.removeprefix(part)] = value
    layer.load_state_dict(own)
    x = state["token_embedding.weight"][torch.from_numpy(tokens).long()]
    x = x + state["positional_embedding"]
    with torch.no_grad():
        mask = torch.nn.Transformer.generate_square_subsequent_mask(context)
        x = layer.train(False)(x, src_mask=mask, is_causal=True)
    x = F.layer_norm(x, (width,), state["ln_final.weight"], state["ln_final.bias"])
    features = x[[0, 1], [3, 2]] @ state["text_projection"]
    outputs = {"tokens": tokens, "features": features.numpy()}
    outputs["normalised"] = F.normalize(features, dim=-1).numpy()
    passes_without_table(write(tmp_path, "small", spec, outputs))
    outputs["features"] = outputs["features"] + 0.1
    with pytest.raises(AssertionError, match="features"):
        passes_without_table(write(tmp_path, "wrong", spec, outputs))


def passes_without_table(case: Case) -> None:
    """Tokens of a vocabulary of its own: CLIP's table is not asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(virreq_text, "merges", lambda case: None)
        passes(case)


def test_tokens_of_a_shorter_context(tmp_path: Path) -> None:
    spec, arrays = stored("virreq", "clip_tokens")
    spec["config"]["context_length"] = 12
    spec["config"]["texts"] = spec["config"]["texts"][::-1]
    tokens = arrays["tokens"][::-1, :12].copy()
    assert not arrays["tokens"][:, 12:].any()
    passes(write(tmp_path, "short", spec, {"tokens": tokens}))
    if virreq_text.merges(Case(tmp_path / "short.json")):
        tokens[0, 1] += 1
        fails(write(tmp_path, "wrong", spec, {"tokens": tokens}), "tokens")
