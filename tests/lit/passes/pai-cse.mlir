// RUN: pai-opt %s -p pai-cse | filecheck %s

// Equal operations merge, with their regions; random numbers do not.
// CHECK-LABEL: func.func @main
// CHECK-COUNT-1: stablehlo.exponential
// CHECK:       stablehlo.add %0, %0
// CHECK-COUNT-1: stablehlo.reduce
// CHECK:       stablehlo.rng
// CHECK:       stablehlo.rng
// CHECK-NOT:   stablehlo.reduce
func.func @main(%a: tensor<4xf32>) -> (tensor<4xf32>, tensor<f32>, tensor<f32>, tensor<4xf32>) {
  %0 = stablehlo.exponential %a : tensor<4xf32>
  %1 = stablehlo.exponential %a : tensor<4xf32>
  %2 = stablehlo.add %0, %1 : tensor<4xf32>
  %c = stablehlo.constant dense<0.0> : tensor<f32>
  %d = stablehlo.constant dense<1.0> : tensor<f32>
  %s = stablehlo.constant dense<4> : tensor<1xi64>
  %3 = stablehlo.reduce(%a init: %c) applies stablehlo.add across dimensions = [0] : (tensor<4xf32>, tensor<f32>) -> tensor<f32>
  %4 = stablehlo.reduce(%a init: %c) applies stablehlo.add across dimensions = [0] : (tensor<4xf32>, tensor<f32>) -> tensor<f32>
  %5 = stablehlo.rng %c, %d, %s, distribution = UNIFORM : (tensor<f32>, tensor<f32>, tensor<1xi64>) -> tensor<4xf32>
  %6 = stablehlo.rng %c, %d, %s, distribution = UNIFORM : (tensor<f32>, tensor<f32>, tensor<1xi64>) -> tensor<4xf32>
  %7 = stablehlo.add %5, %6 : tensor<4xf32>
  return %2, %3, %4, %7 : tensor<4xf32>, tensor<f32>, tensor<f32>, tensor<4xf32>
}
