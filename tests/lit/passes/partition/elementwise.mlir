// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// Elementwise operations work on shards as they are; no mask, no communication.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[A:.*]]: tensor<3x6xf32>, %[[B:.*]]: tensor<3x6xf32>) -> tensor<3x6xf32>
// CHECK-NEXT: %[[D:.*]] = stablehlo.divide %[[A]], %[[B]] : tensor<3x6xf32>
// CHECK-NEXT: return %[[D]]
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<5x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}, %b: tensor<5x6xf32>) -> tensor<5x6xf32> {
  %0 = stablehlo.divide %a, %b : tensor<5x6xf32>
  return %0 : tensor<5x6xf32>
}
