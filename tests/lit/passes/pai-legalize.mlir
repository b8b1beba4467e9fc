// RUN: pai-opt %s -p pai-legalize --split-input-file | filecheck %s

// CHECK-LABEL: func.func @deprecated
// CHECK:       stablehlo.dot_general %arg0, %arg1, contracting_dims = [1] x [0]
// CHECK:       %[[D:.*]] = stablehlo.dot_general %arg0, %arg1, contracting_dims = [1] x [0]
// CHECK:       stablehlo.transpose %[[D]], dims = [1, 0]
// CHECK:       stablehlo.reduce(%arg0 {{.*}} across dimensions = [0]
// CHECK:       stablehlo.broadcast_in_dim %arg2, dims = [1]
// CHECK:       "stablehlo.gather"(%arg0, %arg3)
func.func @deprecated(%a: tensor<2x3xf32>, %b: tensor<3x4xf32>, %v: tensor<3xf32>, %i: tensor<2xi32>)
    -> (tensor<2x4xf32>, tensor<4x2xf32>, tensor<3xf32>, tensor<5x3xf32>, tensor<2x2xf32>) {
  %0 = stablehlo.dot %a, %b : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
  %1 = "stablehlo.einsum"(%a, %b) {einsum_config = "ab,bc->ca"} : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<4x2xf32>
  %2 = "stablehlo.unary_einsum"(%a) {einsum_config = "ab->b"} : (tensor<2x3xf32>) -> tensor<3xf32>
  %3 = "stablehlo.broadcast"(%v) {broadcast_sizes = array<i64: 5>} : (tensor<3xf32>) -> tensor<5x3xf32>
  %4 = "stablehlo.torch_index_select"(%a, %i) {dim = 1 : i64, batch_dims = 0 : i64} : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<2x2xf32>
  return %0, %1, %2, %3, %4 : tensor<2x4xf32>, tensor<4x2xf32>, tensor<3xf32>, tensor<5x3xf32>, tensor<2x2xf32>
}

// -----

// A map runs on whole tensors; what it captures is broadcast.
// CHECK-LABEL: func.func @map
// CHECK-NOT:   stablehlo.map
// CHECK:       %[[B:.*]] = stablehlo.broadcast_in_dim %arg1, dims = []
// CHECK:       %[[S:.*]] = stablehlo.add %arg0, %[[B]] : tensor<2x3xf32>
// CHECK:       return %[[S]]
func.func @map(%a: tensor<2x3xf32>, %c: tensor<f32>) -> tensor<2x3xf32> {
  %0 = "stablehlo.map"(%a) ({
  ^bb0(%x: tensor<f32>):
    %1 = stablehlo.add %x, %c : tensor<f32>
    stablehlo.return %1 : tensor<f32>
  }) {dimensions = array<i64: 0, 1>} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  return %0 : tensor<2x3xf32>
}

// -----

// CHECK-LABEL: func.func @norms
// CHECK-NOT:   batch_norm
// CHECK:       stablehlo.sqrt
// CHECK:       return
func.func @norms(%a: tensor<2x3xf32>, %v: tensor<3xf32>) -> tensor<2x3xf32> {
  %0 = "stablehlo.batch_norm_inference"(%a, %v, %v, %v, %v) {epsilon = 0.01 : f32, feature_index = 1 : i64} : (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  return %0 : tensor<2x3xf32>
}

// -----

// CHLO goes, but erf and top_k stay; composites become their decomposition.
// CHECK-LABEL: func.func @main
// CHECK:       stablehlo.broadcast_in_dim %arg0, dims = [1]
// CHECK:       %[[S:.*]] = stablehlo.add
// CHECK:       %[[E:.*]] = chlo.erf %[[S]]
// CHECK:       chlo.top_k(%[[E]], k = 2)
// CHECK-NOT:   composite
// CHECK:       stablehlo.negate
func.func @main(%v: tensor<3xf32>, %a: tensor<2x3xf32>) -> (tensor<2x2xf32>, tensor<2x3xf32>) {
  %0 = chlo.broadcast_add %v, %a : (tensor<3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  %1 = chlo.erf %0 : tensor<2x3xf32> -> tensor<2x3xf32>
  %2:2 = chlo.top_k(%1, k = 2) : tensor<2x3xf32> -> (tensor<2x2xf32>, tensor<2x2xi32>)
  %3 = stablehlo.composite "my.neg" %1 {decomposition = @neg, version = 1 : i32} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  return %2#0, %3 : tensor<2x2xf32>, tensor<2x3xf32>
}
func.func private @neg(%a: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = stablehlo.negate %a : tensor<2x3xf32>
  return %0 : tensor<2x3xf32>
}

// -----

// Dynamic operations on constant operands get static shapes; a shape assertion that holds goes.
// CHECK-LABEL: func.func @main
// CHECK-SAME:  -> tensor<2x2xf32>
// CHECK:       stablehlo.reshape %arg0 : (tensor<2x3xf32>) -> tensor<3x2xf32>
// CHECK:       stablehlo.slice
// CHECK-NOT:   shape_assertion
// CHECK:       stablehlo.iota dim = 0 : tensor<2x2xf32>
func.func @main(%a: tensor<2x3xf32>) -> tensor<?x?xf32> {
  %c = stablehlo.constant dense<[3, 2]> : tensor<2xi32>
  %0 = stablehlo.dynamic_reshape %a, %c : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<?x?xf32>
  %s = stablehlo.constant dense<0> : tensor<2xi32>
  %l = stablehlo.constant dense<2> : tensor<2xi32>
  %t = stablehlo.constant dense<1> : tensor<2xi32>
  %1 = stablehlo.real_dynamic_slice %0, %s, %l, %t : (tensor<?x?xf32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>) -> tensor<?x?xf32>
  %true = stablehlo.constant dense<true> : tensor<i1>
  stablehlo.custom_call @shape_assertion(%true) {error_message = "no", has_side_effect = true} : (tensor<i1>) -> ()
  %d = stablehlo.get_dimension_size %1, dim = 0 : (tensor<?x?xf32>) -> tensor<i32>
  %d1 = stablehlo.reshape %d : (tensor<i32>) -> tensor<1xi32>
  %d2 = stablehlo.concatenate %d1, %d1, dim = 0 : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %2 = stablehlo.dynamic_iota %d2, dim = 0 : (tensor<2xi32>) -> tensor<?x?xf32>
  %3 = stablehlo.add %1, %2 : tensor<?x?xf32>
  return %3 : tensor<?x?xf32>
}

// -----

// CHECK-LABEL: func.func @tuples
// CHECK:       return %arg1
func.func @tuples(%a: tensor<2xf32>, %b: tensor<3xf32>) -> tensor<3xf32> {
  %t = stablehlo.tuple %a, %b : tuple<tensor<2xf32>, tensor<3xf32>>
  %0 = stablehlo.get_tuple_element %t[1] : (tuple<tensor<2xf32>, tensor<3xf32>>) -> tensor<3xf32>
  return %0 : tensor<3xf32>
}

// -----

// CHECK-LABEL: func.func @quantized
// CHECK-NOT:   quant
// CHECK:       stablehlo.round_nearest_even
func.func @quantized(%a: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.uniform_quantize %a : (tensor<4xf32>) -> tensor<4x!quant.uniform<i8:f32, 0.5:3>>
  %1 = stablehlo.uniform_dequantize %0 : (tensor<4x!quant.uniform<i8:f32, 0.5:3>>) -> tensor<4xf32>
  return %1 : tensor<4xf32>
}
