// Any bytes as a GGUF file: read it or refuse it, ask for every key by every getter, decode every
// tensor.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "graft/io/gguf.hpp"

namespace {

template <class Call>
void try_call(const Call& call) {
  try {
    (void)call();
  } catch (const graft::IoError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto file = graft::io::GgufFile::parse(std::as_bytes(std::span(data, size)), "input");
    const auto& metadata = file.metadata();
    for (const auto& [key, value] : metadata.entries()) {
      try_call([&] { return metadata.get_u64(key); });
      try_call([&] { return metadata.get_i64(key); });
      try_call([&] { return metadata.get_f32(key); });
      try_call([&] { return metadata.get_bool(key); });
      try_call([&] { return metadata.get_string(key); });
      try_call([&] { return metadata.get_strings(key); });
      try_call([&] { return metadata.get_floats(key); });
      try_call([&] { return metadata.get_ints(key); });
    }
    for (const auto& tensor : file.tensors()) {
      if (&file.at(tensor.name) != &tensor) __builtin_trap();
      if (tensor.elements() != tensor.rows() * tensor.columns()) __builtin_trap();
      try_call([&] { return graft::io::to_f32(tensor); });
    }
  } catch (const graft::IoError&) {
  }
  return 0;
}
