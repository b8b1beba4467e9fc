// RUN: pai-opt %s -p pai-hoist-collectives | filecheck %s

// The gather of a value that the loop carries unchanged runs before the loop, what prepares it too;
// that of a value that changes stays.
// CHECK-LABEL: func.func @hoist
// CHECK: %[[T:.*]] = stablehlo.transpose %arg0
// CHECK: %[[G:.*]] = "stablehlo.all_gather"(%[[T]])
// CHECK: stablehlo.while
// CHECK: do
// CHECK: "stablehlo.all_gather"
// CHECK-NOT: "stablehlo.all_gather"
// CHECK: stablehlo.multiply %{{.*}}, %[[G]]
func.func @hoist(%w: tensor<3x2xf32>, %x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %c0 = stablehlo.constant dense<0> : tensor<i32>
  %c4 = stablehlo.constant dense<4> : tensor<i32>
  %r:3 = stablehlo.while(%i = %c0, %v = %w, %y = %x) : tensor<i32>, tensor<3x2xf32>, tensor<2x3xf32>
  cond {
    %p = stablehlo.compare LT, %i, %c4 : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %p : tensor<i1>
  } do {
    %t = stablehlo.transpose %v, dims = [1, 0] : (tensor<3x2xf32>) -> tensor<2x3xf32>
    %g = "stablehlo.all_gather"(%t) <{all_gather_dim = 0 : i64, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> : (tensor<2x3xf32>) -> tensor<4x3xf32>
    %h = "stablehlo.all_gather"(%y) <{all_gather_dim = 0 : i64, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> : (tensor<2x3xf32>) -> tensor<4x3xf32>
    %m = stablehlo.multiply %h, %g : tensor<4x3xf32>
    %s = stablehlo.slice %m [0:2, 0:3] : (tensor<4x3xf32>) -> tensor<2x3xf32>
    %one = stablehlo.constant dense<1> : tensor<i32>
    %n = stablehlo.add %i, %one : tensor<i32>
    stablehlo.return %n, %v, %s : tensor<i32>, tensor<3x2xf32>, tensor<2x3xf32>
  }
  return %r#2 : tensor<2x3xf32>
}
