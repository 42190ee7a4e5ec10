// Built with the precompiled header, for the other programs to share it.
