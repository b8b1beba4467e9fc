// RUN: pai-opt %s -p "pai-fold-constants,pai-dce" --split-input-file | filecheck %s
// RUN: pai-opt %s -p "pai-fold-constants{max-elements=2},pai-dce" --split-input-file | filecheck %s --check-prefix=SMALL

// Shape arithmetic.
// CHECK-LABEL: func.func @shapes
// CHECK-NEXT:  %[[C:.*]] = stablehlo.constant dense<[8, 12, 3]> : tensor<3xi32>
// CHECK-NEXT:  return %[[C]]
// SMALL-LABEL: func.func @shapes
// SMALL:       stablehlo.concatenate
func.func @shapes() -> tensor<3xi32> {
  %0 = stablehlo.constant dense<[4, 6]> : tensor<2xi32>
  %1 = stablehlo.constant dense<2> : tensor<2xi32>
  %2 = stablehlo.multiply %0, %1 : tensor<2xi32>
  %3 = stablehlo.iota dim = 0 : tensor<4xi32>
  %4 = stablehlo.slice %3 [3:4] : (tensor<4xi32>) -> tensor<1xi32>
  %5 = stablehlo.concatenate %2, %4, dim = 0 : (tensor<2xi32>, tensor<1xi32>) -> tensor<3xi32>
  return %5 : tensor<3xi32>
}

// -----

// Identities, and the ones that are none: -0.0 + 0.0 is 0.0.
// CHECK-LABEL: func.func @identities
// CHECK:       %[[Z:.*]] = stablehlo.constant dense<0.000000e+00> : tensor<4xf32>
// CHECK:       %[[S:.*]] = stablehlo.add %arg0, %[[Z]]
// CHECK:       return %arg0, %[[S]], %arg0, %arg1, %arg0
func.func @identities(%a: tensor<4xf32>, %i: tensor<4xi32>)
    -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xi32>, tensor<4xf32>) {
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %ones = stablehlo.broadcast_in_dim %one, dims = [] : (tensor<f32>) -> tensor<4xf32>
  %0 = stablehlo.multiply %ones, %a : tensor<4xf32>
  %zeros = stablehlo.constant dense<0.0> : tensor<4xf32>
  %1 = stablehlo.add %a, %zeros : tensor<4xf32>
  %2 = stablehlo.subtract %a, %zeros : tensor<4xf32>
  %izeros = stablehlo.constant dense<0> : tensor<4xi32>
  %3 = stablehlo.add %izeros, %i : tensor<4xi32>
  %4 = stablehlo.reshape %a : (tensor<4xf32>) -> tensor<2x2xf32>
  %5 = stablehlo.transpose %4, dims = [1, 0] : (tensor<2x2xf32>) -> tensor<2x2xf32>
  %6 = stablehlo.transpose %5, dims = [1, 0] : (tensor<2x2xf32>) -> tensor<2x2xf32>
  %7 = stablehlo.reshape %6 : (tensor<2x2xf32>) -> tensor<4xf32>
  %8 = stablehlo.convert %7 : (tensor<4xf32>) -> tensor<4xf64>
  %9 = stablehlo.convert %8 : (tensor<4xf64>) -> tensor<4xf32>
  return %0, %1, %2, %3, %9 : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xi32>, tensor<4xf32>
}

// -----

// Control flow on constants.
// CHECK-LABEL: func.func @control
// CHECK-NEXT:  %[[N:.*]] = stablehlo.negate %arg0
// CHECK-NEXT:  return %[[N]], %arg0
func.func @control(%a: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %t = stablehlo.constant dense<true> : tensor<i1>
  %0 = "stablehlo.if"(%t) ({
    %1 = stablehlo.negate %a : tensor<4xf32>
    stablehlo.return %1 : tensor<4xf32>
  }, {
    stablehlo.return %a : tensor<4xf32>
  }) : (tensor<i1>) -> tensor<4xf32>
  %i = stablehlo.constant dense<5> : tensor<i32>
  %2:2 = stablehlo.while(%k = %i, %x = %a) : tensor<i32>, tensor<4xf32>
  cond {
    %n = stablehlo.constant dense<5> : tensor<i32>
    %p = stablehlo.compare LT, %k, %n : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %p : tensor<i1>
  } do {
    %y = stablehlo.exponential %x : tensor<4xf32>
    stablehlo.return %k, %y : tensor<i32>, tensor<4xf32>
  }
  return %0, %2#1 : tensor<4xf32>, tensor<4xf32>
}

// -----

// A large splat becomes the broadcast of a scalar; large data is left alone.
// CHECK-LABEL: func.func @large
// CHECK:       %[[C:.*]] = stablehlo.constant dense<3.000000e+00> : tensor<f32>
// CHECK:       stablehlo.broadcast_in_dim %[[C]], dims = [] : (tensor<f32>) -> tensor<64x64xf32>
// CHECK:       stablehlo.dynamic_slice
// CHECK:       stablehlo.slice %arg0 [2:4] : (tensor<4xf32>) -> tensor<2xf32>
func.func @large(%a: tensor<4xf32>, %i: tensor<i32>) -> (tensor<64x64xf32>, tensor<2xf32>, tensor<2xf32>) {
  %0 = stablehlo.constant dense<1.5> : tensor<64x64xf32>
  %1 = stablehlo.add %0, %0 : tensor<64x64xf32>
  %2 = stablehlo.dynamic_slice %a, %i, sizes = [2] : (tensor<4xf32>, tensor<i32>) -> tensor<2xf32>
  %c = stablehlo.constant dense<9> : tensor<i32>
  %3 = stablehlo.dynamic_slice %a, %c, sizes = [2] : (tensor<4xf32>, tensor<i32>) -> tensor<2xf32>
  return %1, %2, %3 : tensor<64x64xf32>, tensor<2xf32>, tensor<2xf32>
}
