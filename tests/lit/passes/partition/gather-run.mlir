// RUN: %run-partitioned %s | filecheck %s

// A table split along its rows: each device looks up its own, and the results are added.
// CHECK: OK devices=2 max_error=0 all_reduce=1 gathered=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%t: tensor<7x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}, %i: tensor<5x1xi32>) -> tensor<5x4xf32> {
  %0 = "stablehlo.gather"(%t, %i) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 4>, indices_are_sorted = false}> : (tensor<7x4xf32>, tensor<5x1xi32>) -> tensor<5x4xf32>
  return %0 : tensor<5x4xf32>
}

// -----

// Batching dimensions, index batches and whole windows need no communication.
// CHECK: OK devices=4 max_error=0 gathered=0
sdy.mesh @mesh = <["x"=2, "y"=2]>
func.func @main(
    %t: tensor<4x5x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}, {"y"}]>},
    %i: tensor<4x3x1xi32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}, {}]>}) -> tensor<4x3x6xf32> {
  %0 = "stablehlo.gather"(%t, %i) <{dimension_numbers = #stablehlo.gather<offset_dims = [2], collapsed_slice_dims = [1], operand_batching_dims = [0], start_indices_batching_dims = [0], start_index_map = [1], index_vector_dim = 2>, slice_sizes = array<i64: 1, 1, 6>, indices_are_sorted = false}> : (tensor<4x5x6xf32>, tensor<4x3x1xi32>) -> tensor<4x3x6xf32>
  return %0 : tensor<4x3x6xf32>
}
