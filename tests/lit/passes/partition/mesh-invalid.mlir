// RUN: pai-opt %s -p pai-localize --split-input-file --verify-diagnostics

// expected-error @unknown {{the module has 2 different meshes: a, b}}
sdy.mesh @a = <["x"=2]>
sdy.mesh @b = <["x"=4]>
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// expected-error @unknown {{the module has no sdy.mesh; run the strategy stage first}}
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// expected-error @unknown {{sub-axes of 'x' cut it at 2 and at 3, which do not nest}}
sdy.mesh @mesh = <["x"=6]>
func.func @main(%x: tensor<6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x":(1)2}]>}, %y: tensor<6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x":(1)3}]>}) -> tensor<6xf32> {
  return %x : tensor<6xf32>
}
