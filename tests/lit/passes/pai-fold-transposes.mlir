// RUN: pai-opt %s -p pai-fold-transposes | filecheck %s

// CHECK-LABEL: func.func @weights(
// CHECK-SAME: %[[X:.*]]: tensor<3x4xf32>, %[[W:.*]]: tensor<8x4xf32>
// CHECK-NEXT: stablehlo.dot_general %[[X]], %[[W]], contracting_dims = [1] x [1]
func.func @weights(%x: tensor<3x4xf32>, %w: tensor<8x4xf32>) -> tensor<3x8xf32> {
  %0 = stablehlo.transpose %w, dims = [1, 0] : (tensor<8x4xf32>) -> tensor<4x8xf32>
  %1 = stablehlo.dot_general %x, %0, contracting_dims = [1] x [0] : (tensor<3x4xf32>, tensor<4x8xf32>) -> tensor<3x8xf32>
  return %1 : tensor<3x8xf32>
}

// Both operands, batch dimensions, and a chain of two.
// CHECK-LABEL: func.func @heads(
// CHECK-NEXT: stablehlo.dot_general %arg0, %arg1, batching_dims = [0, 2] x [0, 2], contracting_dims = [3] x [3]
func.func @heads(%q: tensor<2x5x3x4xf32>, %k: tensor<2x6x3x4xf32>) -> tensor<2x3x5x6xf32> {
  %0 = stablehlo.transpose %q, dims = [0, 2, 1, 3] : (tensor<2x5x3x4xf32>) -> tensor<2x3x5x4xf32>
  %1 = stablehlo.transpose %k, dims = [0, 2, 1, 3] : (tensor<2x6x3x4xf32>) -> tensor<2x3x6x4xf32>
  %2 = stablehlo.transpose %1, dims = [0, 1, 3, 2] : (tensor<2x3x6x4xf32>) -> tensor<2x3x4x6xf32>
  %3 = stablehlo.dot_general %0, %2, batching_dims = [0, 1] x [0, 1], contracting_dims = [3] x [2] : (tensor<2x3x5x4xf32>, tensor<2x3x4x6xf32>) -> tensor<2x3x5x6xf32>
  return %3 : tensor<2x3x5x6xf32>
}

// The free dimensions would come out in another order.
// CHECK-LABEL: func.func @order(
// CHECK: stablehlo.transpose
// CHECK: contracting_dims = [1] x [0]
func.func @order(%x: tensor<3x4xf32>, %w: tensor<4x5x6xf32>) -> tensor<3x6x5xf32> {
  %0 = stablehlo.transpose %w, dims = [0, 2, 1] : (tensor<4x5x6xf32>) -> tensor<4x6x5xf32>
  %1 = stablehlo.dot_general %x, %0, contracting_dims = [1] x [0] : (tensor<3x4xf32>, tensor<4x6x5xf32>) -> tensor<3x6x5xf32>
  return %1 : tensor<3x6x5xf32>
}
