# Filled by install rules: library, headers, CMake package, pkg-config file.
