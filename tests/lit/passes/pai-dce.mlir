// RUN: pai-opt %s -p pai-dce | filecheck %s

// CHECK-LABEL: func.func @main
// CHECK-NEXT:  stablehlo.custom_call @print(%arg0) {has_side_effect = true}
// CHECK-NEXT:  stablehlo.while
// CHECK:       stablehlo.custom_call @print
// CHECK-NOT:   stablehlo.exponential
// CHECK:       return %arg0
// CHECK-NOT:   @unused
func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.exponential %a : tensor<4xf32>
  %1 = stablehlo.negate %0 : tensor<4xf32>
  %2 = stablehlo.custom_call @pure(%1) : (tensor<4xf32>) -> tensor<4xf32>
  %3 = stablehlo.custom_call @print(%a) {has_side_effect = true} : (tensor<4xf32>) -> tensor<4xf32>
  %p = stablehlo.constant dense<false> : tensor<i1>
  %4 = stablehlo.while(%x = %a) : tensor<4xf32>
  cond {
    %q = stablehlo.constant dense<false> : tensor<i1>
    stablehlo.return %q : tensor<i1>
  } do {
    %5 = stablehlo.custom_call @print(%x) {has_side_effect = true} : (tensor<4xf32>) -> tensor<4xf32>
    %6 = stablehlo.exponential %5 : tensor<4xf32>
    stablehlo.return %5 : tensor<4xf32>
  }
  %7 = stablehlo.while(%x = %a) : tensor<4xf32>
  cond {
    %q = stablehlo.constant dense<false> : tensor<i1>
    stablehlo.return %q : tensor<i1>
  } do {
    %8 = stablehlo.exponential %x : tensor<4xf32>
    stablehlo.return %8 : tensor<4xf32>
  }
  return %a : tensor<4xf32>
}
func.func private @unused(%a: tensor<4xf32>) -> tensor<4xf32> {
  return %a : tensor<4xf32>
}
