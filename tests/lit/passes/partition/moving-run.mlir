// RUN: %run-partitioned %s | filecheck %s

// slice, pad, reverse and concatenate along split rows fetch what they need, and no more. Here
// every device has what it needs.
// CHECK: OK devices=2 max_error=0 gathered=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<8x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> (tensor<6x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) {
  %0 = stablehlo.slice %a [1:7, 0:4] : (tensor<8x4xf32>) -> tensor<6x4xf32>
  return %0 : tensor<6x4xf32>
}

// -----

// CHECK: OK devices=2 max_error=0 collective_permute={{[1-9]}}
// CHECK-SAME: gathered=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<8x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> (tensor<11x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) {
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %0 = stablehlo.pad %a, %one, low = [1, 0], high = [2, 0], interior = [0, 0] : (tensor<8x4xf32>, tensor<f32>) -> tensor<11x4xf32>
  return %0 : tensor<11x4xf32>
}

// -----

// CHECK: OK devices=2 max_error=0 collective_permute={{[1-9]}}
// CHECK-SAME: gathered=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<7x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> (tensor<7x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) {
  %0 = stablehlo.reverse %a, dims = [0] : tensor<7x4xf32>
  return %0 : tensor<7x4xf32>
}

// -----

// CHECK: OK devices=2 max_error=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<7x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}, %b: tensor<4x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> (tensor<11x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) {
  %0 = stablehlo.concatenate %a, %b, dim = 0 : (tensor<7x4xf32>, tensor<4x4xf32>) -> tensor<11x4xf32>
  return %0 : tensor<11x4xf32>
}
