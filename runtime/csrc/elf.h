// Loads ELF64 x86-64 relocatable objects into executable memory, without linker or dlopen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace pai {

struct ObjectFile {
  std::string name;        // for messages
  std::string_view bytes;  // only read while the image is built
};

// All objects of a package in one mapping, so that every reference between them fits 32 bits.
// Code is mapped read+execute, constants read-only, data read+write; never write+execute.
class Image {
 public:
  // Throws PackageError when an object is corrupt, foreign, or refers to an unknown symbol.
  explicit Image(const std::vector<ObjectFile>& objects);
  ~Image();
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  // Returns the address of a global symbol that object number `object` defines; throws
  // PackageError when there is none.
  void* symbol(size_t object, const std::string& name) const;

 private:
  uint8_t* base_ = nullptr;
  size_t size_ = 0;
  std::vector<std::unordered_map<std::string, uint64_t>> globals_;  // per object
};

// Returns the address of a `pai_*` helper or a libc/libm function, nullptr when unknown.
void* resolve_external(const std::string& name);

}  // namespace pai
