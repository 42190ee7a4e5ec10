#include <CLI/CLI.hpp>
#include <algorithm>
#include <numeric>
#include <optional>
#include <span>

#include "encoder_commands.hpp"
#include "graft/io/safetensors.hpp"
#include "graft/train/dataset.hpp"
#include "labels.hpp"
#include "options.hpp"
#include "texts.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;
using graft::Index;
using graft::models::Pooling;

struct EmbedSettings {
  std::string model, data, output, pooling;
  std::vector<std::string> adapters;
  LabelledOptions columns;
  Index batch_size = 32, sequence_length = 256;
  bool raw = false, length_given = false;
  int threads = 0;
};

/// What the folder says of sentence vectors (sentence-transformers: 1_Pooling, modules.json); the
/// mean otherwise.
Pooling pooling_of(const fs::path& model) {
  const auto path = model / "1_Pooling" / "config.json";
  if (!fs::exists(path)) return Pooling::mean;
  const auto document = graft::io::read_json(path);
  const graft::io::JsonView json(document, path.string());
  if (json.boolean_or("pooling_mode_cls_token", false)) return Pooling::cls;
  if (json.boolean_or("pooling_mode_max_tokens", false)) return Pooling::max;
  if (!json.boolean_or("pooling_mode_mean_tokens", true))
    json.fail("a way of pooling that is not supported; give --pooling");
  return Pooling::mean;
}

std::string as_text(const graft::Tensor& vectors, bool json) {
  std::string out;
  for (Index i = 0; i < vectors.rows(); ++i) {
    if (json) out += "[";
    for (Index j = 0; j < vectors.cols(); ++j)
      out += (j == 0 ? "" : ",") + format_number(static_cast<double>(vectors(i, j)), "%.9g");
    out += json ? "]\n" : "\n";
  }
  return out;
}

int embed(const EmbedSettings& s) {
  set_threads(s.threads);
  const std::string extension = fs::path(s.output).extension().string();
  if (!s.output.empty() && s.output != "-" && extension != ".csv" && extension != ".jsonl" &&
      extension != ".safetensors")
    throw graft::ValueError(
        concat("--output: '", s.output, "' is no .safetensors, .csv or .jsonl file"));
  const auto tokenizer = load_tokenizer(s.model);
  // An adapter that was trained below a head finds its places there.
  const auto labels = labels_of_adapters(s.adapters);
  const auto encoder = load_encoder(s.model, labels);
  expect_tokenizer_of(*encoder.model, tokenizer, s.model);
  if (s.length_given && s.sequence_length > encoder.max_tokens)
    throw graft::ValueError(concat("--sequence-length: ", s.sequence_length, ", but the model has ",
                                   encoder.max_tokens, " positions"));
  graft::AdapterModel adapters(encoder.sites, methods());
  load_adapters(adapters, s.adapters, s.model);
  const Pooling pooling =
      s.pooling.empty() ? pooling_of(s.model) : graft::models::pooling_named(s.pooling);

  const auto texts = read_texts(s.data, s.columns);
  const auto rows = graft::text_dataset<float>(
      encode_texts(texts, tokenizer, std::min(s.sequence_length, encoder.max_tokens),
                   !s.columns.pair_column.empty(), s.data),
      tokenizer.pad_id());
  if (rows.rows == 0) throw graft::IoError(s.data + ": no texts");
  graft::Tensor vectors;
  std::vector<Index> picked;
  for (Index first = 0; first < rows.rows; first += s.batch_size) {
    picked.resize(static_cast<std::size_t>(std::min(s.batch_size, rows.rows - first)));
    std::iota(picked.begin(), picked.end(), first);
    const auto part = encoder.embed(rows.batch(picked), pooling, !s.raw);
    if (!vectors) vectors = graft::Tensor::empty({rows.rows, part.cols()});
    std::copy(part.begin(), part.end(), vectors.begin() + first * part.cols());
  }
  expect_finite(vectors, *encoder.model, adapters);
  if (extension != ".safetensors") {
    write_output(s.output, as_text(vectors, extension == ".jsonl"));
    return 0;
  }
  graft::io::TensorToWrite tensor;
  tensor.name = "embeddings";
  tensor.dtype = graft::io::DType::f32;
  tensor.shape = {vectors.rows(), vectors.cols()};
  tensor.data = std::as_bytes(vectors.span());
  graft::io::write_safetensors(s.output, {tensor});
  return 0;
}

}  // namespace

void add_embed(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("embed", "Vectors of texts from an encoder");
  auto s = std::make_shared<EmbedSettings>();
  c->option_defaults()->always_capture_default();
  c->add_option("--model", s->model, "Hugging Face folder of an encoder")->required();
  c->add_option("--adapter", s->adapters, "Adapter FOLDER or NAME=FOLDER; may be repeated")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->delimiter(',');
  c->add_option("--data", s->data,
                "CSV, TSV or JSON lines; any other file, and - for standard input: a text a line")
      ->required();
  c->add_option("--output", s->output,
                "File .safetensors (tensor embeddings), .csv or .jsonl; CSV on standard output by "
                "default");
  add_column_options(*c, s->columns);
  c->add_option("--pooling", s->pooling, "mean, cls or max; as the model's folder says by default")
      ->check(CLI::IsMember({"mean", "cls", "max"}));
  c->add_flag("--no-normalize", s->raw, "Do not divide vectors by their length");
  c->add_option("--sequence-length", s->sequence_length, "Longer texts are cut to so many tokens")
      ->check(CLI::Range(2, 1 << 20));
  c->add_option("--batch-size", s->batch_size, "Rows in a batch")->check(CLI::PositiveNumber);
  c->add_option("--threads", s->threads, "0: all cores")->check(CLI::NonNegativeNumber);
  c->callback([&run, s, c] {
    run = [s, c] {
      s->length_given = given(*c, "sequence-length");
      return embed(*s);
    };
  });
}

}  // namespace cli
