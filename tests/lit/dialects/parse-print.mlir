// RUN: pai-opt %s | filecheck %s
// RUN: pai-opt %s | pai-opt - | filecheck %s
// RUN: pai-opt %s --print-locations | filecheck %s --check-prefix=LOC

// What is printed parses back: our attributes, Shardy's, CHLO, constants of every kind.
// CHECK:       sdy.mesh @mesh = <["data"=4, "model"=4]>
// CHECK-LABEL: func.func @main
// CHECK-SAME:  pai.name = "x", pai.role = "input", sdy.sharding = #sdy.sharding<@mesh, [{"data"}p0, {"model":(1)2, ?}p1]>
// CHECK-SAME:  pai.name = "w", pai.role = "parameter"
// CHECK-SAME:  pai.name = "y"
// CHECK:       stablehlo.constant dense<(1.000000e+00,2.000000e+00)> : tensor<2xcomplex<f32>>
// CHECK:       stablehlo.constant dense<[1.000000e+00, 0x7FC0]> : tensor<2xbf16>
// CHECK:       stablehlo.constant dense<[-2, 1]> : tensor<2xi4>
// CHECK:       call @kernel_0(%arg0, %arg1)
// CHECK:       func.func private @kernel_0
// CHECK-SAME:  attributes {pai.alias = array<i64: 0, 1>, pai.kernel = "loop", pai.key = "5f"}
// CHECK:       chlo.erf
// LOC:         loc("layer/erf"
sdy.mesh @mesh = <["data"=4, "model"=4]>
func.func @main(
    %x: tensor<8x4xf32> {pai.name = "x", pai.role = "input", sdy.sharding = #sdy.sharding<@mesh, [{"data"}p0, {"model":(1)2, ?}p1]>},
    %w: tensor<8x4xf32> {pai.name = "w", pai.role = "parameter"}) -> (tensor<8x4xf32> {pai.name = "y"}) {
  %c = stablehlo.constant dense<(1.0, 2.0)> : tensor<2xcomplex<f32>>
  %b = stablehlo.constant dense<[1.0, 0x7FC0]> : tensor<2xbf16>
  %i = stablehlo.constant dense<[-2, 1]> : tensor<2xi4>
  %0 = call @kernel_0(%x, %w) : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  return %0 : tensor<8x4xf32>
}
func.func private @kernel_0(%x: tensor<8x4xf32>, %w: tensor<8x4xf32>) -> tensor<8x4xf32>
    attributes {pai.kernel = "loop", pai.key = "5f", pai.alias = array<i64: 0, 1>} {
  %0 = chlo.erf %x : tensor<8x4xf32> -> tensor<8x4xf32> loc("layer/erf")
  %1 = stablehlo.add %0, %w : tensor<8x4xf32>
  return %1 : tensor<8x4xf32>
}
