# The targets that users link. Each has a plain name here, an alias graft::NAME, and is exported as that.
#   graft::graft    headers: Eigen and threads
#   graft::io       + model and adapter files (nlohmann_json)
#   graft::text     + tokenizers (PCRE2, ICU)
#   graft::xtensor  + xtensor, for graft/interop/xtensor.hpp
#   graft::kernels  + the SIMD kernels for all instruction sets, the tape's operations and what else is the same in every
#                     user, compiled once
#   graft::files    + what reads and writes files, and tokenizers, compiled once
set(GRAFT_TARGETS graft_graft)
add_library(graft_graft INTERFACE)
target_compile_features(graft_graft INTERFACE cxx_std_20)
target_include_directories(
  graft_graft INTERFACE "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>"
                        "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
target_link_libraries(graft_graft INTERFACE Eigen3::Eigen Threads::Threads)

if(TARGET nlohmann_json::nlohmann_json)
  add_library(graft_io INTERFACE)
  target_link_libraries(graft_io INTERFACE graft_graft nlohmann_json::nlohmann_json)
  list(APPEND GRAFT_TARGETS graft_io)
endif()
if(TARGET graft_io AND TARGET PCRE2::8BIT AND TARGET ICU::uc)
  add_library(graft_text INTERFACE)
  target_link_libraries(graft_text INTERFACE graft_io PCRE2::8BIT ICU::uc)
  list(APPEND GRAFT_TARGETS graft_text)
endif()

if(TARGET xtensor)
  add_library(graft_xtensor INTERFACE)
  target_link_libraries(graft_xtensor INTERFACE graft_graft xtensor)
  list(APPEND GRAFT_TARGETS graft_xtensor)
endif()

if(GRAFT_BUILD_KERNELS AND EXISTS "${PROJECT_SOURCE_DIR}/cmake/kernels.cpp")
  add_library(
    graft_kernels STATIC "${PROJECT_SOURCE_DIR}/cmake/kernels.cpp" "${PROJECT_SOURCE_DIR}/cmake/ops.cpp"
                         "${PROJECT_SOURCE_DIR}/cmake/adapters.cpp")
  target_compile_definitions(graft_kernels INTERFACE GRAFT_KERNELS_COMPILED)
  target_link_libraries(graft_kernels PUBLIC graft_graft)
  set_target_properties(graft_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)
  # Unoptimised register tiles take hours in tests: kernels are optimised in every configuration.
  target_compile_options(graft_kernels PRIVATE $<IF:$<CONFIG:Release,RelWithDebInfo>,-O3,-O2>)
  list(APPEND GRAFT_TARGETS graft_kernels)
endif()

if(TARGET graft_kernels AND TARGET graft_io)
  add_library(graft_files STATIC "${PROJECT_SOURCE_DIR}/cmake/files.cpp")
  target_compile_definitions(graft_files INTERFACE GRAFT_FILES_COMPILED)
  target_link_libraries(graft_files PUBLIC graft_kernels graft_io)
  if(TARGET graft_text)
    target_sources(graft_files PRIVATE "${PROJECT_SOURCE_DIR}/cmake/text.cpp")
    target_link_libraries(graft_files PUBLIC graft_text)
  endif()
  set_target_properties(graft_files PROPERTIES POSITION_INDEPENDENT_CODE ON)
  list(APPEND GRAFT_TARGETS graft_files)
endif()

foreach(target IN LISTS GRAFT_TARGETS)
  string(REPLACE graft_ "" name ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  add_library(graft::${name} ALIAS ${target})
endforeach()
