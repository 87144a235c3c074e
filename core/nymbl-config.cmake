# SPDX-License-Identifier: MIT
# find_package(nymbl) defines the targets nymbl::nymbl (shared) and
# nymbl::nymbl_static.
include(CMakeFindDependencyMacro)
find_dependency(CURL 7.87)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/nymbl-targets.cmake)
