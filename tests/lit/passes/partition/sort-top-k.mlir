// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// The two greatest of each shard and their places are gathered, and sorted by the total order.
// CHECK-LABEL: func.func @main(
// CHECK: stablehlo.constant dense<0xFFFFFFFF> : tensor<f32>
// CHECK: %[[V:.*]], %[[I:.*]] = chlo.top_k(%{{.*}}, k = 2) : tensor<3x8xf32>
// CHECK: %[[G:.*]] = stablehlo.add %[[I]], %
// CHECK: "stablehlo.all_gather"(%[[V]])
// CHECK: "stablehlo.all_gather"(%[[G]])
// CHECK: "stablehlo.sort"
// CHECK-SAME: is_stable = true
// CHECK: stablehlo.compare GT, %{{.*}}, %{{.*}}, TOTALORDER
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<3x15xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}]>}) -> (tensor<3x2xf32>, tensor<3x2xi32>) {
  %0, %1 = chlo.top_k(%a, k = 2) : tensor<3x15xf32> -> (tensor<3x2xf32>, tensor<3x2xi32>)
  return %0, %1 : tensor<3x2xf32>, tensor<3x2xi32>
}

// -----

// A sort keeps the split of the other dimensions.
// CHECK-LABEL: func.func @main(
// CHECK-NEXT: "stablehlo.sort"
// CHECK: (tensor<2x5xf32>) -> tensor<2x5xf32>
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4x5xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<4x5xf32> {
  %0 = "stablehlo.sort"(%a) <{dimension = 1 : i64, is_stable = true}> ({
  ^bb0(%p: tensor<f32>, %q: tensor<f32>):
    %c = stablehlo.compare LT, %p, %q, TOTALORDER : (tensor<f32>, tensor<f32>) -> tensor<i1>
    stablehlo.return %c : tensor<i1>
  }) : (tensor<4x5xf32>) -> tensor<4x5xf32>
  return %0 : tensor<4x5xf32>
}
