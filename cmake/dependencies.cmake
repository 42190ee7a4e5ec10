# What graft uses from outside. Only Eigen and threads are required; a part whose package is missing is
# left out, and so are the programs and tests that need it.
find_package(Threads REQUIRED)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(nlohmann_json 3.10 QUIET)
find_package(PCRE2 QUIET)
find_package(ICU QUIET COMPONENTS uc)
if(GRAFT_WITH_XTENSOR)
  find_package(xtensor QUIET)
endif()
