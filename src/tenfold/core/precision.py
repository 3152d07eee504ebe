"""Mixed precision: what a device computes in."""

from __future__ import annotations

import platform
from typing import Literal

import torch

Amp = Literal["auto", "off", "bf16", "fp16"]


def computes_in_bf16(device: torch.device) -> bool:
    """Return True if a device multiplies bf16 itself; others emulate it, slower than float32.

    On x86 these are AVX-512 BF16 and AMX. Without AVX-512 at all, torch has no oneDNN kernel to
    emulate with, and a convolution takes ten and more times as long as in float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() in ("x86_64", "AMD64"):  # torch.cpu.get_capabilities is of torch 2.11
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    # a torch that was built without oneDNN has no such function
    has_onednn = torch.backends.mkldnn.is_available()
    return has_onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def settled(amp: Amp, device: torch.device) -> Amp:
    """What "auto" is on a device; all else stays as it is."""
    if amp != "auto":
        return amp
    return "bf16" if computes_in_bf16(device) else "off"


def remark(amp: Amp, device: torch.device) -> str:
    """What the user of a device without bf16 should know of a wish; "" if nothing."""
    if amp not in ("auto", "bf16") or computes_in_bf16(device):
        return ""
    name = "GPU" if device.type == "cuda" else "CPU"
    if amp == "auto":
        return f"loop.amp auto: this {name} does not compute in bf16, so all is in float32"
    return f"loop.amp bf16: this {name} emulates bf16, slower than float32; auto takes float32 here"
