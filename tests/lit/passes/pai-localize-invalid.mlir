// RUN: not pai-opt %s -p "pai-localize{strict=true}" 2>&1 | filecheck %s

// CHECK: stablehlo.reverse has no sharded form along a split dimension of its operand
sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}) -> tensor<4xf32> {
  %0 = stablehlo.reverse %x, dims = [0] : tensor<4xf32>
  return %0 : tensor<4xf32>
}
