// RUN: pai-opt %s -p pai-optimize-collectives --split-input-file | filecheck %s

// An all_reduce of which each device keeps its own block is a reduce_scatter.
// CHECK-LABEL: func.func @scatter
// CHECK-NOT: stablehlo.all_reduce
// CHECK: "stablehlo.reduce_scatter"(%arg0)
// CHECK-SAME: scatter_dimension = 0 : i64
// CHECK: stablehlo.add
// CHECK: (tensor<4xf32>) -> tensor<2xf32>
func.func @scatter(%x: tensor<4xf32>, %i: tensor<i32>) -> tensor<2xf32> {
  %0 = "stablehlo.all_reduce"(%x) <{channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = stablehlo.dynamic_slice %0, %i, sizes = [2] {pai.block_dim = 0 : i64, pai.block_groups = dense<[[0, 1]]> : tensor<1x2xi64>} : (tensor<4xf32>, tensor<i32>) -> tensor<2xf32>
  return %1 : tensor<2xf32>
}

// -----

// Equal gathers are shared; independent all_reduces become one, before what reads the first.
// CHECK-LABEL: func.func @combine
// CHECK: %[[G:.*]] = "stablehlo.all_gather"(%arg1)
// CHECK-NOT: stablehlo.all_gather
// CHECK: %[[R:.*]]:2 = "stablehlo.all_reduce"(%arg0, %[[G]])
// CHECK-SAME: handle = 2
// CHECK: %[[N:.*]] = stablehlo.negate %[[R]]#0
// CHECK: return %[[N]], %[[R]]#1, %[[G]]
func.func @combine(%x: tensor<4xf32>, %y: tensor<2xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  %g = "stablehlo.all_gather"(%y) <{all_gather_dim = 0 : i64, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> : (tensor<2xf32>) -> tensor<4xf32>
  %0 = "stablehlo.all_reduce"(%x) <{channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = stablehlo.negate %0 : tensor<4xf32>
  %h = "stablehlo.all_gather"(%y) <{all_gather_dim = 0 : i64, channel_handle = #stablehlo.channel_handle<handle = 5, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> : (tensor<2xf32>) -> tensor<4xf32>
  %2 = "stablehlo.all_reduce"(%h) <{channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
  return %1, %2, %g : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
}
