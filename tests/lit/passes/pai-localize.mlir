// RUN: pai-opt %s -p pai-localize --split-input-file | filecheck %s

// A contraction over a dimension that two shards do not divide: the tail of both operands is
// zeroed, then the partial sums are added.
// CHECK-NOT: sdy.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[X:.*]]: tensor<4x3xf32>, %[[W:.*]]: tensor<3x6xf32>) -> tensor<4x6xf32>
// CHECK: stablehlo.partition_id
// CHECK: %[[XM:.*]] = stablehlo.select %{{.*}}, %[[X]], %
// CHECK: %[[WM:.*]] = stablehlo.select %{{.*}}, %[[W]], %
// CHECK: %[[D:.*]] = stablehlo.dot_general %[[XM]], %[[WM]]
// CHECK: "stablehlo.all_reduce"(%[[D]])
// CHECK-SAME: dense<{{.}}[0, 1]]> : tensor<1x2xi64>
// CHECK: stablehlo.add
// CHECK-NOT: sdy.
sdy.mesh @mesh = <["x"=2]>
func.func @main(
    %x: tensor<4x5xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}]>},
    %w: tensor<5x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<4x6xf32> {
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<4x5xf32>, tensor<5x6xf32>) -> tensor<4x6xf32>
  %1 = sdy.all_reduce {"x"} %0 out_sharding=<@mesh, [{}, {}]> : tensor<4x6xf32>
  return %1 : tensor<4x6xf32>
}

// -----

// The kind of an all_reduce is the reduction's, and a reshard of two dimensions is an all_to_all.
// CHECK-LABEL: func.func @main(
// CHECK: %[[M:.*]] = stablehlo.reduce(%{{.*}}) applies stablehlo.maximum across dimensions = [0]
// CHECK: "stablehlo.all_reduce"(%[[M]])
// CHECK: stablehlo.maximum
// CHECK: "stablehlo.all_to_all"(%{{.*}}) {{.*}}concat_dimension = 0 : i64{{.*}}split_dimension = 1 : i64
// CHECK-SAME: (tensor<2x6xf32>) -> tensor<4x3xf32>
sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<4x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>})
    -> (tensor<6xf32>, tensor<4x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}]>}) {
  %low = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %low) applies stablehlo.maximum across dimensions = [0] : (tensor<4x6xf32>, tensor<f32>) -> tensor<6xf32>
  %1 = sdy.reshard %x <@mesh, [{}, {"x"}]> : tensor<4x6xf32>
  return %0, %1 : tensor<6xf32>, tensor<4x6xf32>
}

// -----

// An operation without a sharded form gets its operand whole.
// CHECK-LABEL: func.func @main(
// CHECK: %[[G:.*]] = "stablehlo.all_gather"(%{{.*}})
// CHECK: stablehlo.custom_call @opaque(%[[G]])
sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}) -> tensor<4xf32> {
  %0 = stablehlo.custom_call @opaque(%x) : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
