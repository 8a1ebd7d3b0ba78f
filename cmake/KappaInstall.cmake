# What `cmake --install` puts where:
#
#   bin/kappa                       the program
#   lib/libkappa.a                  the library
#   include/kappa/                  its headers
#   lib/cmake/kappa/                find_package(kappa), with the target kappa::kappa
#   lib/pkgconfig/kappa.pc          pkg-config kappa
#   share/kappa/configs/            the presets
#
# Nothing that is installed names the build or the prefix, so that the whole may be moved.
include(CMakePackageConfigHelpers)
set(KAPPA_PACKAGE_DIRECTORY ${CMAKE_INSTALL_LIBDIR}/cmake/kappa)

install(TARGETS kappa EXPORT kappa-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/kappa DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
if(TARGET kappa_program)
  install(TARGETS kappa_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/kappa/configs OPTIONAL)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

# The CMake package.
install(EXPORT kappa-targets NAMESPACE kappa:: DESTINATION ${KAPPA_PACKAGE_DIRECTORY})
configure_package_config_file(cmake/kappa-config.cmake.in kappa-config.cmake
  INSTALL_DESTINATION ${KAPPA_PACKAGE_DIRECTORY}
  NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(kappa-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  ${CMAKE_CURRENT_BINARY_DIR}/kappa-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/kappa-config-version.cmake
  cmake/KappaDependencies.cmake
  DESTINATION ${KAPPA_PACKAGE_DIRECTORY})

# The pkg-config file.  Its way up to the prefix, so that it may move.
file(RELATIVE_PATH KAPPA_PKGCONFIG_TO_PREFIX
  /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" KAPPA_PKGCONFIG_TO_PREFIX "${KAPPA_PKGCONFIG_TO_PREFIX}")
configure_file(cmake/kappa.pc.in kappa.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/kappa.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
