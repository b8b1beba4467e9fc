// RUN: %run-partitioned %s | filecheck %s

// Rows of an image on four devices: each fetches one row from either neighbour.
// CHECK: OK devices=4 max_error=0 collective_permute=2 gathered=0
sdy.mesh @mesh = <["x"=4]>
func.func @main(%a: tensor<1x8x4x2xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}, {}, {}]>}, %w: tensor<3x3x2x2xf32>) -> tensor<1x8x4x2xf32> {
  %0 = stablehlo.convolution(%a, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {pad = [[1, 1], [1, 1]]} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<1x8x4x2xf32>, tensor<3x3x2x2xf32>) -> tensor<1x8x4x2xf32>
  return %0 : tensor<1x8x4x2xf32>
}

// -----

// Split input channels are summed, split output channels are not.
// CHECK: OK devices=4 max_error=0 all_reduce=1 gathered=0
sdy.mesh @mesh = <["x"=2, "y"=2]>
func.func @main(
    %a: tensor<2x5x4x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {}, {}, {"x"}]>},
    %w: tensor<3x3x4x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {}, {"x"}, {"y"}]>}) -> tensor<2x3x2x6xf32> {
  %0 = stablehlo.convolution(%a, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<2x5x4x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x2x6xf32>
  return %0 : tensor<2x3x2x6xf32>
}

// -----

// Groups of a depthwise convolution are split like the channels.
// CHECK: OK devices=2 max_error=0 gathered=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<2x5x4x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {}, {}, {"x"}]>}, %w: tensor<3x3x1x6xf32>) -> tensor<2x3x2x6xf32> {
  %0 = stablehlo.convolution(%a, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {} {batch_group_count = 1 : i64, feature_group_count = 6 : i64} : (tensor<2x5x4x6xf32>, tensor<3x3x1x6xf32>) -> tensor<2x3x2x6xf32>
  return %0 : tensor<2x3x2x6xf32>
}
