"""Proof that the tests have power: deliberate faults, each of which some test must catch.

Run by hand, one fault after another (about a quarter of an hour on an idle machine):

    python tests/faults.py [--only 'core-*' ...] [--list] [--write FILE.md] [--column before|after]

Each fault changes one snippet in a copy of this checkout, where it must occur exactly once in all
of `src`, and runs a few tests on that copy. The same tests run without a fault first. Snippets and
tests are found by what they say, not by where they lie: either may move.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("src", "tests", "claims", "docs", "pyproject.toml")
LIMIT = 600
"""Seconds that the tests of one fault may take."""


@dataclass(frozen=True)
class Fault:
    """A change of one snippet that must not go unnoticed."""

    name: str
    says: str
    """What is wrong with the changed code."""
    old: str
    new: str
    tests: tuple[str, ...]
    """Expressions for pytest's -k. If the first word is a file's name (with `.py`), it is where to
    look; else it is a test's name, which says where."""


FAULTS = (
    # --- core -----------------------------------------------------------------------------------
    Fault(
        "core-resume-optimiser",
        "a resumed run begins with an empty optimiser",
        'self.optimizer.load_state_dict(state["optimizer"])',
        "self.optimizer.state_dict()",
        ("test_sigterm_writes_a_checkpoint_and_says_so",),
    ),
    Fault(
        "core-resume-average",
        "a resumed run begins its average of the weights anew",
        'self.average.module.load_state_dict(state["average"])',
        "self.average.module.state_dict()",
        ("test_sigterm_writes_a_checkpoint_and_says_so",),
    ),
    Fault(
        "core-seed-of-a-process",
        "seeds depend on PYTHONHASHSEED, so on the process",
        "hashlib.blake2b(repr(parts).encode(), digest_size=8)",
        "hashlib.blake2b(str(hash(parts)).encode(), digest_size=8)",
        ("test_a_seed_is_the_same_in_every_process",),
    ),
    Fault(
        "core-accumulate",
        "gradients of micro-batches are added, not averaged",
        "loss = loss / self.accumulate",
        "loss = loss / 1",
        ("test_accumulated_steps_equal_one_large_batch",),
    ),
    Fault(
        "core-log-rewind",
        "a resumed run drops the line of metrics.jsonl of the step it goes on from",
        "own_step <= step",
        "own_step < step",
        ("test_killed_at_five_random_steps_equals_unkilled",),
    ),
    Fault(
        "core-half-checkpoint",
        "the folder of a checkpoint that is still being written counts as whole",
        r're.fullmatch(r"step-\d{9}", p.name)',
        r're.match(r"step-\d{9}", p.name)',
        ("test_half_written_checkpoints_are_never_taken",),
    ),
    Fault(
        "core-write-in-place",
        "weights are written in place, so that half a file may be seen",
        'temporary = path.with_name(path.name + ".tmp")\n    temporary.unlink(missing_ok=True)',
        "temporary = path",
        ("test_a_write_that_fails_leaves_the_old_file",),
    ),
    Fault(
        "core-unpickle",
        "a checkpoint may run code when it is read",
        'state = torch.load(path, map_location="cpu", weights_only=True)',
        'state = torch.load(path, map_location="cpu", weights_only=False)',
        ("test_a_checkpoint_with_code_in_it_is_refused",),
    ),
    Fault(
        "core-unknown-field",
        "fields of config.json that this version does not know are left out in silence",
        "unknown = sorted(set(values) - set(names))",
        "unknown = sorted(set(values) - set(values))",
        ("test_unknown_fields_are_refused",),
    ),
    Fault(
        "core-absent-field",
        "a field that only one of two configurations has is no difference",
        "for key in sorted(left.keys() | right.keys())",
        "for key in sorted(left.keys() & right.keys())",
        ("test_a_field_that_only_one_has_is_a_difference",),
    ),
    Fault(
        "core-cosine",
        "the cosine schedule counts the warm-up among its steps",
        "done = (step - optim.warmup) / max(1, steps - optim.warmup)",
        "done = step / max(1, steps)",
        ("test_schedules",),
    ),
    Fault(
        "core-decay-of-vectors",
        "biases and norms decay too",
        '{"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0}',
        '{"params": [p for p in trained if p.ndim < 2]}',
        ("test_vectors_do_not_decay_and_groups_scale",),
    ),
    Fault(
        "core-shares",
        "processes take every n-th row of a batch, not a run of rows",
        "return slice(self.rank * own, (self.rank + 1) * own)",
        "return slice(self.rank, batch_size, self.size)",
        ("test_shares_must_divide",),
    ),
    Fault(
        "core-mean-of-losses",
        "losses of several processes are summed in the log",
        "(shared / self.size).tolist()",
        "shared.tolist()",
        ("test_loop.py test_two_processes_equal_one",),
    ),
    Fault(
        "core-nan",
        "infinity stops training, but NaN does not",
        "bad = ~torch.isfinite(torch.stack([*losses, norm])).all()",
        "bad = torch.isinf(torch.stack([*losses, norm])).any()",
        ("test_non_finite_input_is_named", "test_non_finite_weight_is_named_and_stops"),
    ),
    Fault(
        "core-who-is-heard",
        "each process listens for its own life signs, not for the next one's",
        "rank = (self.rank + 1) % self.size",
        "rank = self.rank",
        ("test_a_stopped_process_is_named_by_one_that_waits_for_nobody",),
    ),
    Fault(
        "core-undo",
        "undo goes to the version numbered before, not to the one learned upon",
        "return self.go(version.parent)",
        "return self.go(version.number - 1)",
        ("test_undo_redo_and_branches",),
    ),
    # --- command line and reports ---------------------------------------------------------------
    Fault(
        "cli-exit-code",
        "a user's mistake ends with 1, which means that a check found problems",
        "if isinstance(error, MISTAKES) or _of_system(error) is not None:\n        return 2",
        "if isinstance(error, MISTAKES) or _of_system(error) is not None:\n        return 1",
        ("test_an_unknown_word_is_one_line_with_the_nearest",),
    ),
    Fault(
        "cli-nearest",
        "a mistyped word gets no hint unless it is nearly right",
        "n=1, cutoff=0.4)\n    hint",
        "n=1, cutoff=0.95)\n    hint",
        ("test_an_unknown_word_is_one_line_with_the_nearest",),
    ),
    Fault(
        "report-best",
        "the worst cell of a table is marked as the best",
        'top = min(finite) if better == "lower" else max(finite)',
        'top = max(finite) if better == "lower" else min(finite)',
        ("test_a_tie_of_all_marks_nobody_and_a_shared_best_marks_both",),
    ),
    Fault(
        "report-interval",
        "the interval of a verdict is one of 90 %",
        "t.ppf(0.975, freedom)",
        "t.ppf(0.95, freedom)",
        ("test_interval_and_p_are_those_of_the_paired_t_test",),
    ),
    Fault(
        "report-least-effect",
        "a claim counts as shown below the least effect it promised",
        "if low > min_effect:",
        "if low > 0:",
        ("test_an_effect_too_small_is_not_shown_and_not_contradicted",),
    ),
    # --- data -----------------------------------------------------------------------------------
    Fault(
        "data-bvh-channels",
        "rotation channels of a BVH file multiply in the reverse order",
        "result[:, joint] = result[:, joint] @ turn",
        "result[:, joint] = turn @ result[:, joint]",
        ("test_rotation_orders_equal_scipy",),
    ),
    Fault(
        "data-coco-categories",
        "classes are numbered as the file lists them, not by their ids",
        'found = sorted(found, key=lambda item: item["id"])',
        "found = list(found)",
        ("test_polygons_codes_and_crowds",),
    ),
    Fault(
        "data-coco-columns",
        "run-length codes run along rows, not down columns",
        "values.reshape(entry.width, entry.height).T",
        "values.reshape(entry.height, entry.width)",
        ("test_polygons_codes_and_crowds", "test_both_run_length_codes_are_those_of_pycocotools"),
    ),
    Fault(
        "data-cifar-label",
        "the coarse label of CIFAR-100's records is taken",
        "return records[:, 2:], records[:, 1], names",
        "return records[:, 2:], records[:, 0], names",
        ("test_cifar_pickles_and_binary_give_the_listed_photos",),
    ),
    Fault(
        "data-cifar-planes",
        "colours of CIFAR-100 are read pixel by pixel, not plane by plane",
        "np.ascontiguousarray(pixels).reshape(-1, 3, SIDE, SIDE)",
        "pixels.reshape(-1, SIDE, SIDE, 3).transpose(0, 3, 1, 2).copy()",
        ("test_cifar_pictures_are_a_plane_a_colour_row_by_row",),
    ),
    Fault(
        "data-weather-north",
        "fields that run from south to north are not turned, though their latitudes are",
        "values = values[..., ::-1, :]",
        "values = values[..., :, :]",
        ("test_the_same_states_come_out_of_every_form",),
    ),
    Fault(
        "data-weather-greenwich",
        "longitudes are rolled the wrong way",
        "np.roll(values, -self.shift, axis=-1)",
        "np.roll(values, self.shift, axis=-1)",
        ("test_a_circle_may_begin_at_any_longitude",),
    ),
    Fault(
        "data-weather-units",
        "hPa passes for Pa",
        '_quantity("Pa", "pa pascal", "hpa mb',
        '_quantity("Pa", "pa pascal hpa", "mb',
        ("test_units_attributes",),
    ),
    Fault(
        "data-bits-per-byte",
        "bytes of the inputs are counted, not those of the targets",
        "self.lengths[tokens[:, 1:]] * mask",
        "self.lengths[tokens[:, :-1]] * mask",
        ("test_bits_per_byte_count_the_bytes_of_the_targets",),
    ),
    Fault(
        "data-domains-in-turn",
        "every draw of text begins with the first domain",
        "row = np.arange(rows, dtype=np.int64) + index * rows",
        "row = np.arange(rows, dtype=np.int64)",
        ("test_every_domain_has_its_share_where_rows_do_not_divide",),
    ),
    Fault(
        "data-archive-parents",
        "an archive may write outside the folder it is unpacked into",
        '".." in path.parts or ":" in',
        '".." in path.name or ":" in',
        ("test_unsafe_archives_are_refused",),
    ),
    Fault(
        "data-links",
        "links that lead out of a folder are followed",
        "return path.resolve().is_relative_to(root.resolve())",
        "return path.absolute().is_relative_to(root.absolute())",
        ("test_links_that_leave_the_folder_are_refused", "test_links_that_lead_out_of_the_folder"),
    ),
    Fault(
        "data-zarr-codecs",
        "zarr stores may name the codec that unpickles",
        '"blosc zlib gzip',
        '"pickle blosc zlib gzip',
        ("test_zarr_codecs_that_run_code_are_refused",),
    ),
    Fault(
        "data-mirrored-boxes",
        "a box of a mirrored view has its left and right exchanged",
        "found[[0, 2]] = size - found[[2, 0]]",
        "found[[0, 2]] = size - found[[0, 2]]",
        ("test_boxes_follow_the_view",),
    ),
    Fault(
        "data-holdout",
        "training and validation windows of a motion share frames",
        "cut = len(clip.positions) - (take + length - 1) if take",
        "cut = len(clip.positions) - take if take",
        ("test_holdout_shares_no_frame",),
    ),
    Fault(
        "data-climatology",
        "all harmonics of the climatology get the ridge of the first",
        "np.arange(1, harmonics + 1).repeat(2) ** 2",
        "np.ones(harmonics).repeat(2)",
        ("test_climatology_is_numpys_least_squares",),
    ),
    # --- metrics --------------------------------------------------------------------------------
    Fault(
        "metrics-mpjpe-twins",
        "joints that equal another one keep the truth, not the prediction",
        "full[:, :, list(twins)] = full[:, :, list(sources)]",
        "full[:, :, list(twins)] = full[:, :, list(twins)]",
        ("test_unused_joints_are_filled",),
    ),
    Fault(
        "metrics-ap-detections",
        "one detection a picture counts, not a hundred",
        "values = precision[:, :, label, 0, -1]",
        "values = precision[:, :, label, 0, 0]",
        ("test_ap.py test_equals_its_definition",),
    ),
    Fault(
        "metrics-ap-sizes",
        "the precisions of small and of medium objects are exchanged",
        'NAMES = ("AP", "AP50", "AP75", "small", "medium", "large")',
        'NAMES = ("AP", "AP50", "AP75", "medium", "small", "large")',
        ("test_objects_are_sorted_by_the_area_that_is_given",),
    ),
    Fault(
        "metrics-iou",
        "the union of two label maps counts the intersection twice",
        "union = counts.sum(0) + counts.sum(1) - counts.diagonal()",
        "union = counts.sum(0) + counts.sum(1)",
        ("test_iou.py test_against_loops",),
    ),
    Fault(
        "metrics-latitude",
        "where points are missing, the mean over the sphere ignores how many a row has",
        "return (sums * weights).sum(-1) / (counts * weights).sum(-1)",
        "return (sums / counts.clamp(min=1) * weights).sum(-1) / weights.sum()",
        ("test_errors", "test_equal_to_the_package_scores"),
    ),
    Fault(
        "metrics-acc",
        "anomalies of the truth are taken from the mean of the climatology",
        "a, b = difference(pred, climatology), difference(truth, climatology)",
        "a, b = difference(pred, climatology), difference(truth, climatology.mean())",
        ("test_acc",),
    ),
    Fault(
        "metrics-crps",
        "the fair CRPS of an ensemble is the plain one",
        "pairs = members * (members - 1) if fair else members**2",
        "pairs = members**2",
        ("test_fair_crps_does_not_depend_on_size",),
    ),
    Fault(
        "metrics-harmonic",
        "the harmonic mean of base and novel accuracy is the plain one",
        "2 * base_score * novel_score / total if",
        "total / 2 if",
        ("test_fewshot.py test_groups_by_hand", "test_fewshot.py test_everything_equals_a_loop"),
    ),
    # --- nn -------------------------------------------------------------------------------------
    Fault(
        "nn-relative-position",
        "relative rows are key minus query, unlike columns",
        "dy = y[:, None] - y[None, :] + height - 1",
        "dy = y[None, :] - y[:, None] + height - 1",
        ("golden/test_itpn.py pixel_visible_rpe_a",),
    ),
    Fault(
        "nn-patch-merge",
        "sub-patches are joined by rows, not by columns as in the official files",
        "x = x.permute(0, 1, 2, 4, 5, 3, 6)",
        "x = x.permute(0, 1, 2, 4, 3, 5, 6)",
        ("golden/test_itpn.py pixel_finetune_a",),
    ),
    Fault(
        "nn-shortcut",
        "a residual block adds its shortcut after the last ReLU",
        "functional.relu(self.bn2(self.conv2(x)).add_(shortcut), inplace=True)",
        "functional.relu(self.bn2(self.conv2(x)), inplace=True).add(shortcut)",
        ("test_shortcuts_are_added", "golden/test_ldc.py resnet20_cec"),
    ),
    Fault(
        "nn-roi-align",
        "pixel centres lie half a pixel off (RoIAlign before it was aligned)",
        "corners = boxes.float() / stride - 0.5",
        "corners = boxes.float() / stride",
        ("test_equals_the_loops",),
    ),
    Fault(
        "nn-suppression",
        "a box that a suppressed one overlaps is suppressed too",
        "after = (kept @ beats == 0).float()",
        "after = (torch.ones_like(kept) @ beats == 0).float()",
        ("test_nms_is_the_greedy_one",),
    ),
    Fault(
        "nn-crowds",
        "what lies in a crowd is an example of background",
        "found[inside & (found == BACKGROUND)] = ASIDE",
        "found[inside & (found == ASIDE)] = BACKGROUND",
        ("test_crowds_are_no_background",),
    ),
    Fault(
        "nn-batch-norm-of-all",
        "the variance of a batch is each process's own",
        "var = world_sum(_feature_sum(centred.square())) / count",
        "var = _feature_sum(centred.square()) / samples",
        ("test_norm.py test_two_processes_equal_one",),
    ),
    Fault(
        "nn-batch-norm-unbiased",
        "the running variance is the biased one",
        "unbiased = var.flatten() * (count / (count - 1))",
        "unbiased = var.flatten()",
        ("test_norm.py test_equals_torch",),
    ),
    Fault(
        "nn-dropout",
        "what survives dropout is not scaled up",
        "return x * keep.mul_(2**bits / kept)",
        "return x * keep",
        ("test_share_and_scale",),
    ),
    Fault(
        "nn-mit-keys-and-values",
        "values are what keys should be, and the other way round",
        "k, v = (part.unflatten(2, width).transpose(1, 2) for part in self.kv(few).chunk(2, -1))",
        "v, k = (part.unflatten(2, width).transpose(1, 2) for part in self.kv(few).chunk(2, -1))",
        ("test_attention_is_softmax_over_squares", "golden/test_dts.py a_mit_forward"),
    ),
    Fault(
        "nn-mit-grid",
        "rows and columns of the tokens are exchanged",
        "return x.transpose(1, 2).unflatten(2, grid)",
        "return x.transpose(1, 2).unflatten(2, grid[::-1])",
        ("test_depthwise_convolution_is_of_the_grid", "golden/test_dts.py b_mit_forward"),
    ),
    Fault(
        "nn-dilated",
        "the weights of a dilated convolution are rows for columns",
        "(down + 1, right + 1),",
        "(right + 1, down + 1),",
        ("test_dilated_convolution_of_each_channel",),
    ),
    Fault(
        "nn-hrda-outside",
        "the attention of HRDA counts where there is no detail",
        "attention = attention * inside",
        "attention = attention * inside.clamp(min=0.5)",
        ("test_outside_the_crop_the_context_is_alone", "golden/test_dts.py a_hrda"),
    ),
    Fault(
        "nn-ema-share",
        "the teacher takes the share that should stay",
        "torch._foreach_lerp_(old, new, 1 - alpha)",
        "torch._foreach_lerp_(old, new, alpha)",
        ("test_the_first_update_copies_and_later_ones_average", "golden/test_dts.py a_ema"),
    ),
    Fault(
        "nn-pixel-loss-mean",
        "the mean of the loss leaves ignored pixels out",
        "return losses.mean() if weights is None",
        "return losses[labels != ignore].mean() if weights is None",
        ("test_ignored_pixels_count_in_the_mean", "golden/test_dts.py a_daformer_head"),
    ),
    Fault(
        "nn-resnet-dilation",
        "the first convolution where a stride was is dilated already",
        "first = dilation if block else before",
        "first = dilation",
        ("test_a_limit_on_the_stride_dilates_instead",),
    ),
    # --- SPGSN ----------------------------------------------------------------------------------
    Fault(
        "spgsn-wavelets",
        "filters after the second repeat it: the walk is not squared",
        "walk = walk @ walk",
        "walk = walk.clone()",
        ("golden/test_spgsn.py scattering_filters", "golden/test_spgsn.py model_tiny_J3_eval"),
    ),
    Fault(
        "spgsn-mask-order",
        "the mask of the whole body is brought into the network's order by rows only",
        "mask.whole[self.order][:, self.order]",
        "mask.whole[self.order]",
        ("golden/test_spgsn.py model_tiny_eval_masked",),
    ),
    Fault(
        "spgsn-mask-share",
        "edges survive with the probability of being dropped",
        "generator=generator, device=device) < self.cfg.edge_prob",
        "generator=generator, device=device) > self.cfg.edge_prob",
        ("test_masks_keep_their_share_of_edges",),
    ),
    Fault(
        "spgsn-padding",
        "the observed frames are continued by the first of them, not the last",
        "observed[:, -1:].expand(-1, repeats, -1)",
        "observed[:, :1].expand(-1, repeats, -1)",
        ("test_coefficients_are_of_the_observed_frames_and_repeats_of_the_last",),
    ),
    Fault(
        "spgsn-loss",
        "distances are squared in the training loss",
        "return error.norm(dim=-1).mean()",
        "return error.square().sum(-1).mean()",
        ("test_loss_by_hand", "golden/test_spgsn.py model_tiny_train_step"),
    ),
    Fault(
        "spgsn-folded-bias",
        "the network prepared for inference forgets to scale a folded bias",
        "self.mix_shift = folded.shift.view(num_nodes, -1) + self.mix_scale * bias",
        "self.mix_shift = folded.shift.view(num_nodes, -1) + bias",
        ("test_prepared_equals_evaluation",),
    ),
    # --- Pangu-Weather --------------------------------------------------------------------------
    Fault(
        "pangu-bias-index",
        "the bias of a window is that of the mirrored longitude",
        "* (2 * ww - 1) + x[:, None] - x[None] + ww - 1",
        "* (2 * ww - 1) + x[None] - x[:, None] + ww - 1",
        ("golden/test_pangu.py earth_bias or block_2x6x12",),
    ),
    Fault(
        "pangu-mask-longitude",
        "shifted windows are masked at the date line",
        "parts[2] = torch.zeros_like(parts[2])",
        "parts[2] = parts[2].clone()",
        ("test_turning_the_earth_turns_the_forecast", "golden/test_pangu.py window_ops_2x6x12"),
    ),
    Fault(
        "pangu-padding-keys",
        "gradients of what makes the values forget the padding",
        "grad.new_zeros(channels), grad.sum(0)",
        "grad.new_zeros(channels), dqkv[:, 2 * channels :].sum(0)",
        ("test_gradients_of_attention_by_differences",),
    ),
    Fault(
        "pangu-loss-weight",
        "humidity weighs as much as other variables",
        '"q": 0.6,',
        '"q": 1.0,',
        ("test_variables_have_the_papers_weights",),
    ),
    Fault(
        "pangu-loss-missing",
        "points without values thin out the loss",
        "share = present / present.mean()",
        "share = present",
        ("test_the_loss_is_the_mean_over_the_points_that_are_there",),
    ),
    Fault(
        "pangu-lead-times",
        "an hour is reached by the shortest model that divides it",
        "next((m for m in leads if hour % m == 0), 0)",
        "next((m for m in reversed(leads) if hour % m == 0), 0)",
        ("test_outputs_come_from_states_that_exist", "test_text"),
    ),
    Fault(
        "pangu-noise-seam",
        "the noise of an ensemble has a seam at Greenwich",
        "drawn[..., -1] = drawn[..., 0]",
        "drawn[..., -1] = drawn[..., -1]",
        ("test_no_seam_at_the_date_line",),
    ),
    Fault(
        "pangu-southern-storms",
        "southern cyclones must turn like northern ones",
        "spin if lat >= 0 else -spin",
        "spin",
        ("test_southern_storms_turn_the_other_way",),
    ),
    Fault(
        "pangu-incomplete-states",
        "states with holes are trained on",
        "whole[self.indices(name)] = True",
        "whole[self.split == SPLITS[name]] = True",
        ("test_chains_cross_no_gap_and_no_block",),
    ),
    # --- PPMoE ----------------------------------------------------------------------------------
    Fault(
        "ppmoe-ties",
        "equal probabilities go to the highest expert",
        "score.sort(dim=1, descending=True, stable=True).indices[:, :k].contiguous()",
        "num_experts - 1 - score.flip(1).sort(dim=1, descending=True, stable=True).indices[:, :k]",
        ("test_ties_go_to_the_lowest_expert", "golden/test_ppmoe.py gate_top2_ties"),
    ),
    Fault(
        "ppmoe-queue",
        "second choices of a token come before first choices of the next",
        "flat = experts.t().reshape(-1)",
        "flat = experts.reshape(-1)",
        ("test_queue_places", "golden/test_ppmoe.py gate_top2_capacity"),
    ),
    Fault(
        "ppmoe-capacity",
        "an expert's places are rounded down",
        "math.ceil(factor * top_k * tokens / experts)",
        "math.floor(factor * top_k * tokens / experts)",
        ("test_capacity_is_filled_and_never_exceeded",),
    ),
    Fault(
        "ppmoe-balancing-bias",
        "the balancing bias changes the weights of experts, not only their choice",
        "chosen = probs.gather(1, experts)",
        "chosen = (probs if bias is None else probs + bias).gather(1, experts)",
        ("test_balancing_bias_shifts_only_the_choice",),
    ),
    Fault(
        "ppmoe-order-of-rows",
        "rows that came from other processes go back in the order of experts",
        "exchange(made[back], owners, receive, send)",
        "exchange(made, owners, receive, send)",
        ("test_a_step_on_several_processes_equals_one",),
    ),
    Fault(
        "ppmoe-copies",
        "experts that each get a token T times have T times the gradient",
        "torch._foreach_div_(spread, float(self.grid.tp.size))",
        "torch._foreach_div_(spread, 1.0)",
        ("golden/test_ppmoe.py test_layouts",),
    ),
    Fault(
        "ppmoe-zero",
        "ZeRO-1 does not share what a process has updated",
        "p.copy_(value.view_as(p))",
        "value.view_as(p)",
        ("test_a_checkpoint_goes_on_on_any_layout",),
    ),
    Fault(
        "ppmoe-bubble",
        "the bubble of a pipeline is one slot too long",
        "idle_slots=(pp - 1) / v",
        "idle_slots=pp / v",
        ("golden/test_ppmoe.py cost_model",),
    ),
    Fault(
        "ppmoe-key-value-cache",
        "a full window is read again without its last token",
        "seen = fresh = seen[-max(seq // 2, 1) :]",
        "seen = fresh = seen[-max(seq // 2, 1) - 1 : -1]",
        ("test_greedy_with_a_cache_is_greedy_without",),
    ),
    # --- iTPN -----------------------------------------------------------------------------------
    Fault(
        "itpn-masking",
        "units of the largest noise are kept",
        "order = noise.argsort(1)",
        "order = noise.argsort(1, descending=True)",
        ("golden/test_itpn.py pixel_pretrain_a",),
    ),
    Fault(
        "itpn-mask-token",
        "the levels of the pyramid are filled up with one mask token in all",
        "missing = (self.levels * self.mask_token)",
        "missing = (self.mask_token)",
        ("golden/test_itpn.py pixel_pretrain_a",),
    ),
    Fault(
        "itpn-leak",
        "the branch without a leak shows the decoder the masked pixels",
        "seen = (~masked)[:, :, None, None, None]",
        "seen = torch.ones_like(masked)[:, :, None, None, None]",
        ("golden/test_itpn.py clip_pretrain_a",),
    ),
    Fault(
        "itpn-layer-decay",
        "a merge belongs to the block after it, not to the one before",
        "layer = sum(blocks[: number + 1]) if number >= 0",
        "layer = sum(blocks[: number + 1]) + (not blocks[number]) if number >= 0",
        ("golden/test_itpn.py layer_decay_groups",),
    ),
    Fault(
        "itpn-teacher",
        "the teacher's GELU is the exact one, not CLIP's",
        "y * torch.sigmoid(1.702 * y)",
        "F.gelu(y)",
        ("golden/test_itpn.py clip_teacher_target",),
    ),
    Fault(
        "itpn-teacher-range",
        "pictures are washed out for the teacher where that was not asked for",
        'return x if value_range == "correct" else',
        'return x if value_range == "none" else',
        (
            "golden/test_itpn.py clip_teacher_target",
            "test_a_teacher_sees_pictures_as_they_are_unless_the_official_range_is_asked_for",
        ),
    ),
    Fault(
        "itpn-blocks",
        "a rectangle may mask more units than are left",
        "if 0 < part.size - part.sum() <= most:",
        "if 0 < part.size - part.sum():",
        ("golden/test_itpn.py blockwise_masks",),
    ),
    Fault(
        "itpn-target",
        "pixels are normalised by the biased variance",
        "torch.var_mean(values, -1, keepdim=True)",
        "torch.var_mean(values, -1, keepdim=True, correction=0)",
        ("golden/test_itpn.py pixel_pretrain_a",),
    ),
    # --- LDC ------------------------------------------------------------------------------------
    Fault(
        "ldc-samples",
        "biased samples have the covariance of the untransposed factor",
        "return draw(means.double(), factor(covariance).mT, eps).float()",
        "return draw(means.double(), factor(covariance), eps).float()",
        (
            "test_samples_have_the_mean_and_covariance_asked_for",
            "golden/test_ldc.py biased_sampling",
        ),
    ),
    Fault(
        "ldc-recurrence",
        "the residual pass of the calibration network leaves out its input",
        "z = F.relu(out + z if self.residual else out)",
        "z = F.relu(out)",
        (
            "test_passes_share_weights_and_residual_adds_the_input",
            "golden/test_ldc.py pcu_recurrence",
        ),
    ),
    Fault(
        "ldc-matching",
        "the divergence is taken the other way round",
        "F.kl_div(scores(z), wanted,",
        "F.kl_div(wanted, scores(z),",
        ("golden/test_ldc.py dis_match",),
    ),
    Fault(
        "ldc-momentum",
        "the first step of a session is dampened",
        "buffer = gradient\n",
        "buffer = gradient * (1 - settings.dampening)\n",
        ("test_tuning_equals_autograd_and_torch_sgd", "golden/test_ldc.py session_update"),
    ),
    Fault(
        "ldc-folding",
        "a class with n pictures weighs n, not n - 1, in the shared covariance",
        "float(len(x) - 1)",
        "float(len(x))",
        ("test_covariance_folds_in_as_the_settings_say_and_stays_positive_definite",),
    ),
    Fault(
        "ldc-head-scale",
        "square roots of features are compared without being brought to length one",
        "return functional.normalize(features.sign() * features.abs().sqrt(), dim=1)",
        "return features.sign() * features.abs().sqrt()",
        ("test_square_root_features_have_length_one",),
    ),
)


# --- running -------------------------------------------------------------------------------------


def located(tests: Iterable[str], root: Path) -> list[tuple[Path, str]]:
    """(file, expression for -k) of each entry of `Fault.tests`, wherever the tests lie."""
    files = sorted((root / "tests").rglob("*.py"))
    found = []
    for entry in tests:
        first, _, rest = entry.partition(" ")
        if first.endswith(".py"):
            own = [(file, rest) for file in files if file.as_posix().endswith(f"/{first}")]
        else:
            own = [(file, entry) for file in files if f"def {first}(" in file.read_text()]
        if not own:
            raise LookupError(f"no test {first!r} under tests/")
        found += own
    return found


def broken(fault: Fault, root: Path) -> None:
    """Put the fault into the copy."""
    holders = [(p, p.read_text().count(fault.old)) for p in (root / "src").rglob("*.py")]
    holders = [(path, count) for path, count in holders if count]
    if sum(count for _, count in holders) != 1:
        raise LookupError(f"{fault.old!r} must occur once in src, occurs {holders}")
    path = holders[0][0]
    path.write_text(path.read_text().replace(fault.old, fault.new))


def failed(tests: Iterable[tuple[Path, str]], root: Path, limit: int = LIMIT) -> list[str]:
    """Names of the tests that fail in the copy; LookupError if pytest could not run any."""
    env = {**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    say = "import tenfold; print(tenfold.__file__)"
    source = subprocess.check_output([sys.executable, "-c", say], env=env, cwd=root, text=True)
    assert Path(source.strip()).is_relative_to(root), f"{source} is imported, not the copy"
    files, expressions = (list(dict.fromkeys(column)) for column in zip(*tests, strict=True))
    wanted = " or ".join(f"({expression})" for expression in expressions)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, files), "-k", wanted, "-rfE",
         "-p", "no:cacheprovider"],
        env=env, cwd=root, text=True, capture_output=True, timeout=limit,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise LookupError(f"pytest -k {wanted!r} could not run: {done.stdout[-2000:]}")
    return re.findall(r"^(?:FAILED|ERROR) \S*?([^/\s]+\.py::\S+)", done.stdout, re.MULTILINE)


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """Fault -> what caught it, before and after, as an earlier run wrote it."""
    rows: dict[str, dict[str, str]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[0].startswith("`"):
            rows[cells[0].strip("`")] = {"before": cells[2], "after": cells[3]}
    return rows


def write_table(path: Path, column: str, results: dict[str, str]) -> None:
    """Write the results into a column; everything else stays as the file has it."""
    rows = read_table(path)
    lines = [
        "# What the tests catch",
        "",
        "Deliberate faults, one at a time, and the tests that fail with each: `python",
        "tests/faults.py --write docs/test-power.md`. Before: the tests as they were when the list",
        "was made; after: as they are since they were merged and made faster. The list found gaps:",
        "the tests that catch `core-write-in-place`, `core-absent-field`, `core-accumulate`,",
        "`core-who-is-heard`, `data-cifar-planes`, `data-weather-greenwich`, `spgsn-padding`,",
        "`pangu-loss-missing`, `ppmoe-capacity`, `ppmoe-balancing-bias`, `itpn-teacher-range` and",
        "`ldc-samples` were written, or made sharper, with it.",
        "",
        "| fault | what is wrong | caught by, before | caught by, after |",
        "|---|---|---|---|",
    ]
    for fault in FAULTS:
        cells = {"before": "", "after": ""} | rows.get(fault.name, {})
        cells[column] = results.get(fault.name, cells[column])
        says = fault.says.replace("|", "\\|")
        lines.append(f"| `{fault.name}` | {says} | {cells['before']} | {cells['after']} |")
    path.write_text("\n".join(lines) + "\n")


def cell(names: list[str]) -> str:
    """The first tests by name (golden ones by case), and how many more there are."""
    names = [name if "::test_golden" in name else name.partition("[")[0] for name in names]
    names = list(dict.fromkeys(names))
    shown = ", ".join(f"`{name}`" for name in names[:2]).replace("|", "\\|")
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return shown + more if names else "**not caught**"


def main() -> int:
    """Run the faults that were asked for; 1 if one is not caught, or a test fails without any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="* and ? match")
    parser.add_argument("--list", action="store_true", help="print the faults and do nothing")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="write or update the table")
    parser.add_argument("--column", choices=("before", "after"), default="before")
    asked = parser.parse_args()
    faults = [f for f in FAULTS if any(fnmatch(f.name, name) for name in asked.only)]
    if asked.list:
        print("\n".join(f"{fault.name:26} {fault.says}" for fault in faults))
        return 0
    results: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        whole, one = Path(folder).resolve() / "whole", Path(folder).resolve() / "one"
        whole.mkdir()
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, whole / name)
        every = [test for fault in faults for test in located(fault.tests, whole)]
        wrong = failed(every, whole, LIMIT * len(faults))
        print(f"without any fault: {', '.join(wrong) or 'all pass'}", flush=True)
        for fault in faults:
            since = time.monotonic()
            shutil.copytree(whole, one)
            try:
                broken(fault, one)
                names = [n for n in failed(located(fault.tests, one), one) if n not in wrong]
                results[fault.name] = cell(names)
                said = f"caught by {', '.join(names)}" if names else "NOT CAUGHT"
            except (LookupError, subprocess.TimeoutExpired) as error:
                said = f"NOT CAUGHT: {error}"
            shutil.rmtree(one)
            if asked.write:
                write_table(asked.write, asked.column, results)
            print(f"{fault.name}: {said} ({time.monotonic() - since:.0f} s)", flush=True)
    caught = [name for name, text in results.items() if "not caught" not in text]
    print(f"{len(caught)} of {len(faults)} faults caught")
    return int(bool(wrong) or len(caught) < len(faults))


if __name__ == "__main__":
    sys.exit(main())
