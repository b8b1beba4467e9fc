// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// Windows that reach over a shard's edge: one row from either side, then no padding.
// CHECK-LABEL: func.func @main(
// CHECK: "stablehlo.collective_permute"
// CHECK-SAME: tensor<1x4xf32>
// CHECK: "stablehlo.reduce_window"
// CHECK: (tensor<6x4xf32>, tensor<f32>) -> tensor<4x4xf32>
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<8x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<8x4xf32> {
  %low = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %0 = "stablehlo.reduce_window"(%a, %low) <{window_dimensions = array<i64: 3, 1>, padding = dense<[[1, 1], [0, 0]]> : tensor<2x2xi64>}> ({
  ^bb0(%p: tensor<f32>, %q: tensor<f32>):
    %m = stablehlo.maximum %p, %q : tensor<f32>
    stablehlo.return %m : tensor<f32>
  }) : (tensor<8x4xf32>, tensor<f32>) -> tensor<8x4xf32>
  return %0 : tensor<8x4xf32>
}
