// RUN: %run-partitioned %s | filecheck %s

// Fewer elements than devices: some shards hold nothing but padding.
// CHECK: OK devices=8 max_error=0 all_reduce=1 gathered=0 padded=2
sdy.mesh @mesh = <["x"=8]>
func.func @main(%a: tensor<3x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}, %b: tensor<3x5xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<4x5xf32> {
  %0 = stablehlo.dot_general %a, %b, contracting_dims = [0] x [0] : (tensor<3x4xf32>, tensor<3x5xf32>) -> tensor<4x5xf32>
  return %0 : tensor<4x5xf32>
}

// -----

// A softmax over seven columns on four devices: exp(0) of the padding is not in the sum.
// CHECK: OK devices=4 max_error={{0|.e-0[5-9]}} all_reduce=2 gathered=0
sdy.mesh @mesh = <["x"=4]>
func.func @main(%a: tensor<2x7xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}]>}) -> (tensor<2x7xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}]>}) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %low = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %0 = stablehlo.reduce(%a init: %low) applies stablehlo.maximum across dimensions = [1] : (tensor<2x7xf32>, tensor<f32>) -> tensor<2xf32>
  %1 = stablehlo.broadcast_in_dim %0, dims = [0] : (tensor<2xf32>) -> tensor<2x7xf32>
  %2 = stablehlo.subtract %a, %1 : tensor<2x7xf32>
  %3 = stablehlo.exponential %2 : tensor<2x7xf32>
  %4 = stablehlo.reduce(%3 init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<2x7xf32>, tensor<f32>) -> tensor<2xf32>
  %5 = stablehlo.broadcast_in_dim %4, dims = [0] : (tensor<2xf32>) -> tensor<2x7xf32>
  %6 = stablehlo.divide %3, %5 : tensor<2x7xf32>
  return %6 : tensor<2x7xf32>
}
