"""Seconds of kernels, against values worked out by hand and by scaling laws."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pai.passes.strategy.calibration import (
    A100,
    SHEETS,
    TABLE,
    Calibration,
    calibration,
    transferred,
)
from pai.passes.strategy.kernels import Kernels, KernelTime
from pai.passes.strategy.workload import Attention, Collective, Dot, Stream
from pai.runtime.topology import DeviceSpec, load_cluster
from pai.runtime.topology_toml import profile_names

TOY = Calibration(
    units=4,
    gemm=0.5,
    epilogue=1.5,
    memory=0.5,
    attention_forward=0.25,
    attention_backward=0.2,
    launch_s=1e-6,
    host_s=0.0,
    contention=0.5,
)


def clock(bandwidth=1e12, flops=1e12, constants=TOY):
    rates = (("f32", flops / 2), ("bf16", flops))
    return Kernels.of(DeviceSpec("toy", 10**9, bandwidth, rates), constants)


def test_a_product_is_its_best_tiling_and_the_part_of_its_result_left():
    # 128 x 128 tiles: 4 on 4 units, one wave; at 0.93 of the best rate they beat two 256 x 128
    seconds = clock().dot(Dot(256, 256, 1000))
    arithmetic = 2 * 4 * 128 * 128 * 1000 / 0.93 / 0.5e12
    result = 256 * 256 * 2 / 0.5e12
    assert seconds == KernelTime(pytest.approx(arithmetic + 1.5 * result), 0, 1e-6, 1)


def test_the_last_wave_is_as_long_as_the_others():
    four, five, eight = (clock().dot(Dot(256 * n, 128, 4096)).compute for n in (4, 5, 8))
    assert four < five < eight
    assert five > 1.2 * four  # 1.25 times the work, in smaller tiles


def test_a_thin_product_is_bound_by_its_operands():
    seconds = clock(bandwidth=1e9).dot(Dot(1, 1000, 1000))
    moved = (1001 * 1000 + 1000) * 2
    assert seconds == KernelTime(0, pytest.approx(moved / 0.5e9), 1e-6, 1)


def test_products_of_few_rows_are_no_tiles():
    """One row by two columns of a long sum, many times, once filled 64 by 64 tiles."""
    clocks = Kernels.of(load_cluster("v100-16g-p3", 8).hosts[0].device)
    thin, wide = (clocks.dot(Dot(rows, 64, 4096, 4096, "f32")) for rows in (1, 16))
    flops = 2 * 64 * 4096 * 4096
    assert thin.total >= flops / clocks.peak("f32")
    read = 4 * 4096 * 4096 * (1 + 64) / clocks.bandwidth
    assert thin.memory == pytest.approx(read, rel=0.01)
    assert wide.compute > 16 * thin.compute


def test_types_without_a_rate_run_as_f32():
    plain, double = clock().dot(Dot(512, 512, 512, dtype="f32")), Dot(512, 512, 512, dtype="f64")
    assert clock().peak("f64") == clock().peak("f32") == 0.5e12
    assert clock().dot(double).compute > plain.compute  # its result has more bytes


def test_causal_attention_counts_unmasked_scores_only():
    forward = clock().attention(Attention(2, 1024, 1024, 64))
    scores = 2 * 1024 * 1025 / 2
    assert forward.compute == pytest.approx(2 * 2 * scores * 64 / 0.25e12)
    backward = clock().attention(Attention(2, 1024, 1024, 64, backward=True))
    assert backward.compute == pytest.approx(5 * 2 * scores * 64 / 0.2e12)
    fast = clock().attention(Attention(2, 1024, 1024, 64, speed=2))
    assert fast.compute == pytest.approx(forward.compute / 2)


def test_one_query_over_many_keys_is_bound_by_reading_them():
    seconds = clock(bandwidth=1e9).attention(Attention(8, 1, 4096, 64, kv_batch=2))
    moved = 2 * 64 * (8 * 1 + 2 * 4096) * 2
    assert seconds.memory == pytest.approx(moved / 0.5e9)
    assert seconds.compute == 0


def test_streams_and_counts():
    seconds = clock().seconds((Stream(1e6, 3), Collective("all_reduce", 1e9, ("x",))))
    assert seconds == KernelTime(0, pytest.approx(3 * 1e6 / 0.5e12), pytest.approx(3e-6), 3)
    assert (seconds * 2).total == pytest.approx(2 * seconds.total)


sizes = st.integers(1, 5000)


@given(sizes, sizes, sizes, st.integers(1, 8), st.floats(1.0, 4.0))
@settings(max_examples=200, deadline=None)
def test_more_work_or_a_slower_device_is_never_faster(m, n, k, batch, times):
    kernels, dot = clock(), Dot(m, n, k, batch)
    seconds = kernels.dot(dot).total
    assert seconds <= kernels.dot(replace(dot, k=k + 64)).total * (1 + 1e-9)
    assert seconds <= kernels.dot(replace(dot, batch=2 * batch)).total * (1 + 1e-9)
    assert clock(bandwidth=times * 1e12).dot(dot).total <= seconds * (1 + 1e-9)
    assert clock(flops=times * 1e12).dot(dot).total <= seconds * (1 + 1e-9)


@pytest.mark.parametrize("kind", sorted(SHEETS))
def test_no_device_exceeds_its_data_sheet(kind):
    constants = calibration(kind)
    assert 0.3 < constants.gemm <= 1
    assert 0 < constants.attention_backward < constants.attention_forward < constants.gemm
    assert constants.units == SHEETS[kind].units
    assert constants.source


def test_kinds_are_known_by_their_longest_prefix():
    assert calibration("a100-80g") is A100
    assert calibration("h100-96g") is TABLE["h100"]
    assert calibration("mi300x") is TABLE["mi300x"]
    assert calibration("something new") is A100


@pytest.mark.parametrize("profile", ["a100-80g-sxm", "h100-sxm", "v100-16g-p3", "mi300x"])
def test_profiles_have_the_peak_of_the_data_sheet(profile):
    device = load_cluster(profile).hosts[0].device
    kind = max((k for k in SHEETS if device.kind.startswith(k)), key=len)
    assert dict(device.peak_flops)["f16"] == pytest.approx(SHEETS[kind].peak, rel=0.01)


@pytest.mark.parametrize("profile", [name for name in profile_names() if name != "cpu"])
def test_profiles_give_the_calibrated_efficiencies_to_who_reads_only_them(profile):
    device = load_cluster(profile).hosts[0].device
    constants = calibration(device.kind)
    assert device.compute_efficiency == pytest.approx(constants.gemm, abs=0.005)
    assert device.memory_efficiency == pytest.approx(constants.memory, abs=0.005)
    assert device.launch_overhead_s == constants.launch_s


def test_a_cluster_file_speaks_for_kinds_without_constants():
    rates = (("f32", 1e12),)
    spec = DeviceSpec("mine", 1, 1e12, rates, compute_efficiency=0.5, launch_overhead_s=1e-5)
    found = Kernels.of(spec).constants
    assert (found.gemm, found.launch_s, found.memory) == (0.5, 1e-5, A100.memory)
    ratio = 0.5 / A100.gemm
    assert found.attention_forward == pytest.approx(ratio * A100.attention_forward)
    assert Kernels.of(DeviceSpec("mine", 1, 1e12, rates)).constants.gemm == A100.gemm
    assert Kernels.of(replace(spec, kind="a100-80g")).constants is A100


def test_transfer_to_the_same_data_sheet_changes_nothing():
    same = transferred(A100, SHEETS["a100"], SHEETS["a100"])
    for name in ("gemm", "attention_forward", "attention_backward", "memory", "epilogue"):
        assert getattr(same, name) == pytest.approx(getattr(A100, name))


def test_transfer_lowers_products_by_power_and_attention_by_clocks():
    half = replace(SHEETS["a100"], watts=200)
    moved = transferred(A100, SHEETS["a100"], half)
    assert moved.gemm == pytest.approx(A100.gemm / 2)
    beside = 1 / A100.attention_forward - 1 / A100.gemm
    assert 1 / moved.attention_forward == pytest.approx(2 / A100.gemm + beside)
    twice = replace(SHEETS["a100"], watts=800)
    assert transferred(A100, SHEETS["a100"], twice).gemm == pytest.approx(A100.gemm)


def test_constants_of_h100_are_near_what_the_data_sheet_predicts():
    predicted = transferred(A100, SHEETS["a100"], SHEETS["h100"])
    assert predicted.gemm == pytest.approx(TABLE["h100"].gemm, rel=0.05)
    backward = TABLE["h100"].attention_backward
    assert predicted.attention_backward == pytest.approx(backward, rel=0.05)
