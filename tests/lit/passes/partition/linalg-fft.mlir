// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// Batches of matrices are split; each device factors its own.
// CHECK-LABEL: func.func @main(
// CHECK: stablehlo.cholesky %{{.*}}, lower = true : tensor<1x2x2xf32>
// CHECK-NEXT: "stablehlo.triangular_solve"
// CHECK-SAME: -> tensor<1x2x1xf32>
// CHECK-NEXT: return
sdy.mesh @mesh = <["x"=3]>
func.func @main(%a: tensor<3x2x2xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}, {}]>}, %b: tensor<3x2x1xf32>) -> tensor<3x2x1xf32> {
  %0 = stablehlo.cholesky %a, lower = true : tensor<3x2x2xf32>
  %1 = "stablehlo.triangular_solve"(%0, %b) <{left_side = true, lower = true, unit_diagonal = false, transpose_a = #stablehlo<transpose NO_TRANSPOSE>}> : (tensor<3x2x2xf32>, tensor<3x2x1xf32>) -> tensor<3x2x1xf32>
  return %1 : tensor<3x2x1xf32>
}

// -----

// CHECK-LABEL: func.func @main(
// CHECK-NEXT: stablehlo.fft %{{.*}}, type = RFFT, length = [8] : (tensor<2x8xf32>) -> tensor<2x5xcomplex<f32>>
// CHECK-NEXT: return
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4x8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<4x5xcomplex<f32>> {
  %0 = stablehlo.fft %a, type = RFFT, length = [8] : (tensor<4x8xf32>) -> tensor<4x5xcomplex<f32>>
  return %0 : tensor<4x5xcomplex<f32>>
}
