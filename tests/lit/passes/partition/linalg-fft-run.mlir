// RUN: %run-partitioned %s | filecheck %s

// Batches of matrices and of signals are split; what is transformed is whole.
// CHECK: OK devices=3 max_error={{0|.e-0[5-9]}} gathered=0
sdy.mesh @mesh = <["x"=3]>
func.func @main(%a: tensor<3x2x2xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}, {}]>}, %b: tensor<3x2x1xf32>) -> tensor<3x2x1xf32> {
  %eye = stablehlo.constant dense<[[4.0, 0.0], [0.0, 4.0]]> : tensor<2x2xf32>
  %0 = stablehlo.broadcast_in_dim %eye, dims = [1, 2] : (tensor<2x2xf32>) -> tensor<3x2x2xf32>
  %1 = stablehlo.dot_general %a, %a, batching_dims = [0] x [0], contracting_dims = [2] x [2] : (tensor<3x2x2xf32>, tensor<3x2x2xf32>) -> tensor<3x2x2xf32>
  %2 = stablehlo.add %0, %1 : tensor<3x2x2xf32>
  %3 = stablehlo.cholesky %2, lower = true : tensor<3x2x2xf32>
  %4 = "stablehlo.triangular_solve"(%3, %b) <{left_side = true, lower = true, unit_diagonal = false, transpose_a = #stablehlo<transpose NO_TRANSPOSE>}> : (tensor<3x2x2xf32>, tensor<3x2x1xf32>) -> tensor<3x2x1xf32>
  return %4 : tensor<3x2x1xf32>
}

// -----

// CHECK: OK devices=2 max_error={{0|.e-0[5-9]}} gathered=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4x8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<4x5xcomplex<f32>> {
  %0 = stablehlo.fft %a, type = RFFT, length = [8] : (tensor<4x8xf32>) -> tensor<4x5xcomplex<f32>>
  return %0 : tensor<4x5xcomplex<f32>>
}

// -----

// The transformed dimension comes split: it is gathered, or exchanged for the rows.
// CHECK: OK devices=2 max_error={{0|.e-0[5-9]}} all_gather=1
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4x8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x"}]>}) -> tensor<4x5xcomplex<f32>> {
  %0 = stablehlo.fft %a, type = RFFT, length = [8] : (tensor<4x8xf32>) -> tensor<4x5xcomplex<f32>>
  return %0 : tensor<4x5xcomplex<f32>>
}
