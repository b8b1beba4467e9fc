// RUN: pai-opt %s -p pai-localize --split-input-file | filecheck %s

// Every device draws the whole from the same state, and keeps its block.
// CHECK-LABEL: func.func @main(
// CHECK: %{{.*}}, %[[B:.*]] = stablehlo.rng_bit_generator %arg0, algorithm = DEFAULT : (tensor<2xui64>) -> (tensor<2xui64>, tensor<8xui32>)
// CHECK: stablehlo.dynamic_slice %[[B]], %{{.*}}, sizes = [4]
sdy.mesh @mesh = <["x"=2]>
func.func @main(%s: tensor<2xui64>) -> (tensor<2xui64>, tensor<8xui32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}) {
  %0, %1 = stablehlo.rng_bit_generator %s, algorithm = DEFAULT : (tensor<2xui64>) -> (tensor<2xui64>, tensor<8xui32>)
  return %0, %1 : tensor<2xui64>, tensor<8xui32>
}

// -----

// rng has no state: everyone takes the first device's numbers.
// CHECK-LABEL: func.func @main(
// CHECK: %[[R:.*]] = stablehlo.rng
// CHECK: %[[FIRST:.*]] = stablehlo.compare EQ
// CHECK: %[[S:.*]] = stablehlo.select %[[FIRST]], %[[R]], %
// CHECK: "stablehlo.all_reduce"(%[[S]])
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<f32>, %b: tensor<f32>) -> tensor<8xf32> {
  %n = stablehlo.constant dense<8> : tensor<1xi64>
  %0 = stablehlo.rng %a, %b, %n, distribution = UNIFORM : (tensor<f32>, tensor<f32>, tensor<1xi64>) -> tensor<8xf32>
  return %0 : tensor<8xf32>
}
