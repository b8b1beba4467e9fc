// RUN: pai-opt %s -p pai-fold-padding,pai-propagate,pai-localize,canonicalize --split-input-file | filecheck %s

// A transposed convolution: one row of the neighbour, no dilated tensor.
// CHECK-LABEL: func.func @main(
// CHECK: %[[EDGE:.*]] = stablehlo.slice %arg0 [0:1, 3:4, 0:2]
// CHECK: %[[ROW:.*]] = "stablehlo.collective_permute"(%[[EDGE]])
// CHECK-SAME: dense<{{\[\[}}0, 1]]>
// CHECK: %[[ROWS:.*]] = stablehlo.concatenate %[[ROW]], %arg0, dim = 1
// CHECK: stablehlo.convolution(%[[ROWS]], %arg1)
// CHECK-SAME: pad = {{\[\[}}0, 1]], lhs_dilate = [2]
// CHECK-SAME: (tensor<1x5x2xf32>, tensor<3x2x2xf32>) -> tensor<1x8x2xf32>
sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<1x8x2xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}, {}]>}, %w: tensor<3x2x2xf32>) -> tensor<1x16x2xf32> {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {pad = [[2, 1]], lhs_dilate = [2]} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<1x8x2xf32>, tensor<3x2x2xf32>) -> tensor<1x16x2xf32>
  return %0 : tensor<1x16x2xf32>
}

// -----

// The gradient of the weights: halos of the input, and a sum of what the devices found.
// CHECK-LABEL: func.func @main(
// CHECK-NOT: stablehlo.all_gather
// CHECK: %[[PART:.*]] = stablehlo.convolution(%{{.*}}, %arg1)
// CHECK-SAME: (tensor<2x6x2xf32>, tensor<2x4x3xf32>) -> tensor<3x2x3xf32>
// CHECK: "stablehlo.all_reduce"(%[[PART]])
sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<2x8x2xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}, {}]>}, %g: tensor<2x8x3xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}, {}]>}) -> tensor<3x2x3xf32> {
  %0 = stablehlo.convolution(%x, %g) dim_numbers = [f, 0, b]x[i, 0, o]->[0, b, f], window = {pad = [[1, 1]]} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<2x8x2xf32>, tensor<2x8x3xf32>) -> tensor<3x2x3xf32>
  return %0 : tensor<3x2x3xf32>
}

// -----

// A cumulative sum: each device scans its part, and the totals are gathered.
// CHECK-LABEL: func.func @main(
// CHECK: "stablehlo.reduce_window"(%arg0
// CHECK-SAME: padding = dense<{{\[\[}}3, 0]]>
// CHECK-SAME: window_dimensions = array<i64: 4>
// CHECK: %[[TOTAL:.*]] = stablehlo.slice %{{.*}} [3:4]
// CHECK: "stablehlo.all_gather"(%[[TOTAL]])
// CHECK-SAME: (tensor<1xf32>) -> tensor<2xf32>
// CHECK-NOT: stablehlo.collective_permute
sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}) -> tensor<8xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = "stablehlo.reduce_window"(%x, %zero) <{window_dimensions = array<i64: 8>, padding = dense<[[7, 0]]> : tensor<1x2xi64>}> ({
  ^bb0(%p: tensor<f32>, %q: tensor<f32>):
    %s = stablehlo.add %p, %q : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  return %0 : tensor<8xf32>
}

// -----

// The gradient of overlapping pooling: a device scatters all windows that touch its rows, and the
// pad and slice around it are gone.
// CHECK-LABEL: func.func @main(
// CHECK-NOT: stablehlo.all_gather
// CHECK: %[[ALL:.*]] = "stablehlo.select_and_scatter"
// CHECK-NOT: padding = dense<{{\[\[}}0, 1]]>
// CHECK: (tensor<7xf32>, tensor<3xf32>, tensor<f32>) -> tensor<7xf32>
// CHECK: stablehlo.slice %[[ALL]] [2:6]
sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}, %s: tensor<4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}) -> tensor<8xf32> {
  %low = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.pad %x, %low, low = [0], high = [1], interior = [0] : (tensor<8xf32>, tensor<f32>) -> tensor<9xf32>
  %1 = "stablehlo.select_and_scatter"(%0, %s, %zero) <{window_dimensions = array<i64: 3>, window_strides = array<i64: 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %c = stablehlo.compare GE, %a, %b : (tensor<f32>, tensor<f32>) -> tensor<i1>
    stablehlo.return %c : tensor<i1>
  }, {
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %c = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<9xf32>, tensor<4xf32>, tensor<f32>) -> tensor<9xf32>
  %2 = stablehlo.slice %1 [0:8] : (tensor<9xf32>) -> tensor<8xf32>
  return %2 : tensor<8xf32>
}

// -----

// Interior padding: each device dilates what it holds.
// CHECK-LABEL: func.func @main(
// CHECK-NOT: "stablehlo.collective_permute"
// CHECK: stablehlo.pad %arg0, %{{.*}}, low = [0], high = [1], interior = [1]
// CHECK-SAME: -> tensor<8xf32>
sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}) -> tensor<16xf32> {
  %v = stablehlo.constant dense<7.0> : tensor<f32>
  %0 = stablehlo.pad %x, %v, low = [0], high = [1], interior = [1] : (tensor<8xf32>, tensor<f32>) -> tensor<16xf32>
  return %0 : tensor<16xf32>
}

// -----

// Rolling: every device sends its last row on, the slices are not computed.
// CHECK-LABEL: func.func @main(
// CHECK: %[[EDGE:.*]] = stablehlo.slice %arg0 [1:2, 0:3]
// CHECK: %[[ROW:.*]] = "stablehlo.collective_permute"(%[[EDGE]])
// CHECK-SAME: dense<{{\[\[}}3, 0], [0, 1], [1, 2], [2, 3]]>
// CHECK: %[[OWN:.*]] = stablehlo.slice %arg0 [0:1, 0:3]
// CHECK: %[[ALL:.*]] = stablehlo.concatenate %[[ROW]], %[[OWN]], dim = 0
// CHECK: return %[[ALL]]
sdy.mesh @mesh = <["x"=4]>
func.func @main(%x: tensor<8x3xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<8x3xf32> {
  %0 = stablehlo.slice %x [7:8, 0:3] : (tensor<8x3xf32>) -> tensor<1x3xf32>
  %1 = stablehlo.slice %x [0:7, 0:3] : (tensor<8x3xf32>) -> tensor<7x3xf32>
  %2 = stablehlo.concatenate %0, %1, dim = 0 : (tensor<1x3xf32>, tensor<7x3xf32>) -> tensor<8x3xf32>
  return %2 : tensor<8x3xf32>
}
