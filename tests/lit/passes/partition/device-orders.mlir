// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// The first device of the mesh is 3: it holds the first rows, and comes first in the group.
// CHECK-LABEL: func.func @main(
// CHECK: "stablehlo.all_gather"
// CHECK-SAME: dense<{{\[}}[3, 2, 1, 0]]>
sdy.mesh @mesh = <["x"=4], device_ids=[3, 2, 1, 0]>
func.func @main(%a: tensor<8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}) -> (tensor<8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}]>}) {
  %0 = stablehlo.negate %a : tensor<8xf32>
  return %0 : tensor<8xf32>
}

// -----

// An order that is a permutation of the axes is plain arithmetic on the device number.
// CHECK-LABEL: func.func @main(
// CHECK: stablehlo.partition_id
// CHECK-NOT: dense<[0, 2, 1, 3]>
// CHECK: stablehlo.remainder
sdy.mesh @mesh = <["x"=2, "y"=2], device_ids=[0, 2, 1, 3]>
func.func @main(%a: tensor<4xi32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}) -> tensor<4xi32> {
  %i = stablehlo.iota dim = 0 : tensor<4xi32>
  %0 = stablehlo.add %a, %i : tensor<4xi32>
  return %0 : tensor<4xi32>
}

// -----

// Any other order is looked up.
// CHECK-LABEL: func.func @main(
// CHECK: %[[ID:.*]] = stablehlo.partition_id
// CHECK: %[[T:.*]] = stablehlo.constant dense<[1, 0, 2]> : tensor<3xi32>
// CHECK: stablehlo.dynamic_slice %[[T]], %[[ID]], sizes = [1]
sdy.mesh @mesh = <["x"=3], device_ids=[1, 0, 2]>
func.func @main(%a: tensor<6xi32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}) -> tensor<6xi32> {
  %i = stablehlo.iota dim = 0 : tensor<6xi32>
  %0 = stablehlo.add %a, %i : tensor<6xi32>
  return %0 : tensor<6xi32>
}
