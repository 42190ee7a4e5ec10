#pragma once

/// How a function on files or text is declared: inline where it comes with its header, plain where it
/// comes from a library. A program that links such a library defines GRAFT_FILES_COMPILED; the
/// library's own translation units, GRAFT_FILES_IMPLEMENTATION.
#if defined(GRAFT_FILES_COMPILED) || defined(GRAFT_FILES_IMPLEMENTATION)
#define GRAFT_IO
#else
#define GRAFT_IO inline
#endif
