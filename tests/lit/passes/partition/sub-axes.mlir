// RUN: pai-opt %s -p pai-localize | filecheck %s

// Half of an axis of eight: the groups are the devices that differ in that half only.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: tensor<2x3xf32>) -> tensor<2xf32>
// CHECK: "stablehlo.all_reduce"
// CHECK-SAME: dense<{{\[}}[0, 1], [2, 3], [4, 5], [6, 7]]>
sdy.mesh @mesh = <["x"=8]>
func.func @main(%a: tensor<4x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x":(1)2}, {"x":(4)2}]>}) -> (tensor<4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x":(1)2}]>}) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.reduce(%a init: %zero) applies stablehlo.add across dimensions = [1] {sdy.sharding = #sdy.sharding_per_value<[<@mesh, [{"x":(1)2}]>]>} : (tensor<4x6xf32>, tensor<f32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
