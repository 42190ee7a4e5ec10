# Flags and helpers for our own programs. Nothing here is exported or reaches users.
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(THREADS_PREFER_PTHREAD_FLAG ON)

find_program(GRAFT_CCACHE ccache)
mark_as_advanced(GRAFT_CCACHE)
if(GRAFT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # The sloppiness is what ccache asks for with precompiled headers.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${GRAFT_CCACHE})
endif()

find_package(benchmark QUIET)
find_package(CLI11 QUIET)

# graft_developer: what every program of ours is compiled with.
add_library(graft_developer INTERFACE)
target_link_libraries(graft_developer INTERFACE graft_graft)
target_compile_options(graft_developer INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
if(GRAFT_WARNINGS_AS_ERRORS)
  target_compile_options(graft_developer INTERFACE -Werror)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(graft_developer INTERFACE -fpch-preprocess)
endif()
if(GRAFT_SANITIZE)
  set(_graft_sanitize -fsanitize=${GRAFT_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  target_compile_options(graft_developer INTERFACE ${_graft_sanitize})
  target_link_options(graft_developer INTERFACE ${_graft_sanitize})
  if(TARGET graft_kernels)
    # clang takes much longer over checked tiles at -O2.
    target_compile_options(graft_kernels PRIVATE ${_graft_sanitize} -O1)
    set_source_files_properties("${PROJECT_SOURCE_DIR}/cmake/ops.cpp" "${PROJECT_SOURCE_DIR}/cmake/adapters.cpp"
                                PROPERTIES COMPILE_OPTIONS "${GRAFT_TEST_OPTIMIZE}")
  endif()
endif()
foreach(target IN ITEMS graft_kernels graft_io graft_text graft_files)
  if(TARGET ${target})
    target_link_libraries(graft_developer INTERFACE ${target})
  endif()
endforeach()
if(TARGET CLI11::CLI11)
  target_link_libraries(graft_developer INTERFACE CLI11::CLI11)
endif()
if(TARGET graft_xtensor)
  target_link_libraries(graft_developer INTERFACE graft_xtensor)
endif()
if(GRAFT_BARKEEP_DIR AND EXISTS "${GRAFT_BARKEEP_DIR}/barkeep/barkeep.h")
  target_include_directories(graft_developer SYSTEM INTERFACE "${GRAFT_BARKEEP_DIR}")
  target_compile_definitions(graft_developer INTERFACE GRAFT_HAVE_BARKEEP)
endif()

# graft_program(NAME SOURCE...): a target and a program bin/NAME. What adapts or opens models is linked with the methods
# and models that are compiled once.
function(graft_program name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE graft_developer)
  foreach(source IN LISTS ARGN)
    file(STRINGS ${source} _includes REGEX "^#include \"graft/(compose/(adapter_model|methods)|models/load)\\.hpp\"")
    if(_includes AND TARGET graft_methods_float)
      target_link_libraries(${name} PRIVATE graft_methods_float)
      break()
    endif()
  endforeach()
endfunction()

include(cmake/methods.cmake)
