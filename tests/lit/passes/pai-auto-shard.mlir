// RUN: pai-opt %s -p "pai-auto-shard{cluster=a100-80g-sxm devices=4}" | filecheck %s

// A large batch and small weights: the batch is split, the weights stay whole.

// CHECK: sdy.mesh @mesh = <["data"=4]>
// CHECK: func.func @main(
// CHECK-SAME: pai.name = "x"
// CHECK-SAME: sdy.sharding = #sdy.sharding<@mesh, [{"data"}p0, {}]>
// CHECK-NOT: sdy.sharding
// CHECK: return
func.func @main(
    %x: tensor<65536x1024xbf16> {pai.name = "x", pai.role = "input"},
    %w: tensor<1024x4096xbf16> {pai.name = "w", pai.role = "parameter"}
) -> tensor<65536x4096xbf16> {
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
    : (tensor<65536x1024xbf16>, tensor<1024x4096xbf16>) -> tensor<65536x4096xbf16>
  return %0 : tensor<65536x4096xbf16>
}
