// RUN: %run-partitioned %s | filecheck %s

// The bits of an uneven split are those of one device.
// CHECK: OK devices=3 max_error=0 gathered=0
sdy.mesh @mesh = <["x"=3]>
func.func @main(%s: tensor<2xui64>) -> (tensor<2xui64>, tensor<7x2xui32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}) {
  %0, %1 = stablehlo.rng_bit_generator %s, algorithm = THREE_FRY : (tensor<2xui64>) -> (tensor<2xui64>, tensor<7x2xui32>)
  return %0, %1 : tensor<2xui64>, tensor<7x2xui32>
}
