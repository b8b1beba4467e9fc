// The two failures the core reports; the Python side maps them to the classes of runtime/errors.py.
#pragma once

#include <stdexcept>

namespace pai {

// The package's bytes are wrong: a corrupt object, an index out of range, an unknown symbol.
struct PackageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A collective cannot complete: its deadline passed, or a member can no longer arrive.
struct TransportError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace pai
