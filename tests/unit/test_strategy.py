import pytest

from pai.dialects.mlir import parse, to_text
from pai.passes.partition import partition
from pai.passes.strategy import annotate, choose_plan, load_plan, search
from pai.passes.strategy.auto_shard import signature_of
from pai.passes.strategy.explain import explain
from pai.passes.strategy.plan import Plan, layout_to_texts, plan_from_toml, plan_to_toml
from pai.passes.strategy.tensor_parallel import split_weights
from pai.runtime.errors import InfeasiblePlan, InvalidCluster, InvalidSharding, PassFailure
from pai.runtime.mesh import Mesh
from pai.runtime.topology import load_cluster


def mlp(batch, width, hidden, dtype="bf16", before="", x_sharding=""):
    """Two layers: tanh(x @ w1 + b1) @ w2."""
    t = f"x{dtype}>"
    x, w1, w2 = (
        f"tensor<{batch}x{width}{t}",
        f"tensor<{width}x{hidden}{t}",
        f"tensor<{hidden}x{width}{t}",
    )
    h, b1 = f"tensor<{batch}x{hidden}{t}", f"tensor<{hidden}{t}"
    module = parse(f"""module {{ {before}
    func.func @main(
        %x: {x} {{pai.name = "x", pai.role = "input"{x_sharding}}},
        %w1: {w1} {{pai.name = "layer.0.weight", pai.role = "parameter"}},
        %b1: {b1} {{pai.name = "layer.0.bias", pai.role = "parameter"}},
        %w2: {w2} {{pai.name = "layer.1.weight", pai.role = "parameter"}}) -> {x} {{
      %0 = stablehlo.dot_general %x, %w1, contracting_dims = [1] x [0] : ({x}, {w1}) -> {h}
      %1 = stablehlo.broadcast_in_dim %b1, dims = [1] : ({b1}) -> {h}
      %2 = stablehlo.add %0, %1 : {h}
      %3 = stablehlo.tanh %2 : {h}
      %4 = stablehlo.dot_general %3, %w2, contracting_dims = [1] x [0] : ({h}, {w2}) -> {x}
      return %4 : {x}
    }} }}""")
    return module, signature_of(module)


def texts(plan):
    return {name: layout_to_texts(layout) for name, layout in plan.arguments}


def write(tmp_path, text):
    path = tmp_path / "p.toml"
    path.write_text(text)
    return path


def test_a_large_batch_is_split():
    plan = choose_plan(*mlp(65536, 1024, 4096), load_cluster("a100-80g-sxm", 8))
    assert plan.mesh == Mesh((("data", 8),))
    assert texts(plan) == {"x": ["data p0", ""]}
    assert plan.predicted.communication_s == 0
    replicated = next(a for a in plan.alternatives if a.name == "replicated")
    assert replicated.time_s > 6 * plan.predicted.time_s


def test_a_tiny_batch_with_giant_weights_splits_them_column_then_row():
    plan = choose_plan(*mlp(8, 16384, 65536), load_cluster("a100-80g-sxm", 8))
    ((_, size),) = plan.mesh.axes
    assert size == 8
    split = {name: [bool(dim) for dim in layout.sharding.dims] for name, layout in plan.arguments}
    assert split["layer.0.weight"] == [False, True]
    assert split["layer.1.weight"] == [True, False]
    # Megatron's pair: the output is summed once, and may stay in shards
    (use,) = plan.predicted.collectives
    assert use.kind in ("all_reduce", "reduce_scatter")
    assert (use.count, use.bytes_per_device) == (1, 8 * 16384 * 2)
    assert plan.predicted.time_s <= min(a.time_s for a in plan.alternatives if a.name == "model=8")
    assert plan.predicted.parameter_bytes == (2 * 16384 * 65536 + 65536) * 2 // 8


def test_the_explanation_lists_the_largest_arguments_first():
    module, signature = mlp(8, 16384, 65536)
    text = explain(choose_plan(module, signature, load_cluster("a100-80g-sxm", 8)), signature)
    assert "bound by memory traffic" in text
    rows = [line for line in text.splitlines() if "bf16" in line]
    assert [row.split()[0] for row in rows] == [
        "layer.0.weight", "layer.1.weight", "x", "layer.0.bias",
    ]  # fmt: skip
    assert "2.0 GiB  16384x65536xbf16  [" in rows[0]
    assert "follows the others" in rows[2]


def test_weights_beyond_one_device_are_split():
    module, signature = mlp(65536, 65536, 262144)  # 2 x 32 GiB
    cluster = load_cluster("a100-40g-sxm", 8)
    plan = choose_plan(module, signature, cluster)
    assert plan.predicted.memory_bytes <= cluster.memory_bytes
    assert plan.predicted.parameter_bytes < 64 << 30
    replicated = next(a for a in plan.alternatives if a.name == "replicated")
    assert replicated.memory_bytes > cluster.memory_bytes
    assert replicated.reason.startswith("needs ")
    assert "parameters" in replicated.reason


def test_nothing_fits():
    with pytest.raises(InfeasiblePlan) as caught:
        choose_plan(*mlp(64, 65536, 262144), load_cluster("a100-40g-sxm", 1))
    assert "64.0 GiB" in caught.value.what
    assert "most of it parameters" in caught.value.what
    assert "--devices 2" in caught.value.hint


@pytest.mark.parametrize("devices", [2, 6, 16])
@pytest.mark.parametrize("shape", [(7, 96, 40), (64, 512, 2048), (4096, 256, 64)])
def test_the_choice_is_never_modelled_worse(shape, devices):
    module, signature = mlp(*shape)
    before = to_text(module)
    cluster = load_cluster("h100-sxm", devices)
    plan = choose_plan(module, signature, cluster)
    assert to_text(module) == before
    modelled = [a for a in plan.alternatives if a.time_s is not None]
    assert {a.name for a in modelled} >= {"replicated"} - {plan.strategy}
    fits = [a for a in modelled if a.memory_bytes <= cluster.memory_bytes]
    assert fits
    assert all(plan.predicted.time_s <= a.time_s for a in fits)
    assert plan_to_toml(choose_plan(module, signature, cluster)) == plan_to_toml(plan)
    text = explain(plan, signature)
    assert "largest arguments (4 of 4)" in text


def test_one_device_has_an_empty_mesh():
    module, signature = mlp(8, 32, 64)
    plan = choose_plan(module, signature, load_cluster("cpu", 1))
    assert (plan.mesh, plan.arguments) == (Mesh(), ())
    before = to_text(module)
    annotate(module, plan)
    assert to_text(module) == before


def test_a_written_plan_loads_as_it_was(tmp_path):
    module, signature = mlp(65536, 1024, 4096)
    cluster = load_cluster("a100-80g-sxm", 8)
    plan = choose_plan(module, signature, cluster)
    again = load_plan(write(tmp_path, plan_to_toml(plan)), module, signature, cluster)
    assert again == plan
    assert plan_to_toml(again) == plan_to_toml(plan)


HAND = '[mesh]\nmodel = 8\n[patterns]\n"*.0.weight" = ["", "model"]\n"*.1.weight" = ["model", ""]\n'


def test_a_plan_by_hand_is_costed_and_written_in(tmp_path):
    module, signature = mlp(65536, 1024, 4096)
    cluster = load_cluster("a100-80g-sxm", 8)
    plan = load_plan(write(tmp_path, HAND), module, signature, cluster)
    assert plan.strategy == "by hand"
    assert [use.kind for use in plan.predicted.collectives] == ["all_reduce"]
    assert plan.predicted.time_s > choose_plan(module, signature, cluster).predicted.time_s
    annotate(module, plan)
    text = to_text(module)
    assert 'sdy.mesh @mesh = <["model"=8]>' in text
    assert 'pai.name = "layer.0.weight"' in text
    assert '[{}, {"model"}]>' in text
    assert '[{"model"}, {}]>' in text
    assert text.count("sdy.sharding<") == 2


def test_an_edit_is_honoured_and_costed_again(tmp_path):
    module, signature = mlp(65536, 1024, 4096)
    cluster = load_cluster("a100-80g-sxm", 8)
    text = plan_to_toml(choose_plan(module, signature, cluster))
    edited = text.replace('["data p0", ""]', '["", "data p0"]')
    assert edited != text
    plan = load_plan(write(tmp_path, edited), module, signature, cluster)
    assert texts(plan) == {"x": ["", "data p0"]}
    assert plan.predicted.communication_s > 0


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            HAND.replace("8", "4"),
            InvalidCluster,
            r"makes 4 devices but cluster .* has 8.*--devices 4",
        ),
        (
            HAND.replace("*.0.weight", "*.7.weight"),
            InvalidSharding,
            r"p\.toml:4: pattern .* matches no",
        ),
        (
            HAND + '[arguments]\ny = [""]\n',
            InvalidSharding,
            r"p\.toml:7: .*no argument 'y'.*it has: x",
        ),
        (
            HAND.replace('["model", ""]', '["model"]'),
            InvalidSharding,
            r"p\.toml:5: .*1 dim.* has 2",
        ),
        ("stages = 2\n" + HAND, InvalidCluster, r"p\.toml:1: .*makes 16 devices"),
    ],
)
def test_plans_that_do_not_fit_the_program(tmp_path, text, error, message):
    module, signature = mlp(64, 1024, 4096)
    with pytest.raises(error, match=message):
        load_plan(write(tmp_path, text), module, signature, load_cluster("h100-sxm", 8))


def test_a_missing_plan_file_and_one_that_does_not_fit_memory(tmp_path):
    module, signature = mlp(64, 65536, 262144)
    cluster = load_cluster("a100-40g-sxm", 8)
    with pytest.raises(InvalidSharding, match="cannot be read"):
        load_plan(tmp_path / "none.toml", module, signature, cluster)
    with pytest.raises(InfeasiblePlan, match=r"p\.toml:1: .* parameters"):
        load_plan(write(tmp_path, "[mesh]\na = 8\n"), module, signature, cluster)


MESH = 'sdy.mesh @grid = <["a"=2, "b"=2]>'
SHARDED = ', sdy.sharding = #sdy.sharding<@grid, [{"b"}, {}]>'


def test_shardings_of_the_model_are_kept():
    module, signature = mlp(4096, 1024, 4096, before=MESH, x_sharding=SHARDED)
    plan = choose_plan(module, signature, load_cluster("h100-sxm", 4))
    assert plan.mesh == Mesh((("a", 2), ("b", 2)))
    assert "x" not in texts(plan)
    assert plan.predicted.time_s > 0
    annotate(module, plan)
    text = to_text(module)
    assert text.count("sdy.mesh") == 1
    assert '#sdy.sharding<@grid, [{"b"}, {}]>' in text
    with pytest.raises(InvalidSharding, match="is sharded over the mesh"):
        annotate(module, Plan(Mesh((("data", 4),))))


def test_the_models_mesh_needs_its_devices():
    module, signature = mlp(4096, 1024, 4096, before=MESH, x_sharding=SHARDED)
    with pytest.raises(InvalidSharding, match=r"mesh of 4 devices.*--devices 4"):
        choose_plan(module, signature, load_cluster("h100-sxm", 8))


def test_a_new_state_is_laid_out_as_the_state_it_updates():
    module = parse(
        """
        func.func @main(%w: tensor<8x4xf32> {pai.name = "w", pai.role = "state"},
                        %g: tensor<8x4xf32> {pai.name = "g"})
            -> (tensor<8x4xf32> {pai.name = "new", pai.updates = "w"}) {
          %0 = stablehlo.subtract %w, %g : tensor<8x4xf32>
          return %0 : tensor<8x4xf32>
        }
        """
    )
    plan = plan_from_toml('[mesh]\nd = 2\n[arguments]\nw = ["d p1", ""]\ng = ["", "d p0"]\n')
    annotate(module, plan)
    local = partition(module, plan.mesh)
    assert local.result_shardings[0] == local.argument_shardings[0]


def test_a_plan_for_unknown_arguments_is_refused():
    module, _ = mlp(8, 32, 64)
    plan = plan_from_toml('[mesh]\nd = 2\n[arguments]\nzz = ["d"]\n')
    with pytest.raises(InvalidSharding, match="no argument 'zz'"):
        annotate(module, plan)


def test_a_candidate_that_cannot_be_partitioned_is_an_alternative(monkeypatch):
    def broken(module, mesh):
        if dict(mesh.axes).get("model") == 4:
            raise PassFailure("pass 'sdy-x' crashed", hint="the module is in /tmp/y")
        return real(module, mesh)

    real = search.partition
    monkeypatch.setattr(search, "partition", broken)
    plan = choose_plan(*mlp(8, 16384, 65536), load_cluster("a100-80g-sxm", 4))
    lost = {a.name: a for a in plan.alternatives}
    assert lost["model=4"].time_s is None
    assert lost["model=4"].reason == "cannot be partitioned: pass 'sdy-x' crashed"
    assert plan.strategy != "model=4"


def attention():
    """q, k: columns; scores pass through; the output product: row; then an embedding table."""
    return parse("""func.func @main(
        %t: tensor<4xi32>, %e: tensor<100x8xf32>, %q: tensor<8x8xf32>, %k: tensor<8x8xf32>,
        %o: tensor<8x8xf32>) -> tensor<4x100xf32> {
      %x = "stablehlo.gather"(%e, %t) {dimension_numbers = #stablehlo.gather<offset_dims = [1],
        collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>,
        slice_sizes = array<i64: 1, 8>} : (tensor<100x8xf32>, tensor<4xi32>) -> tensor<4x8xf32>
      %0 = stablehlo.dot_general %x, %q, contracting_dims = [1] x [0] : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
      %kt = stablehlo.transpose %k, dims = [1, 0] : (tensor<8x8xf32>) -> tensor<8x8xf32>
      %1 = stablehlo.dot_general %x, %kt, contracting_dims = [1] x [0] : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
      %2 = stablehlo.multiply %0, %1 : tensor<4x8xf32>
      %3 = stablehlo.dot_general %2, %o, contracting_dims = [1] x [0] : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
      %4 = stablehlo.add %3, %x : tensor<4x8xf32>
      %5 = stablehlo.dot_general %4, %e, contracting_dims = [1] x [1] : (tensor<4x8xf32>, tensor<100x8xf32>) -> tensor<4x100xf32>
      return %5 : tensor<4x100xf32>
    }""")  # noqa: E501


def test_products_pair_up_by_dataflow():
    module = attention()
    block = module.body.operations[0].regions[0].blocks[0]
    split = split_weights(block, lambda i: i > 0, 4, vocabulary=True)
    # the table by rows, q by output, k through its transpose, o by input; tied head: by rows again
    assert split.dims == {1: 0, 2: 1, 3: 0, 4: 0}
    assert [p.mode for p in split.products] == ["vocabulary", "column", "column", "row", "column"]
    whole_table = split_weights(block, lambda i: i > 0, 4, vocabulary=False)
    assert [p.mode for p in whole_table.products] == ["column", "column", "row", "column"]
    too_wide = split_weights(block, lambda i: i > 0, 16, vocabulary=False)
    assert [p.mode for p in too_wide.products] == ["", "", "", "column"]


def test_splitting_through_a_reshape_keeps_the_major_part():
    module = parse("""func.func @main(%x: tensor<4x6xf32>, %w: tensor<6x8xf32>)
        -> tensor<4x2x4xf32> {
      %r = stablehlo.reshape %w : (tensor<6x8xf32>) -> tensor<6x2x4xf32>
      %0 = stablehlo.dot_general %x, %r, contracting_dims = [1] x [0]
        : (tensor<4x6xf32>, tensor<6x2x4xf32>) -> tensor<4x2x4xf32>
      return %0 : tensor<4x2x4xf32>
    }""")
    block = module.body.operations[0].regions[0].blocks[0]
    assert split_weights(block, lambda i: i == 1, 2, vocabulary=False).dims == {1: 1}
    # 3 shards would cut inside the major factor of 2: not through this reshape
    assert split_weights(block, lambda i: i == 1, 3, vocabulary=False).dims == {}


def test_a_training_step_pays_for_its_gradients(tmp_path):
    """One step of gradient descent on a linear layer: data parallelism adds one all_reduce."""
    module = parse("""func.func @main(
        %x: tensor<8192x256xf32> {pai.name = "x", pai.role = "input"},
        %w: tensor<256x256xf32> {pai.name = "w", pai.role = "parameter"}) -> tensor<256x256xf32> {
      %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
        : (tensor<8192x256xf32>, tensor<256x256xf32>) -> tensor<8192x256xf32>
      %1 = stablehlo.dot_general %x, %0, contracting_dims = [0] x [0]
        : (tensor<8192x256xf32>, tensor<8192x256xf32>) -> tensor<256x256xf32>
      %2 = stablehlo.subtract %w, %1 : tensor<256x256xf32>
      return %2 : tensor<256x256xf32>
    }""")
    cluster, signature = load_cluster("cpu", 4), signature_of(module)
    by_hand = write(tmp_path, '[mesh]\ndata = 4\n[arguments]\nx = ["data", ""]\n')
    plan = load_plan(by_hand, module, signature, cluster)
    (use,) = plan.predicted.collectives
    assert (use.kind, use.group_size, use.bytes_per_device) == ("all_reduce", 4, 256 * 256 * 4)
    # here splitting the weight is free of communication, and the search finds that
    best = choose_plan(module, signature, cluster)
    assert best.predicted.communication_s == 0
    assert best.predicted.time_s < plan.predicted.time_s


def test_a_program_without_arguments_or_with_scalars_only():
    for text in (
        "func.func @main() -> tensor<4xf32> { %0 = stablehlo.iota dim = 0 : tensor<4xf32> "
        "return %0 : tensor<4xf32> }",
        "func.func @main(%a: tensor<f32>) -> tensor<f32> { %0 = stablehlo.tanh %a : tensor<f32> "
        "return %0 : tensor<f32> }",
    ):
        module = parse(text)
        plan = choose_plan(module, signature_of(module), load_cluster("cpu", 4))
        assert plan.strategy == "replicated"


def test_the_smallest_device_bounds_the_memory(tmp_path):
    """Two kinds of host: 64 MiB of weights do not fit the 40 MiB device unless they are split."""
    text = """
[device.large]
memory = 1000000000
memory_bandwidth = 1e11
peak_flops = { f32 = 1e12 }
[device.small]
memory = 41943040
memory_bandwidth = 1e11
peak_flops = { f32 = 1e12 }
[[host]]
device = "large"
devices = 1
[[host]]
device = "small"
devices = 1
[link.host]
latency = 1e-5
bandwidth = 1e10
"""
    path = tmp_path / "mixed.toml"
    path.write_text(text)
    module, signature = mlp(16, 1024, 8192, dtype="f32")
    cluster = load_cluster(str(path))
    plan = choose_plan(module, signature, cluster)
    assert plan.device_memory_bytes == 41943040
    assert plan.predicted.memory_bytes <= 41943040
    assert dict(plan.arguments).keys() >= {"layer.0.weight", "layer.1.weight"}
    with pytest.raises(InfeasiblePlan):
        choose_plan(*mlp(16, 8192, 8192, dtype="f32"), cluster)
