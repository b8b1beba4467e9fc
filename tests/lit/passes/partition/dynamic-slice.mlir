// RUN: pai-opt %s -p pai-localize --split-input-file | filecheck %s

// A slice of a split dimension: the shard between two margins of zeros, then a sum.
// CHECK-LABEL: func.func @main(
// CHECK: %[[P:.*]] = stablehlo.pad %{{.*}}, %{{.*}}, low = [2, 0], high = [2, 0]
// CHECK: %[[S:.*]] = stablehlo.dynamic_slice %[[P]], %{{.*}}, %{{.*}}, sizes = [2, 4]
// CHECK: "stablehlo.all_reduce"(%[[S]])
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<8x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}, %i: tensor<i32>) -> tensor<2x4xf32> {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %0 = stablehlo.dynamic_slice %a, %i, %zero, sizes = [2, 4] : (tensor<8x4xf32>, tensor<i32>, tensor<i32>) -> tensor<2x4xf32>
  return %0 : tensor<2x4xf32>
}

// -----

// A split cache: the update falls into the shard or into a margin that is cut off again.
// CHECK-LABEL: func.func @main(
// CHECK-NOT: all_gather
// CHECK: stablehlo.dynamic_update_slice
// CHECK-NOT: all_gather
// CHECK: return %{{.*}} : tensor<2x2x4xf32>
sdy.mesh @mesh = <["x"=4]>
func.func @main(%c: tensor<2x8x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}, {}]>}, %u: tensor<2x1x4xf32>, %i: tensor<i32>) -> (tensor<2x8x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}, {}]>}) {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %0 = stablehlo.dynamic_update_slice %c, %u, %zero, %i, %zero {sdy.sharding = #sdy.sharding_per_value<[<@mesh, [{}, {"x"}, {}]>]>} : (tensor<2x8x4xf32>, tensor<2x1x4xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<2x8x4xf32>
  return %0 : tensor<2x8x4xf32>
}
