// Cases of the selection family: scores, choices, and what happens to sparse values in training.
#include <cmath>

#include "graft/adapters/bottleneck/autopeft.hpp"
#include "graft/adapters/bottleneck/das.hpp"
#include "graft/adapters/low_rank/ist.hpp"
#include "graft/adapters/low_rank/light_peft.hpp"
#include "graft/adapters/selection/methods.hpp"
#include "graft/optim/adamw.hpp"
#include "handlers.hpp"
#include "method_layer.hpp"

namespace conformance {
namespace {

using graft::Shape;
using graft::selection::Places;
using Matrix = BasicTensor<double>;
const std::vector<double> kBetas = {0.9, 0.999};  ///< of a case that names none

Matrix matrix(const SafetensorsFile& file, const std::string& name) {
  auto m = tensor_of<double>(file, name);
  if (!m) throw graft::IoError(concat("no tensor ", name));
  return m;
}
/// Part i along the first axis.
Matrix part(const Matrix& m, Index i) {
  Shape shape;
  for (int a = 1; a < m.rank(); ++a) shape.append(m.dim(a));
  auto result = Matrix::empty(shape);
  std::copy_n(m.data() + i * result.size(), result.size(), result.data());
  return result;
}
Places places(const SafetensorsFile& file, const std::string& name) {
  return graft::io::to_i64(file.at(name));
}
void equal(Checker& check, const std::string& name, const Places& found, const Places& expected) {
  check.require(found == expected, concat(name, ": other places"));
}
/// "<prefix><tensor><suffix>": the tensors, in the order of their names.
std::vector<std::string> named(const SafetensorsFile& file, const std::string& prefix,
                               const std::string& suffix) {
  std::vector<std::string> list;
  for (const auto& view : file.tensors())
    if (view.name.starts_with(prefix) && view.name.ends_with(suffix) &&
        view.name.size() > prefix.size() + suffix.size())
      list.push_back(
          view.name.substr(prefix.size(), view.name.size() - prefix.size() - suffix.size()));
  std::sort(list.begin(), list.end());
  return list;
}
std::vector<double> at(const Matrix& m, const Places& where) {
  std::vector<double> values;
  for (const auto i : where) values.push_back(m[i]);
  return values;
}

void run_selection(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const double density = config_of(c).value("density", graft::StaticMaskConfig{}.density);
  const auto names = named(file, "in.", ".weight");
  for (const char* criterion : {"random", "magnitude", "smallest_magnitude", "snip", "fisher"}) {
    std::vector<Matrix> scores;
    for (const auto& name : names) {
      const auto w = matrix(file, concat("in.", name, ".weight"));
      const std::string word = criterion;
      if (word == "random") {
        scores.push_back(matrix(file, concat("in.", name, ".uniform")));
      } else if (word == "snip" || word == "fisher") {
        const auto gradients = matrix(file, concat("in.", name, ".example_grads"));
        auto sum = Matrix::zeros(w.shape());
        for (Index e = 0; e < gradients.dim(0); ++e)
          for (Index i = 0; i < sum.size(); ++i) sum[i] += gradients[e * sum.size() + i];
        scores.push_back(word == "snip" ? graft::selection::snip(w, sum)
                                        : graft::selection::fisher(gradients, w.shape()));
        if (const auto* view = file.find(concat("out.", word, ".score.", name)))
          check.compare(view->name, values_of(scores.back()), graft::io::to_f64(*view));
      } else {
        scores.push_back(graft::selection::magnitude(w, word == "magnitude"));
      }
    }
    for (const bool together : {true, false}) {
      const auto chosen = graft::selection::select(scores, density, together);
      for (std::size_t i = 0; i < names.size(); ++i) {
        const std::string key =
            concat("out.", criterion, together ? ".global." : ".tensor.", names[i]);
        if (file.find(key) != nullptr) equal(check, key, chosen[i], places(file, key));
      }
    }
  }
  check.add("choices", 0, 0, check.tolerance());
}

void run_masked_training(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const auto gradients = matrix(file, "in.grad"), weight = matrix(file, "in.weight"),
             expected = matrix(file, "out.values");
  const auto where = places(file, "in.indices");
  const Index k = static_cast<Index>(where.size());
  const graft::BasicParameter<double> values(Matrix::zeros({k}));
  const double decay = config.value("weight_decay", 0.0), rate = config.at("learning_rate");
  const bool of_delta = config.value("weight_decay_on", "delta") == "delta";
  const auto betas = config.value("betas", kBetas);
  graft::BasicAdamW<double> optimizer(std::vector<graft::BasicParameter<double>>{values},
                                      {.learning_rate = rate,
                                       .beta1 = betas.at(0),
                                       .beta2 = betas.at(1),
                                       .eps = config.value("eps", 1e-8),
                                       .weight_decay = of_delta ? decay : 0});
  for (Index t = 0; t < gradients.dim(0); ++t) {
    const auto g = at(part(gradients, t), where);
    values.mutable_grad() = Matrix::from(g, {k});
    if (!of_delta)
      graft::StaticMaskProcedure<double>::decay_weight(weight, where, values.value(), rate * decay);
    optimizer.step();
    optimizer.zero_grad();
    check.compare(concat("values of step ", t + 1), values_of(values.value()),
                  values_of(part(expected, t)));
  }
  auto whole = weight.clone();
  for (Index j = 0; j < k; ++j) whole[where[static_cast<std::size_t>(j)]] += values.value()[j];
  check.compare("out.weight", values_of(whole), values_of(matrix(file, "out.weight")));
}

void run_neuroada_selection(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::NeuroAdaConfig>(c);
  const auto w = matrix(file, "in.weight"), g = matrix(file, "in.grad");
  using graft::selection::best_of_rows;
  using graft::selection::magnitude;
  equal(check, "magnitude", best_of_rows(magnitude(w), config.k), places(file, "out.magnitude"));
  equal(check, "reverse", best_of_rows(magnitude(w, false), config.k), places(file, "out.reverse"));
  equal(check, "gradient", best_of_rows(magnitude(g), config.k), places(file, "out.gradient"));
  check.add("choices", 0, 0, check.tolerance());
}

template <class State>
void compare_state(Checker& check, const SafetensorsFile& file, Index t, const State& state,
                   const Places& where) {
  const auto row = [&](const char* name, const auto& found) {
    if (file.find(concat("out.", name)) == nullptr) return;
    check.compare(concat(name, " after step ", t + 1), found,
                  values_of(part(matrix(file, concat("out.", name)), t)));
  };
  const auto all = places(file, "out.indices");
  const auto k = static_cast<std::ptrdiff_t>(where.size());
  equal(check, concat("places after step ", t + 1), where,
        Places(all.begin() + t * k, all.begin() + (t + 1) * k));
  row("values", state.values);
  if constexpr (requires { state.age; }) {
    row("exp_avg", state.m1);
    row("exp_avg_sq", state.m2);
    row("age", state.age);
  } else {
    row("momentum", state.momenta);
    row("row_accumulator", state.rows);
    row("col_accumulator", state.columns);
  }
}

void run_spiel(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::SpIELConfig>(c);
  const double rate = config_of(c).at("learning_rate");
  const auto gradients = matrix(file, "in.grad");
  const Index batches = std::max<Index>(1, config.gradient_accumulation_steps),
              steps = gradients.dim(0) / batches,
              total = config.total_update_steps > 0 ? config.total_update_steps : steps;
  const auto start = places(file, "in.indices");
  graft::selection::SpIELAdam<double> adam(start);
  graft::selection::SpIELMomentum<double> momentum(gradients.dim(1), gradients.dim(2), start);
  for (Index t = 0; t < steps; ++t) {
    const Index step = t + 1;
    if (t % config.reselection_steps == 0) adam.begin();
    auto mean = Matrix::zeros({gradients.dim(1), gradients.dim(2)});
    for (Index b = 0; b < batches; ++b) {
      const auto g = part(gradients, t * batches + b);
      for (Index i = 0; i < g.size(); ++i) mean[i] += g[i] / static_cast<double>(batches);
      if (!config.accumulates(step) || config.sm3()) continue;
      if (adam.begun())
        adam.accumulate([&](std::int64_t place) { return g[place]; });
      else
        adam.choose(g);
    }
    const auto m = static_cast<Index>(
        std::floor(config.rate(step, total) * static_cast<double>(start.size())));
    if (config.sm3()) {
      momentum.step(at(mean, momentum.places).data(), rate, config);
      if (config.reselects(step)) momentum.reselect(m);
      compare_state(check, file, t, momentum, momentum.places);
    } else {
      adam.step(at(mean, adam.places).data(), rate, config);
      if (config.reselects(step)) adam.reselect(m, config);
      compare_state(check, file, t, adam, adam.places);
    }
  }
}

void run_losia(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::LoSiAConfig>(c);
  const auto names = named(file, "in.", ".weight");
  const auto rates = matrix(file, "in.learning_rate");
  struct Layer {
    Matrix weight, gradients;
    graft::selection::Subnet subnet;
    graft::selection::BlockAdam<double> adam;
  };
  std::vector<Layer> layers;
  for (const auto& name : names)
    layers.push_back(
        {matrix(file, concat("in.", name, ".weight")).clone(),
         matrix(file, concat("in.", name, ".grad")),
         {places(file, concat("in.", name, ".rows")), places(file, concat("in.", name, ".cols"))},
         {}});
  const Index groups = static_cast<Index>(layers.size());
  graft::selection::Importance<double> importance;
  for (Index t = 0; t < rates.dim(0); ++t) {
    const Index group = t / config.period % groups;
    auto& recording = layers[static_cast<std::size_t>(group)];
    if (t % config.period == 0)
      importance = graft::selection::Importance<double>(recording.weight.shape());
    importance.see(recording.weight, part(recording.gradients, t), config.importance_beta1,
                   config.importance_beta2);
    for (std::size_t l = 0; l < layers.size(); ++l) {
      auto& layer = layers[l];
      const Index in = layer.weight.cols();
      Places where;
      for (const auto r : layer.subnet.rows)
        for (const auto col : layer.subnet.columns) where.push_back(r * in + col);
      auto block = at(layer.weight, where);
      const auto g = at(part(layer.gradients, t), where);
      layer.adam.step(block.data(), g.data(), static_cast<Index>(block.size()),
                      rates[t * groups + static_cast<Index>(l)], config);
      for (std::size_t i = 0; i < where.size(); ++i) layer.weight[where[i]] = block[i];
    }
    if ((t + 1) % config.period == 0) {
      const auto score = importance.score();
      std::vector<double> totals;
      recording.subnet =
          graft::selection::localise(score, static_cast<Index>(recording.subnet.rows.size()),
                                     static_cast<Index>(recording.subnet.columns.size()), &totals);
      recording.adam.restart();
      check.compare(concat("score of step ", t), values_of(score),
                    values_of(matrix(file, concat("out.step", t, ".score"))));
      check.compare(concat("candidates of step ", t), totals,
                    values_of(matrix(file, concat("out.step", t, ".candidates"))));
    }
    for (std::size_t l = 0; l < layers.size(); ++l)
      for (const bool rows : {true, false}) {
        const std::string key = concat("out.", names[l], rows ? ".rows" : ".cols");
        const auto all = places(file, key);
        const auto& found = rows ? layers[l].subnet.rows : layers[l].subnet.columns;
        const auto k = static_cast<std::ptrdiff_t>(found.size());
        equal(check, key, found, Places(all.begin() + t * k, all.begin() + (t + 1) * k));
      }
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const std::string key = concat("out.", names[l], ".weight");
    check.compare(key, values_of(layers[l].weight), values_of(matrix(file, key)));
  }
}

void run_spt_allocation(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  // Not validated: the modules that the configuration lacks are what the case asks for.
  const auto map = graft::read_config_file(c.folder / "adapter_config.json");
  graft::SPTConfig config;
  graft::ConfigReader reader(map);
  config.fields(reader);
  std::vector<std::string> names;  // the order of out.modes is that of the notes
  const std::string notes = c.json.value("notes", ""), mark = "Tensor order of out.modes: ";
  const auto first = notes.find(mark);
  for (std::string rest =
           first == std::string::npos
               ? std::string()
               : notes.substr(first + mark.size(), notes.find(". ", first) - first - mark.size());
       !rest.empty();) {
    const auto comma = rest.find(", ");
    names.push_back(rest.substr(0, comma));
    rest = comma == std::string::npos ? std::string() : rest.substr(comma + 2);
  }
  std::vector<Matrix> scores;
  for (const auto& name : names) {
    const auto gradients = matrix(file, concat("in.", name));
    auto score = part(gradients, 0);
    for (double& v : score) v = 0;
    for (Index b = 0; b < gradients.dim(0); ++b) {
      const auto g = part(gradients, b);
      for (Index i = 0; i < g.size(); ++i) score[i] += g[i] * g[i];
    }
    scores.push_back(score);
  }
  const auto choices = graft::spt_allocation(scores, config.tau, config.rank, config.alpha,
                                             config.beta, config.structured_type);
  Places modes;
  std::int64_t trained = 0;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    modes.push_back(static_cast<std::int64_t>(choices[i].mode));
    trained += choices[i].trained;
    equal(check, concat("selected ", names[i]),
          {static_cast<std::int64_t>(choices[i].places.size())},
          places(file, concat("out.selected.", names[i])));
    Places mask(static_cast<std::size_t>(scores[i].size()), 0);
    if (choices[i].mode == graft::SPTMode::sparse)
      for (const auto place : choices[i].places) mask[static_cast<std::size_t>(place)] = 1;
    const auto expected = places(file, concat("out.mask.", names[i]));
    Places all(mask.size(), 0);
    for (const auto place : choices[i].places) all[static_cast<std::size_t>(place)] = 1;
    check.require(expected == mask || expected == all, concat("mask of ", names[i]));
  }
  equal(check, "modes", modes, places(file, "out.modes"));
  equal(check, "trained", {trained}, places(file, "out.trainable"));
  check.add("choices", 0, 0, check.tolerance());
}

void run_gradient_dropout(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  Matrix probability;
  const auto g = graft::ramt_gradient(
      matrix(file, "in.grad_task"), matrix(file, "in.grad_kl"), matrix(file, "in.uniform"),
      config_of(c).value("gradient_dropout_lambda", 1.0), &probability);
  check.compare("probability", values_of(probability), values_of(matrix(file, "out.probability")));
  check.compare("grad", values_of(g), values_of(matrix(file, "out.grad")));
}

void run_pst_schedule(Checker& check, const Case& c) {
  const auto config = read_config_of<graft::PSTConfig>(c);
  const auto expected = matrix(tensors_of(c), "out.sparsity");
  const double total = config_of(c).at("total_steps");
  std::vector<double> found;
  for (Index t = 0; t < expected.size(); ++t)
    found.push_back(config.sparsity_at(static_cast<double>(t), total));
  check.compare("sparsity", found, values_of(expected));
}

void run_lt_sft(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const auto names = named(file, "in.", ".pretrained");
  std::vector<Matrix> before, tuned;
  for (const auto& name : names) {
    before.push_back(matrix(file, concat("in.", name, ".pretrained")));
    tuned.push_back(matrix(file, concat("in.", name, ".tuned")));
  }
  const auto chosen =
      graft::selection::most_moved(before, tuned, config.at("num_tunable_weights").get<Index>());
  const double l1 = config.value("l1_regularisation", 0.1);
  const auto betas = config.value("betas", kBetas);
  for (std::size_t i = 0; i < names.size(); ++i) {
    equal(check, names[i], chosen[i], places(file, concat("out.", names[i], ".indices")));
    const auto k = static_cast<Index>(chosen[i].size());
    const graft::BasicParameter<double> values(Matrix::zeros({k}));
    graft::BasicAdamW<double> optimizer(std::vector<graft::BasicParameter<double>>{values},
                                        {.learning_rate = config.at("learning_rate"),
                                         .beta1 = betas.at(0),
                                         .beta2 = betas.at(1),
                                         .eps = config.value("eps", 1e-8),
                                         .weight_decay = 0});
    const auto gradients = matrix(file, concat("in.", names[i], ".grad"));
    for (Index t = 0; t < gradients.dim(0); ++t) {
      auto g = at(part(gradients, t), chosen[i]);
      for (Index j = 0; j < k; ++j) {
        const double v = values.value()[j];
        g[static_cast<std::size_t>(j)] += l1 * (v > 0 ? 1 : v < 0 ? -1 : 0);
      }
      values.mutable_grad() = Matrix::from(g, {k});
      optimizer.step();
      optimizer.zero_grad();
    }
    check.compare(names[i], values_of(values.value()),
                  values_of(matrix(file, concat("out.", names[i], ".values"))));
  }
}

void run_diff_pruning(Checker& check, const Case& c) {
  using Method = graft::BasicDiffPruning<float>;
  const auto each = [](graft::AdapterModel& model, const auto& f) {
    for (const auto& placed : model.at("default").parts())
      if (auto* method = graft::method_of<Method>(placed.part.get())) f(*method, placed.path);
  };
  LayerSteps<float> steps;
  steps.before = [&](graft::AdapterModel& model, const SafetensorsFile& file) {
    each(model, [&](Method& method, const std::string& path) {
      const auto draws = [&](const std::string& name) {
        auto u = tensor_of<float>(file, concat("in.", path, ".", name));
        return u ? u : tensor_of<float>(file, "in." + name);
      };
      graft::Tensor group;
      for (const char* name : {"uniform_group", "group_uniform", "uniform.group"})
        if (!group) group = draws(name);
      method.set_draws(draws("uniform"), group);
    });
  };
  steps.after = [&](graft::AdapterModel& model, const SafetensorsFile& file) {
    check_auxiliary<float>(check, model, file,
                           [&](graft::Tape& tape) { return model.auxiliary_loss(tape); });
    each(model, [](Method& method, const std::string&) { method.set_draws({}); });
  };
  run_layer<float>(check, c, steps);
}

void run_perp(Checker& check, const Case& c) {
  LayerSteps<float> steps;
  steps.after = [&](graft::AdapterModel& model, const SafetensorsFile& file) {
    auto* method = graft::method_of<graft::PERP>(model.at("default").parts().front().part.get());
    if (method == nullptr) return check.fail("adapter", "no PERP");
    check_auxiliary<float>(check, model, file, [&](graft::Tape& tape) {
      return method->reconstruction_loss(tape, tensor_of<float>(file, "in.calibration"),
                                         tensor_of<float>(file, "in.dense_weight"),
                                         tensor_of<float>(file, "weight"));
    });
  };
  run_layer<float>(check, c, steps);
}

std::vector<Index> whole_numbers(const SafetensorsFile& file, const std::string& name) {
  const auto values = places(file, name);
  return {values.begin(), values.end()};
}
/// Row i of [rows, columns].
std::vector<Index> row_of(const std::vector<Index>& values, Index i, Index columns) {
  return {values.begin() + i * columns, values.begin() + (i + 1) * columns};
}
template <class Values>
void equal_numbers(Checker& check, const SafetensorsFile& file, const std::string& name,
                   const Values& found) {
  equal(check, name, Places(found.begin(), found.end()), places(file, name));
}

void run_sift(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::SIFTConfig>(c);
  const double rate = config_of(c).at("learning_rate");
  const auto weight = matrix(file, "in.weight"), gradients = matrix(file, "in.grad"),
             expected = matrix(file, "out.weight");
  graft::selection::SIFTState<double> state;
  state.choose(part(gradients, 0), config.sparse_rate);
  equal(check, "indices", state.places, places(file, "out.indices"));
  std::vector<double> values(state.places.size(), 0.0);
  for (Index t = 1; t < gradients.dim(0); ++t) {
    const Index before = state.steps;
    state.see(at(part(gradients, t), state.places).data(), values.data(), rate, config);
    if (state.steps == before) continue;
    auto whole = weight.clone();
    for (std::size_t j = 0; j < values.size(); ++j) whole[state.places[j]] += values[j];
    check.compare(concat("weight of step ", state.steps), values_of(whole),
                  values_of(part(expected, before)));
  }
  check.compare("exp_avg", state.m1, values_of(matrix(file, "out.exp_avg")));
  check.compare("exp_avg_sq", state.m2, values_of(matrix(file, "out.exp_avg_sq")));
}

void run_id3(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  auto config = read_config_of<graft::ID3Config>(c);
  const double rate = config_of(c).at("learning_rate");
  const auto names = named(file, "in.", ".weight");
  std::vector<Matrix> weights, gradients;
  for (const auto& name : names) {
    weights.push_back(matrix(file, concat("in.", name, ".weight")));
    gradients.push_back(matrix(file, concat("in.", name, ".grad")));
  }
  const auto mask_of = [](const Matrix& w, const Places& where) {
    Places mask(static_cast<std::size_t>(w.size()), 0);
    for (const auto place : where) mask[static_cast<std::size_t>(place)] = 1;
    return mask;
  };
  std::vector<graft::selection::ID3State<double>> states(names.size());
  const auto unmasked = places(file, "out.unmasked");
  Index total = 0;
  for (Index t = 0; t < gradients[0].dim(0); ++t) {
    std::vector<Matrix> now;
    for (const auto& g : gradients) now.push_back(part(g, t));
    const Index more = config.released(config.budget, t + 1, config.max_steps);
    graft::selection::release_best(weights, now, states, more, config);
    total += more;
    const Index expected = unmasked[static_cast<std::size_t>(t)];
    check.require(expected == more || expected == total, concat("unmasked in step ", t + 1));
    for (std::size_t i = 0; i < names.size(); ++i) {
      states[i].step(weights[i], now[i], t + 1, rate, config);
      auto whole = weights[i].clone();
      for (std::size_t j = 0; j < states[i].places.size(); ++j)
        whole[states[i].places[j]] += states[i].values[j];
      check.compare(concat(names[i], " of step ", t + 1), values_of(whole),
                    values_of(part(matrix(file, concat("out.", names[i], ".weight")), t)));
      const auto masks = places(file, concat("out.", names[i], ".mask"));
      const auto size = static_cast<std::ptrdiff_t>(whole.size());
      equal(check, concat("mask of ", names[i]), mask_of(whole, states[i].places),
            Places(masks.begin() + t * size, masks.begin() + (t + 1) * size));
    }
  }
  const auto pafi = graft::selection::smallest_weights(weights, config.budget);
  for (std::size_t i = 0; i < names.size(); ++i)
    equal(check, "PaFi", mask_of(weights[i], pafi[i]),
          places(file, concat("out.", names[i], ".pafi_mask")));
}

/// Scores of IST and DAS from sets and losses; `weights` compares what they give.
template <class Weights>
void run_scores(Checker& check, const SafetensorsFile& file, const std::string& sets_name,
                double rate, Weights&& weights) {
  const auto losses = matrix(file, "in.loss"), expected = matrix(file, "out.score");
  const auto sets = whole_numbers(file, sets_name);
  const Index steps = losses.dim(0), candidates = losses.dim(1),
              size = static_cast<Index>(sets.size()) / (steps * candidates);
  graft::LayerScores scores(expected.dim(1));
  for (Index t = 0; t < steps; ++t) {
    std::vector<std::vector<Index>> chosen;
    for (Index k = 0; k < candidates; ++k) chosen.push_back(row_of(sets, t * candidates + k, size));
    scores.update(chosen, values_of(part(losses, t)), rate);
    check.compare(concat("score ", t), scores.scores(), values_of(part(expected, t)));
    weights(scores, t);
  }
}

void run_ist_scores(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto suppressed = matrix(file, "out.suppression_weight"),
             updated = matrix(file, "out.update_weight");
  run_scores(check, file, "in.suppressed_layers", read_config_of<graft::ISTConfig>(c).rl_lr,
             [&](const graft::LayerScores& scores, Index t) {
               check.compare("suppression", scores.dispensable(), values_of(part(suppressed, t)));
               check.compare("update", scores.needed(), values_of(part(updated, t)));
             });
}

void run_das_scores(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::DASConfig>(c);
  const auto probability = matrix(file, "out.probability");
  run_scores(check, file, "in.skipped", config.learning_rate,
             [&](const graft::LayerScores& scores, Index t) {
               check.compare("probability", scores.dispensable(), values_of(part(probability, t)));
               if (t + 1 == probability.dim(0))
                 equal_numbers(check, file, "out.final_skip",
                               scores.most_dispensable(config.num_skip));
             });
}

void run_light_pruning(Checker& check, const Case& c) {
  namespace light = graft::light_peft;
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::LightPEFTConfig>(c);
  const auto rows = [&](const std::string& name) {
    const auto whole = matrix(file, name);
    std::vector<Matrix> list;
    for (Index i = 0; i < whole.dim(0); ++i) list.push_back(part(whole, i));
    return list;
  };
  const auto joined = [](const std::vector<std::vector<char>>& lists) {
    std::vector<char> all;
    for (const auto& list : lists) all.insert(all.end(), list.begin(), list.end());
    return all;
  };
  equal_numbers(check, file, "out.kept_heads",
                joined(light::kept_heads(rows("in.head_mask"), config.head_ratio)));
  equal_numbers(check, file, "out.kept_neurons",
                joined(light::kept_neurons(rows("in.neuron_mask"), config.neuron_ratio)));
  std::vector<std::vector<double>> of_modules, of_ranks, ranks;
  for (const auto& step : rows("in.module_importance")) of_modules.push_back(values_of(step));
  for (const auto& step : rows("in.rank_importance")) of_ranks.push_back(values_of(step));
  const auto modules = light::averaged(of_modules, true), flat = light::averaged(of_ranks, false);
  const auto each = static_cast<std::ptrdiff_t>(flat.size() / modules.size());
  for (auto first = flat.begin(); first != flat.end(); first += each)
    ranks.emplace_back(first, first + each);
  const auto kept = light::kept_ranks(modules, ranks, config.module_ratio, config.rank_ratio);
  equal_numbers(check, file, "out.kept_ranks", joined(kept));
  equal_numbers(check, file, "out.kept_modules",
                light::kept(modules, static_cast<Index>(modules.size()), config.module_ratio));
  check.compare("rank importance",
                light::rank_importance(matrix(file, "in.A"), matrix(file, "in.grad_A"),
                                       matrix(file, "in.B"), matrix(file, "in.grad_B")),
                values_of(matrix(file, "out.rank_importance")));
  std::vector<unsigned char> mask;
  for (const auto m : places(file, "in.attention_mask"))
    mask.push_back(static_cast<unsigned char>(m));
  check.compare("module importance",
                std::vector<double>{light::module_importance(matrix(file, "in.delta_h"),
                                                             matrix(file, "in.h"), mask)},
                graft::io::to_f64(file.at("out.module_importance")));
}

void run_noah_evolution(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const auto all = whole_numbers(file, "in.population");
  const auto fitness = values_of(matrix(file, "in.fitness"));
  const auto count = static_cast<Index>(fitness.size()),
             genes = static_cast<Index>(all.size()) / count;
  std::vector<graft::noah::Genes> population;
  std::vector<Index> parameters, admissible;
  for (Index i = 0; i < count; ++i) {
    population.push_back(row_of(all, i, genes));
    parameters.push_back(
        graft::noah::parameters(population.back(), config.at("hidden_size").get<Index>()));
    admissible.push_back(parameters.back() <= config.at("parameter_limit").get<Index>() ? 1 : 0);
  }
  equal_numbers(check, file, "out.parameters", parameters);
  equal_numbers(check, file, "out.admissible", admissible);
  const auto expected = places(file, "out.parents");
  const auto parents = graft::noah::parents(fitness, static_cast<Index>(expected.size()));
  equal_numbers(check, file, "out.parents", parents);
  std::vector<graft::noah::Genes> chosen;
  for (const Index p : parents) chosen.push_back(population[static_cast<std::size_t>(p)]);
  equal_numbers(check, file, "out.mutated",
                graft::noah::mutate(chosen.at(0), values_of(matrix(file, "in.mutate_uniform")),
                                    whole_numbers(file, "in.mutate_choice"),
                                    config.at("choices").get<std::vector<Index>>(),
                                    config.value("mutation_probability", 0.2)));
  equal_numbers(check, file, "out.crossed",
                graft::noah::cross(chosen, whole_numbers(file, "in.crossover_pick")));
  check.add("choices", 0, 0, check.tolerance());
}

void run_autopeft(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json settings = config_of(c);
  const Index blocks = settings.at("num_hidden_layers"), width = settings.at("hidden_size");
  const auto layers = whole_numbers(file, "in.layers"), serial = whole_numbers(file, "in.serial"),
             parallel = whole_numbers(file, "in.parallel"),
             prefix = whole_numbers(file, "in.prefix");
  std::vector<Index> parameters;
  for (std::size_t i = 0; i < serial.size(); ++i) {
    auto config = read_config_of<graft::AutoPEFTConfig>(c);
    config.layers = row_of(layers, static_cast<Index>(i), blocks);
    config.serial = serial[i];
    config.parallel = parallel[i];
    config.prefix = prefix[i];
    parameters.push_back(graft::autopeft::parameters(config, blocks, width));
  }
  equal_numbers(check, file, "out.parameters", parameters);
  equal_numbers(check, file, "out.pareto",
                graft::autopeft::pareto(values_of(matrix(file, "in.score")), parameters));
  check.add("choices", 0, 0, check.tolerance());
}

void run_trpts_budgets(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::TRPTSConfig>(c);
  const auto names = named(file, "in.", ".example_grads");
  std::vector<Matrix> fisher;
  for (const auto& name : names) {
    const auto g = matrix(file, concat("in.", name, ".example_grads"));
    fisher.push_back(graft::selection::fisher(g, Shape{g.dim(1), g.dim(2)}));
  }
  const auto budgets = graft::selection::trpts_budgets(fisher, config.top_percent, config.c_min);
  check.compare("share", budgets.share, values_of(matrix(file, "out.share")));
  equal_numbers(check, file, "out.connections", budgets.connections);
  for (std::size_t i = 0; i < names.size(); ++i) {
    Places mask(static_cast<std::size_t>(fisher[i].size()), 0);
    for (const auto place : graft::selection::trpts_places(fisher[i], budgets.connections[i]))
      mask[static_cast<std::size_t>(place)] = 1;
    equal(check, names[i], mask, places(file, concat("out.", names[i], ".mask")));
  }
}

void run_trpts_tokens(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  graft::Tape tape;
  const auto x = tape.leaf(tensor_of<float>(file, "x"));
  const auto y =
      graft::selection::fuse_tokens(x, tape.constant(tensor_of<float>(file, "in.attention")),
                                    read_config_of<graft::TRPTSConfig>(c).keep_rate);
  check.compare("y", values_of(y.value()), graft::io::to_f64(file.at("y")));
  tape.backward(y, tensor_of<float>(file, "dy"));
  check.compare("dx", values_of(x.grad()), graft::io::to_f64(file.at("dx")));
}

graft::DenseLinear dense(const SafetensorsFile& file, const std::string& name) {
  return graft::DenseLinear(tensor_of<float>(file, name + "weight"),
                            tensor_of<float>(file, name + "bias"));
}
graft::NormSite layer_norm_site(const SafetensorsFile& file, const std::string& path) {
  return {path,
          {.weight = tensor_of<float>(file, path + ".weight"),
           .bias = tensor_of<float>(file, path + ".bias"),
           .rms = false}};
}
/// y, dx and the gradients of loaded tensors of a map of x.
template <class Map>
void compare_map(Checker& check, const SafetensorsFile& file, const LoadedTensors<float>& tensors,
                 Map&& map) {
  graft::Tape tape;
  const auto x = tape.leaf(tensor_of<float>(file, "x"));
  const auto y = map(x);
  check.compare("y", values_of(y.value()), graft::io::to_f64(file.at("y")));
  tape.backward(y, tensor_of<float>(file, "dy"));
  check.compare("dx", values_of(x.grad()), graft::io::to_f64(file.at("dx")));
  compare_tensor_gradients(check, file, tensors);
}

void run_noah_slices(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::NOAHConfig>(c);
  const auto layer = dense(file, "");
  const auto norm = layer_norm_site(file, "norm");
  graft::StandaloneInit<float> init(0);
  const auto width = [](const char* what, const graft::ConfigValue& value, Index most) {
    return graft::NOAHConfig::widths(what, value, most, 1);
  };
  const auto widths = std::make_shared<graft::noah::Widths>(graft::noah::Widths{
      width("prompt", config.prompt, config.max_prompt), width("r", config.rank, config.max_rank),
      width("adapter", config.adapter, config.max_adapter)});
  const Index in = layer.in_features(), out = layer.out_features();
  graft::BasicNOAHLoRA<float> lora(config, in, out, 0, widths, init.context());
  graft::BasicNOAHAdapter<float> adapter(config, out, 0, &norm, widths, init.context());
  graft::BasicNOAHPrompts<float> prompts(config, {"model"}, in, 0, 0, widths, init.context());
  auto tensors = load_tensors(c, lora);
  tensors.merge(load_tensors(c, adapter));
  tensors.merge(load_tensors(c, prompts));
  compare_map(check, file, tensors, [&](const graft::Var& x) {
    const auto y = lora.apply(
        layer, prompts.with(x, prompts.tensors().at(0).parameter, widths->prompt.at(0), 0, 0));
    return adapter.apply(y, y, {});
  });
}

/// One block of attention and feed-forward part without norms, under the masks of Light-PEFT.
void run_light_masks(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const auto q = dense(file, "query."), k = dense(file, "key."), v = dense(file, "value."),
             o = dense(file, "output."), up = dense(file, "up."), down = dense(file, "down.");
  using Masks = graft::BasicLightMasks<float>;
  Masks masks(config.at("num_attention_heads"), up.out_features(),
              read_config_of<graft::LightPEFTConfig>(c).mask_l1_weight);
  const auto tensors = load_tensors(c, masks);
  graft::AttentionOptions<float> options;
  options.heads = options.kv_heads = masks.heads().size();
  options.causal = false;
  options.scale =
      1 / std::sqrt(static_cast<float>(q.out_features()) / static_cast<float>(options.heads));
  const std::string act = config.value("hidden_act", "gelu");
  compare_map(check, file, tensors, [&](const graft::Var& x) {
    options.batch = x.dim(0);
    const auto rows = reshape(x, {x.rows(), x.cols()});
    const auto heads = attention(linear(q, rows), linear(k, rows), linear(v, rows), options);
    const auto h = add(rows, linear(o, Masks::mask_heads(heads, masks.heads())));
    const auto a = graft::detail::apply_activation(act, linear(up, h));
    const graft::BasicMaskedNeurons<float> last(masks.neurons());
    return reshape(add(h, last.apply(down, a)), x.shape());
  });
  for (const auto& [key, p] : tensors) p.zero_grad();
  graft::Tape tape;
  const auto l1 = masks.auxiliary_loss(tape);
  check.compare("aux", values_of(l1.value()), graft::io::to_f64(file.at("aux.mask_l1")));
  tape.backward(l1);
  compare_tensor_gradients(check, file, tensors, "grad_aux.");
}

/// The trace of a case is all estimation.
void run_light_estimation(Checker& check, const Case& c) {
  check.merge(
      run_method_model_case(
          c, [](graft::AdapterModel& model) { model.at("default").set_procedure(nullptr); }),
      "");
}

/// Blocks x + tanh(W N(x) + b) with the adapters of DAS.
void run_das_blocks(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  struct Block {
    graft::LinearSite linear;
    graft::NormSite norm;
    graft::HiddenSite end;
  };
  std::vector<std::unique_ptr<Block>> blocks;
  graft::SiteTable table;
  graft::BasicStackSite<float> stack("");
  table.stack = &stack;
  while (file.find(concat("blocks.", blocks.size(), ".weight")) != nullptr) {
    const std::string path = concat("blocks.", blocks.size());
    const auto layer = dense(file, path + ".");
    table.info.hidden_size = layer.out_features();
    blocks.push_back(
        std::make_unique<Block>(Block{{path, layer},
                                      layer_norm_site(file, path + ".norm"),
                                      {path, layer.out_features(), graft::HiddenRole::block}}));
    table.linear.push_back(&blocks.back()->linear);
    table.norm.push_back(&blocks.back()->norm);
    table.hidden.push_back(&blocks.back()->end);
  }
  table.info.layers = static_cast<Index>(blocks.size());
  graft::AdapterModel model(table, methods<float>());
  model.load("default", c.folder);
  LoadedTensors<float> tensors;
  for (const auto& [key, tensor] : model.at("default").tensors()) tensors[key] = tensor.parameter;
  compare_map(check, file, tensors, [&](const graft::Var& x) {
    graft::StackBlocks<float> run;
    run.count = static_cast<Index>(blocks.size());
    run.block = [&](Index l, const graft::Var& in, const graft::BlockTokens&) {
      const auto& b = *blocks[static_cast<std::size_t>(l)];
      return b.end(in, add(in, tanh(b.linear(b.norm(in)))));
    };
    const auto h = stack.run(reshape(x, {x.rows(), x.cols()}), run);
    return reshape(h, x.shape());
  });
}

const Handler selection_handlers[] = {
    {{.kind = "procedure", .peft_type = "STATIC_MASK"}, run_selection},
    {{.kind = "procedure", .peft_type = "STATIC_MASK", .has = "in.indices"}, run_masked_training},
    {{.kind = "procedure", .peft_type = "NEUROADA"}, run_neuroada_selection},
    {{.kind = "procedure", .peft_type = "SPIEL"}, run_spiel},
    {{.kind = "procedure", .peft_type = "LOSIA"}, run_losia},
    {{.kind = "procedure", .peft_type = "SPT"}, run_spt_allocation},
    {{.kind = "procedure", .peft_type = "RAMT"}, run_gradient_dropout},
    {{.kind = "procedure", .peft_type = "PST"}, run_pst_schedule},
    {{.kind = "procedure", .peft_type = "LT_SFT"}, run_lt_sft},
    {{.kind = "layer", .peft_type = "DIFF_PRUNING"}, run_diff_pruning},
    {{.kind = "layer", .peft_type = "PERP"}, run_perp},
    {{.kind = "procedure", .peft_type = "SIFT"}, run_sift},
    {{.kind = "procedure", .peft_type = "ID3"}, run_id3},
    {{.kind = "procedure", .peft_type = "IST"}, run_ist_scores},
    {{.kind = "procedure", .peft_type = "DAS"}, run_das_scores},
    {{.kind = "layer", .peft_type = "DAS"}, run_das_blocks},
    {{.kind = "procedure", .peft_type = "LIGHT_PEFT"}, run_light_pruning},
    {{.kind = "layer", .peft_type = "LIGHT_PEFT"}, run_light_masks},
    {{.kind = "model", .peft_type = "LIGHT_PEFT"}, run_light_estimation},
    {{.kind = "procedure", .peft_type = "NOAH"}, run_noah_evolution},
    {{.kind = "layer", .peft_type = "NOAH"}, run_noah_slices},
    {{.kind = "procedure", .peft_type = "AUTOPEFT"}, run_autopeft},
    {{.kind = "procedure", .peft_type = "TRPTS"}, run_trpts_budgets},
    {{.kind = "layer", .peft_type = "TRPTS"}, run_trpts_tokens},
};

}  // namespace
}  // namespace conformance
