// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// An iota starts at the shard's offset; a splat shrinks; another constant is cut.
// CHECK-LABEL: func.func @main(
// CHECK-DAG: %[[ID:.*]] = stablehlo.partition_id
// CHECK-DAG: stablehlo.iota dim = 0 : tensor<2xi32>
// CHECK-DAG: stablehlo.constant dense<7> : tensor<2xi32>
// CHECK-DAG: %[[C:.*]] = stablehlo.constant dense<[1, 2, 3, 4]> : tensor<4xi32>
// CHECK-DAG: stablehlo.dynamic_slice %[[C]], %{{.*}}, sizes = [2]
// CHECK: return
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4xi32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}) -> tensor<4xi32> {
  %i = stablehlo.iota dim = 0 : tensor<4xi32>
  %s = stablehlo.constant dense<7> : tensor<4xi32>
  %c = stablehlo.constant dense<[1, 2, 3, 4]> : tensor<4xi32>
  %0 = stablehlo.add %a, %i : tensor<4xi32>
  %1 = stablehlo.multiply %0, %s : tensor<4xi32>
  %2 = stablehlo.add %1, %c : tensor<4xi32>
  return %2 : tensor<4xi32>
}
