// RUN: %run-partitioned %s | filecheck %s

// A split dimension keeps its shards when it is cut in two, joined with a minor one, or moved.
// CHECK: OK devices=4 max_error=0 gathered=0 padded=0
sdy.mesh @mesh = <["x"=4]>
func.func @main(%a: tensor<8x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>})
    -> (tensor<4x2x6xf32>, tensor<48xf32>, tensor<6x8xf32>, tensor<3x8x6xf32>) {
  %0 = stablehlo.reshape %a : (tensor<8x6xf32>) -> tensor<4x2x6xf32>
  %1 = stablehlo.reshape %a : (tensor<8x6xf32>) -> tensor<48xf32>
  %2 = stablehlo.transpose %a, dims = [1, 0] : (tensor<8x6xf32>) -> tensor<6x8xf32>
  %3 = stablehlo.broadcast_in_dim %a, dims = [1, 2] : (tensor<8x6xf32>) -> tensor<3x8x6xf32>
  return %0, %1, %2, %3 : tensor<4x2x6xf32>, tensor<48xf32>, tensor<6x8xf32>, tensor<3x8x6xf32>
}

// -----

// Shards of six rows are no whole blocks of the four: the dimension is gathered.
// CHECK: OK devices=2 max_error=0 all_gather=1
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<3x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<4x3xf32> {
  %0 = stablehlo.reshape %a : (tensor<3x4xf32>) -> tensor<4x3xf32>
  return %0 : tensor<4x3xf32>
}
