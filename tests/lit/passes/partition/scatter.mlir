// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// Rows split: indices of other devices' rows are out of bounds here, which scatter skips.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[T:.*]]: tensor<4x4xf32>, %[[I:.*]]: tensor<5x1xi32>, %[[U:.*]]: tensor<5x4xf32>)
// CHECK: %[[L:.*]] = stablehlo.subtract %[[I]], %
// CHECK-NEXT: "stablehlo.scatter"(%[[T]], %[[L]], %[[U]])
// CHECK-NOT: all_reduce
// CHECK: return
sdy.mesh @mesh = <["x"=2]>
func.func @main(%t: tensor<7x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}, %i: tensor<5x1xi32>, %u: tensor<5x4xf32>) -> (tensor<7x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) {
  %0 = "stablehlo.scatter"(%t, %i, %u) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%p: tensor<f32>, %q: tensor<f32>):
    %s = stablehlo.add %p, %q : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<7x4xf32>, tensor<5x1xi32>, tensor<5x4xf32>) -> tensor<7x4xf32>
  return %0 : tensor<7x4xf32>
}

// -----

// Updates split: only the first device starts from the operand, then the results are added.
// CHECK-LABEL: func.func @main(
// CHECK: %[[FIRST:.*]] = stablehlo.compare EQ, %{{.*}}, %{{.*}}, SIGNED : (tensor<i32>, tensor<i32>)
// CHECK: %[[START:.*]] = stablehlo.select %[[FIRST]], %arg0, %
// CHECK: %[[S:.*]] = "stablehlo.scatter"(%[[START]]
// CHECK: "stablehlo.all_reduce"(%[[S]])
sdy.mesh @mesh = <["x"=2]>
func.func @main(%t: tensor<7x4xf32>, %i: tensor<6x1xi32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}, %u: tensor<6x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> (tensor<7x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {}]>}) {
  %0 = "stablehlo.scatter"(%t, %i, %u) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%p: tensor<f32>, %q: tensor<f32>):
    %s = stablehlo.add %p, %q : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<7x4xf32>, tensor<6x1xi32>, tensor<6x4xf32>) -> tensor<7x4xf32>
  return %0 : tensor<7x4xf32>
}
