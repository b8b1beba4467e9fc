// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// Batch and free dimensions stay split; what the contracted five were padded with is zeroed, and
// the partial sums are added by the devices that split it.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[A:.*]]: tensor<2x2x3xf32>, %[[B:.*]]: tensor<2x3x6xf32>) -> tensor<2x2x6xf32>
// CHECK: %[[L:.*]] = stablehlo.select %{{.*}}, %[[A]], %
// CHECK: %[[R:.*]] = stablehlo.select %{{.*}}, %[[B]], %
// CHECK: %[[D:.*]] = stablehlo.dot_general %[[L]], %[[R]], batching_dims = [0] x [0], contracting_dims = [2] x [1]
// CHECK: "stablehlo.all_reduce"(%[[D]])
// CHECK-SAME: dense<{{\[}}[0, 1], [2, 3], [4, 5], [6, 7]]>
// CHECK: stablehlo.add
sdy.mesh @mesh = <["x"=2, "y"=2, "z"=2]>
func.func @main(
    %a: tensor<4x3x5xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {"y"}, {"z"}]>},
    %b: tensor<4x5x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {"z"}, {}]>}) -> tensor<4x3x6xf32> {
  %0 = stablehlo.dot_general %a, %b, batching_dims = [0] x [0], contracting_dims = [2] x [1] : (tensor<4x3x5xf32>, tensor<4x5x6xf32>) -> tensor<4x3x6xf32>
  return %0 : tensor<4x3x6xf32>
}
