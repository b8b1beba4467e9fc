// RUN: pai-opt %s -p pai-legalize --split-input-file --verify-diagnostics

func.func @main(%a: tensor<6xf32>, %s: tensor<2xi32>) -> tensor<?x?xf32> {
  // expected-error @+1 {{depends on the data, so shapes would too}}
  %0 = stablehlo.dynamic_reshape %a, %s : (tensor<6xf32>, tensor<2xi32>) -> tensor<?x?xf32>
  return %0 : tensor<?x?xf32>
}

// -----

func.func @main(%a: tensor<6xf32>) -> tensor<6xf32> {
  %false = stablehlo.constant dense<false> : tensor<i1>
  %n = stablehlo.constant dense<6> : tensor<i32>
  // expected-error @+1 {{want at most 5 rows, not 6}}
  stablehlo.custom_call @shape_assertion(%false, %n) {error_message = "want at most 5 rows, not {0}", has_side_effect = true} : (tensor<i1>, tensor<i32>) -> ()
  return %a : tensor<6xf32>
}

// -----

func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
  %0 = "stablehlo.map"(%a) ({
  ^bb0(%x: tensor<f32>):
    // expected-error @+1 {{this operation inside a map is not supported}}
    %1 = "foo.bar"(%x) : (tensor<f32>) -> tensor<f32>
    stablehlo.return %1 : tensor<f32>
  }) {dimensions = array<i64: 0>} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}

// -----

func.func @main(%a: tensor<4x4xf32>) -> tensor<4xf32> {
  // expected-error @+1 {{repeats a label in one tensor}}
  %0 = "stablehlo.unary_einsum"(%a) {einsum_config = "aa->a"} : (tensor<4x4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}

// -----

func.func @main(%a: tensor<8xf32>) -> tensor<4xf32> {
  // expected-error @+1 {{marks a part that the user has split by hand with GSPMD}}
  %0 = stablehlo.custom_call @SPMDFullToShardShape(%a) : (tensor<8xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
