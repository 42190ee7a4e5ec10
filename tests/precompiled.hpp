#pragma once

// Precompiled for all tests: what nearly every test reads. That each header includes what it needs
// is checked by cmake/check_headers.py.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/gradient_check.hpp"
#include "graft/layers/dense_linear.hpp"
