// RUN: pai-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{two arguments have the pai.name 'x'}}
func.func @main(%a: tensor<4xf32> {pai.name = "x"}, %b: tensor<4xf32> {pai.name = "x"}) {
  return
}

// -----

// expected-error @+1 {{pai.role is 'weight', not one of input, parameter, state}}
func.func @main(%a: tensor<4xf32> {pai.role = "weight"}) {
  return
}

// -----

// expected-error @+1 {{pai.name is 3 : i64, not a string}}
func.func @main(%a: tensor<4xf32> {pai.name = 3}) {
  return
}

// -----

// expected-error @+1 {{pai.updates names 'm', which is no argument}}
func.func @main(%a: tensor<4xf32> {pai.name = "x"}) -> (tensor<4xf32> {pai.updates = "m"}) {
  return %a : tensor<4xf32>
}

// -----

// expected-error @+1 {{a kernel must be private}}
func.func @k(%a: tensor<4xf32>) -> tensor<4xf32> attributes {pai.kernel = "loop", pai.key = "0"} {
  return %a : tensor<4xf32>
}

// -----

// expected-error @+1 {{pai.key must be a string that is not empty}}
func.func private @k(%a: tensor<4xf32>) -> tensor<4xf32> attributes {pai.kernel = "loop"} {
  return %a : tensor<4xf32>
}

// -----

func.func private @k(%a: tensor<4xf32>) -> tensor<4xf32> attributes {pai.kernel = "loop", pai.key = "0"} {
  return %a : tensor<4xf32>
}
// expected-error @+1 {{has the pai.key of @k}}
func.func private @l(%a: tensor<4xf32>) -> tensor<4xf32> attributes {pai.kernel = "loop", pai.key = "0"} {
  return %a : tensor<4xf32>
}

// -----

// expected-error @+1 {{tensor<?xf32> is not a tensor of static shape}}
func.func private @k(%a: tensor<?xf32>) -> tensor<?xf32> attributes {pai.kernel = "loop", pai.key = "0"} {
  return %a : tensor<?xf32>
}

// -----

// expected-error @+1 {{stablehlo.partition_id inside a kernel}}
func.func private @k(%a: tensor<4xf32>) -> tensor<ui32> attributes {pai.kernel = "loop", pai.key = "0"} {
  %0 = stablehlo.partition_id : tensor<ui32>
  return %0 : tensor<ui32>
}

// -----

// expected-error @+1 {{pai.alias pairs result 0 with operand 1}}
func.func private @k(%a: tensor<4xf32>) -> tensor<4xf32> attributes {pai.kernel = "loop", pai.key = "0", pai.alias = array<i64: 0, 1>} {
  return %a : tensor<4xf32>
}

// -----

// expected-error @+1 {{pai.alias pairs result 0 of type tensor<4xf32> with operand 1 of type tensor<2xf32>}}
func.func private @k(%a: tensor<4xf32>, %b: tensor<2xf32>) -> tensor<4xf32> attributes {pai.kernel = "loop", pai.key = "0", pai.alias = array<i64: 0, 1>} {
  return %a : tensor<4xf32>
}

// -----

// expected-error @+1 {{pai.key and pai.alias are for functions with pai.kernel}}
func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> attributes {pai.key = "0"} {
  return %a : tensor<4xf32>
}

// -----

func.func @main(%a: tensor<4xf32>, %b: tensor<3xf32>) -> tensor<4xf32> {
  // expected-error @+1 {{}}
  %0 = "stablehlo.add"(%a, %b) : (tensor<4xf32>, tensor<3xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
