// RUN: %run-partitioned %s | filecheck %s

// Batch, free and contracted dimensions split at once; the contracted five are padded to six.
// CHECK: OK devices=8 max_error=0 all_reduce=1 gathered=0
sdy.mesh @mesh = <["x"=2, "y"=2, "z"=2]>
func.func @main(
    %a: tensor<4x3x5xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {"y"}, {"z"}]>},
    %b: tensor<4x5x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {"z"}, {}]>}) -> tensor<4x3x6xf32> {
  %0 = stablehlo.dot_general %a, %b, batching_dims = [0] x [0], contracting_dims = [2] x [1] : (tensor<4x3x5xf32>, tensor<4x5x6xf32>) -> tensor<4x3x6xf32>
  return %0 : tensor<4x3x6xf32>
}

// -----

// Megatron's pair of products: one sum over the devices for both.
// CHECK: OK devices=2 max_error=0 all_reduce=1 gathered=0 padded=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(
    %a: tensor<4x6xf32>,
    %v: tensor<6x8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}]>},
    %w: tensor<8x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<4x6xf32> {
  %0 = stablehlo.dot_general %a, %v, contracting_dims = [1] x [0] : (tensor<4x6xf32>, tensor<6x8xf32>) -> tensor<4x8xf32>
  %1 = stablehlo.abs %0 : tensor<4x8xf32>
  %2 = stablehlo.dot_general %1, %w, contracting_dims = [1] x [0] : (tensor<4x8xf32>, tensor<8x6xf32>) -> tensor<4x6xf32>
  return %2 : tensor<4x6xf32>
}
