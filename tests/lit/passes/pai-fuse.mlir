// RUN: pai-opt %s -p pai-fuse | filecheck %s

// A dot takes its bias and activation; both calls share one function.
// CHECK-LABEL: func.func public @main(
// CHECK-SAME: %[[X:.*]]: tensor<8x4xf32>, %[[W:.*]]: tensor<4x4xf32>, %[[B:.*]]: tensor<4xf32>
// CHECK: %[[Y:.*]] = call @kernel_dot_0(%[[X]], %[[W]], %[[B]])
// CHECK: %[[Z:.*]] = call @kernel_dot_0(%[[Y]], %[[W]], %[[B]])
// CHECK: %[[S:.*]] = call @kernel_reduce_0(%[[Z]])
// CHECK: %[[U:.*]] = call @kernel_update_0(%[[X]], %[[B]], %{{.*}})
// CHECK: stablehlo.while
// CHECK: call @kernel_loop_{{[0-9]}}
// CHECK-NOT: stablehlo.add
// CHECK: return
func.func public @main(%x: tensor<8x4xf32>, %w: tensor<4x4xf32>, %b: tensor<4xf32>, %n: tensor<i32>)
    -> (tensor<8x4xf32>, tensor<8x4xf32>, tensor<8xf32>, tensor<i32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<8x4xf32>
  %bias = stablehlo.broadcast_in_dim %b, dims = [1] : (tensor<4xf32>) -> tensor<8x4xf32>
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<8x4xf32>, tensor<4x4xf32>) -> tensor<8x4xf32>
  %1 = stablehlo.add %0, %bias : tensor<8x4xf32>
  %2 = stablehlo.maximum %1, %zero : tensor<8x4xf32>
  %3 = stablehlo.dot_general %2, %w, contracting_dims = [1] x [0] : (tensor<8x4xf32>, tensor<4x4xf32>) -> tensor<8x4xf32>
  %4 = stablehlo.add %3, %bias : tensor<8x4xf32>
  %5 = stablehlo.maximum %4, %zero : tensor<8x4xf32>
  %init = stablehlo.constant dense<0.0> : tensor<f32>
  %6 = stablehlo.negate %5 : tensor<8x4xf32>
  %7 = stablehlo.reduce(%6 init: %init) applies stablehlo.add across dimensions = [1] : (tensor<8x4xf32>, tensor<f32>) -> tensor<8xf32>
  %half = stablehlo.constant dense<0.5> : tensor<8xf32>
  %mean = stablehlo.multiply %7, %half : tensor<8xf32>
  %8 = stablehlo.reshape %b : (tensor<4xf32>) -> tensor<1x4xf32>
  %9 = stablehlo.abs %8 : tensor<1x4xf32>
  %c0 = stablehlo.constant dense<0> : tensor<i32>
  %10 = stablehlo.dynamic_update_slice %x, %9, %n, %c0 : (tensor<8x4xf32>, tensor<1x4xf32>, tensor<i32>, tensor<i32>) -> tensor<8x4xf32>
  %11 = stablehlo.while(%i = %c0) : tensor<i32>
   cond {
    %12 = stablehlo.compare LT, %i, %n : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %12 : tensor<i1>
  } do {
    %one = stablehlo.constant dense<1> : tensor<i32>
    %13 = stablehlo.add %i, %one : tensor<i32>
    stablehlo.return %13 : tensor<i32>
  }
  return %10, %5, %mean, %11 : tensor<8x4xf32>, tensor<8x4xf32>, tensor<8xf32>, tensor<i32>
}

// CHECK-LABEL: func.func private @kernel_dot_0(
// CHECK-SAME: pai.kernel = "dot", pai.key = "{{[0-9a-f]+}}"
// CHECK: stablehlo.dot_general
// CHECK: stablehlo.maximum
// CHECK-LABEL: func.func private @kernel_reduce_0(
// CHECK-SAME: pai.kernel = "reduce"
// CHECK: stablehlo.negate
// CHECK: stablehlo.reduce
// CHECK: stablehlo.multiply
// CHECK-LABEL: func.func private @kernel_update_0(
// CHECK-SAME: pai.alias = array<i64: 0, 0>, pai.kernel = "update"
// CHECK: stablehlo.abs
// CHECK: stablehlo.dynamic_update_slice
