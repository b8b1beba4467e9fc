// RUN: pai-opt %s -p simplify | filecheck %s
// RUN: pai-opt %s -p "canonicalize,func.func(cse),pai-dce" -o %t && filecheck %s --input-file %t
// RUN: not pai-opt %s -p "pai-nothing" 2>&1 | filecheck %s --check-prefix=UNKNOWN
// RUN: not pai-opt %s -p "pai-fold-constants{size=3}" 2>&1 | filecheck %s --check-prefix=OPTION
// RUN: not pai-opt %s -p "pai-fold-constants{max-elements=many}" 2>&1 | filecheck %s --check-prefix=VALUE
// RUN: not pai-opt %s -p "no-such-pass" 2>&1 | filecheck %s --check-prefix=UPSTREAM
// RUN: not pai-opt %t.absent 2>&1 | filecheck %s --check-prefix=ABSENT
// RUN: not pai-opt %s -p pai-dce --verify-diagnostics 2>&1 | filecheck %s --check-prefix=MISSING
// RUN: pai-opt --list-passes | filecheck %s --check-prefix=LIST

// CHECK-LABEL: func.func @main
// CHECK-NEXT:  %[[E:.*]] = stablehlo.exponential %arg0
// CHECK-NEXT:  return %[[E]]
// UNKNOWN:     pai-opt: error: unknown pass 'pai-nothing'; pai-opt --list-passes shows all names
// OPTION:      pai-opt: error: pass 'pai-fold-constants' has no option 'size'; its options: max-elements
// VALUE:       pai-opt: error: option 'max-elements' of pass 'pai-fold-constants' wants a int, not 'many'
// UPSTREAM:    pai-opt: error: pipeline 'no-such-pass' failed: {{.*}}does not refer to a registered pass
// ABSENT:      pai-opt: error: {{.*}}: cannot be read
// MISSING:     missing: line 24: error: nothing is wrong here
// LIST:        pai-cse
// LIST:        pai-inline   {{ +}}Inline every
func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
  // expected-error @+1 {{nothing is wrong here}}
  %0 = stablehlo.exponential %a : tensor<4xf32>
  %1 = stablehlo.tanh %0 : tensor<4xf32>
  return %0 : tensor<4xf32>
}
