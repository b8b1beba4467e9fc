// RUN: pai-opt %s -p pai-propagate,pai-localize --split-input-file | filecheck %s

// A complex sum over padded rows: the tail is zero in both parts.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: tensor<3x3xcomplex<f32>>)
// CHECK: stablehlo.select
// CHECK: %[[R:.*]] = stablehlo.reduce(%{{.*}} init: %{{.*}}) applies stablehlo.add across dimensions = [0]
// CHECK: "stablehlo.all_reduce"(%[[R]])
// CHECK: tensor<3xcomplex<f32>>
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<5x3xcomplex<f32>> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> tensor<3xcomplex<f32>> {
  %zero = stablehlo.constant dense<(0.0,0.0)> : tensor<complex<f32>>
  %0 = stablehlo.reduce(%a init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<5x3xcomplex<f32>>, tensor<complex<f32>>) -> tensor<3xcomplex<f32>>
  return %0 : tensor<3xcomplex<f32>>
}
