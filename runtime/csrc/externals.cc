// What a kernel object may refer to: helpers of the runtime, then libm and libc.
#include <dlfcn.h>

#include "elf.h"

namespace pai {

void* resolve_external(const std::string& name) {
  return dlsym(RTLD_DEFAULT, name.c_str());
}

}  // namespace pai
