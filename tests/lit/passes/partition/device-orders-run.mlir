// RUN: %run-partitioned %s | filecheck %s

// CHECK: OK devices=6 max_error=0
sdy.mesh @mesh = <["x"=2, "y"=3], device_ids=[0, 1, 2, 5, 4, 3]>
func.func @main(
    %a: tensor<4x5xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {"y"}]>},
    %b: tensor<5x4xf32> {sdy.sharding = #sdy.sharding<mesh<["x"=2, "y"=3], device_ids=[0, 1, 2, 5, 4, 3]>, [{"y"}, {"x"}]>}) -> (tensor<4x4xf32>, tensor<4x5xf32>) {
  %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0] : (tensor<4x5xf32>, tensor<5x4xf32>) -> tensor<4x4xf32>
  %1 = stablehlo.reverse %a, dims = [1] : tensor<4x5xf32>
  return %0, %1 : tensor<4x4xf32>, tensor<4x5xf32>
}
