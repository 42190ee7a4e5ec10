// Any bytes as a safetensors file: read it or refuse it, and convert what was read.
#include <cstddef>
#include <cstdint>
#include <span>

#include "graft/io/safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto file =
        graft::io::SafetensorsFile::parse(std::as_bytes(std::span(data, size)), "input");
    for (const auto& tensor : file.tensors()) {
      if (&file.at(tensor.name) != &tensor) __builtin_trap();
      if (graft::io::to_f32(tensor).size() != graft::io::to_f64(tensor).size()) __builtin_trap();
      try {
        (void)graft::io::to_i64(tensor);
      } catch (const graft::ValueError&) {
      }
    }
  } catch (const graft::IoError&) {
  }
  return 0;
}
