// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// A loop carries its split value; the condition sees the same.
// CHECK-LABEL: func.func @main(
// CHECK: stablehlo.while(%{{.*}} = %{{.*}}, %{{.*}} = %arg0) : tensor<i32>, tensor<2x4xf32>
// CHECK: do
// CHECK: "stablehlo.all_reduce"
// CHECK: stablehlo.return %{{.*}}, %{{.*}} : tensor<i32>, tensor<2x4xf32>
// CHECK: return %{{.*}} : tensor<2x4xf32>
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<4x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<4x4xf32> {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %three = stablehlo.constant dense<3> : tensor<i32>
  %one = stablehlo.constant dense<1> : tensor<i32>
  %f0 = stablehlo.constant dense<0.0> : tensor<f32>
  %0:2 = stablehlo.while(%i = %zero, %c = %a) : tensor<i32>, tensor<4x4xf32>
    cond {
      %p = stablehlo.compare LT, %i, %three : (tensor<i32>, tensor<i32>) -> tensor<i1>
      stablehlo.return %p : tensor<i1>
    } do {
      %j = stablehlo.add %i, %one : tensor<i32>
      %s = stablehlo.reduce(%c init: %f0) applies stablehlo.add across dimensions = [0] : (tensor<4x4xf32>, tensor<f32>) -> tensor<4xf32>
      %b = stablehlo.broadcast_in_dim %s, dims = [1] : (tensor<4xf32>) -> tensor<4x4xf32>
      %d = stablehlo.add %c, %b : tensor<4x4xf32>
      stablehlo.return %j, %d : tensor<i32>, tensor<4x4xf32>
    }
  return %0#1 : tensor<4x4xf32>
}
