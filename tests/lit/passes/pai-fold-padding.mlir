// RUN: pai-opt %s -p pai-fold-padding --split-input-file | filecheck %s

// Zeros around and between the elements belong to the convolution.
// CHECK-LABEL: func.func @main(
// CHECK-NOT: stablehlo.pad
// CHECK: stablehlo.convolution(%arg0, %arg1)
// CHECK-SAME: pad = {{\[\[}}2, 3]], lhs_dilate = [2]
func.func @main(%x: tensor<1x8x1xf32>, %w: tensor<3x1x1xf32>) -> tensor<1x18x1xf32> {
  %z = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.pad %x, %z, low = [0, 2, 0], high = [0, 2, 0], interior = [0, 1, 0] : (tensor<1x8x1xf32>, tensor<f32>) -> tensor<1x19x1xf32>
  %1 = stablehlo.convolution(%0, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {pad = [[0, 1]]} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<1x19x1xf32>, tensor<3x1x1xf32>) -> tensor<1x18x1xf32>
  return %1 : tensor<1x18x1xf32>
}

// -----

// Padding that holds something else stays.
// CHECK-LABEL: func.func @main(
// CHECK: stablehlo.pad
// CHECK: stablehlo.convolution
func.func @main(%x: tensor<1x8x1xf32>, %w: tensor<3x1x1xf32>) -> tensor<1x8x1xf32> {
  %z = stablehlo.constant dense<1.0> : tensor<f32>
  %0 = stablehlo.pad %x, %z, low = [0, 1, 0], high = [0, 1, 0], interior = [0, 0, 0] : (tensor<1x8x1xf32>, tensor<f32>) -> tensor<1x10x1xf32>
  %1 = stablehlo.convolution(%0, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {pad = [[0, 0]]} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<1x10x1xf32>, tensor<3x1x1xf32>) -> tensor<1x8x1xf32>
  return %1 : tensor<1x8x1xf32>
}

// -----

// The initial value around reduce_window's operand.
// CHECK-LABEL: func.func @main(
// CHECK-NOT: stablehlo.pad
// CHECK: "stablehlo.reduce_window"(%arg0, %{{.*}})
// CHECK-SAME: padding = dense<1> : tensor<1x2xi64>
func.func @main(%x: tensor<8xf32>) -> tensor<8xf32> {
  %z = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.pad %x, %z, low = [1], high = [1], interior = [0] : (tensor<8xf32>, tensor<f32>) -> tensor<10xf32>
  %1 = "stablehlo.reduce_window"(%0, %z) <{window_dimensions = array<i64: 3>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<10xf32>, tensor<f32>) -> tensor<8xf32>
  return %1 : tensor<8xf32>
}

// -----

// An initial value that counts: XLA leaves it out of padding, a pad does not.
// CHECK-LABEL: func.func @main(
// CHECK: stablehlo.pad
func.func @main(%x: tensor<8xf32>) -> tensor<8xf32> {
  %z = stablehlo.constant dense<1.0> : tensor<f32>
  %0 = stablehlo.pad %x, %z, low = [1], high = [1], interior = [0] : (tensor<8xf32>, tensor<f32>) -> tensor<10xf32>
  %1 = "stablehlo.reduce_window"(%0, %z) <{window_dimensions = array<i64: 3>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<10xf32>, tensor<f32>) -> tensor<8xf32>
  return %1 : tensor<8xf32>
}

// -----

// The pad and the slice around the gradient of pooling; what the padding held is kept.
// CHECK-LABEL: func.func @main(
// CHECK-NOT: stablehlo.pad
// CHECK: "stablehlo.select_and_scatter"(%arg0, %arg1, %{{.*}})
// CHECK-SAME: padding = dense<{{\[\[}}0, 1]]>
// CHECK: pai.pad_value = dense<0xFF800000> : tensor<f32>
// CHECK-SAME: -> tensor<8xf32>
// CHECK-NOT: stablehlo.slice
func.func @main(%x: tensor<8xf32>, %s: tensor<4xf32>) -> tensor<8xf32> {
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

// Windows whose results are cut off are not computed, and a slice that a pad moves is the pad's.
// CHECK-LABEL: func.func @main(
// CHECK: "stablehlo.reduce_window"(%arg0, %{{.*}})
// CHECK-SAME: padding = dense<{{\[\[}}-1, 0]]>
// CHECK: -> tensor<5xf32>
// CHECK: stablehlo.pad %arg0, %{{.*}}, low = [2], high = [-2], interior = [0]
// CHECK-NOT: stablehlo.slice
func.func @main(%x: tensor<8xf32>) -> (tensor<5xf32>, tensor<8xf32>) {
  %z = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = "stablehlo.reduce_window"(%x, %z) <{window_dimensions = array<i64: 3>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<8xf32>, tensor<f32>) -> tensor<6xf32>
  %1 = stablehlo.slice %0 [1:6] : (tensor<6xf32>) -> tensor<5xf32>
  %2 = stablehlo.slice %x [0:6] : (tensor<8xf32>) -> tensor<6xf32>
  %3 = stablehlo.pad %2, %z, low = [2], high = [0], interior = [0] : (tensor<6xf32>, tensor<f32>) -> tensor<8xf32>
  return %1, %3 : tensor<5xf32>, tensor<8xf32>
}
