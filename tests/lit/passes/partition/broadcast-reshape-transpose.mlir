// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// A split dimension keeps its shards when it is cut in two, joined with a minor one, or moved.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[A:.*]]: tensor<2x6xf32>)
// CHECK-NEXT: stablehlo.reshape %[[A]] : (tensor<2x6xf32>) -> tensor<1x2x6xf32>
// CHECK-NEXT: stablehlo.reshape %[[A]] : (tensor<2x6xf32>) -> tensor<12xf32>
// CHECK-NEXT: stablehlo.transpose %[[A]], dims = [1, 0] : (tensor<2x6xf32>) -> tensor<6x2xf32>
// CHECK-NEXT: stablehlo.broadcast_in_dim %[[A]], dims = [1, 2] : (tensor<2x6xf32>) -> tensor<3x2x6xf32>
// CHECK-NEXT: return
sdy.mesh @mesh = <["x"=4]>
func.func @main(%a: tensor<8x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>})
    -> (tensor<4x2x6xf32>, tensor<48xf32>, tensor<6x8xf32>, tensor<3x8x6xf32>) {
  %0 = stablehlo.reshape %a : (tensor<8x6xf32>) -> tensor<4x2x6xf32>
  %1 = stablehlo.reshape %a : (tensor<8x6xf32>) -> tensor<48xf32>
  %2 = stablehlo.transpose %a, dims = [1, 0] : (tensor<8x6xf32>) -> tensor<6x8xf32>
  %3 = stablehlo.broadcast_in_dim %a, dims = [1, 2] : (tensor<8x6xf32>) -> tensor<3x8x6xf32>
  return %0, %1, %2, %3 : tensor<4x2x6xf32>, tensor<48xf32>, tensor<6x8xf32>, tensor<3x8x6xf32>
}
