// RUN: pai-opt %s -p "pai-localize{strict=true}" --split-input-file --verify-diagnostics

sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4x8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}]>}) -> tensor<4x8xf32> {
  // expected-error @+1 {{stablehlo.sort has no sharded form for the way its operands are split; leave that dimension whole, or allow replication}}
  %0 = "stablehlo.sort"(%a) <{dimension = 1 : i64}> ({
  ^bb0(%p: tensor<f32>, %q: tensor<f32>):
    %c = stablehlo.compare LT, %p, %q : (tensor<f32>, tensor<f32>) -> tensor<i1>
    stablehlo.return %c : tensor<i1>
  }) : (tensor<4x8xf32>) -> tensor<4x8xf32>
  return %0 : tensor<4x8xf32>
}

// -----

sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4x8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}]>}) -> tensor<4x5xcomplex<f32>> {
  // expected-error @+1 {{stablehlo.fft has no sharded form for the way its operands are split}}
  %0 = stablehlo.fft %a, type = RFFT, length = [8] : (tensor<4x8xf32>) -> tensor<4x5xcomplex<f32>>
  return %0 : tensor<4x5xcomplex<f32>>
}

// -----

sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<6x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<6x6xf32> {
  // expected-error @+1 {{stablehlo.cholesky has no sharded form for the way its operands are split}}
  %0 = stablehlo.cholesky %a, lower = true : tensor<6x6xf32>
  return %0 : tensor<6x6xf32>
}
