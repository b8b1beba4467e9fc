// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// Three rows on eight devices: one each, five hold only padding. Nothing is masked until
// something is summed.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[A:.*]]: tensor<1x4xf32>)
// CHECK-NEXT: %[[E:.*]] = stablehlo.exponential %[[A]]
// CHECK: %[[M:.*]] = stablehlo.select %{{.*}}, %[[E]], %
// CHECK: stablehlo.reduce(%[[M]] init: %
// CHECK: "stablehlo.all_reduce"
sdy.mesh @mesh = <["x"=8]>
func.func @main(%a: tensor<3x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<4xf32> {
  %0 = stablehlo.exponential %a : tensor<3x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %1 = stablehlo.reduce(%0 init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<3x4xf32>, tensor<f32>) -> tensor<4xf32>
  return %1 : tensor<4xf32>
}
