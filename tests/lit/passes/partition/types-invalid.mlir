// RUN: pai-opt %s -p pai-localize --split-input-file --verify-diagnostics

sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}, %n: tensor<1xi32>) -> tensor<4xf32> {
  // expected-error @+1 {{stablehlo.dynamic_reshape on tensor<?xf32> cannot be partitioned; the simplify stage leaves tensors of static shape only}}
  %0 = stablehlo.dynamic_reshape %a, %n : (tensor<4xf32>, tensor<1xi32>) -> tensor<?xf32>
  return %a : tensor<4xf32>
}

// -----

sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}) -> tensor<4xf32> {
  // expected-error @+1 {{stablehlo.after_all on !stablehlo.token cannot be partitioned}}
  %0 = stablehlo.after_all : !stablehlo.token
  return %a : tensor<4xf32>
}
