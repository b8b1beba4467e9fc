// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// The padded tail becomes the identity of the reduction, and the collective is of its kind.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[A:.*]]: tensor<3x6xf32>)
// CHECK: %[[LOW:.*]] = stablehlo.constant dense<0xFF800000>
// CHECK: %[[M:.*]] = stablehlo.select %{{.*}}, %[[A]], %
// CHECK: %[[R:.*]] = stablehlo.reduce(%[[M]] init: %{{.*}}) applies stablehlo.maximum across dimensions = [0]
// CHECK: "stablehlo.all_reduce"(%[[R]])
// CHECK: stablehlo.maximum
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<5x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<6xf32> {
  %low = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %0 = stablehlo.reduce(%a init: %low) applies stablehlo.maximum across dimensions = [0] : (tensor<5x6xf32>, tensor<f32>) -> tensor<6xf32>
  return %0 : tensor<6xf32>
}
