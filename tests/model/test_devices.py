"""The peaks of accelerators can be found as JAX names them."""

import pytest

from alexnet_jax.model.devices import KINDS, PEAKS, peak


@pytest.mark.parametrize(
    ("kind", "bfloat16", "float32"),
    [
        ("TPU v4", 275, 275),
        ("TPU v5 lite", 197, 197),  # 2 * 4 * 128 * 128 * 1.5e9
        ("TPU v5p", 459, 459),
        ("TPU v6 lite", 918, 918),
        ("Tesla T4", 8.1, 8.1),
        ("NVIDIA L4", 121, 60),
        ("NVIDIA A100-SXM4-40GB", 312, 156),
        ("NVIDIA H100 80GB HBM3", 989, 495),
        ("NVIDIA H200", 989, 495),
    ],
)
def test_peaks_by_device_kind(kind, bfloat16, float32):
    assert (peak(kind, "bfloat16"), peak(kind, "float32")) == (bfloat16, float32)
    assert peak(KINDS[kind], "bfloat16") == peak(kind, "bfloat16", "highest") == bfloat16


def test_a_peak_of_float32_arrays_is_that_of_the_default_precision():
    for precision in ("high", "highest"):
        assert peak("TPU v4", "float32", precision) is None
        assert peak("NVIDIA H200", "float32", precision) is None


def test_every_kind_has_a_peak_and_what_is_not_known_has_none():
    assert set(KINDS.values()) == set(PEAKS)
    for kind in ("cpu", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "TPU v7x"):
        assert peak(kind, "float32") is None
