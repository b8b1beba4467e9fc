// RUN: %run-partitioned %s | filecheck %s

// One axis of eight devices: its major half splits the rows, its minor half the columns.
// CHECK: OK devices=8 max_error=0
sdy.mesh @mesh = <["x"=8]>
func.func @main(%a: tensor<4x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x":(1)2}, {"x":(4)2}]>}, %w: tensor<6x5xf32>) -> tensor<4x5xf32> {
  %0 = stablehlo.dot_general %a, %w, contracting_dims = [1] x [0] : (tensor<4x6xf32>, tensor<6x5xf32>) -> tensor<4x5xf32>
  return %0 : tensor<4x5xf32>
}

// -----

// A reshape deals an axis of four out to two dimensions.
// CHECK: OK devices=4 max_error=0
sdy.mesh @mesh = <["x"=4]>
func.func @main(%a: tensor<4x3xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<2x2x3xf32> {
  %0 = stablehlo.reshape %a : (tensor<4x3xf32>) -> tensor<2x2x3xf32>
  return %0 : tensor<2x2x3xf32>
}
