import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, cmake_layout
from conan.tools.files import copy, load

ROOT = os.path.join("..", "..")


class GraftConan(ConanFile):
    """conan create cmake/conan: packages the checkout that this recipe lies in."""

    name = "graft"
    license = "MIT"
    description = "Header-only C++20 library for parameter-efficient fine-tuning"
    topics = ("fine-tuning", "lora", "peft", "header-only")
    settings = "os", "compiler", "build_type", "arch"
    options = {"kernels": [True, False], "io": [True, False], "text": [True, False], "xtensor": [True, False]}
    default_options = {"kernels": False, "io": True, "text": False, "xtensor": False}
    generators = "CMakeToolchain", "CMakeDeps"

    def set_version(self):
        text = load(self, os.path.join(self.recipe_folder, ROOT, "include", "graft", "version.hpp"))
        self.version = re.search(r'VERSION_STRING "([^"]+)"', text).group(1)

    def export_sources(self):
        root = os.path.join(self.recipe_folder, ROOT)
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*"):
            copy(self, pattern, root, self.export_sources_folder)

    def requirements(self):
        self.requires("eigen/3.4.0", transitive_headers=True)
        if self.options.io or self.options.text:
            self.requires("nlohmann_json/3.11.2", transitive_headers=True)
        if self.options.text:
            self.requires("pcre2/10.42", transitive_headers=True)
            self.requires("icu/72.1", transitive_headers=True)
        if self.options.xtensor:
            self.requires("xtensor/0.24.7", transitive_headers=True)

    def validate(self):
        check_min_cppstd(self, 20)

    def package_id(self):
        if not self.info.options.kernels:
            self.info.clear()

    def layout(self):
        cmake_layout(self)

    def build(self):
        cmake = CMake(self)
        cmake.configure(variables={
            "GRAFT_BUILD_TESTS": "OFF",
            "GRAFT_BUILD_EXAMPLES": "OFF",
            "GRAFT_BUILD_BENCH": "OFF",
            "GRAFT_BUILD_KERNELS": "ON" if self.options.kernels else "OFF",
        })
        cmake.build()

    def package(self):
        CMake(self).install()

    def package_info(self):
        # The installed graftConfig.cmake is the one to use.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("lib", "cmake", "graft")]
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = ["lib"] if self.options.kernels else []
