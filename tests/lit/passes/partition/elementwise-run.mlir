// RUN: %run-partitioned %s | filecheck %s

// Five rows on two devices: what stands in the padded tail goes nowhere.
// CHECK: OK devices=2 max_error=0 gathered=0 padded=3
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<5x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}, %b: tensor<5x6xf32>) -> tensor<5x6xf32> {
  %0 = stablehlo.divide %a, %b : tensor<5x6xf32>
  %1 = stablehlo.maximum %0, %a : tensor<5x6xf32>
  return %1 : tensor<5x6xf32>
}

// -----

// A scalar predicate and scalar bounds beside split tensors.
// CHECK: OK devices=4 max_error=0 gathered=0
sdy.mesh @mesh = <["x"=2, "y"=2]>
func.func @main(%p: tensor<i1>, %a: tensor<4x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {"y"}]>}, %b: tensor<4x6xf32>) -> tensor<4x6xf32> {
  %low = stablehlo.constant dense<-0.5> : tensor<f32>
  %high = stablehlo.constant dense<1.0> : tensor<f32>
  %0 = stablehlo.select %p, %a, %b : tensor<i1>, tensor<4x6xf32>
  %1 = stablehlo.clamp %low, %0, %high : (tensor<f32>, tensor<4x6xf32>, tensor<f32>) -> tensor<4x6xf32>
  return %1 : tensor<4x6xf32>
}
