#include <algorithm>
#include <set>

#include "graft/compose/method_abilities.hpp"
#include "graft/models/llama.hpp"
#include "session.hpp"

namespace cli {
namespace {

using graft::MethodAbilities;

struct Column {
  const char* name;
  bool MethodAbilities::*value;
};
constexpr Column kColumns[] = {
    {"linear", &MethodAbilities::linear},
    {"conv", &MethodAbilities::conv},
    {"embedding", &MethodAbilities::embedding},
    {"norm", &MethodAbilities::norm},
    {"merge", &MethodAbilities::merge},
    {"unmerge", &MethodAbilities::unmerge},
    {"disable", &MethodAbilities::disable},
    {"several", &MethodAbilities::several},
    {"rows", &MethodAbilities::rows},
    {"weighted", &MethodAbilities::weighted},
    {"low_memory", &MethodAbilities::low_memory},
    {"quantised", &MethodAbilities::quantised},
    {"rank_pattern", &MethodAbilities::rank_pattern},
    {"layers", &MethodAbilities::layers},
    {"modules_to_save", &MethodAbilities::modules_to_save},
    {"tied", &MethodAbilities::tied},
};

/// Random weights, or random blocks of Q8_0.
class ProbeWeights final : public graft::models::BasicWeights<float> {
 public:
  explicit ProbeWeights(bool quantised) : quantised_(quantised) {}
  bool has(const std::string& name) const override { return !name.ends_with(".bias"); }
  graft::Tensor tensor(const std::string& name, const graft::Shape& shape) const override {
    if (name.find("norm") != std::string::npos) return graft::Tensor::ones(shape);
    std::uint64_t seed = 5;
    for (const char c : name) seed = seed * 31 + static_cast<unsigned char>(c);
    graft::TorchGenerator generator(seed);
    auto t = graft::Tensor::empty(shape);
    generator.normal(t.data(), t.size(), 0.0, 0.15);
    return t;
  }
  graft::AnyLinear linear(const std::string& name, graft::Index out,
                          graft::Index in) const override {
    if (!quantised_) return graft::DenseLinear(tensor(name + ".weight", {out, in}));
    auto blocks =
        std::make_unique<std::vector<std::int8_t>>(static_cast<std::size_t>(out * in / 32 * 34));
    for (std::size_t i = 0; i < blocks->size(); ++i)  // scale 2⁻⁹, codes
      (*blocks)[i] = i % 34 == 0   ? std::int8_t{0}
                     : i % 34 == 1 ? std::int8_t{0x18}
                                   : static_cast<std::int8_t>(static_cast<int>(i * 37 % 255) - 127);
    blocks_.push_back(std::move(blocks));
    return graft::QuantizedLinear(graft::quant::Format::q8_0, blocks_.back()->data(), out, in);
  }
  graft::EmbeddingTable embedding(const std::string& name, graft::Index rows,
                                  graft::Index dim) const override {
    return graft::EmbeddingTable(tensor(name + ".weight", {rows, dim}));
  }

 private:
  bool quantised_;
  mutable std::vector<std::unique_ptr<std::vector<std::int8_t>>> blocks_;
};

/// A random LLaMA.
class ProbeModel final : public graft::AbilityStage {
 public:
  explicit ProbeModel(bool quantised) : weights_(quantised), model_(config(), weights_) {}
  graft::SiteTable& sites() override { return model_.sites(); }
  graft::Var run(graft::Tape& tape, const std::vector<std::string>& rows) const override {
    graft::models::BasicBatch<float> batch;
    batch.batch = 3;
    batch.seq_len = 4;
    batch.ids = {1, 5, 9, 0, 7, 7, 2, 3, 11, 10, 4, 6};
    batch.task_ids.assign(3, 0);
    batch.row_adapters = rows;
    const auto y = model_.logits(tape, batch);
    return graft::slice(y, 1, y.dim(1) - 4, 4);  // virtual tokens come first
  }

 private:
  static graft::models::LlamaConfig config() {
    graft::models::LlamaConfig c;
    c.vocabulary = 32;
    c.hidden_size = 64;
    c.intermediate_size = 64;
    c.layers = 2;
    c.heads = 4;
    c.kv_heads = 2;
    c.head_dim = 16;
    c.max_positions = 64;
    c.rope.dim = 16;
    return c;
  }
  ProbeWeights weights_;
  graft::models::Llama model_;
};

}  // namespace

/// Every tuner of Hugging Face PEFT: whether it is here, and what it can do, found out by trying.
int show_parity(bool json) {
  const auto& registry = methods();
  graft::io::Json list = graft::io::Json::array();
  std::vector<std::vector<std::string>> rows{{"tuner", "state"}};
  for (const auto& column : kColumns) rows[0].push_back(column.name);
  std::size_t present = 0;
  for (const auto tuner : graft::kPeftTuners) {
    const bool here = registry.contains(tuner);
    present += here ? 1 : 0;
    rows.push_back({std::string(tuner), here ? "yes" : "missing"});
    graft::io::Json item{{"peft_type", std::string(tuner)}, {"present", here}};
    if (here) {
      const auto abilities = graft::abilities_of(registry, registry.at(tuner), [](bool quantised) {
        return std::make_unique<ProbeModel>(quantised);
      });
      auto& shown = item["abilities"] = graft::io::Json::object();
      for (const auto& column : kColumns) {
        const bool yes = abilities.*column.value;
        shown[column.name] = yes;
        rows.back().push_back(yes ? "yes" : "-");
      }
    }
    list.push_back(std::move(item));
  }
  if (json) {
    print_json({{"peft", "0.21"}, {"present", present}, {"tuners", list}});
    return 0;
  }
  std::vector<std::size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      line += row[c];
      if (c + 1 < row.size()) line.append(widths[c] - row[c].size() + 2, ' ');
    }
    say(line);
  }
  say(graft::concat(present, " of ", graft::kPeftTuners.size(), " tuners of PEFT 0.21"));
  return 0;
}

}  // namespace cli
