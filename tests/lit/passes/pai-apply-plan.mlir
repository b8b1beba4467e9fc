// RUN: pai-opt %s -p "pai-apply-plan{file=%S/Inputs/apply-plan.toml}" | filecheck %s

// Patterns and names give the arguments their layouts, [zero] adds its axis to parameters, and
// values inside are constrained where the plan says: a result, and what one operation reads.

// CHECK: sdy.mesh @mesh = <["data"=2, "model"=2]>
// CHECK: func.func @main(
// CHECK-SAME: pai.name = "x"
// CHECK-SAME: sdy.sharding = #sdy.sharding<@mesh, [{"data"}p0, {}]>
// CHECK-SAME: pai.name = "layer.0.up"
// CHECK-SAME: sdy.sharding = #sdy.sharding<@mesh, [{"data"}p1, {"model"}]>
// CHECK-SAME: pai.name = "layer.0.down"
// CHECK-SAME: sdy.sharding = #sdy.sharding<@mesh, [{"model"}p2, {"data"}p1]>
// CHECK: %[[DOT:.*]] = stablehlo.dot_general %arg0, %arg1
// CHECK-NOT: sdy.sharding_constraint
// CHECK: %[[TANH:.*]] = stablehlo.tanh %[[DOT]]
// CHECK-SAME: sdy.sharding = #sdy.sharding_per_value<[<@mesh, [{"data"}, {"model"}]>]>
// CHECK: %[[READ:.*]] = sdy.sharding_constraint %[[TANH]] <@mesh, [{}, {"model"}]>
// CHECK: %[[OUT:.*]] = stablehlo.dot_general %[[READ]], %arg2
// CHECK: return %[[OUT]]
func.func @main(
    %x: tensor<8x16xf32> {pai.name = "x", pai.role = "input"},
    %up: tensor<16x32xf32> {pai.name = "layer.0.up", pai.role = "parameter"},
    %down: tensor<32x16xf32> {pai.name = "layer.0.down", pai.role = "parameter"}
) -> tensor<8x16xf32> {
  %0 = stablehlo.dot_general %x, %up, contracting_dims = [1] x [0]
    : (tensor<8x16xf32>, tensor<16x32xf32>) -> tensor<8x32xf32> loc("jit(f)/layer/up")
  %1 = stablehlo.tanh %0 : tensor<8x32xf32> loc("jit(f)/layer/0/tanh")
  %2 = stablehlo.dot_general %1, %down, contracting_dims = [1] x [0]
    : (tensor<8x32xf32>, tensor<32x16xf32>) -> tensor<8x16xf32> loc("jit(f)/layer/down")
  return %2 : tensor<8x16xf32>
}
