// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// The body is inlined as it stands; along y, which is not manual, it is partitioned.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[A:.*]]: tensor<2x3xf32>, %[[W:.*]]: tensor<3x3xf32>)
// CHECK: %[[D:.*]] = stablehlo.dot_general %[[A]], %[[W]]
// CHECK: "stablehlo.all_reduce"(%[[D]])
// CHECK-SAME: dense<{{\[}}[0, 1], [2, 3]]>
// CHECK-NOT: sdy.
sdy.mesh @mesh = <["x"=2, "y"=2]>
func.func @main(%a: tensor<4x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {"y"}]>}, %w: tensor<6x3xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"y"}, {}]>}) -> tensor<4x3xf32> {
  %0 = sdy.manual_computation(%a, %w) in_shardings=[<@mesh, [{"x"}, {?}]>, <@mesh, [{?}, {?}]>] out_shardings=[<@mesh, [{"x"}, {?}]>] manual_axes={"x"} (%b: tensor<2x6xf32>, %v: tensor<6x3xf32>) {
    %1 = stablehlo.dot_general %b, %v, contracting_dims = [1] x [0] : (tensor<2x6xf32>, tensor<6x3xf32>) -> tensor<2x3xf32>
    sdy.return %1 : tensor<2x3xf32>
  } : (tensor<4x6xf32>, tensor<6x3xf32>) -> tensor<4x3xf32>
  return %0 : tensor<4x3xf32>
}
