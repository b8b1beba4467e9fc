// RUN: %run-partitioned %s | filecheck %s

// Integers from 0 to 6 in fifteen places: many ties, resolved as on one device.
// CHECK: OK devices=2 max_error=0
// CHECK-SAME: gathered=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<3x15xi32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}]>}) -> (tensor<3x3xi32>, tensor<3x3xi32>) {
  %0, %1 = chlo.top_k(%a, k = 3) : tensor<3x15xi32> -> (tensor<3x3xi32>, tensor<3x3xi32>)
  return %0, %1 : tensor<3x3xi32>, tensor<3x3xi32>
}

// -----

// A sort along a split dimension has it whole for a while.
// CHECK: OK devices=2 max_error=0 all_
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4x5xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}]>}) -> tensor<4x5xf32> {
  %0 = "stablehlo.sort"(%a) <{dimension = 1 : i64, is_stable = true}> ({
  ^bb0(%p: tensor<f32>, %q: tensor<f32>):
    %c = stablehlo.compare LT, %p, %q, TOTALORDER : (tensor<f32>, tensor<f32>) -> tensor<i1>
    stablehlo.return %c : tensor<i1>
  }) : (tensor<4x5xf32>) -> tensor<4x5xf32>
  return %0 : tensor<4x5xf32>
}
