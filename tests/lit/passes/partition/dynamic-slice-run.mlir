// RUN: %run-partitioned %s | filecheck %s

// A slice at a place known at run time, of split rows.
// CHECK: OK devices=2 max_error=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<7x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}, %i: tensor<i32>) -> tensor<2x4xf32> {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %0 = stablehlo.dynamic_slice %a, %i, %zero, sizes = [2, 4] : (tensor<7x4xf32>, tensor<i32>, tensor<i32>) -> tensor<2x4xf32>
  return %0 : tensor<2x4xf32>
}

// -----

// A cache split along the sequence is written in place, by whoever holds the position.
// CHECK: OK devices=4 max_error=0 gathered=0
sdy.mesh @mesh = <["x"=4]>
func.func @main(%c: tensor<2x8x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}, {}]>}, %u: tensor<2x1x4xf32>, %i: tensor<i32>) -> tensor<2x8x4xf32> {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %0 = stablehlo.dynamic_update_slice %c, %u, %zero, %i, %zero : (tensor<2x8x4xf32>, tensor<2x1x4xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<2x8x4xf32>
  return %0 : tensor<2x8x4xf32>
}
