// RUN: pai-opt %s -p pai-narrow-gathers,canonicalize --split-input-file | filecheck %s

// The gather goes before the broadcast, to the dimension that is split there.
// CHECK-LABEL: func.func @broadcast
// CHECK: %[[G:.*]] = "stablehlo.all_gather"(%arg0)
// CHECK-SAME: all_gather_dim = 0 : i64
// CHECK-SAME: (tensor<2xf32>) -> tensor<4xf32>
// CHECK: stablehlo.broadcast_in_dim %[[G]], dims = [1] : (tensor<4xf32>) -> tensor<8x4xf32>
func.func @broadcast(%x: tensor<2xf32>) -> tensor<8x4xf32> {
  %0 = stablehlo.broadcast_in_dim %x, dims = [1] : (tensor<2xf32>) -> tensor<8x2xf32>
  %1 = "stablehlo.all_gather"(%0) <{all_gather_dim = 1 : i64, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> : (tensor<8x2xf32>) -> tensor<8x4xf32>
  return %1 : tensor<8x4xf32>
}

// -----

// Copies need no gather.
// CHECK-LABEL: func.func @copies
// CHECK-NOT: all_gather
// CHECK: stablehlo.broadcast_in_dim %arg0, dims = [0] : (tensor<2xf32>) -> tensor<2x6xf32>
func.func @copies(%x: tensor<2xf32>) -> tensor<2x6xf32> {
  %0 = stablehlo.broadcast_in_dim %x, dims = [0] : (tensor<2xf32>) -> tensor<2x3xf32>
  %1 = "stablehlo.all_gather"(%0) <{all_gather_dim = 1 : i64, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> : (tensor<2x3xf32>) -> tensor<2x6xf32>
  return %1 : tensor<2x6xf32>
}

// -----

// The narrower type travels, whichever side of the gather the conversion is on.
// CHECK-LABEL: func.func @convert
// CHECK: "stablehlo.all_gather"(%arg0)
// CHECK-SAME: (tensor<2xbf16>) -> tensor<4xbf16>
// CHECK: stablehlo.convert
// CHECK: %[[N:.*]] = stablehlo.convert %arg1 : (tensor<2xf32>) -> tensor<2xbf16>
// CHECK: "stablehlo.all_gather"(%[[N]])
func.func @convert(%x: tensor<2xbf16>, %y: tensor<2xf32>) -> (tensor<4xf32>, tensor<4xbf16>) {
  %0 = stablehlo.convert %x : (tensor<2xbf16>) -> tensor<2xf32>
  %1 = "stablehlo.all_gather"(%0) <{all_gather_dim = 0 : i64, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> : (tensor<2xf32>) -> tensor<4xf32>
  %2 = "stablehlo.all_gather"(%y) <{all_gather_dim = 0 : i64, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> : (tensor<2xf32>) -> tensor<4xf32>
  %3 = stablehlo.convert %2 : (tensor<4xf32>) -> tensor<4xbf16>
  return %1, %3 : tensor<4xf32>, tensor<4xbf16>
}
