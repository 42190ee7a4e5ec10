#include "graft/compose/method_registry.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <sstream>

#include "adapters/method_checks.hpp"
#include "graft/adapters/low_rank/dylora.hpp"
#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/adapters/orthogonal/osf.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/full_method.hpp"
#include "graft/compose/methods.hpp"

namespace {

/// DyLoRA that tells at which paths its procedure works.
struct WatchedDyLoRA : graft::DyLoRAMethod<double> {
  static inline std::vector<std::string> paths;
  static std::unique_ptr<graft::Procedure<double>> procedure(
      const Config& config, const std::vector<graft::PlacedPart<double>>& parts) {
    paths.clear();
    for (const auto& placed : parts) paths.push_back(placed.path);
    return graft::DyLoRAMethod<double>::procedure(config, parts);
  }
};

/// A convolution, a layer and a head.
struct Layers {
  graft::BasicLinearSite<double> patches{"patches", checks::random_layer<double>(4, 6, 1)},
      layer{"layer", checks::random_layer<double>(4, 4, 2)},
      head{"head", checks::random_layer<double>(3, 4, 3)};
  graft::BasicSiteTable<double> table;
  graft::MethodRegistry<double> registry;
  graft::BasicAdapterModel<double> model{table, registry};

  Layers() {
    patches.conv.kernel = {1, 2};
    patches.conv.in_channels = 3;
    table.linear = {&patches, &layer, &head};
    table.info.output_layers = {"head"};
    registry.add(graft::MethodList<graft::LoRAMethod<double>, WatchedDyLoRA>{});
    registry.add(graft::FullMethods<double>{});
  }
  std::vector<std::string> adapted(graft::ConfigValue targets, const char* method = "LORA") {
    graft::TorchGenerator generator(1);
    std::vector<std::string> paths;
    for (const auto& placed :
         model.add("default", {{"peft_type", method}, {"target_modules", targets}}, generator)
             .parts())
      paths.push_back(placed.path);
    return paths;
  }
};

/// Fields of the configuration classes of PEFT 0.21.2 beside those of PeftConfig, by peft_type;
/// lines that begin with a space go on with the one above.
constexpr const char* kPeftFields = R"(
ADALORA: alora_invocation_tokens alpha_pattern arrow_config beta1 beta2 bias corda_config deltaT
  ensure_weight_tying eva_config exclude_modules fan_in_fan_out init_lora_weights init_r
  kasa_config layer_replication layers_pattern layers_to_transform loftq_config lora_alpha
  lora_bias lora_dropout lora_ga_config megatron_config megatron_core modules_to_save
  monteclora_config orth_reg_weight qalora_group_size r rank_pattern runtime_config
  target_modules target_parameters target_r tfinal tinit total_step trainable_token_indices
  use_bdlora use_dora use_qalora use_rslora velora_config
ADAMSS: asa_importance_beta asa_schedule_exponent asa_target_subspaces asa_uncertainty_beta
  final_warmup init_warmup init_weights layers_pattern layers_to_transform mask_interval
  modules_to_save num_subspaces r random_seed subspace_rank svd_threshold target_modules use_asa
  use_dynamic_rank
ADAPTION_PROMPT: adapter_layers adapter_len target_modules
BEFT: init_weights modules_to_save target_modules
BOFT: bias boft_block_num boft_block_size boft_dropout boft_n_butterfly_factor exclude_modules
  fan_in_fan_out init_weights layers_pattern layers_to_transform modules_to_save target_modules
C3A: bias block_size block_size_pattern init_weights layers_pattern layers_to_transform
  modules_to_save target_modules
CARTRIDGE: modules_to_save num_attention_heads num_frozen_tokens num_layers
  num_transformer_submodules num_virtual_tokens token_dim
CPT: cpt_mask cpt_token_ids cpt_tokens_type_mask modules_to_save num_attention_heads num_layers
  num_transformer_submodules num_virtual_tokens opt_loss_decay_factor opt_projection_epsilon
  opt_projection_format_epsilon opt_weighted_loss_type token_dim tokenizer_name_or_path
DEFT: alpha bias decomposition_method deft_dropout exclude_modules fan_in_fan_out init_scale
  init_weights layers_pattern layers_to_transform modules_to_save para r target_modules
DELORA: bias delora_lambda exclude_modules init_weights lambda_pattern layers_pattern
  layers_to_transform module_dropout modules_to_save r rank_pattern target_modules
FOURIERFT: bias exclude_modules fan_in_fan_out init_weights layers_pattern layers_to_transform
  modules_to_save n_frequency n_frequency_pattern random_loc_seed scaling target_modules
FROD: bias fan_in_fan_out frod_dropout init_weights layers_pattern layers_to_transform
  modules_to_save progressbar projection_prng_key regularization_alpha
  runtime_offload_base_weight save_projection sparse_rate target_modules
GLORA: bias config_A_B config_C config_D_E init_weights modules_to_save r target_modules
GRALORA: alpha bias fan_in_fan_out gralora_dropout gralora_k hybrid_r init_weights layers_pattern
  layers_to_transform modules_to_save r target_modules
HIRA: exclude_modules fan_in_fan_out hira_dropout init_weights layers_pattern layers_to_transform
  modules_to_save r rank_pattern target_modules
HRA: apply_GS bias exclude_modules init_weights layers_pattern layers_to_transform
  modules_to_save r target_modules
IA3: exclude_modules fan_in_fan_out feedforward_modules init_ia3_weights modules_to_save
  target_modules
LILY: exclude_modules init_weights layers_pattern layers_to_transform modules_to_save num_B r
  scaling stride_A target_modules
LN_TUNING: exclude_modules modules_to_save target_modules
LOHA: alpha alpha_pattern exclude_modules init_weights layers_pattern layers_to_transform
  module_dropout modules_to_save r rank_dropout rank_pattern target_modules use_effective_conv2d
LOKR: alpha alpha_pattern decompose_both decompose_factor exclude_modules init_weights
  layers_pattern layers_to_transform module_dropout modules_to_save r rank_dropout
  rank_dropout_scale rank_pattern target_modules use_effective_conv2d
LORA: alora_invocation_tokens alpha_pattern arrow_config bias corda_config ensure_weight_tying
  eva_config exclude_modules fan_in_fan_out init_lora_weights kasa_config layer_replication
  layers_pattern layers_to_transform loftq_config lora_alpha lora_bias lora_dropout
  lora_ga_config megatron_config megatron_core modules_to_save monteclora_config
  qalora_group_size r rank_pattern runtime_config target_modules target_parameters
  trainable_token_indices use_bdlora use_dora use_qalora use_rslora velora_config
MISS: bias exclude_modules init_weights layers_pattern layers_to_transform mini_r miss_dropout
  modules_to_save r target_modules
MULTITASK_PROMPT_TUNING: modules_to_save num_attention_heads num_layers num_ranks num_tasks
  num_transformer_submodules num_virtual_tokens prompt_tuning_init
  prompt_tuning_init_state_dict_path prompt_tuning_init_task prompt_tuning_init_text token_dim
  tokenizer_kwargs tokenizer_name_or_path
OFT: bias block_share coft eps exclude_modules fan_in_fan_out init_weights layers_pattern
  layers_to_transform module_dropout modules_to_save num_cayley_neumann_terms oft_block_size r
  target_modules use_cayley_neumann
OSF: effective_rank init_weights modules_to_save rank_pattern target_modules target_svd_config
PEANUT: act_fn depth exclude_modules init_weights layers_pattern layers_to_transform
  modules_to_save r scaling target_modules
POLY: exclude_modules init_weights modules_to_save n_skills n_splits n_tasks poly_type r
  target_modules
PREFIX_TUNING: encoder_hidden_size init_weights modules_to_save num_attention_heads num_layers
  num_transformer_submodules num_virtual_tokens prefix_projection token_dim
PROMPT_TUNING: modules_to_save num_attention_heads num_layers num_transformer_submodules
  num_virtual_tokens prompt_tuning_init prompt_tuning_init_text token_dim tokenizer_kwargs
  tokenizer_name_or_path
PSOFT: ab_svd_init cayley_neumann_eps exclude_modules fan_in_fan_out init_weights layers_pattern
  layers_to_transform modules_to_save num_cayley_neumann_terms psoft_alpha psoft_dropout
  psoft_mag_a psoft_mag_b psoft_orth psoft_svd psoft_svd_lowrank_niter r random_seed
  target_modules use_cayley_neumann
PVERA: bias d_initial fan_in_fan_out generator_seed init_weights layers_pattern
  layers_to_transform modules_to_save projection_prng_key pvera_dropout r sample_at_inference
  save_projection target_modules
P_TUNING: encoder_dropout encoder_hidden_size encoder_num_layers encoder_reparameterization_type
  modules_to_save num_attention_heads num_layers num_transformer_submodules num_virtual_tokens
  token_dim
RANDLORA: bias fan_in_fan_out init_weights layers_pattern layers_to_transform modules_to_save
  projection_prng_key r randlora_alpha randlora_dropout save_projection sparse target_modules
  very_sparse
ROAD: group_size init_weights modules_to_save target_modules variant
SHADOW: auxiliary_loss_weight exclude_modules init_weights layers_pattern layers_to_transform
  modules_to_save r shadow_alpha shadow_dropout shadow_hidden_size shadow_intermediate_size
  shadow_model shadow_num_attention_heads shadow_num_hidden_layers share_embeddings
  target_modules update_hidden_size
SHIRA: fan_in_fan_out init_weights mask_type modules_to_save r random_seed target_modules
SUPERTUNING: init_weights lora_alpha lora_dropout modules_to_save r save_precomputed_indices
  select_top sparsity target_modules
TINYLORA: bias fan_in_fan_out init_v_bound init_weights layers_pattern layers_to_transform
  modules_to_save projection_seed r save_projection target_modules tinylora_dropout u
  weight_tying
TRAINABLE_TOKENS: init_weights target_modules token_indices
UNILORA: bias fan_in_fan_out init_theta_d_bound init_weights layers_pattern layers_to_transform
  modules_to_save proj_seed r save_indices target_modules theta_d_length unilora_dropout
VBLORA: bias exclude_modules fan_in_fan_out init_logits_std init_vector_bank_bound layers_pattern
  layers_to_transform modules_to_save num_vectors r save_only_topk_weights target_modules topk
  vblora_dropout vector_length
VERA: bias d_initial fan_in_fan_out init_weights layers_pattern layers_to_transform
  modules_to_save projection_prng_key r save_projection target_modules vera_dropout
WAVEFT: bias exclude_modules fan_in_fan_out init_weights layers_pattern layers_to_transform
  modules_to_save n_frequency n_frequency_pattern proportional_parameters random_loc_seed scaling
  target_modules use_idwt wavelet_family
XLORA: adapters enable_softmax enable_softmax_topk global_scaling_weight hidden_size
  layerwise_scalings scaling_pass_value softmax_temperature top_k_lora use_trainable_adapters
  xlora_depth xlora_dropout_p xlora_size
)";

/// The words of kPeftFields by their first one.
std::map<std::string, std::set<std::string>> peft_fields() {
  std::map<std::string, std::set<std::string>> fields;
  std::istringstream words(kPeftFields);
  std::set<std::string>* of = nullptr;
  for (std::string word; words >> word;) {
    if (word.ends_with(':'))
      of = &fields[word.substr(0, word.size() - 1)];
    else
      of->insert(word);
  }
  return fields;
}

}  // namespace

TEST_CASE("all-linear means neither heads nor convolutions, as in PEFT") {
  CHECK(Layers().adapted("all-linear") == std::vector<std::string>{"layer"});
  CHECK(Layers().adapted("all-linear", "FULL") == std::vector<std::string>{"layer"});
}

TEST_CASE("a name means a convolution as well") {
  const graft::ConfigValue::List names{"patches", "head"};
  CHECK(Layers().adapted(names) == std::vector<std::string>{"patches", "head"});
}

TEST_CASE("A procedure has nothing to do with modules that are trained whole") {
  Layers layers;
  graft::TorchGenerator generator(1);
  const auto& set = layers.model.add("default",
                                     {{"peft_type", "DYLORA"},
                                      {"target_modules", graft::ConfigValue::List{"layer", "head"}},
                                      {"modules_to_save", graft::ConfigValue::List{"head"}}},
                                     generator);
  CHECK(set.parts().size() == 2);
  CHECK(WatchedDyLoRA::paths == std::vector<std::string>{"layer"});
  set.procedure()->before_step({});
}

TEST_CASE("Files of PEFT's tuners have the fields of its classes, with others where they are set") {
  const auto& methods = graft::all_methods<double>();
  const auto fields = peft_fields();
  for (const auto& entry : methods.entries()) {
    const std::string type(entry.info.peft_type);
    INFO(type);
    REQUIRE(fields.contains(type) == entry.info.in_peft);
    if (!entry.info.in_peft) continue;
    for (const auto& [field, value] : entry.written) {
      INFO(field);
      CHECK((field == "peft_type" || fields.at(type).contains(field)));
      CHECK(entry.defaults.at(field) == value);
    }
  }
  Layers layers;
  graft::BasicAdapterModel<double> model(layers.table, methods);
  graft::TorchGenerator generator(1);
  const auto written = [&](graft::ConfigValue::Map config) {
    config["peft_type"] = "VERA";
    config["target_modules"] = graft::ConfigValue::List{graft::ConfigValue("layer")};
    const auto result = model.add("default", config, generator).config();
    model.remove("default");
    return result;
  };
  CHECK_FALSE(written(methods.at("VERA").defaults).contains("exclude_modules"));
  CHECK(written({{"exclude_modules", "head"}}).at("exclude_modules") == graft::ConfigValue("head"));
  CHECK(written({{"of_a_later_peft", 3}}).at("of_a_later_peft") == graft::ConfigValue(3));
}

TEST_CASE("OSF leaves out the modules that it excludes") {
  Layers layers;
  graft::BasicAdapterModel<double> model(layers.table, graft::all_methods<double>());
  graft::OSFConfig config;
  config.target_modules = {"layer", "head"};
  config.select.exclude_modules = {"head"};
  const auto& set = model.add("default", config);
  REQUIRE(set.parts().size() == 1);
  CHECK(set.parts()[0].path == "layer");
}

TEST_CASE("AdaLoRA keeps an alpha_pattern and makes no use of it, as PEFT") {
  Layers layers;
  graft::BasicAdapterModel<double> model(layers.table, graft::all_methods<double>());
  const auto x = checks::random_tensor<double>({3, 4}, 5);
  const auto output = [&](const graft::ConfigValue::Map& pattern) {
    graft::TorchGenerator generator(1);
    const auto& set =
        model.add("default",
                  {{"peft_type", "ADALORA"},
                   {"init_lora_weights", false},
                   {"alpha_pattern", pattern},
                   {"target_modules", graft::ConfigValue::List{graft::ConfigValue("layer")}}},
                  generator);
    CHECK(set.config().at("alpha_pattern") == graft::ConfigValue(pattern));
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    const auto y = layers.layer(tape.constant(x)).value().clone();
    model.remove("default");
    return y;
  };
  CHECK(checks::relative_error(output({{"layer", 100}}), output({})) == 0);
}
