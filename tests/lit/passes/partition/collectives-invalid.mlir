// RUN: pai-opt %s -p pai-localize --split-input-file --verify-diagnostics

sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<4xf32>) -> tensor<ui32> {
  // expected-error @+1 {{stablehlo.partition_id has no meaning before partitioning}}
  %0 = stablehlo.partition_id : tensor<ui32>
  return %0 : tensor<ui32>
}
