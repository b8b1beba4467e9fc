// RUN: %run-partitioned %s | filecheck %s

// Complex sums and products over a split dimension.
// CHECK: OK devices=2 max_error=0 all_reduce={{[12]}} gathered=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<5x3xcomplex<f32>> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> (tensor<3xcomplex<f32>>, tensor<3x3xcomplex<f32>>) {
  %zero = stablehlo.constant dense<(0.0,0.0)> : tensor<complex<f32>>
  %0 = stablehlo.reduce(%a init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<5x3xcomplex<f32>>, tensor<complex<f32>>) -> tensor<3xcomplex<f32>>
  %1 = stablehlo.dot_general %a, %a, contracting_dims = [0] x [0] : (tensor<5x3xcomplex<f32>>, tensor<5x3xcomplex<f32>>) -> tensor<3x3xcomplex<f32>>
  return %0, %1 : tensor<3xcomplex<f32>>, tensor<3x3xcomplex<f32>>
}

// -----

// Four-bit integers wrap in their four bits on every device and in the sum over devices.
// CHECK: OK devices=4 max_error=0
// CHECK-SAME: gathered=0
sdy.mesh @mesh = <["x"=4]>
func.func @main(%a: tensor<6x3xi4> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> (tensor<3xi4>, tensor<6x3xi4>) {
  %zero = stablehlo.constant dense<0> : tensor<i4>
  %0 = stablehlo.reduce(%a init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<6x3xi4>, tensor<i4>) -> tensor<3xi4>
  %1 = stablehlo.reverse %a, dims = [0] : tensor<6x3xi4>
  return %0, %1 : tensor<3xi4>, tensor<6x3xi4>
}
