# The registry of methods for our own programs: one translation unit a family and precision instead of one
# that holds everything. graft_methods_float and graft_methods_double define all_methods<T>() of
# graft/compose/methods.hpp, BasicAdapterModel<T> and what graft/models/load.hpp opens; a family is a folder of
# include/graft/adapters with a methods.hpp.
file(GLOB _families CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/include/graft/adapters/*/methods.hpp")
foreach(scalar IN ITEMS float double)
  set(_sources "")
  set(_declared "")
  set(_added "")
  foreach(header IN LISTS _families)
    get_filename_component(folder "${header}" DIRECTORY)
    get_filename_component(family "${folder}" NAME)
    file(STRINGS "${header}" _alias REGEX "^using [A-Za-z0-9]+Methods *=")
    string(REGEX REPLACE "^using ([A-Za-z0-9]+) *=.*" "\\1" _alias "${_alias}")
    set(_source "${PROJECT_BINARY_DIR}/methods/${family}_${scalar}.cpp")
    file(CONFIGURE OUTPUT "${_source}" @ONLY CONTENT [[
#include "graft/adapters/@family@/methods.hpp"

#include "graft/compose/method_registry.hpp"

namespace graft::detail {
void add_@family@(MethodRegistry<@scalar@>& registry) { registry.add(@_alias@<@scalar@>{}); }
}  // namespace graft::detail
]])
    list(APPEND _sources "${_source}")
    string(APPEND _declared "void add_${family}(MethodRegistry<${scalar}>& registry);\n")
    string(APPEND _added "    detail::add_${family}(r);\n")
  endforeach()
  if(TARGET graft_text)
    set(_loaders "")
    if(scalar STREQUAL "float") # Nothing of ours opens a file in double precision.
      set(_loaders [[
template std::unique_ptr<BasicModel<float>> load<float>(const std::filesystem::path&);
template std::unique_ptr<BasicBert<float>> load_encoder<float>(const std::filesystem::path&, const HeadConfig&,
                                                              std::vector<std::string>*);
template std::unique_ptr<BasicT5<float>> load_t5_classifier<float>(const std::filesystem::path&, const HeadConfig&,
                                                                  std::vector<std::string>*);
template std::unique_ptr<BasicCausalModel<float>> load_decoder_classifier<float>(const std::filesystem::path&,
                                                                                const HeadConfig&,
                                                                                std::vector<std::string>*);
template std::unique_ptr<BasicVit<float>> load_image_classifier<float>(const std::filesystem::path&, const HeadConfig&,
                                                                      std::vector<std::string>*);
]])
    endif()
    set(_source "${PROJECT_BINARY_DIR}/methods/models_${scalar}.cpp")
    file(CONFIGURE OUTPUT "${_source}" @ONLY CONTENT [[
#include "graft/models/load.hpp"

namespace graft::models {
template class BasicCausalModel<@scalar@>;
template class BasicLlama<@scalar@>;
template class BasicVit<@scalar@>;
@_loaders@}  // namespace graft::models
]])
    list(APPEND _sources "${_source}")
  endif()
  set(_source "${PROJECT_BINARY_DIR}/methods/all_${scalar}.cpp")
  file(CONFIGURE OUTPUT "${_source}" @ONLY CONTENT [[
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/full_method.hpp"
#include "graft/compose/methods.hpp"

namespace graft {
template void build_parts(const ConfiguredMethod<@scalar@>&, AdapterSet<@scalar@>&, BasicSiteTable<@scalar@>&,
                          InitContext<@scalar@>&);
template class BasicAdapterModel<@scalar@>;

namespace detail {
@_declared@}  // namespace detail

template <>
const MethodRegistry<@scalar@>& all_methods<@scalar@>() {
  static const MethodRegistry<@scalar@> registry = [] {
    MethodRegistry<@scalar@> r;
@_added@    r.add(FullMethods<@scalar@>{});
    return r;
  }();
  return registry;
}
}  // namespace graft
]])
  add_library(graft_methods_${scalar} STATIC EXCLUDE_FROM_ALL ${_sources} "${_source}")
  target_link_libraries(graft_methods_${scalar} PUBLIC graft_developer)
  target_compile_definitions(graft_methods_${scalar} PUBLIC GRAFT_METHODS_COMPILED)
  target_precompile_headers(graft_methods_${scalar} PRIVATE
                            "${PROJECT_SOURCE_DIR}/include/graft/compose/method_registry.hpp")
endforeach()
# Double precision serves tests only.
target_compile_options(graft_methods_double PRIVATE ${GRAFT_TEST_OPTIMIZE})
