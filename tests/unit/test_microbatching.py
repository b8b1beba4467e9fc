import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models import layouts
from jax_models.common import identity
from jax_models.step import arguments, names, training_step
from pai.dialects.mlir import context, parse, to_text
from pai.dialects.program import Role, Signature, Value
from pai.passes.simplify import simplify
from pai.passes.strategy.auto_shard import signature_of
from pai.passes.strategy.pipeline.microbatching import microbatching

BATCH = 8


def lower(function, arguments_, labels):
    """Return the simplified module of a JAX function, its locations kept, and its signature."""
    traced = jax.jit(function, keep_unused=True).trace(*arguments_)
    lowered = traced.lower(lowering_platforms=("cpu",)).compiler_ir("stablehlo")
    text = lowered.operation.get_asm(enable_debug_info=True)
    module = parse(text, "step", context())
    simplify(module)

    def role(name):
        return {"batch": Role.INPUT, "params": Role.PARAMETER}.get(name.split("/")[0], Role.STATE)

    leaves = jax.tree.leaves(arguments_)
    values = [
        Value(name, role(name), str(leaf.dtype), tuple(np.shape(leaf)))
        for name, leaf in zip(labels, leaves, strict=True)
    ]
    results = [
        Value(f"out{i}", Role.OUTPUT, str(leaf.dtype), tuple(leaf.shape))
        for i, leaf in enumerate(jax.tree.leaves(traced.out_info))
    ]
    return module, Signature(tuple(values), tuple(results))


def model(name):
    module = layouts.load(name)
    config = module.Config.small()
    given = arguments(module, config, BATCH, train=True, only_shapes=True)
    labels = names(module, config, train=True)
    step = training_step(module, config, identity)
    return (*lower(step, given, labels), module.weights(config))


def parameter_bytes(weights):
    leaves = jax.tree.leaves(weights, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return 4 * sum(int(np.prod(leaf.shape)) for leaf in leaves)


@pytest.mark.parametrize("name", ["gpt2", "llama", "vit", "t5", "unet", "dit", "lstm"])
def test_models_without_statistics_of_the_batch_are_legal(name):
    module, signature, weights = model(name)
    found = microbatching(module, signature)
    assert found.ok, found.offences
    assert found.batch == BATCH
    assert not found.prologue
    # Every gradient is accumulated, and the loss. A tied weight may be accumulated in two parts,
    # and an affine function of a sum (the gradient of a key's bias is zero) not at all.
    total = parameter_bytes(weights)
    assert 0.9 * total <= found.accumulator_bytes <= 1.3 * total


def test_the_module_is_left_alone():
    module, signature, _ = model("gpt2")
    before = to_text(module)
    microbatching(module, signature)
    assert to_text(module) == before


def test_a_batch_norm_in_training_is_named():
    found = microbatching(*model("resnet")[:2])
    assert not found.ok
    first = found.offences[0]
    assert first.op == "stablehlo.reduce"
    assert "BatchNorm.__call__" in first.where
    assert "resnet.py:142" in first.where  # the mean
    assert "every microbatch needs its sum over the whole batch" in first.why
    assert all("BatchNorm" in offence.where for offence in found.offences)


def test_the_balance_of_experts_over_the_batch_is_named():
    """The auxiliary loss multiplies two means over the batch: its gradient needs both."""
    found = microbatching(*model("moe")[:2])
    assert [("route(" in o.where, o.op) for o in found.offences] == [(True, "stablehlo.reduce")]


def test_the_number_of_tokens_that_a_loss_counts_is_known_before_the_first_microbatch():
    found = microbatching(*model("bert")[:2])
    assert found.ok
    (count,) = found.prologue
    assert count.op == "stablehlo.reduce"
    assert "bert.py:127" in count.where
    assert count.num_bytes == 4


X = jax.ShapeDtypeStruct((BATCH, 6), jnp.float32)
W = jax.ShapeDtypeStruct((6, 6), jnp.float32)


def judge(function, *shapes, labels=("params/w", "batch/x")):
    return microbatching(*lower(function, shapes or (W, X), labels))


def encode(w, x):
    return jnp.tanh(x @ w)


def step_of(loss):
    def step(w, x):
        value, grad = jax.value_and_grad(loss)(w, x)
        return value, w - 0.1 * grad

    return step


def test_a_mean_loss_is_legal_and_its_gradient_accumulates():
    found = judge(step_of(lambda w, x: jnp.mean(encode(w, x) ** 2)))
    assert found.ok
    assert sorted(a.num_bytes for a in found.accumulators) == [4, 4 * 36]
    assert {a.dtype for a in found.accumulators} == {"f32"}


def test_a_contrastive_loss_in_the_batch_is_illegal():
    def loss(w, x):
        z = encode(w, x)
        scores = z @ z.T
        return jnp.mean(jax.nn.logsumexp(scores, axis=1) - jnp.diagonal(scores))

    found = judge(step_of(loss))
    assert not found.ok
    assert any("all_gather over time" in offence.why for offence in found.offences)
    assert any("test_microbatching" in offence.where for offence in found.offences)


def test_a_softmax_over_the_batch_is_illegal():
    found = judge(step_of(lambda w, x: jnp.sum(jax.nn.softmax(encode(w, x), axis=0) ** 2)))
    whys = " ".join(offence.why for offence in found.offences)
    assert "its max over the whole batch is no sum" in whys
    assert "every microbatch needs its sum" in whys


def test_clipping_the_norm_of_the_gradient_is_what_follows_the_last_microbatch():
    def step(w, x):
        grad = jax.grad(lambda w, x: jnp.mean(encode(w, x) ** 2))(w, x)
        norm = jnp.sqrt(jnp.sum(grad**2))
        return w - 0.1 * grad / jnp.maximum(norm, 1.0), norm

    assert judge(step).ok


def test_a_penalty_on_the_weights_is_legal():
    assert judge(step_of(lambda w, x: jnp.mean(encode(w, x) ** 2) + 0.1 * jnp.sum(w**2))).ok


def test_a_scale_taken_from_the_inputs_comes_first_and_one_of_activations_is_illegal():
    def scaled(x):
        return x / jnp.sqrt(jnp.mean(x**2))

    found = judge(step_of(lambda w, x: jnp.mean(encode(w, scaled(x)) ** 2)))
    assert found.ok
    assert [p.num_bytes for p in found.prologue] == [4]
    assert not judge(step_of(lambda w, x: jnp.mean(scaled(encode(w, x)) ** 4))).ok


def test_outputs_of_each_sample_are_legal():
    found = judge(lambda w, x: (encode(w, x), jnp.sum(encode(w, x), axis=1)))
    assert found.ok
    assert not found.accumulators


def test_a_sorted_batch_is_illegal():
    assert not judge(lambda w, x: jnp.sort(encode(w, x), axis=0)).ok


def test_layers_in_a_loop_are_legal():
    def loss(w, x):
        return jnp.mean(jax.lax.scan(lambda h, v: (encode(v, h), None), x, w)[0] ** 2)

    def step(w, x):
        value, grad = jax.value_and_grad(loss)(w, x)
        return value, w - 0.1 * grad

    found = judge(step, jax.ShapeDtypeStruct((3, 6, 6), jnp.float32), X)
    assert found.ok, found.offences
    assert found.accumulators


def test_a_sum_that_a_loop_goes_on_with_is_illegal():
    def run(w, x):
        def body(carry, v):
            return jnp.tanh(carry + jnp.sum(x @ v, axis=0)), None

        return jax.lax.scan(body, jnp.zeros(6), w)[0]

    found = judge(run, jax.ShapeDtypeStruct((3, 6, 6), jnp.float32), X)
    assert [o.why.split(":")[0] for o in found.offences] == [
        "a loop needs its sum over the whole batch in every iteration"
    ]


def test_a_sum_that_a_loop_adds_up_is_legal():
    def run(w, x):
        def body(carry, v):
            return carry + 2.0 * jnp.sum(x @ v, axis=0), None

        return jax.lax.scan(body, jnp.zeros(6), w)[0]

    assert judge(run, jax.ShapeDtypeStruct((3, 6, 6), jnp.float32), X).ok


def test_a_choice_by_the_sum_of_the_batch_is_illegal():
    def run(w, x):
        y = x @ w
        return jax.lax.cond(jnp.sum(y) > 0, lambda: jnp.sum(jnp.sin(y), 1), lambda: y[:, 0])

    assert not judge(run).ok


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_dropout_is_legal(kind):
    def step(key, w, x):
        def loss(w):
            kept = jax.random.bernoulli(jax.random.wrap_key_data(key, impl=kind), 0.9, x.shape)
            return jnp.mean(encode(w, jnp.where(kept, x / 0.9, 0.0)) ** 2)

        value, grad = jax.value_and_grad(loss)(w)
        return value, w - 0.1 * grad

    words = {"threefry2x32": 2, "rbg": 4}[kind]
    key = jax.ShapeDtypeStruct((words,), jnp.uint32)
    found = judge(step, key, W, X, labels=("key", "params/w", "batch/x"))
    assert found.ok, found.offences
    assert not found.prologue


def test_rows_of_an_embedding_accumulate():
    def step(table, tokens):
        grad = jax.grad(lambda table: jnp.mean(jnp.tanh(table[tokens]) ** 2))(table)
        return table - 0.1 * grad

    tokens = jax.ShapeDtypeStruct((BATCH, 5), jnp.int32)
    found = judge(step, W, tokens)
    assert found.ok, found.offences
    assert found.accumulator_bytes == 4 * 36


def test_an_odd_batch_is_cut_by_its_smallest_divisor():
    found = judge(
        step_of(lambda w, x: jnp.mean(encode(w, x) ** 2)),
        W, jax.ShapeDtypeStruct((15, 6), jnp.float32),
    )  # fmt: skip
    assert found.ok
    assert found.batch == 15


@pytest.mark.parametrize("shape", [(1, 6), ()])
def test_without_a_batch_there_is_nothing_to_cut(shape):
    found = judge(lambda w, x: jnp.sum(w) * x, W, jax.ShapeDtypeStruct(shape, jnp.float32))
    assert not found.ok
    assert "no first dimension in common" in found.offences[0].why


def test_shardings_of_the_model_do_not_matter():
    text = """module {
      sdy.mesh @mesh = <["data"=4]>
      func.func @main(
          %x: tensor<8x6xf32> {pai.name = "x", pai.role = "input",
                               sdy.sharding = #sdy.sharding<@mesh, [{"data"}, {}]>},
          %w: tensor<6x6xf32> {pai.name = "w", pai.role = "parameter"}) -> tensor<6xf32> {
        %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
            : (tensor<8x6xf32>, tensor<6x6xf32>) -> tensor<8x6xf32>
        %1 = sdy.sharding_constraint %0 <@mesh, [{"data"}, {}]> : tensor<8x6xf32>
        %z = stablehlo.constant dense<0.0> : tensor<f32>
        %2 = stablehlo.reduce(%1 init: %z) applies stablehlo.add across dimensions = [0]
            : (tensor<8x6xf32>, tensor<f32>) -> tensor<6xf32>
        return %2 : tensor<6xf32>
      } }"""
    module = parse(text)
    found = microbatching(module, signature_of(module))
    assert found.ok
    assert [a.num_bytes for a in found.accumulators] == [24]
