// RUN: pai-opt %s -p pai-share-collectives | filecheck %s

// Equal gathers of one value are shared, whatever their channels; another value keeps its own.
// CHECK-LABEL: func.func @share
// CHECK: %[[G:.*]] = "stablehlo.all_gather"(%arg0)
// CHECK: %[[H:.*]] = "stablehlo.all_gather"(%arg1)
// CHECK: return %[[G]], %[[G]], %[[H]]
func.func @share(%x: tensor<2xf32>, %y: tensor<2xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  %g = "stablehlo.all_gather"(%x) <{all_gather_dim = 0 : i64, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> : (tensor<2xf32>) -> tensor<4xf32>
  %h = "stablehlo.all_gather"(%x) <{all_gather_dim = 0 : i64, channel_handle = #stablehlo.channel_handle<handle = 5, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> : (tensor<2xf32>) -> tensor<4xf32>
  %i = "stablehlo.all_gather"(%y) <{all_gather_dim = 0 : i64, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> : (tensor<2xf32>) -> tensor<4xf32>
  return %g, %h, %i : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
}
