// RUN: pai-opt %s -p pai-localize --split-input-file | filecheck %s

// A reversed split dimension: two devices swap their shards.
// CHECK-LABEL: func.func @main(
// CHECK: "stablehlo.collective_permute"
// CHECK-NOT: all_gather
// CHECK: stablehlo.reverse %{{.*}}, dims = [0] : tensor<4x4xf32>
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<8x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> (tensor<8x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) {
  %0 = stablehlo.reverse %a, dims = [0] {sdy.sharding = #sdy.sharding_per_value<[<@mesh, [{"x"}, {}]>]>} : tensor<8x4xf32>
  return %0 : tensor<8x4xf32>
}

// -----

// A slice of split rows stays split, and no device sees all rows.
// CHECK-LABEL: func.func @main(
// CHECK-NOT: all_gather
// CHECK: return %{{.*}} : tensor<3x4xf32>
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<8x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> (tensor<6x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) {
  %0 = stablehlo.slice %a [1:7, 0:4] {sdy.sharding = #sdy.sharding_per_value<[<@mesh, [{"x"}, {}]>]>} : (tensor<8x4xf32>) -> tensor<6x4xf32>
  return %0 : tensor<6x4xf32>
}

// -----

// One row of split rows: the device that holds it gives it, the other gives zeros.
// CHECK-LABEL: func.func @main(
// CHECK: %[[R:.*]] = stablehlo.slice %arg0 [3:4, 0:4]
// CHECK: %[[S:.*]] = stablehlo.select %{{.*}}, %[[R]], %
// CHECK: "stablehlo.all_reduce"(%[[S]])
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<8x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<1x4xf32> {
  %0 = stablehlo.slice %a [7:8, 0:4] : (tensor<8x4xf32>) -> tensor<1x4xf32>
  return %0 : tensor<1x4xf32>
}
