#pragma once

/// Version of the library, as numbers for the preprocessor. Everything is in the inline namespace
/// v<major>_<minor>, so that objects built with different versions do not mix their functions up;
/// forward declarations are in fwd.hpp.
#define GRAFT_VERSION_MAJOR 0
#define GRAFT_VERSION_MINOR 1
#define GRAFT_VERSION_PATCH 0
#define GRAFT_VERSION_STRING "0.1.0"
