// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// A call that nothing is known of gets its operand whole.
// CHECK-LABEL: func.func @main(
// CHECK: %[[G:.*]] = "stablehlo.all_gather"(%arg0)
// CHECK: stablehlo.custom_call @unknown(%[[G]]) : (tensor<4x6xf32>) -> tensor<4x6xf32>
sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<4x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<4x6xf32> {
  %0 = stablehlo.custom_call @unknown(%x) : (tensor<4x6xf32>) -> tensor<4x6xf32>
  return %0 : tensor<4x6xf32>
}

// -----

// A call that brings its rule stays split; the reduced dimension is whole.
// CHECK-LABEL: func.func @main(
// CHECK-NEXT: stablehlo.custom_call @weigh(%arg0, %arg1) : (tensor<2x6xf32>, tensor<6xf32>) -> tensor<2xf32>
// CHECK-NEXT: return
sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<4x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}, %w: tensor<6xf32>) -> tensor<4xf32> {
  %0 = stablehlo.custom_call @weigh(%x, %w) {sdy.sharding_rule = #sdy.op_sharding_rule<([i, j], [j])->([i]) {i=4, j=6} reduction={j}, custom>} : (tensor<4x6xf32>, tensor<6xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
