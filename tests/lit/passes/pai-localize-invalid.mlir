// RUN: not pai-opt %s -p "pai-localize{strict=true}" 2>&1 | filecheck %s

// CHECK: stablehlo.custom_call has no sharded form for the way its operands are split
sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}) -> tensor<4xf32> {
  %0 = stablehlo.custom_call @opaque(%x) : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
