// RUN: pai-opt %s -p pai-inline --split-input-file | filecheck %s

// A call inside a region of a function that is called twice.
// CHECK-LABEL: func.func @main
// CHECK-NOT:   call
// CHECK:       stablehlo.multiply %arg0, %arg0
// CHECK:       stablehlo.if
// CHECK:       stablehlo.negate
// CHECK:       stablehlo.multiply
// CHECK:       stablehlo.if
// CHECK-NOT:   @square
func.func @main(%a: tensor<4xf32>, %p: tensor<i1>) -> tensor<4xf32> {
  %0 = call @outer(%a, %p) : (tensor<4xf32>, tensor<i1>) -> tensor<4xf32>
  %1 = call @outer(%0, %p) : (tensor<4xf32>, tensor<i1>) -> tensor<4xf32>
  return %1 : tensor<4xf32>
}
func.func private @outer(%x: tensor<4xf32>, %p: tensor<i1>) -> tensor<4xf32> {
  %0 = call @square(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = "stablehlo.if"(%p) ({
    %2 = func.call @minus(%0) : (tensor<4xf32>) -> tensor<4xf32>
    stablehlo.return %2 : tensor<4xf32>
  }, {
    stablehlo.return %0 : tensor<4xf32>
  }) : (tensor<i1>) -> tensor<4xf32>
  return %1 : tensor<4xf32>
}
func.func private @square(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.multiply %x, %x : tensor<4xf32>
  return %0 : tensor<4xf32>
}
func.func private @minus(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.negate %x : tensor<4xf32>
  return %0 : tensor<4xf32>
}

// -----

// Shardings of the callee's arguments and results become constraints.
// CHECK-LABEL: func.func @main
// CHECK:       %[[IN:.*]] = sdy.sharding_constraint %arg0 <@mesh, [{"x"}]>
// CHECK:       %[[OUT:.*]] = stablehlo.negate %[[IN]]
// CHECK:       sdy.sharding_constraint %[[OUT]] <@mesh, [{}]>
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
  %0 = call @minus(%a) : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
func.func private @minus(%x: tensor<4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>})
    -> (tensor<4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}]>}) {
  %0 = stablehlo.negate %x : tensor<4xf32>
  return %0 : tensor<4xf32>
}

// -----

// Kernels stay functions.
// CHECK-LABEL: func.func @main
// CHECK:       call @kernel_a
func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
  %0 = call @kernel_a(%a) : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
func.func private @kernel_a(%x: tensor<4xf32>) -> tensor<4xf32> attributes {pai.kernel = "loop", pai.key = "00"} {
  %0 = stablehlo.negate %x : tensor<4xf32>
  return %0 : tensor<4xf32>
}
