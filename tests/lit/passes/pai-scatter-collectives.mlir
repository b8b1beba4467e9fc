// RUN: pai-opt %s -p pai-scatter-collectives --split-input-file | filecheck %s

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

// So it is behind a transpose, which moves before it.
// CHECK-LABEL: func.func @behind_a_transpose
// CHECK: %[[T:.*]] = stablehlo.transpose %arg0
// CHECK: "stablehlo.reduce_scatter"(%[[T]])
// CHECK-NOT: stablehlo.all_reduce
func.func @behind_a_transpose(%x: tensor<3x4xf32>, %i: tensor<i32>) -> tensor<2x3xf32> {
  %0 = "stablehlo.all_reduce"(%x) <{channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<3x4xf32>) -> tensor<3x4xf32>
  %1 = stablehlo.transpose %0, dims = [1, 0] : (tensor<3x4xf32>) -> tensor<4x3xf32>
  %2 = stablehlo.dynamic_slice %1, %i, %i, sizes = [2, 3] {pai.block_dim = 0 : i64, pai.block_groups = dense<[[0, 1]]> : tensor<1x2xi64>} : (tensor<4x3xf32>, tensor<i32>, tensor<i32>) -> tensor<2x3xf32>
  return %2 : tensor<2x3xf32>
}

// -----

// A sum over more devices than the cut: scattered among some, then reduced over the others.
// CHECK-LABEL: func.func @over_more_devices
// CHECK: %[[S:.*]] = "stablehlo.reduce_scatter"(%arg0)
// CHECK-SAME: 0, 1], [2, 3]]>
// CHECK: "stablehlo.all_reduce"(%[[S]])
// CHECK-SAME: 0, 2], [1, 3]]>
func.func @over_more_devices(%x: tensor<4xf32>, %i: tensor<i32>) -> tensor<2xf32> {
  %0 = "stablehlo.all_reduce"(%x) <{channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1, 2, 3]]> : tensor<1x4xi64>, use_global_device_ids}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = stablehlo.dynamic_slice %0, %i, sizes = [2] {pai.block_dim = 0 : i64, pai.block_groups = dense<[[0, 1], [2, 3]]> : tensor<2x2xi64>} : (tensor<4xf32>, tensor<i32>) -> tensor<2xf32>
  return %1 : tensor<2xf32>
}

// -----

// A value that is also needed whole stays an all_reduce, and the mark of the cut goes.
// CHECK-LABEL: func.func @needed_whole
// CHECK: stablehlo.all_reduce
// CHECK: stablehlo.dynamic_slice
// CHECK-NOT: pai.block
func.func @needed_whole(%x: tensor<4xf32>, %i: tensor<i32>) -> (tensor<2xf32>, tensor<4xf32>) {
  %0 = "stablehlo.all_reduce"(%x) <{channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = stablehlo.dynamic_slice %0, %i, sizes = [2] {pai.block_dim = 0 : i64, pai.block_groups = dense<[[0, 1]]> : tensor<1x2xi64>} : (tensor<4xf32>, tensor<i32>) -> tensor<2xf32>
  return %1, %0 : tensor<2xf32>, tensor<4xf32>
}
