// RUN: pai-opt %s -p pai-propagate,pai-localize | filecheck %s

// A manual body that takes an unreduced value: the first device brings it, the other brings zeros,
// and the unreduced result is added up.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[A:.*]]: tensor<4xf32>)
// CHECK: %[[FIRST:.*]] = stablehlo.compare EQ
// CHECK: %[[B:.*]] = stablehlo.select %[[FIRST]], %[[A]], %
// CHECK: %[[N:.*]] = stablehlo.negate %[[B]]
// CHECK: "stablehlo.all_reduce"(%[[N]])
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
  %0 = sdy.manual_computation(%a) in_shardings=[<@mesh, [{}], unreduced={"x"}>] out_shardings=[<@mesh, [{}], unreduced={"x"}>] manual_axes={"x"} (%b: tensor<4xf32>) {
    %1 = stablehlo.negate %b : tensor<4xf32>
    sdy.return %1 : tensor<4xf32>
  } : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
