// RUN: %run-partitioned %s | filecheck %s

// Each kind over five rows on two devices: the padded row counts for nothing.
// CHECK: OK devices=2 max_error=0 all_reduce={{[1-9]}} gathered=0
sdy.mesh @mesh = <["x"=2]>
func.func @main(%a: tensor<5x6xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>})
    -> (tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %low = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %high = stablehlo.constant dense<0x7F800000> : tensor<f32>
  %0 = stablehlo.reduce(%a init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<5x6xf32>, tensor<f32>) -> tensor<6xf32>
  %1 = stablehlo.reduce(%a init: %one) applies stablehlo.multiply across dimensions = [0] : (tensor<5x6xf32>, tensor<f32>) -> tensor<6xf32>
  %2 = stablehlo.reduce(%a init: %low) applies stablehlo.maximum across dimensions = [0] : (tensor<5x6xf32>, tensor<f32>) -> tensor<6xf32>
  %3 = stablehlo.reduce(%a init: %high) applies stablehlo.minimum across dimensions = [0] : (tensor<5x6xf32>, tensor<f32>) -> tensor<6xf32>
  return %0, %1, %2, %3 : tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>
}

// -----

// Argmax: ties between devices go to the lower index, as on one device.
// CHECK: OK devices=4 max_error=0 all_gather={{[12]}} gathered=0
sdy.mesh @mesh = <["x"=4]>
func.func @main(%a: tensor<7x3xi32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) -> (tensor<3xi32>, tensor<3xi32>) {
  %low = stablehlo.constant dense<-2147483648> : tensor<i32>
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %i = stablehlo.iota dim = 0 : tensor<7x3xi32>
  %0:2 = stablehlo.reduce(%a init: %low), (%i init: %zero) across dimensions = [0] : (tensor<7x3xi32>, tensor<7x3xi32>, tensor<i32>, tensor<i32>) -> (tensor<3xi32>, tensor<3xi32>)
    reducer(%p: tensor<i32>, %q: tensor<i32>) (%m: tensor<i32>, %n: tensor<i32>) {
      %gt = stablehlo.compare GT, %p, %q : (tensor<i32>, tensor<i32>) -> tensor<i1>
      %eq = stablehlo.compare EQ, %p, %q : (tensor<i32>, tensor<i32>) -> tensor<i1>
      %lt = stablehlo.compare LT, %m, %n : (tensor<i32>, tensor<i32>) -> tensor<i1>
      %tie = stablehlo.and %eq, %lt : tensor<i1>
      %left = stablehlo.or %gt, %tie : tensor<i1>
      %v = stablehlo.select %gt, %p, %q : tensor<i1>, tensor<i32>
      %w = stablehlo.select %left, %m, %n : tensor<i1>, tensor<i32>
      stablehlo.return %v, %w : tensor<i32>, tensor<i32>
    }
  return %0#0, %0#1 : tensor<3xi32>, tensor<3xi32>
}
