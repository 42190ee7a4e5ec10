#pragma once

// Runs code with AMX instructions on processors that lack them: the signal that an unknown
// instruction raises is caught, the instruction decoded from its bytes (Intel SDM, volume 2) and
// done by portable tiles.
#if defined(__x86_64__) && defined(__linux__)
#define GRAFT_TILE_TRAP 1

#include <signal.h>
#include <ucontext.h>

#include <cstdint>
#include <cstring>

#include "graft/kernels/impl/tiles.hpp"

namespace kernel_tests {

class TileTrap {
 public:
  TileTrap() {
    struct sigaction action {};
    action.sa_sigaction = &handle;
    action.sa_flags = SA_SIGINFO;
    ::sigaction(SIGILL, &action, &before_);
  }
  TileTrap(const TileTrap&) = delete;
  TileTrap& operator=(const TileTrap&) = delete;
  ~TileTrap() { ::sigaction(SIGILL, &before_, nullptr); }

  /// Instructions done in this thread, and whether it has configured tiles now.
  static int instructions() { return registers().instructions; }
  static bool configured() { return registers().configured; }

 private:
  struct Registers {
    bool configured = false;
    int instructions = 0;
    graft::kernels::detail::TileConfig config;
    std::uint32_t words[8][256] = {};
  };
  static Registers& registers() {
    static thread_local Registers r;
    return r;
  }

  static std::uint64_t general(const ucontext_t& context, unsigned number) {
    constexpr int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                             REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                             REG_R12, REG_R13, REG_R14, REG_R15};
    return static_cast<std::uint64_t>(context.uc_mcontext.gregs[order[number]]);
  }

  /// A VEX instruction of three prefix bytes with its operands.
  struct Instruction {
    unsigned opcode, prefix, reg, rm, vvvv;
    bool memory;
    std::uint64_t base = 0, stride = 0;  // of the memory operand; with an index, its step
    std::uint64_t length;
    bool indexed = false;
  };
  static Instruction decode(const ucontext_t& context, const unsigned char* code) {
    Instruction i{};
    const unsigned r = (~code[1] >> 7 & 1u) * 8, x = (~code[1] >> 6 & 1u) * 8,
                   b = (~code[1] >> 5 & 1u) * 8;
    i.vvvv = ~(code[2] >> 3) & 15u;
    i.prefix = code[2] & 3u;
    i.opcode = code[3];
    const unsigned mod = code[4] >> 6, low = code[4] & 7u;
    i.reg = r + (code[4] >> 3 & 7u);
    i.rm = b + low;
    i.memory = mod != 3;
    const unsigned char* next = code + 5;
    if (i.memory) {
      bool has_base = true;
      unsigned base = i.rm;
      if (low == 4) {
        base = b + (*next & 7u);
        has_base = !((*next & 7u) == 5 && mod == 0);
        const unsigned index = x + (*next >> 3 & 7u);
        i.indexed = index != 4;
        if (i.indexed) i.stride = general(context, index) << (*next >> 6);
        ++next;
      }
      const bool relative = low == 5 && mod == 0;
      std::int64_t displacement = 0;
      if (mod == 1) {
        displacement = static_cast<signed char>(*next++);
      } else if (mod == 2 || relative || !has_base) {
        std::int32_t value;
        std::memcpy(&value, next, sizeof value);
        displacement = value;
        next += sizeof value;
      }
      i.base = relative   ? reinterpret_cast<std::uint64_t>(next)
               : has_base ? general(context, base)
                          : 0;
      i.base += static_cast<std::uint64_t>(displacement);
    }
    i.length = static_cast<std::uint64_t>(next - code);
    return i;
  }

  /// False for what is no AMX instruction, or one that would fault.
  static bool run(const Instruction& i) {
    Registers& r = registers();
    auto* const memory = reinterpret_cast<unsigned char*>(i.base);
    if (i.opcode == 0x49 && i.prefix == 0 && i.vvvv == 0) {
      if (!i.memory) {  // TILERELEASE
        r.configured = false;
        return i.reg == 0 && i.rm == 0;
      }
      std::memcpy(&r.config, memory, sizeof r.config);  // LDTILECFG
      std::memset(r.words, 0, sizeof r.words);
      r.configured = true;
      return i.reg == 0 && r.config.palette == 1;
    }
    const auto whole = [&](unsigned tile) {
      return r.configured && tile < 8 && r.config.rows[tile] == 16 &&
             r.config.row_bytes[tile] == 64;
    };
    if (!whole(i.reg)) return false;
    auto& words = r.words[i.reg];
    if (i.opcode == 0x49 && i.prefix == 3 && !i.memory && i.rm == 0) {  // TILEZERO
      std::memset(words, 0, sizeof words);
      return true;
    }
    if (i.opcode == 0x4b && i.memory && i.indexed && i.vvvv == 0) {
      for (unsigned row = 0; row < 16; ++row) {
        unsigned char* const at = memory + row * i.stride;
        if (i.prefix == 3)  // TILELOADD
          std::memcpy(words + 16 * row, at, 64);
        else if (i.prefix == 2)  // TILESTORED
          std::memcpy(at, words + 16 * row, 64);
        else
          return false;
      }
      return true;
    }
    if (i.opcode == 0x5c && i.prefix == 2 && !i.memory && whole(i.rm) && whole(i.vvvv)) {
      graft::kernels::detail::PortableTiles tiles;  // TDPBF16PS reg, rm, vvvv
      tiles.load<0>(words, 16);
      tiles.load<1>(r.words[i.rm], 16);
      tiles.load<2>(r.words[i.vvvv], 16);
      tiles.dot<0, 1, 2>();
      tiles.store<0>(words, 16);
      return i.reg != i.rm && i.reg != i.vvvv && i.rm != i.vvvv;
    }
    return false;
  }

  static void handle(int, siginfo_t*, void* raw) {
    auto& context = *static_cast<ucontext_t*>(raw);
    auto& rip = context.uc_mcontext.gregs[REG_RIP];
    const auto* code = reinterpret_cast<const unsigned char*>(rip);
    // C4 and map 0F38, or it is not ours: the signal comes again, with its first meaning.
    Instruction i{};
    const bool vex = code[0] == 0xc4 && (code[1] & 31u) == 2 && (code[2] & 0x84u) == 0;
    if (vex) i = decode(context, code);
    if (!vex || !run(i)) {
      ::signal(SIGILL, SIG_DFL);
      return;
    }
    ++registers().instructions;
    rip += static_cast<greg_t>(i.length);
  }

  struct sigaction before_ {};
};

}  // namespace kernel_tests
#else
#define GRAFT_TILE_TRAP 0
#endif
