"""What accelerators can do at most: published rates, as plain data.

`KINDS` maps JAX's `device_kind` to a short name, as people say it; `PEAKS` has the rates by short
name. A JAX device is a whole chip for all of these TPUs (v4 and v5p run their two cores as one).
"""

from typing import Literal

from alexnet_jax.config import Precision

KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "Tesla T4": "t4",
    "NVIDIA L4": "l4",
    "NVIDIA A100-SXM4-40GB": "a100",
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA A100-SXM-80GB": "a100",
    "NVIDIA A100-PCIE-40GB": "a100",
    "NVIDIA A100 80GB PCIe": "a100",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA H100 NVL": "h100-nvl",
    "NVIDIA H200": "h200",
    "NVIDIA H200 NVL": "h200-nvl",
}

# TFLOP/s of one device, dense. "bfloat16": of bfloat16 products. "float32": of products of float32
# arrays at JAX's default precision: TF32 on GPUs since Ampere, one pass of bfloat16 on TPUs, plain
# float32 on a T4, which has neither TF32 nor bfloat16 units (65 TFLOP/s in float16).
# Sources: NVIDIA's data sheets (where they give rates with sparsity, half), cloud.google.com/tpu.
PEAKS: dict[str, dict[str, float]] = {
    "v4": {"bfloat16": 275.0, "float32": 275.0},
    "v5e": {"bfloat16": 197.0, "float32": 197.0},
    "v5p": {"bfloat16": 459.0, "float32": 459.0},
    "v6e": {"bfloat16": 918.0, "float32": 918.0},
    "t4": {"bfloat16": 8.1, "float32": 8.1},
    "l4": {"bfloat16": 121.0, "float32": 60.0},
    "a100": {"bfloat16": 312.0, "float32": 156.0},
    "h100": {"bfloat16": 989.0, "float32": 495.0},
    "h100-pcie": {"bfloat16": 756.0, "float32": 378.0},
    "h100-nvl": {"bfloat16": 835.0, "float32": 417.0},
    "h200": {"bfloat16": 989.0, "float32": 495.0},
    "h200-nvl": {"bfloat16": 835.0, "float32": 417.0},
}


def peak(
    device: str, dtype: Literal["bfloat16", "float32"], precision: Precision = "default"
) -> float | None:
    """Return TFLOP/s at most of a device, by `device_kind` or short name.

    None if not known, as of products of float32 arrays at another precision than the default.
    """
    rates = PEAKS.get(KINDS.get(device, device))
    if rates is None or (dtype == "float32" and precision != "default"):
        return None
    return rates[dtype]
