# Install rules, package files, CPack. Everything installed is relocatable.
include(CMakePackageConfigHelpers)

install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/graft" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILES_MATCHING PATTERN "*.hpp" PATTERN "*.cuh")

set(_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/graft")
install(TARGETS ${GRAFT_TARGETS} EXPORT graft_targets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(EXPORT graft_targets NAMESPACE graft:: FILE graftTargets.cmake DESTINATION "${_package_dir}")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/graftConfig.cmake.in"
                              "${PROJECT_BINARY_DIR}/graftConfig.cmake"
                              INSTALL_DESTINATION "${_package_dir}")
# Before 1.0 a minor version may break users.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/graftConfigVersion.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/graftConfig.cmake"
              "${PROJECT_BINARY_DIR}/graftConfigVersion.cmake"
              "${PROJECT_SOURCE_DIR}/cmake/FindPCRE2.cmake"
        DESTINATION "${_package_dir}")

# pkg-config finds the prefix from the place of the file itself. graft is the headers, graft-NAME the target graft::NAME.
file(RELATIVE_PATH GRAFT_PC_TO_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
function(graft_pkg_config name description requires cflags libs)
  set(GRAFT_PC_NAME ${name})
  set(GRAFT_PC_DESCRIPTION "${description}")
  set(GRAFT_PC_REQUIRES "${requires}")
  set(GRAFT_PC_CFLAGS "${cflags}")
  set(GRAFT_PC_LIBS "${libs}")
  configure_file("${PROJECT_SOURCE_DIR}/cmake/graft.pc.in" "${PROJECT_BINARY_DIR}/${name}.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/${name}.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endfunction()
graft_pkg_config(graft "${PROJECT_DESCRIPTION}" "eigen3 >= 3.4" "-I\${includedir} -pthread" "-pthread")
set(_same "graft = ${PROJECT_VERSION}")
if(TARGET graft_io)
  graft_pkg_config(graft-io "graft: files of models and adapters" "${_same}, nlohmann_json >= 3.10" "" "")
endif()
if(TARGET graft_text)
  graft_pkg_config(graft-text "graft: tokenizers" "graft-io = ${PROJECT_VERSION}, libpcre2-8, icu-uc" "" "")
endif()
if(TARGET graft_xtensor)
  graft_pkg_config(graft-xtensor "graft: weights of xtensor" "${_same}, xtensor" "" "")
endif()
if(TARGET graft_kernels)
  graft_pkg_config(graft-kernels "graft: kernels and operations compiled once" "${_same}" "-DGRAFT_KERNELS_COMPILED"
                   "-L\${libdir} -lgraft_kernels")
endif()

if(TARGET graft_files)
  set(_needs "graft-kernels = ${PROJECT_VERSION}, graft-io = ${PROJECT_VERSION}")
  if(TARGET graft_text)
    string(APPEND _needs ", graft-text = ${PROJECT_VERSION}")
  endif()
  graft_pkg_config(graft-files "graft: files and tokenizers compiled once" "${_needs}" "-DGRAFT_FILES_COMPILED"
                   "-L\${libdir} -lgraft_files")
endif()

if(TARGET graft)
  install(TARGETS graft RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")

if(PROJECT_IS_TOP_LEVEL)
  set(CPACK_GENERATOR DEB)
  set(CPACK_PACKAGE_NAME libgraft-dev)
  set(CPACK_PACKAGE_VENDOR "graft")
  set(CPACK_PACKAGE_CONTACT "the graft authors <graft@localhost>")
  set(CPACK_RESOURCE_FILE_LICENSE "${PROJECT_SOURCE_DIR}/LICENSE")
  set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
  set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
  set(CPACK_DEBIAN_PACKAGE_DEPENDS "libeigen3-dev (>= 3.4)")
  set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "nlohmann-json3-dev, libpcre2-dev, libicu-dev")
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
  set(CPACK_SOURCE_GENERATOR TGZ)
  set(CPACK_SOURCE_PACKAGE_FILE_NAME "graft-${PROJECT_VERSION}")
  # These are regular expressions over whole paths.
  string(REGEX REPLACE "([][+.*()^$?|\\\\])" "\\\\\\1" _root "${PROJECT_SOURCE_DIR}")
  set(CPACK_SOURCE_IGNORE_FILES "^${_root}/\\\\.git" "^${_root}/build/" "^${_root}/\\\\.cache/")
  include(CPack)
endif()
