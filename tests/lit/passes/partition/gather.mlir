// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// A table split along its rows: indices are clamped to the whole table, made local, and rows that
// other devices hold become zero before the sum.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[T:.*]]: tensor<4x4xf32>, %[[I:.*]]: tensor<5x1xi32>)
// CHECK: %[[G:.*]] = stablehlo.clamp %{{.*}}, %[[I]], %
// CHECK: %[[L:.*]] = stablehlo.subtract %[[G]], %
// CHECK: %[[C:.*]] = stablehlo.clamp %{{.*}}, %[[L]], %
// CHECK: stablehlo.compare EQ, %[[L]], %[[C]]
// CHECK: %[[R:.*]] = "stablehlo.gather"(%[[T]], %[[C]])
// CHECK: %[[S:.*]] = stablehlo.select %{{.*}}, %[[R]], %
// CHECK: "stablehlo.all_reduce"(%[[S]])
sdy.mesh @mesh = <["x"=2]>
func.func @main(%t: tensor<7x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}, %i: tensor<5x1xi32>) -> tensor<5x4xf32> {
  %0 = "stablehlo.gather"(%t, %i) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 4>, indices_are_sorted = false}> : (tensor<7x4xf32>, tensor<5x1xi32>) -> tensor<5x4xf32>
  return %0 : tensor<5x4xf32>
}
