#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "graft/compose/task_vectors.hpp"

namespace graft::inline v0_1 {

/// ComPEFT (Yadav et al. 2023, arXiv:2311.13171): a task vector as the signs of its largest entries
/// and one number, τ̃ = scale · sign. τ is all tensors of a module one after the other.
struct CompressedUpdate {
  std::vector<std::int8_t> sign;  ///< −1, 0 or 1
  double scale = 0;

  /// Number of entries that are not zero.
  Index count() const {
    return static_cast<Index>(sign.size()) -
           static_cast<Index>(std::count(sign.begin(), sign.end(), std::int8_t{0}));
  }
  std::vector<float> values() const {
    std::vector<float> result(sign.size());
    std::transform(sign.begin(), sign.end(), result.begin(),
                   [&](std::int8_t s) { return static_cast<float>(s * scale); });
    return result;
  }
};

/// Keeps the ⌊density · n⌋ largest entries; scale = alpha · population standard deviation of all of
/// τ.
template <std::floating_point T>
CompressedUpdate compress_update(std::span<const T> values, double density = 0.2,
                                 double alpha = 1) {
  CompressedUpdate result;
  const auto mask = largest_entries(values, share_of(std::ssize(values), density));
  double mean = 0, square = 0;
  for (const T v : values) mean += static_cast<double>(v);
  mean /= std::max<double>(1, static_cast<double>(values.size()));
  for (const T v : values)
    square += (static_cast<double>(v) - mean) * (static_cast<double>(v) - mean);
  result.scale =
      alpha * std::sqrt(square / std::max<double>(1, static_cast<double>(values.size())));
  result.sign.resize(values.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    result.sign[i] = static_cast<std::int8_t>(mask[i] == 0 ? 0 : (values[i] > 0) - (values[i] < 0));
  return result;
}

/// Tensors of one task, compressed together and in their shapes again.
template <std::floating_point T>
std::vector<BasicTensor<T>> compressed(const std::vector<BasicTensor<T>>& tensors,
                                       double density = 0.2, double alpha = 1) {
  std::vector<T> all;
  for (const auto& t : tensors) all.insert(all.end(), t.begin(), t.end());
  const auto update = compress_update(std::span<const T>(all), density, alpha);
  std::vector<BasicTensor<T>> result;
  auto sign = update.sign.begin();
  for (const auto& t : tensors) {
    result.push_back(BasicTensor<T>::empty(t.shape()));
    for (T& v : result.back()) v = static_cast<T>(*sign++ * update.scale);
  }
  return result;
}

/// Positions of the entries with this sign, one bit each, bit 7 of a byte first.
inline std::vector<std::uint8_t> sign_mask(const CompressedUpdate& update, int sign) {
  std::vector<std::uint8_t> mask((update.sign.size() + 7) / 8, 0);
  for (std::size_t i = 0; i < update.sign.size(); ++i)
    if (update.sign[i] == sign)
      mask[i / 8] = static_cast<std::uint8_t>(mask[i / 8] | 0x80U >> (i % 8));
  return mask;
}

/// ⟨τ̃₁, τ̃₂⟩ from the signs alone.
inline double dot(const CompressedUpdate& a, const CompressedUpdate& b) {
  if (a.sign.size() != b.sign.size())
    throw ShapeError(concat("dot: updates of ", a.sign.size(), " and ", b.sign.size(), " values"));
  Index sum = 0;
  for (std::size_t i = 0; i < a.sign.size(); ++i) sum += a.sign[i] * b.sign[i];
  return a.scale * b.scale * static_cast<double>(sum);
}

/// Rice parameter for gaps between entries of this density: 1 + ⌊log₂(ln(φ − 1) / ln(1 − p))⌋, at
/// least 0, φ the golden ratio (Golomb 1966; Strom 2015).
inline int rice_parameter(double density) {
  if (!(density > 0)) throw ValueError(concat("rice_parameter: density ", density));
  if (density >= 1) return 0;
  const double golden = (std::sqrt(5.0) + 1) / 2;
  return std::max(
      0, 1 + static_cast<int>(std::floor(std::log2(std::log(golden - 1) / std::log(1 - density)))));
}

/// A stream of bits, bytes filled from bit 7.
struct BitStream {
  std::vector<std::uint8_t> bytes;
  Index bits = 0;
  void put(bool bit) {
    if (bits % 8 == 0) bytes.push_back(0);
    if (bit) bytes.back() = static_cast<std::uint8_t>(bytes.back() | 0x80U >> (bits % 8));
    ++bits;
  }
};

/// Each entry as its gap of zeros since the last one (quotient by 2^b in ones and a zero, then b
/// bits of remainder, high bit first) and a sign bit, 1 for negative.
inline BitStream rice_encode(const CompressedUpdate& update, int parameter) {
  BitStream stream;
  std::uint64_t gap = 0;
  for (const auto s : update.sign) {
    if (s == 0) {
      ++gap;
      continue;
    }
    for (std::uint64_t q = gap >> parameter; q > 0; --q) stream.put(true);
    stream.put(false);
    for (int bit = parameter - 1; bit >= 0; --bit) stream.put((gap >> bit & 1U) != 0);
    stream.put(s < 0);
    gap = 0;
  }
  return stream;
}
/// The signs of `size` entries, `count` of which are not zero. @throws IoError if the stream ends
/// early or leads out of the vector
inline std::vector<std::int8_t> rice_decode(std::span<const std::uint8_t> bytes, int parameter,
                                            Index size, Index count) {
  std::vector<std::int8_t> sign(static_cast<std::size_t>(size), 0);
  std::size_t place = 0;
  const auto next = [&] {
    if (place >= bytes.size() * 8) throw IoError("rice_decode: the data end early");
    const bool bit = (bytes[place / 8] & 0x80U >> (place % 8)) != 0;
    ++place;
    return bit;
  };
  Index position = -1;
  for (Index k = 0; k < count; ++k) {
    Index gap = 0;
    while (next()) ++gap;
    if (gap > size >> parameter) throw IoError("rice_decode: a gap leads out of the vector");
    for (int bit = 0; bit < parameter; ++bit) gap = gap * 2 + (next() ? 1 : 0);
    position += gap + 1;
    if (position >= size) throw IoError("rice_decode: a gap leads out of the vector");
    sign[static_cast<std::size_t>(position)] = next() ? -1 : 1;
  }
  return sign;
}

}  // namespace graft::inline v0_1
