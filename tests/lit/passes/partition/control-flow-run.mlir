// RUN: %run-partitioned %s | filecheck %s

// A loop carries split values; the body's sum over the devices stays inside.
// CHECK: OK devices=2 max_error=0 all_reduce={{[13]}} gathered=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<5x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<5x4xf32> {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %three = stablehlo.constant dense<3> : tensor<i32>
  %one = stablehlo.constant dense<1> : tensor<i32>
  %f0 = stablehlo.constant dense<0.0> : tensor<f32>
  %0:2 = stablehlo.while(%i = %zero, %c = %a) : tensor<i32>, tensor<5x4xf32>
    cond {
      %p = stablehlo.compare LT, %i, %three : (tensor<i32>, tensor<i32>) -> tensor<i1>
      stablehlo.return %p : tensor<i1>
    } do {
      %j = stablehlo.add %i, %one : tensor<i32>
      %s = stablehlo.reduce(%c init: %f0) applies stablehlo.add across dimensions = [0] : (tensor<5x4xf32>, tensor<f32>) -> tensor<4xf32>
      %b = stablehlo.broadcast_in_dim %s, dims = [1] : (tensor<4xf32>) -> tensor<5x4xf32>
      %d = stablehlo.add %c, %b : tensor<5x4xf32>
      stablehlo.return %j, %d : tensor<i32>, tensor<5x4xf32>
    }
  return %0#1 : tensor<5x4xf32>
}

// -----

// Both branches return in the layout of the result; the first needs its rows whole.
// CHECK: OK devices=2 max_error=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%p: tensor<i32>, %a: tensor<4x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<4x4xf32> {
  %0 = "stablehlo.case"(%p) ({
    %1 = stablehlo.dot_general %a, %a, contracting_dims = [1] x [0] : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    stablehlo.return %1 : tensor<4x4xf32>
  }, {
    %1 = stablehlo.negate %a : tensor<4x4xf32>
    stablehlo.return %1 : tensor<4x4xf32>
  }) : (tensor<i32>) -> tensor<4x4xf32>
  return %0 : tensor<4x4xf32>
}
