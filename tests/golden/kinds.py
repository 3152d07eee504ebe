"""The kinds of golden cases, told by what a case says of itself and never by its name."""

from __future__ import annotations

import re
from collections.abc import Callable

Mark = Callable[[dict], bool]


def _says(*kinds: str) -> dict[str, Mark]:
    """Kinds of a system whose cases name them."""
    return {kind: lambda spec, kind=kind: spec.get("kind") == kind for kind in kinds}


def _config(spec: dict) -> dict:
    config = spec.get("config")
    return config if isinstance(config, dict) else {}


def _has(*names: str) -> Mark:
    """Whether all these options are in the configuration."""
    return lambda spec: all(name in _config(spec) for name in names)


def _outputs(spec: dict) -> set[str]:
    """Names of the outputs that a case lists, without the part that is stored of them."""
    listed = spec.get("outputs") or []
    names = [entry[0] if isinstance(entry, list) else entry for entry in listed]
    return set() if isinstance(listed, str) else {name.partition(":")[0] for name in names}


def _gives(pattern: str) -> Mark:
    """Whether an output of such a name is listed."""
    return lambda spec: any(re.fullmatch(pattern, name) for name in _outputs(spec))


def _source(spec: dict, part: str) -> str:
    source = spec.get("source")
    return source.get(part) or "" if isinstance(source, dict) else ""


def _weights(spec: dict, pattern: str) -> bool:
    return any(re.search(pattern, key) for key, *_ in spec.get("params") or [])


def _matches_epochs(spec: dict) -> bool:
    """Cases of LDC's unit in training."""
    return "epochs" in _config(spec) and "classes" in _config(spec)


def _is_schedule(name: str, value: object) -> bool:
    """An entry of iTPN's learning rates: options, or a table's arguments with options last."""
    options = value[-1] if isinstance(value, list) and value else value
    return not name.startswith("epochs") and isinstance(options, dict) and any(
        key.startswith("warmup") for key in options
    )  # fmt: skip


KINDS: dict[str, dict[str, Mark]] = {
    "spgsn": _says(
        "model", "filters", "dct", "lr", "fk_cmu", "fk_h36m", "cmu_windows", "cmu_mpjpe",
        "h36m_sampling", "h36m_reader", "3dpw_reader",
    ),
    "ppmoe": _says("gate", "moe_layer", "lm_step", "cost_model"),
    "ldc": {
        "encoder": _has("feature_dim", "base_class"),
        "protocol": lambda spec: "datasets" in spec,
        "biased_sampling": lambda spec: (
            _weights(spec, r"^layer_6\.") and not _has("T")(spec) and not _matches_epochs(spec)
            and not _has("epochs_new")(spec)
        ),
        "pcu_recurrence": lambda spec: _has("T", "D")(spec) and not _matches_epochs(spec),
        "dis_match": lambda spec: _has("D")(spec) and _matches_epochs(spec),
        "session_update": _has("epochs_new", "way", "shot"),
        "ncm_metrics": _has("novel_shots", "sessions"),
        "free_lunch_dc": _has("alpha", "beta", "k"),
    },
    "pangu": {
        "bias": _gives("position_index|expanded_bias.*"),
        "windows": _has("shape_BZHWC"),
        "block": _has("padded_ZHW", "res_ZHW"),
        "resample": _has("res_down_ZHW"),
        "patch": _has("upper_channels_in", "patch"),
        "forward": _has("depths", "levels", "lat", "lon"),
        "metrics": _has("shape_VHW"),
        "schedule": _has("hours"),
        "perlin": _has("octaves", "res"),
        "tracker": _gives(".*_(track|true|(vort|msl)_step.*)"),
    },
    "itpn": {
        "keys": lambda spec: "keys" in spec and "n_trainable" in spec,
        "masks": _has("num_masking_patches"),
        "schedules": lambda spec: any(_is_schedule(*item) for item in _config(spec).items()),
        "groups": lambda spec: any(isinstance(v, dict) and "groups" in v for v in spec.values()),
        "dense_groups": lambda spec: "groups" in spec and _has("layer_decay_rate")(spec),
        "sincos": lambda spec: (
            isinstance(cases := _config(spec).get("cases"), list)
            and not any(isinstance(case, dict) for case in cases)
        ),
        "table": _has("grid_from", "grid_to"),
        "pixel_pretrain": _has("mask_ratio"),
        "clip_pretrain": lambda spec: (
            _has("teacher_dim")(spec) or _source(spec, "cls") == "iTPNClipDistill"
        ) and "keys" not in spec,
        "teacher": _has("output_dim", "width"),
        "visible": _has("n_keep"),
        "levels": _gives(r"in\d+x\d+_level\d+"),
        "classifier": lambda spec: (
            _gives("logits|pooled|features|ce_loss|pos_embed_resized")(spec)
            and _has("norm_eps")(spec)
        ),
    },
    "dts": {
        "mit_forward": lambda spec: (
            _gives(r"stage\d+")(spec) and not _has("num_layers")(spec)  # as mmsegmentation says it
        ),
        "daformer_head": _has("in_channels", "dilations"),
        "hrda": _has("hr_crop_size"),
        "ema": _gives(r"ema\d+"),
        "lr_schedule": _has("base_lr", "warmup_iters"),
        "param_groups": lambda spec: "groups" in spec and _has("embed_dim", "sr_ratios")(spec),
        "pseudo_label": _has("thresholds", "ignore_top"),
        "fdist": _has("scale_factor", "thing_classes"),
        "miou": _gives("iou_nan"),
        "dacs_step": _has("class_choices", "fdist_lambda"),
        "dts_reading": _has("choices", "threshold"),
        "official_keys": lambda spec: "keys" in spec and "n_keys" in spec,
        "classmix": _gives(r"choices"),
        "blur_jitter": _gives(r"blur_kernel_size|jitter|denorm"),
        "mic_mask": _has("mask_ratio", "mask_block_size"),
        "rcs": _has("stats", "temperatures"),
    },
    "usage": {
        "dense_crf": _gives(r"(bruteforce_)?q_t\d+|label_crf_irn"),
        "irn_random_walk": _has("radius", "exp_times"),
        "seed_eval_sweep": _has("num_classes_with_bg"),
        "usage_gen": _has("tau_pos", "tau_neg"),
        "usage_reg": _has("divergence"),
        "usage_adjust": _has("n_class_tokens", "p"),
        "usage_ema": _gives("teacher_f64"),
        "mctformer": _has("attention_n_layers", "decay_parameter"),
        "irn_cam_merge": _gives("strided_cam|highres_cam"),
        "irn_cam_argmax": _has("bg_threshold"),
        "seam_ops": _gives("max_norm|max_onehot|pcm|adaptive_min_pooling_loss"),
        "poly_optimizer": _has("max_step", "power"),
    },
    "apis": {
        "aligned_bilinear": _has("factors"),
        "box_losses": _has("color_thresh", "bottom_rows_masked"),
        "detector": _has("center_sample", "pre_nms_topk"),
        "mask_head": _has("weight_nums", "bias_nums"),
        "mask_losses": _has("gt_inds", "im_inds", "boxinst"),
        "condinst": _gives("det_masks"),
        "entropy_selection": lambda spec: (
            isinstance(_config(spec).get("cases"), list) and _gives(r"entropy\d+")(spec)
            and "definition" not in _config(spec)
        ),
        "entropy_pipeline": _has("resized_hw", "gt_inds", "boxes_resized_xyxy"),
        "strategies": _has("cases", "definition", "eps"),
        "drawn_points": _has("numpy_seed", "points"),
        "step_merge": _has("previous", "selected_row_col"),
        "mask_ap": _has("coco", "detections"),
    },
    "virreq": {
        "text_classifier": _has("text_divisor"),
        "mask_sampling": _has("masks", "strides"),
        "mit": _has("embed_dims", "num_layers", "sr_ratios"),
        "head": _has("in_channels", "text_dim"),
        "loss": _has("semantic_others_weight", "part_others_weight"),
        "full": _has("backbone", "head_channels"),
        "text_tower": _has("vocab_size", "texts"),
        "tokens": _has("texts", "sot", "eot"),
        "panoptic_parts_uids": _gives("sids_pids|sids_iids"),
        "part_pq": _gives("PartPQ"),
        "hpq": lambda spec: isinstance(_config(spec).get("images"), dict),
    },
    "loupe": {
        "shapley_exact": _has("n", "coalitions"),
        "token_game": _has("n", "regions", "modes"),
        "mc_estimator": _has("n", "region", "samples"),
        "semantic_game": _has("M", "N", "tau_a"),
        "losses": _has("logit_scale", "text_mask"),
        "region_generation": _has("grid", "nms_iou"),
        "unsil_forward": _has("region_masks", "hidden"),
        "retrieval_recall": _has("captions_per_image", "K"),
        "detection_ap": _has("gt", "detections", "thresholds"),
        "grounding": _has("gt", "pred"),
        "zero_shot": _has("tau"),
        "phrase_chunker": _has("texts", "spans"),
        "swin": _has("window_size", "depths", "num_heads"),
        "bert": _has("vocab_size", "input_ids"),
    },
}  # fmt: skip
"""System -> kind of case -> whether a case is of it."""


def _fitting(spec: dict, system: str) -> list[str]:
    marks = KINDS[system]
    stated = spec.get("kind")
    return [stated] if stated in marks else [kind for kind, mark in marks.items() if mark(spec)]


def kind_of(spec: dict, system: str, where: str) -> str:
    """The kind of a system's case: as it states, else the one that its contents fit."""
    found = _fitting(spec, system)
    stated = f" and states the kind {spec['kind']!r}" if "kind" in spec else ""
    fits = " and ".join(found) or "no known kind"
    assert len(found) == 1, (
        f"{where} is of {fits} of {system}{stated}; there are checks for: "
        f"{', '.join(KINDS[system])}"
    )
    return found[0]


def system_of(spec: dict) -> str:
    """The system of a case that lies in no system's folder; empty if none or several fit."""
    if spec.get("system") in KINDS:
        return spec["system"]
    found = [system for system in KINDS if _fitting(spec, system)]
    return found[0] if len(found) == 1 else ""
