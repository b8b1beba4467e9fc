// RUN: not pai-opt %s -p "pai-apply-plan{file=%S/Inputs/apply-plan-invalid.toml}" 2>&1 | filecheck %s

// CHECK: apply-plan-invalid.toml:6: the model has no argument 'y'; it has: x
func.func @main(%x: tensor<8x16xf32> {pai.name = "x"}) -> tensor<8x16xf32> {
  return %x : tensor<8x16xf32>
}
