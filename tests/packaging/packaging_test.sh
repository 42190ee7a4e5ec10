#!/bin/sh
# Consumers of every kind: find_package from an installed and then moved prefix, pkg-config, add_subdirectory,
# FetchContent, the unpacked Debian package, the source archive.
set -eu
if [ ! -f "${GRAFT_BUILD_DIR:?}/CPackConfig.cmake" ]; then
  echo "skipped: this build has no install rules (GRAFT_INSTALL=OFF)"
  exit 77
fi
consumer=$GRAFT_SOURCE_DIR/tests/packaging/consumer
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

configure_build_run() { # NAME ARGUMENT...
  name=$1
  shift
  cmake -S "$consumer" -B "$name" -DCMAKE_BUILD_TYPE=Debug "$@" >"$name.log" 2>&1 &&
    cmake --build "$name" >>"$name.log" 2>&1 && "./$name/consumer" >>"$name.log" 2>&1 || {
    cat "$name.log"
    echo "failed: $name"
    exit 1
  }
  echo "ok: $name"
}

cmake --install "$GRAFT_BUILD_DIR" --prefix "$folder/first" >install.log
mkdir elsewhere && mv first elsewhere/prefix
prefix=$folder/elsewhere/prefix
if grep -rl -e "$folder/first" -e "$GRAFT_SOURCE_DIR" "$prefix/lib" --include='*.cmake' --include='*.pc'; then
  echo "failed: the installed files above hold absolute paths"
  exit 1
fi
configure_build_run find_package -DWAY=find_package -DCMAKE_PREFIX_PATH="$prefix"
if [ -n "$(find "$prefix" -name 'libgraft_kernels.a')" ]; then
  configure_build_run find_package_components -DWAY=find_package -DCMAKE_PREFIX_PATH="$prefix" \
    "-DCOMPONENTS=io;text;kernels;files"
  configure_build_run find_package_precompiled -DWAY=find_package -DCMAKE_PREFIX_PATH="$prefix" -DCOMPONENTS=kernels \
    -DPRECOMPILE=ON
fi
if grep -q graft::xtensor -r "$prefix/lib" --include=graftTargets.cmake; then
  configure_build_run find_package_xtensor -DWAY=find_package -DCMAKE_PREFIX_PATH="$prefix" -DCOMPONENTS=xtensor
fi
configure_build_run add_subdirectory -DWAY=add_subdirectory -DGRAFT_SOURCE="$GRAFT_SOURCE_DIR"
configure_build_run fetch_content -DWAY=fetch_content -DGRAFT_SOURCE="$GRAFT_SOURCE_DIR"

if command -v pkg-config >/dev/null 2>&1; then
  PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name graft.pc)")
  export PKG_CONFIG_PATH
  # shellcheck disable=SC2046 # words are meant to split
  "${CXX:-c++}" -std=c++20 "$consumer/main.cpp" $(pkg-config --cflags --libs graft) -o pkg_config_consumer
  ./pkg_config_consumer
  echo "ok: pkg-config $(pkg-config --modversion graft)"
  modules=$(find "$prefix" -name 'graft-*.pc' -exec basename {} .pc ';')
  if [ -n "$modules" ]; then
    # shellcheck disable=SC2046,SC2086 # words are meant to split
    "${CXX:-c++}" -std=c++20 "$consumer/main.cpp" $(pkg-config --cflags --libs $modules) -o pkg_config_modules
    ./pkg_config_modules
    # shellcheck disable=SC2086
    echo "ok: pkg-config" $modules
  fi
fi

if command -v dpkg-deb >/dev/null 2>&1; then
  cpack --config "$GRAFT_BUILD_DIR/CPackConfig.cmake" -B "$folder/packages" >cpack.log 2>&1 || {
    cat cpack.log
    exit 1
  }
  dpkg-deb -x packages/*.deb "$folder/debian"
  configure_build_run debian_package -DWAY=find_package -DCMAKE_PREFIX_PATH="$folder/debian/usr"
fi
cpack --config "$GRAFT_BUILD_DIR/CPackSourceConfig.cmake" -B "$folder/packages" >cpack.log 2>&1 || {
  cat cpack.log
  exit 1
}
mkdir source && tar -xzf packages/graft-*.tar.gz -C source --strip-components 1
configure_build_run source_archive -DWAY=add_subdirectory -DGRAFT_SOURCE="$folder/source"
