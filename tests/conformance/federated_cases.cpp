// Continual, federated and served adapters.
#include "graft/adapters/prompts/lae_prefix.hpp"
#include "graft/adapters/prompts/pfedpg.hpp"
#include "graft/compose/conpet.hpp"
#include "graft/compose/federated.hpp"
#include "graft/compose/lae.hpp"
#include "graft/compose/model_surgery.hpp"
#include "graft/compose/perk.hpp"
#include "graft/compose/split_training.hpp"
#include "graft/compose/ssiat.hpp"
#include "graft/layers/low_rank_rows.hpp"
#include "graft/layers/window_cache.hpp"
#include "graft/optim/fed_kseed.hpp"
#include "graft/optim/ferret.hpp"
#include "graft/optim/mezo.hpp"
#include "graft/optim/server_adam.hpp"
#include "handlers.hpp"
#include "method_layer.hpp"

namespace conformance {
namespace {

using Wide = BasicTensor<double>;
using WideParameter = graft::BasicParameter<double>;

std::vector<std::int64_t> whole(const SafetensorsFile& file, const std::string& name) {
  return graft::io::to_i64(file.at(name));
}
template <class Found>
void compare(Checker& check, const SafetensorsFile& file, const std::string& name,
             const Found& found) {
  check.compare(name, found, graft::io::to_f64(file.at("out." + name)));
}
void compare(Checker& check, const SafetensorsFile& file, const std::string& name,
             const Wide& found) {
  compare(check, file, name, values_of(found));
}
template <class Integer>
void require_equal(Checker& check, const SafetensorsFile& file, const std::string& name,
                   const std::vector<Integer>& found) {
  const std::vector<std::int64_t> list(found.begin(), found.end());
  check.require(list == whole(file, "out." + name), "other " + name);
}

void run_average(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const auto a = tensor_of<double>(file, "in.A"), b = tensor_of<double>(file, "in.B"),
             global = tensor_of<double>(file, "in.global_A");
  const auto shares = graft::client_shares(whole(file, "in.samples"));
  const double scaling = config.at("lora_alpha").get<double>() / config.at("r").get<double>();
  std::vector<std::vector<Wide>> clients;
  std::vector<graft::UpdateFactors<double>> factors;
  for (Index k = 0; k < a.dim(0); ++k) {
    clients.push_back({part(a, k), part(b, k)});
    factors.push_back({clients.back()[0], clients.back()[1]});
  }
  const auto mean = graft::federated_average(clients, shares);
  compare(check, file, "A", mean[0]);
  compare(check, file, "B", mean[1]);
  compare(check, file, "frozen_A_B", mean[1]);
  const auto stack = graft::concatenated_factors(factors, shares);
  compare(check, file, "stacked_A", stack.a);
  compare(check, file, "stacked_B", stack.b);
  compare(check, file, "exact_delta", graft::product_of(stack, scaling));
  const auto residual = graft::averaging_residual(factors, shares, scaling);
  compare(check, file, "residual", residual);
  compare(check, file, "weight_with_residual",
          graft::weighted_sum<double>({tensor_of<double>(file, "in.weight"), residual}, {1, 1}));
  // The server's optimiser, from given moments.
  const std::vector<WideParameter> parameters{WideParameter(global.clone())};
  graft::BasicServerAdam<double> server(parameters, {.learning_rate = config.at("server_lr"),
                                                     .beta1 = config.at("server_betas").at(0),
                                                     .beta2 = config.at("server_betas").at(1),
                                                     .eps = config.at("server_eps")});
  server.set_state(0, {1,
                       {tensor_of<double>(file, "in.first_moment"),
                        tensor_of<double>(file, "in.second_moment")}});
  graft::server_step(server, parameters, {mean[0]});
  compare(check, file, "fedadam_A", parameters[0].value());
  // A client of FedProx.
  const WideParameter local(clients[0][0]);
  local.mutable_grad() = tensor_of<double>(file, "in.local_grad");
  graft::add_proximal_gradient<double>({local}, {global}, config.value("fedprox_mu", 0.0));
  compare(check, file, "fedprox_grad", local.grad());
}

void run_offsite(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const double lambda = config.at("lambda");
  const auto w = tensor_of<double>(file, "in.global");
  require_equal(
      check, file, "kept_layers",
      graft::emulator_layers(config.at("middle_layers").get<Index>(), config.at("kept_layers")));
  const WideParameter local(tensor_of<double>(file, "in.local"));
  local.mutable_grad() = tensor_of<double>(file, "in.grad");
  graft::add_proximal_gradient<double>({local}, {w}, lambda);
  compare(check, file, "local_grad", local.grad());
  compare(check, file, "global",
          graft::personal_step(w, local.value(), config.at("eta").get<double>(), lambda));
  const auto message = graft::quantise_message(local.value(), config.value("message_bits", 8));
  require_equal(check, file, "message_codes", message.codes);
  compare(check, file, "message_scale", std::vector<double>{message.scale});
}

/// Mean of (x w − target)².
double squared_error(const Wide& x, const Wide& w, const Wide& target) {
  double total = 0;
  for (Index i = 0; i < x.rows(); ++i) {
    double y = -target[i];
    for (Index j = 0; j < x.cols(); ++j) y += x(i, j) * w[j];
    total += y * y / static_cast<double>(x.rows());
  }
  return total;
}

void run_mezo(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  auto options = read_config_of<graft::MezoConfig>(c);
  const Json config = config_of(c);
  if (options.code == "logarithmic") options.code_scale = config.value("g_max", options.code_scale);
  const auto z = tensor_of<double>(file, "in.z"), x = tensor_of<double>(file, "in.x"),
             target = tensor_of<double>(file, "in.target");
  const Index machines = z.dim(1);
  const auto direction = [&](std::uint64_t seed, Index) {
    const auto number = static_cast<Index>(seed);
    return values_of(part(z, number / machines, number % machines));
  };
  for (const bool exact : {false, true}) {
    if (exact) options.code = "none";
    const WideParameter w(tensor_of<double>(file, "in.weight"));
    const graft::BasicMezo<double> mezo({w}, options, direction);
    std::vector<double> weights, gradients;
    std::vector<std::int64_t> bytes;
    for (Index step = 0; step < z.dim(0); ++step) {
      std::vector<graft::MezoRecord> records;
      for (Index k = 0; k < machines; ++k) {
        const auto seed = static_cast<std::uint64_t>(step * machines + k);
        gradients.push_back(mezo.measure(
            [&] { return squared_error(part(x, step, k), w.value(), part(target, step, k)); },
            seed));
        records.push_back(mezo.record(seed, gradients.back()));
        bytes.push_back(records.back().byte);
      }
      mezo.apply(records);
      weights.insert(weights.end(), w.value().begin(), w.value().end());
    }
    const std::string prefix = exact ? "mezo_" : "";
    compare(check, file, prefix + "projected_gradient", gradients);
    compare(check, file, prefix + "weight", weights);
    if (!exact) require_equal(check, file, "bytes", bytes);
  }
}

void run_kseed(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto options = read_config_of<graft::FedKSeedConfig>(c);
  const auto z = tensor_of<double>(file, "in.z"), x = tensor_of<double>(file, "in.x"),
             target = tensor_of<double>(file, "in.target");
  const auto candidates = tensor_of<double>(file, "in.seeds");
  const WideParameter w(tensor_of<double>(file, "in.weight"));
  const graft::BasicFedKSeed<double> method({w}, options, [&](std::uint64_t seed, Index) {
    return values_of(part(z, static_cast<Index>(seed)));
  });
  auto accumulator = graft::io::to_f64(file.at("in.accumulator"));
  std::vector<std::vector<graft::FedKSeedRecord>> clients;
  std::vector<double> scalars, locals;
  for (Index k = 0; k < candidates.dim(0); ++k) {
    method.rebuild(accumulator);
    if (k == 0) compare(check, file, "rebuilt", w.value());
    const auto data = part(x, k), labels = part(target, k);
    auto& records = clients.emplace_back();
    for (Index step = 0; step < candidates.dim(1); ++step) {
      records.push_back(method.local_step([&] { return squared_error(data, w.value(), labels); },
                                          static_cast<Index>(candidates(k, step))));
      scalars.push_back(records.back().gradient);
    }
    locals.insert(locals.end(), w.value().begin(), w.value().end());
  }
  compare(check, file, "scalars", scalars);
  compare(check, file, "local", locals);
  graft::accumulate_records(accumulator, clients, graft::client_shares(whole(file, "in.samples")));
  compare(check, file, "accumulator", accumulator);
  method.rebuild(accumulator);
  compare(check, file, "weight", w.value());
  compare(check, file, "pro_probability",
          graft::candidate_probabilities(graft::io::to_f64(file.at("in.mean_magnitude"))));
}

void run_ferret(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  auto options = read_config_of<graft::FerretConfig>(c);
  options.group_share = 1e-6;  // a group for each tensor
  const auto clients = whole(file, "in.clients");
  std::vector<WideParameter> weights;
  std::vector<Wide> basis;
  std::vector<std::vector<double>> pool;
  for (Index g = 0; file.find(concat("in.weight.", g)) != nullptr; ++g) {
    weights.emplace_back(tensor_of<double>(file, concat("in.weight.", g)));
    basis.push_back(tensor_of<double>(file, concat("in.basis.", g)));
    pool.push_back(graft::io::to_f64(file.at(concat("in.pool.", g))));
  }
  graft::BasicFerret<double> method(weights, options, [&](Index group, Index seed, Index) {
    return values_of(part(basis[static_cast<std::size_t>(group)], seed));
  });
  method.set_pool(pool);
  const auto old = graft::flat_values(weights);
  std::vector<graft::BasicFerret<double>::Coordinates> sent;
  std::vector<Index> counts;
  for (std::size_t k = 0; k < clients.size(); ++k) {
    auto moved = old;
    std::vector<std::vector<Index>> orders;
    std::vector<double> norms;
    std::size_t next = 0;
    for (std::size_t g = 0; g < weights.size(); ++g) {
      double norm = 0;
      for (const double v : graft::io::to_f64(file.at(concat("in.update.", g, ".", k)))) {
        moved[next++] -= v;
        norm += v * v;
      }
      norms.push_back(std::sqrt(norm));
      orders.push_back(whole(file, concat("in.order.", g, ".", k)));
    }
    graft::set_flat_values(weights, moved);
    sent.push_back(method.coordinates(old, orders));
    for (std::size_t g = 0; g < weights.size(); ++g)
      compare(check, file, concat("coordinates.", g, ".", k), sent.back()[g]);
    for (const Index n : graft::ferret_seed_counts(norms, options.num_seeds)) counts.push_back(n);
  }
  require_equal(check, file, "seeds", counts);
  graft::set_flat_values(weights, old);
  method.aggregate(sent, graft::client_shares(clients), options.server_lr);
  for (std::size_t g = 0; g < weights.size(); ++g) {
    compare(check, file, concat("pool.", g), method.pool()[g]);
    compare(check, file, concat("weight.", g), weights[g].value());
  }
}

void run_accumulation(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const Index seen = config.at("seen_classes");
  const auto online = tensor_of<double>(file, "in.online");
  const WideParameter module(tensor_of<double>(file, "in.first"));
  graft::OfflineCopy<double> offline({module}, config.value("ema", 0.9999));
  std::vector<double> trace;
  for (Index t = 0; t < online.dim(0); ++t) {
    module.assign(part(online, t));
    offline.accumulate();
    trace.insert(trace.end(), offline.values()[0].begin(), offline.values()[0].end());
  }
  compare(check, file, "offline", trace);
  const auto logits = tensor_of<double>(file, "in.logits_online");
  const auto p = graft::lae_ensemble(logits, tensor_of<double>(file, "in.logits_offline"), seen);
  compare(check, file, "probability", p);
  require_equal(check, file, "prediction", graft::best_classes(p));
  graft::BasicTape<double> tape;
  const auto& classes = config.at("current_classes");
  compare(check, file, "masked_loss",
          graft::cross_entropy_of_classes(tape.constant(logits), whole(file, "in.labels"),
                                          classes.at(0), classes.at(1))
              .value());
}

void run_task_selection(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::ConpetConfig>(c);
  const auto selector = tensor_of<double>(file, "in.selector");
  const auto truth = whole(file, "in.true_task");
  std::vector<Wide> logits;
  for (Index t = 0; t < selector.cols(); ++t)
    logits.push_back(tensor_of<double>(file, concat("in.logits.", t)));
  for (const bool forced : {false, true}) {
    const auto chosen = forced ? graft::choose_tasks(selector, config.top_k, truth)
                               : graft::choose_tasks(selector, config.top_k);
    std::vector<Index> list;
    for (const auto& row : chosen) list.insert(list.end(), row.begin(), row.end());
    const std::string suffix = forced ? "_forced" : "";
    require_equal(check, file, "chosen" + suffix, list);
    compare(
        check, file, "probability" + suffix,
        graft::class_probabilities(graft::chosen_logits(logits, chosen, config.negative_logit)));
  }
  graft::BasicTape<double> tape;
  compare(check, file, "selector_loss", cross_entropy(tape.constant(selector), truth).value());
}

void run_shift(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto means = tensor_of<double>(file, "in.prototypes");
  const auto weights = graft::shift_weights(tensor_of<double>(file, "in.features_old"), means,
                                            read_config_of<graft::SsiatConfig>(c));
  compare(check, file, "weights", weights);
  auto moved = graft::shift_means(means, weights, tensor_of<double>(file, "in.shift"));
  compare(check, file, "prototypes", moved);
  const auto tasks = whole(file, "in.task_of_class");
  for (Index k = 0; k < moved.rows(); ++k)
    for (Index j = 0; j < moved.cols(); ++j)
      moved(k, j) *= graft::sampling_scale(tasks[static_cast<std::size_t>(k)], moved.rows());
  compare(check, file, "sampling_mean", moved);
}

void run_surgery(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto options = read_config_of<graft::ModelSurgeryConfig>(c);
  const Json config = config_of(c);
  const Index tasks = config.at("tasks"), of_task = config.at("classes_per_task");
  const auto earlier = tensor_of<double>(file, "in.earlier"),
             moves = tensor_of<double>(file, "in.trained"),
             logits = tensor_of<double>(file, "in.logits");
  std::vector<std::vector<Wide>> adapters;
  for (Index j = 0; j < earlier.dim(0); ++j) adapters.push_back({part(earlier, j)});
  const WideParameter theta(tensor_of<double>(file, "in.start"));
  std::vector<double> trace;
  for (Index t = 0; t < moves.dim(0); ++t) {
    const auto moved = graft::weighted_sum<double>({theta.value(), part(moves, t)}, {1, 1});
    theta.assign(moved);
    graft::pull_to_mean<double>({theta}, adapters, options.adapter_momentum);
    trace.insert(trace.end(), theta.value().begin(), theta.value().end());
  }
  compare(check, file, "theta", trace);
  std::vector<Index> task_of_class, found, rounds;
  for (Index k = 0; k < logits.dim(2); ++k) task_of_class.push_back(k / of_task);
  auto final_logits = Wide::empty({logits.dim(1), logits.dim(2)});
  for (Index m = 0; m < logits.dim(1); ++m) {
    const auto row = [&](Index adapter) { return part(logits, adapter, m); };
    const auto retrieved = graft::retrieve_adapter(
        tasks - 1, task_of_class,
        [&](Index adapter) { return graft::best_classes(row(adapter)).at(0); },
        options.max_iterations);
    found.push_back(retrieved.adapter);
    rounds.push_back(retrieved.rounds);
    const auto own = row(retrieved.adapter);
    std::copy_n(own.data(), own.size(), final_logits.data() + m * own.size());
  }
  require_equal(check, file, "adapter", found);
  require_equal(check, file, "rounds", rounds);
  const auto score = graft::surgery_ensemble(final_logits, part(logits, 0), tasks);
  compare(check, file, "score", score);
  require_equal(check, file, "prediction", graft::best_classes(score));
  graft::BasicTape<double> tape;
  compare(check, file, "orthogonality_loss",
          graft::orthogonality_loss(tape.constant(tensor_of<double>(file, "in.features")),
                                    tensor_of<double>(file, "in.class_means"))
              .value());
}

void run_pruning(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto scores =
      graft::el2n_scores(tensor_of<double>(file, "in.logits"), whole(file, "in.labels"));
  compare(check, file, "el2n", scores);
  require_equal(check, file, "kept",
                graft::hardest_samples(scores, config_of(c).value("gamma", 0.5)));
}

void run_generator(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  graft::StandaloneInit<float> init(0);
  graft::PromptGenerator generator(read_config_of<graft::PfedpgConfig>(c),
                                   tensor_of<float>(file, "dy").cols(), init.context());
  const auto tensors = load_tensors(c, generator);
  graft::Tape tape;
  check.compare("y", values_of(generator(tape).value()), graft::io::to_f64(file.at("y")));
  generator.add_gradients(generator.descriptor(), tensor_of<float>(file, "dy"));
  compare_tensor_gradients(check, file, tensors, "grad.", c.json);
}

/// x Wᵀ + b with a frozen layer of the case.
graft::Var frozen(const SafetensorsFile& file, const std::string& name, const graft::Var& x) {
  return graft::detail::trained_affine<float>(
      x, x.tape().constant(tensor_of<float>(file, name + ".weight")),
      x.tape().constant(tensor_of<float>(file, name + ".bias")));
}

void run_prefix(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::LaePrefixConfig>(c);
  const auto input = tensor_of<float>(file, "x");
  graft::StandaloneInit<float> init(0);
  graft::LaePrefix prefix(config, tensor_of<float>(file, "key.bias").size(), init.context());
  const auto tensors = load_tensors(c, prefix);
  graft::Tape tape;
  const auto x = tape.leaf(input);
  graft::AttentionCall<float> call;
  call.input = x;
  call.q = frozen(file, "query", x);
  call.k = frozen(file, "key", x);
  call.v = frozen(file, "value", x);
  call.options.batch = input.dim(0);
  call.options.heads = call.options.kv_heads = config.num_attention_heads.value();
  call.options.causal = false;
  call.options.scale =
      static_cast<float>(1 / std::sqrt(static_cast<double>(call.q.cols() / call.options.heads)));
  prefix.before(call);
  const auto y = prefix.after(call, attention(call.q, call.k, call.v, call.options));
  check.compare("y", values_of(y.value()), graft::io::to_f64(file.at("y")));
  tape.backward(y, tensor_of<float>(file, "dy"));
  check.compare("dx", values_of(x.grad()), graft::io::to_f64(file.at("dx")));
  compare_tensor_gradients(check, file, tensors, "grad.", c.json);
}

/// Rows with adapters of their own over one frozen layer.
void run_rows(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto saved = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  const auto scaling = config_of(c).at("scaling");
  std::vector<graft::LowRankTerm<float>> terms;
  LoadedTensors<float> tensors;
  const std::string a = "base_model.model.fc.lora_A.", b = "base_model.model.fc.lora_B.";
  const auto out = tensor_of<float>(file, "weight").rows(),
             in = tensor_of<float>(file, "weight").cols();
  for (std::size_t k = 0; k < scaling.size(); ++k) {
    // Files may leave out the tensors of an adapter of rank 0.
    const auto factor = [&](const std::string& name, const Shape& empty) {
      const auto value = tensor_of<float>(saved, name);
      const graft::Parameter p(value ? value : graft::Tensor::zeros(empty));
      if (value) tensors[name] = p;
      return p;
    };
    auto& term = terms.emplace_back();
    term.a = factor(concat(a, k, ".weight"), {0, in});
    term.b = factor(concat(b, k, ".weight"), {out, 0});
    term.scaling = scaling.at(k);
  }
  const graft::AnyLinear base(
      graft::DenseLinear(tensor_of<float>(file, "weight"), tensor_of<float>(file, "bias")));
  graft::Tape tape;
  const auto x = tape.leaf(tensor_of<float>(file, "x"));
  const auto y =
      linear_low_rank_rows(base, x, terms, graft::low_rank_runs(whole(file, "in.adapter_ids")));
  check.compare("y", values_of(y.value()), graft::io::to_f64(file.at("y")));
  tape.backward(y, tensor_of<float>(file, "dy"));
  check.compare("dx", values_of(x.grad()), graft::io::to_f64(file.at("dx")));
  compare_tensor_gradients(check, file, tensors, "grad.", c.json);
}

/// Causal attention with LoRA, in windows of the sequence and in one.
void run_windows(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto saved = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  const Json config = config_of(c);
  const auto scaling =
      static_cast<float>(config.at("lora_alpha").get<double>() / config.at("r").get<double>());
  LoadedTensors<float> tensors;
  for (const auto& view : saved.tensors())
    tensors[view.name] = graft::Parameter(tensor_of<float>(saved, view.name));
  const auto layer = [&](const std::string& name, const graft::Var& x) {
    auto y = frozen(file, name, x);
    const std::string key = concat("base_model.model.", name, ".lora_");
    if (!tensors.contains(key + "A.weight")) return y;
    const auto low = matmul(x, x.tape().parameter(tensors.at(key + "A.weight")),
                            graft::Transpose::no, graft::Transpose::yes);
    return add(y, scale(matmul(low, x.tape().parameter(tensors.at(key + "B.weight")),
                               graft::Transpose::no, graft::Transpose::yes),
                        scaling));
  };
  const auto input = tensor_of<float>(file, "x"), dy = tensor_of<float>(file, "dy");
  std::vector<std::vector<Index>> partitions{config.at("windows").get<std::vector<Index>>(),
                                             {input.rows()}};
  for (const auto& windows : partitions) {
    for (const auto& [key, p] : tensors) p.zero_grad();
    graft::WindowedSequence sequence;
    std::vector<graft::Var> leaves;
    std::vector<graft::Tensor> gradients;
    std::vector<double> y, dx;
    Index first = 0;
    for (const Index n : windows) {
      const auto& out = sequence.forward([&](graft::Tape& tape, graft::KvCache& cache) {
        const auto x = leaves.emplace_back(tape.leaf(input.slice_rows(first, n).clone()));
        const auto [k, v] = cache.extend(0, layer("k_proj", x), layer("v_proj", x));
        graft::AttentionOptions<float> options;
        options.heads = options.kv_heads = config.at("num_attention_heads");
        options.scale =
            static_cast<float>(1 / std::sqrt(static_cast<double>(k.cols() / options.heads)));
        return layer("o_proj", attention(layer("q_proj", x), k, v, options));
      });
      y.insert(y.end(), out.value().begin(), out.value().end());
      gradients.push_back(dy.slice_rows(first, n).clone());
      first += n;
    }
    check.compare("y", y, graft::io::to_f64(file.at("y")));
    sequence.backward(gradients);
    for (const auto& x : leaves) {
      const auto g = x.grad();
      dx.insert(dx.end(), g.begin(), g.end());
    }
    check.compare("dx", dx, graft::io::to_f64(file.at("dx")));
    compare_tensor_gradients(check, file, tensors, "grad.", c.json);
  }
}

/// Inner and outer loop with one adapted linear layer as the model, in double precision.
void run_memory(Checker& check, const Case& c) {
  using WideTape = graft::BasicTape<double>;
  using WideVar = graft::BasicVar<double>;
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const auto parameter = [&](const char* name) {
    return WideParameter(tensor_of<double>(file, concat("in.", name)));
  };
  const auto weight = tensor_of<double>(file, "in.weight"),
             context_x = tensor_of<double>(file, "in.context_x"),
             query_x = tensor_of<double>(file, "in.query_x");
  const auto context_labels = whole(file, "in.context_label"),
             query_labels = whole(file, "in.query_label");
  graft::PerkConfig options;
  options.inner_steps = config.at("inner_steps");
  options.inner_betas = config.at("inner_betas").get<std::vector<double>>();
  options.inner_eps = config.value("inner_eps", options.inner_eps);
  const double scaling = config.value("scaling", 1.0);
  const auto a = parameter("A"), b = parameter("B");
  graft::StandaloneInit<double> init(0);
  const graft::BasicTokenWeighting<double> weighting(weight.cols(), init.context());
  const char* names[] = {"w1", "b1", "w2", "b2"};
  for (std::size_t k = 0; k < 4; ++k)
    weighting.parameters()[k].assign(tensor_of<double>(file, concat("in.", names[k])));
  const auto logits = [&](WideTape& tape, const Wide& x) -> WideVar {
    const auto in = tape.constant(x.reshape({x.rows(), x.cols()}));
    const auto times = [](const WideVar& v, const WideVar& w) {
      return matmul(v, w, graft::Transpose::no, graft::Transpose::yes);
    };
    return add(times(in, tape.constant(weight)),
               scale(times(times(in, tape.parameter(a)), tape.parameter(b)), scaling));
  };
  const auto context = [&](WideTape& tape) {
    const auto h = tape.constant(context_x.reshape({context_x.rows(), context_x.cols()}));
    return graft::weighted_cross_entropy(logits(tape, context_x), weighting(h), context_labels);
  };
  const auto query = [&](WideTape& tape) {
    return cross_entropy(logits(tape, query_x), query_labels);
  };
  Json unrolls = config.at("truncated");
  if (!unrolls.is_array()) unrolls = Json::array({unrolls});
  for (const auto& truncated : unrolls) {
    options.truncated = truncated;
    const graft::BasicPerk<double> perk({a, b}, options, weighting.parameters());
    perk.rates()[0].assign(tensor_of<double>(file, "in.lr_A"));
    perk.rates()[1].assign(tensor_of<double>(file, "in.lr_B"));
    std::vector<std::pair<std::string, WideParameter>> trained{
        {"A", a}, {"B", b}, {"lr_A", perk.rates()[0]}, {"lr_B", perk.rates()[1]}};
    for (std::size_t k = 0; k < 4; ++k) trained.emplace_back(names[k], weighting.parameters()[k]);
    for (const auto& [name, p] : trained) p.zero_grad();
    const std::string prefix = concat("unroll", options.truncated, ".");
    compare(check, file, prefix + "loss", std::vector<double>{perk.outer(context, query)});
    for (const auto& [name, p] : trained)
      compare(check, file, prefix + "grad." + name, p.grad() ? p.grad() : Wide::zeros(p.shape()));
    const auto start = perk.adapt(context);
    compare(check, file, "adapted_A", a.value());
    compare(check, file, "adapted_B", b.value());
    perk.restore(start);
  }
}

const Handler federated_handlers[] = {
    {{.kind = "procedure", .peft_type = "PERK"}, run_memory},
    {{.kind = "layer", .peft_type = "LORA", .method = "token-level fine-tuning in windows"},
     run_windows},
    {{.kind = "procedure", .peft_type = "LAE"}, run_accumulation},
    {{.kind = "layer", .peft_type = "LAE"}, run_prefix},
    {{.kind = "procedure", .peft_type = "CONPET"}, run_task_selection},
    {{.kind = "procedure", .peft_type = "SSIAT"}, run_shift},
    {{.kind = "procedure", .peft_type = "MOS"}, run_surgery},
    {{.kind = "procedure", .peft_type = "SFPROMPT"}, run_pruning},
    {{.kind = "layer", .peft_type = "PFEDPG"}, run_generator},
    {{.kind = "layer", .peft_type = "LORA", .method = "batched multi-adapter LoRA"}, run_rows},
    {{.kind = "procedure", .peft_type = "LORA", .method = "federated averaging of LoRA"},
     run_average},
    {{.kind = "procedure", .peft_type = "FEDERATED"}, run_offsite},
    {{.kind = "procedure", .peft_type = "MEZO"}, run_mezo},
    {{.kind = "procedure", .peft_type = "FEDKSEED"}, run_kseed},
    {{.kind = "procedure", .peft_type = "FERRET"}, run_ferret},
};

}  // namespace
}  // namespace conformance
