// RUN: %run-partitioned %s | filecheck %s

// Counting along a split dimension starts at the shard's offset; constants are cut.
// CHECK: OK devices=4 max_error=0 gathered=0
sdy.mesh @mesh = <["x"=2, "y"=2]>
func.func @main(%a: tensor<5x4xi32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {"y"}]>}) -> (tensor<5x4xi32>, tensor<5x4xi32>, tensor<5x4xi32>) {
  %i = stablehlo.iota dim = 0 : tensor<5x4xi32>
  %j = stablehlo.iota dim = 1 : tensor<5x4xi32>
  %c = stablehlo.constant dense<[[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19, 20]]> : tensor<5x4xi32>
  %0 = stablehlo.add %a, %i : tensor<5x4xi32>
  %1 = stablehlo.multiply %a, %j : tensor<5x4xi32>
  %2 = stablehlo.subtract %a, %c : tensor<5x4xi32>
  return %0, %1, %2 : tensor<5x4xi32>, tensor<5x4xi32>, tensor<5x4xi32>
}
