// RUN: pai-opt %s -p pai-sink-collectives | filecheck %s

// The loop adds up its own parts from zero; behind it they are reduced, and the start is added.
// CHECK-LABEL: func.func @sink
// CHECK: %[[Z:.*]] = stablehlo.constant dense<0.000000e+00> : tensor<4xf32>
// CHECK: %[[R:.*]]:2 = stablehlo.while(%{{.*}} = %{{.*}}, %[[SUM:.*]] = %[[Z]])
// CHECK-NOT: stablehlo.all_reduce
// CHECK: stablehlo.add %[[SUM]], %arg0
// CHECK: %[[A:.*]] = "stablehlo.all_reduce"(%[[R]]#1)
// CHECK: %[[T:.*]] = stablehlo.add %arg1, %[[A]]
// CHECK: return %[[T]]
func.func @sink(%x: tensor<4xf32>, %init: tensor<4xf32>) -> tensor<4xf32> {
  %c0 = stablehlo.constant dense<0> : tensor<i32>
  %c4 = stablehlo.constant dense<4> : tensor<i32>
  %r:2 = stablehlo.while(%i = %c0, %sum = %init) : tensor<i32>, tensor<4xf32>
  cond {
    %p = stablehlo.compare LT, %i, %c4 : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %p : tensor<i1>
  } do {
    %0 = "stablehlo.all_reduce"(%x) <{channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
    %1 = stablehlo.add %sum, %0 : tensor<4xf32>
    %one = stablehlo.constant dense<1> : tensor<i32>
    %n = stablehlo.add %i, %one : tensor<i32>
    stablehlo.return %n, %1 : tensor<i32>, tensor<4xf32>
  }
  return %r#1 : tensor<4xf32>
}
