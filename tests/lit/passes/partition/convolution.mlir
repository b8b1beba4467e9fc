// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// Split rows: a shard of two rows with its halo of one on each side, and no padding left there.
// CHECK-LABEL: func.func @main(
// CHECK: "stablehlo.collective_permute"
// CHECK-SAME: tensor<1x1x4x2xf32>
// CHECK: "stablehlo.collective_permute"
// CHECK-SAME: tensor<1x1x4x2xf32>
// CHECK: stablehlo.convolution
// CHECK-SAME: pad = {{\[}}[0, 0], [1, 1]]
// CHECK-SAME: (tensor<1x4x4x2xf32>, tensor<3x3x2x2xf32>) -> tensor<1x2x4x2xf32>
sdy.mesh @mesh = <["x"=4]>
func.func @main(%a: tensor<1x8x4x2xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}, {}, {}]>}, %w: tensor<3x3x2x2xf32>) -> tensor<1x8x4x2xf32> {
  %0 = stablehlo.convolution(%a, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {pad = [[1, 1], [1, 1]]} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<1x8x4x2xf32>, tensor<3x3x2x2xf32>) -> tensor<1x8x4x2xf32>
  return %0 : tensor<1x8x4x2xf32>
}

// -----

// Groups are split with the channels, and the group count with them.
// CHECK-LABEL: func.func @main(
// CHECK: stablehlo.convolution
// CHECK-SAME: feature_group_count = 3
// CHECK-SAME: (tensor<2x5x4x3xf32>, tensor<3x3x1x3xf32>) -> tensor<2x3x2x3xf32>
// CHECK-NEXT: return
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<2x5x4x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {}, {}, {"x"}]>}, %w: tensor<3x3x1x6xf32>) -> tensor<2x3x2x6xf32> {
  %0 = stablehlo.convolution(%a, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {} {batch_group_count = 1 : i64, feature_group_count = 6 : i64} : (tensor<2x5x4x6xf32>, tensor<3x3x1x6xf32>) -> tensor<2x3x2x6xf32>
  return %0 : tensor<2x3x2x6xf32>
}
