#include "elf.h"

#include <elf.h>
#include <sys/mman.h>

#include <array>
#include <cstring>
#include <memory>

#include "errors.h"

namespace pai {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMaxImage = uint64_t{1} << 30;  // well inside the reach of 32-bit references
constexpr uint64_t kStubBytes = 16;

uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

enum Segment { kText, kConst, kData, kSegments };

struct Section {
  Elf64_Shdr header;
  std::string name;
  int segment = -1;     // -1: not loaded
  uint64_t offset = 0;  // in the image
};

struct Symbol {
  Elf64_Sym entry;
  std::string name;
};

// One parsed object. Every read of the file goes through `read` or `slice`, which check bounds.
class Object {
 public:
  explicit Object(const ObjectFile& file) : file_(file) { parse(); }

  [[noreturn]] void fail(const std::string& what) const {
    std::string text = file_.name + ": " + what.substr(0, 300);
    for (char& c : text)  // names in a damaged object may hold anything
      if (c < ' ' || c > '~') c = '?';
    throw PackageError(text);
  }

  std::string_view slice(uint64_t offset, uint64_t bytes) const {
    if (offset > file_.bytes.size() || bytes > file_.bytes.size() - offset)
      fail("object is truncated or corrupt (reads past its end)");
    return file_.bytes.substr(offset, bytes);
  }

  template <class T>
  T read(uint64_t offset) const {
    T value;
    std::memcpy(&value, slice(offset, sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::vector<Section> sections;
  std::vector<Symbol> symbols;

 private:
  std::string text_at(const Elf64_Shdr& table, uint64_t index) const {
    std::string_view bytes = slice(table.sh_offset, table.sh_size);
    if (index >= bytes.size()) fail("object is corrupt (name outside its string table)");
    size_t end = bytes.find('\0', index);
    if (end == std::string_view::npos) fail("object is corrupt (unterminated name)");
    return std::string(bytes.substr(index, end - index));
  }

  const Elf64_Shdr& header_at(uint64_t index) const {
    if (index >= sections.size()) fail("object is corrupt (section number out of range)");
    return sections[index].header;
  }

  void parse() {
    auto header = read<Elf64_Ehdr>(0);
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) fail("not an ELF object");
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
        header.e_machine != EM_X86_64)
      fail("object is not for x86-64");
    if (header.e_type != ET_REL) fail("object is not relocatable");
    if (header.e_shentsize != sizeof(Elf64_Shdr)) fail("object is corrupt (section entry size)");
    slice(header.e_shoff, uint64_t{header.e_shnum} * sizeof(Elf64_Shdr));
    for (uint64_t i = 0; i < header.e_shnum; ++i)
      sections.push_back({read<Elf64_Shdr>(header.e_shoff + i * sizeof(Elf64_Shdr)), "", -1, 0});
    const Elf64_Shdr& names = header_at(header.e_shstrndx);
    for (Section& section : sections) {
      section.name = text_at(names, section.header.sh_name);
      classify(section);
    }
    for (const Section& section : sections)
      if (section.header.sh_type == SHT_SYMTAB) read_symbols(section.header);
  }

  void classify(Section& section) const {
    const Elf64_Shdr& header = section.header;
    if (!(header.sh_flags & SHF_ALLOC) || section.name.starts_with(".eh_frame") ||
        header.sh_type == SHT_NOTE || header.sh_size == 0)
      return;
    if (header.sh_type != SHT_PROGBITS && header.sh_type != SHT_NOBITS)
      fail("section " + section.name + " cannot be loaded");
    if (header.sh_flags & SHF_TLS) fail("thread-local data is not supported");
    if (header.sh_addralign > kPage || (header.sh_addralign & (header.sh_addralign - 1)))
      fail("section " + section.name + " has a bad alignment");
    if (header.sh_size > kMaxImage) fail("section " + section.name + " is too large");
    if (header.sh_type == SHT_PROGBITS) slice(header.sh_offset, header.sh_size);
    bool executes = header.sh_flags & SHF_EXECINSTR, writes = header.sh_flags & SHF_WRITE;
    if (executes && writes) fail("section " + section.name + " is writable and executable");
    section.segment = executes ? kText : writes ? kData : kConst;
  }

  void read_symbols(const Elf64_Shdr& table) {
    if (table.sh_entsize != sizeof(Elf64_Sym)) fail("object is corrupt (symbol entry size)");
    slice(table.sh_offset, table.sh_size);
    const Elf64_Shdr& names = header_at(table.sh_link);
    for (uint64_t i = 0; i < table.sh_size / sizeof(Elf64_Sym); ++i) {
      auto entry = read<Elf64_Sym>(table.sh_offset + i * sizeof(Elf64_Sym));
      symbols.push_back({entry, text_at(names, entry.st_name)});
    }
  }

  ObjectFile file_;
};

// Lays the objects out, copies their sections and applies their relocations.
class Linker {
 public:
  explicit Linker(const std::vector<ObjectFile>& files) {
    for (const ObjectFile& file : files) objects_.emplace_back(file);
    layout();
  }

  uint64_t size() const { return size_; }
  const std::array<uint64_t, kSegments + 1>& bounds() const { return bounds_; }

  // Returns the global symbols of each object.
  std::vector<std::unordered_map<std::string, uint64_t>> link(uint8_t* base) {
    base_ = base;
    std::vector<std::unordered_map<std::string, uint64_t>> defined;
    for (const Object& object : objects_) {
      copy_sections(object);
      defined.push_back(globals_of(object));
      globals_.insert(defined.back().begin(), defined.back().end());
    }
    for (const Object& object : objects_)
      for (const Section& section : object.sections)
        if (section.header.sh_type == SHT_RELA) relocate(object, section.header);
    return defined;
  }

 private:
  // Order: code and stubs, constants and the GOT, data. Each segment starts on a page.
  void layout() {
    uint64_t externals = 0;
    for (const Object& object : objects_) externals += object.symbols.size();
    uint64_t at = 0;
    for (int segment = 0; segment < kSegments; ++segment) {
      bounds_[segment] = at;
      for (Object& object : objects_)
        for (Section& section : object.sections)
          if (section.segment == segment) {
            at = align_up(at, std::max<uint64_t>(section.header.sh_addralign, 1));
            section.offset = at;
            at += section.header.sh_size;
            if (at > kMaxImage) object.fail("the kernels of this package exceed 1 GiB");
          }
      if (segment == kText) {
        stubs_ = align_up(at, kStubBytes);
        at = stubs_ + externals * kStubBytes;
      } else if (segment == kConst) {
        got_ = align_up(at, 8);
        at = got_ + externals * 8;
      }
      at = align_up(at, kPage);
    }
    bounds_[kSegments] = size_ = std::max(at, kPage);
    if (size_ > kMaxImage) throw PackageError("the kernels of this package exceed 1 GiB");
  }

  void copy_sections(const Object& object) {
    for (const Section& section : object.sections)
      if (section.segment >= 0 && section.header.sh_type == SHT_PROGBITS) {
        std::string_view bytes = object.slice(section.header.sh_offset, section.header.sh_size);
        std::memcpy(base_ + section.offset, bytes.data(), bytes.size());
      }
  }

  std::unordered_map<std::string, uint64_t> globals_of(const Object& object) const {
    std::unordered_map<std::string, uint64_t> globals;
    for (const Symbol& symbol : object.symbols)
      if (ELF64_ST_BIND(symbol.entry.st_info) != STB_LOCAL && symbol.entry.st_shndx != SHN_UNDEF)
        globals.emplace(symbol.name, address(object, symbol));
    return globals;
  }

  // The address of a symbol; a definition in its own object wins over those of other objects.
  uint64_t address(const Object& object, const Symbol& symbol) const {
    uint16_t index = symbol.entry.st_shndx;
    if (index == SHN_UNDEF) return external(object, symbol);
    if (index == SHN_ABS) return symbol.entry.st_value;
    if (index >= object.sections.size()) object.fail("symbol '" + symbol.name + "' is corrupt");
    const Section& section = object.sections[index];
    if (section.segment < 0 || symbol.entry.st_value > section.header.sh_size)
      object.fail("symbol '" + symbol.name + "' lies outside the loaded sections");
    return reinterpret_cast<uint64_t>(base_) + section.offset + symbol.entry.st_value;
  }

  uint64_t external(const Object& object, const Symbol& symbol) const {
    if (symbol.name == "_GLOBAL_OFFSET_TABLE_") return reinterpret_cast<uint64_t>(base_) + got_;
    if (auto found = globals_.find(symbol.name); found != globals_.end()) return found->second;
    if (void* found = resolve_external(symbol.name)) return reinterpret_cast<uint64_t>(found);
    if (ELF64_ST_BIND(symbol.entry.st_info) == STB_WEAK) return 0;
    object.fail("undefined symbol '" + symbol.name + "'");
  }

  // Returns the number of the table slot that holds `value`, making one when needed.
  uint64_t slot(uint64_t value) {
    auto [found, fresh] = slots_.try_emplace(value, slots_.size());
    if (fresh) {
      std::memcpy(base_ + got_ + found->second * 8, &value, 8);
      // jmp *slot(%rip)
      uint8_t* stub = base_ + stubs_ + found->second * kStubBytes;
      auto distance = static_cast<int32_t>(got_ + found->second * 8 -
                                           (stubs_ + found->second * kStubBytes + 6));
      stub[0] = 0xff, stub[1] = 0x25;
      std::memcpy(stub + 2, &distance, 4);
    }
    return found->second;
  }

  void relocate(const Object& object, const Elf64_Shdr& table) {
    if (table.sh_info >= object.sections.size()) object.fail("relocations are corrupt");
    const Section& section = object.sections[table.sh_info];
    if (section.segment < 0) return;
    if (table.sh_entsize != sizeof(Elf64_Rela)) object.fail("relocations are corrupt");
    for (uint64_t i = 0; i < table.sh_size / sizeof(Elf64_Rela); ++i)
      apply(object, section, object.read<Elf64_Rela>(table.sh_offset + i * sizeof(Elf64_Rela)));
  }

  void apply(const Object& object, const Section& section, const Elf64_Rela& entry) {
    uint64_t number = ELF64_R_SYM(entry.r_info);
    uint32_t type = ELF64_R_TYPE(entry.r_info);
    if (type == R_X86_64_NONE) return;
    bool wide = type == R_X86_64_64 || type == R_X86_64_PC64 || type == R_X86_64_GOTOFF64 ||
                type == R_X86_64_GOTPC64 || type == R_X86_64_GOT64 || type == R_X86_64_PLTOFF64;
    if (number >= object.symbols.size() || section.header.sh_type == SHT_NOBITS ||
        section.header.sh_size < (wide ? 8 : 4) ||
        entry.r_offset > section.header.sh_size - (wide ? 8 : 4))
      object.fail("relocations are corrupt");
    const Symbol& symbol = object.symbols[number];
    uint8_t* at = base_ + section.offset + entry.r_offset;
    uint64_t place = reinterpret_cast<uint64_t>(at), image = reinterpret_cast<uint64_t>(base_);
    uint64_t addend = static_cast<uint64_t>(entry.r_addend);
    switch (type) {
      case R_X86_64_64:
        return write(at, address(object, symbol) + addend);
      case R_X86_64_PC64:
        return write(at, address(object, symbol) + addend - place);
      case R_X86_64_GOT64:
        return write(at, slot(address(object, symbol)) * 8 + addend);
      case R_X86_64_PLTOFF64:
      case R_X86_64_GOTOFF64:
        return write(at, address(object, symbol) + addend - (image + got_));
      case R_X86_64_GOTPC64:
        return write(at, image + got_ + addend - place);
      case R_X86_64_PC32:
      case R_X86_64_PLT32: {
        uint64_t target = address(object, symbol);
        bool near = target - image < size_;
        if (!near) target = image + stubs_ + slot(target) * kStubBytes;
        return write32(object, symbol, at, target + addend - place);
      }
      case R_X86_64_GOTPCREL:
      case R_X86_64_GOTPCRELX:
      case R_X86_64_REX_GOTPCRELX: {
        uint64_t target = image + got_ + slot(address(object, symbol)) * 8;
        return write32(object, symbol, at, target + addend - place);
      }
      case R_X86_64_32:
      case R_X86_64_32S:
        object.fail("object is not position-independent (compile it with -fPIC)");
      default:
        object.fail("relocation type " + std::to_string(type) + " is not supported");
    }
  }

  static void write(uint8_t* at, uint64_t value) { std::memcpy(at, &value, 8); }

  static void write32(const Object& object, const Symbol& symbol, uint8_t* at, uint64_t value) {
    auto wide = static_cast<int64_t>(value);
    auto narrow = static_cast<int32_t>(wide);
    if (narrow != wide) object.fail("reference to '" + symbol.name + "' is out of reach");
    std::memcpy(at, &narrow, 4);
  }

  std::vector<Object> objects_;
  std::array<uint64_t, kSegments + 1> bounds_{};
  uint64_t size_ = 0, stubs_ = 0, got_ = 0;
  uint8_t* base_ = nullptr;
  std::unordered_map<std::string, uint64_t> globals_;  // of all objects; the first wins
  std::unordered_map<uint64_t, uint64_t> slots_;
};

}  // namespace

Image::Image(const std::vector<ObjectFile>& objects) {
  Linker linker(objects);
  size_ = linker.size();
  void* mapped = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw PackageError("no memory for the kernels");
  base_ = static_cast<uint8_t*>(mapped);
  try {
    globals_ = linker.link(base_);
    const auto& bounds = linker.bounds();
    const int modes[] = {PROT_READ | PROT_EXEC, PROT_READ};
    for (int segment : {kText, kConst})
      if (size_t bytes = bounds[segment + 1] - bounds[segment])
        if (mprotect(base_ + bounds[segment], bytes, modes[segment]) != 0)
          throw PackageError("the system refuses to make the kernels executable");
  } catch (...) {
    munmap(base_, size_);
    throw;
  }
}

Image::~Image() { munmap(base_, size_); }

void* Image::symbol(size_t object, const std::string& name) const {
  if (object >= globals_.size()) throw PackageError("there is no kernel object of that number");
  auto found = globals_[object].find(name);
  if (found == globals_[object].end())
    throw PackageError("no kernel object defines the symbol '" + name + "'");
  return reinterpret_cast<void*>(found->second);
}

}  // namespace pai
