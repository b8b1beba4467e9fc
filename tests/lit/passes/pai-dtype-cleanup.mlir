// RUN: pai-opt %s -p "pai-dtype-cleanup,pai-dce" --split-input-file | filecheck %s

// Integer arithmetic wraps, so it can be done in 32 bits.
// CHECK-LABEL: func.func @integers
// CHECK-NOT:   i64
// CHECK:       stablehlo.add %arg0, %{{.*}} : tensor<4xi32>
// CHECK:       stablehlo.compare LT, %arg0, %{{.*}}, SIGNED : (tensor<4xi32>, tensor<4xi32>)
func.func @integers(%i: tensor<4xi32>) -> (tensor<4xi32>, tensor<4xi1>) {
  %0 = stablehlo.convert %i : (tensor<4xi32>) -> tensor<4xi64>
  %c = stablehlo.constant dense<7> : tensor<4xi64>
  %1 = stablehlo.add %0, %c : tensor<4xi64>
  %2 = stablehlo.convert %1 : (tensor<4xi64>) -> tensor<4xi32>
  %3 = stablehlo.compare LT, %0, %c, SIGNED : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi1>
  return %2, %3 : tensor<4xi32>, tensor<4xi1>
}

// -----

// One sum of f32 values is the same in f32; a second one is not, nor is a division of integers.
// CHECK-LABEL: func.func @floats
// CHECK:       stablehlo.add %arg0, %arg1 : tensor<4xf32>
// CHECK:       stablehlo.multiply {{.*}} : tensor<4xf64>
// CHECK:       stablehlo.add {{.*}} : tensor<4xf64>
// CHECK:       stablehlo.divide {{.*}} : tensor<4xi64>
func.func @floats(%x: tensor<4xf32>, %y: tensor<4xf32>, %i: tensor<4xi32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xi32>) {
  %a = stablehlo.convert %x : (tensor<4xf32>) -> tensor<4xf64>
  %b = stablehlo.convert %y : (tensor<4xf32>) -> tensor<4xf64>
  %0 = stablehlo.add %a, %b : tensor<4xf64>
  %1 = stablehlo.convert %0 : (tensor<4xf64>) -> tensor<4xf32>
  %2 = stablehlo.multiply %a, %b : tensor<4xf64>
  %3 = stablehlo.add %2, %b : tensor<4xf64>
  %4 = stablehlo.convert %3 : (tensor<4xf64>) -> tensor<4xf32>
  %j = stablehlo.convert %i : (tensor<4xi32>) -> tensor<4xi64>
  %5 = stablehlo.divide %j, %j : tensor<4xi64>
  %6 = stablehlo.convert %5 : (tensor<4xi64>) -> tensor<4xi32>
  return %1, %4, %6 : tensor<4xf32>, tensor<4xf32>, tensor<4xi32>
}

// -----

// A constant that f32 cannot hold keeps the comparison wide.
// CHECK-LABEL: func.func @constants
// CHECK:       stablehlo.compare LT, {{.*}} : (tensor<4xf64>, tensor<4xf64>)
// CHECK:       stablehlo.compare LT, %arg0, {{.*}} : (tensor<4xf32>, tensor<4xf32>)
func.func @constants(%x: tensor<4xf32>) -> (tensor<4xi1>, tensor<4xi1>) {
  %a = stablehlo.convert %x : (tensor<4xf32>) -> tensor<4xf64>
  %c = stablehlo.constant dense<0.1> : tensor<4xf64>
  %0 = stablehlo.compare LT, %a, %c, FLOAT : (tensor<4xf64>, tensor<4xf64>) -> tensor<4xi1>
  %d = stablehlo.constant dense<0.5> : tensor<4xf64>
  %1 = stablehlo.compare LT, %a, %d, FLOAT : (tensor<4xf64>, tensor<4xf64>) -> tensor<4xi1>
  return %0, %1 : tensor<4xi1>, tensor<4xi1>
}
