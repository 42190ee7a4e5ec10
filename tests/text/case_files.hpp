#pragma once

#include <filesystem>

/// Files of tokenizers, and strings with their ids.
inline const std::filesystem::path kCases =
    std::filesystem::path(GRAFT_SOURCE_DIR) / "tests" / "cases" / "tokenizer";
