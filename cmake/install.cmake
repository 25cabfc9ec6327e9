# find_package(memlayers) gives memlayers::memlayers.
include(CMakePackageConfigHelpers)
set_target_properties(memlayers memlayers_cli PROPERTIES
  INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${torch_library_folder}")
install(TARGETS memlayers memlayers_cli EXPORT memlayersTargets)
install(FILES ${sentencepiece_folder}/LICENSE RENAME LICENSE.sentencepiece
  DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)  # it is part of the library
install(DIRECTORY include/memlayers DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set(config_folder ${CMAKE_INSTALL_LIBDIR}/cmake/memlayers)
install(EXPORT memlayersTargets NAMESPACE memlayers:: DESTINATION ${config_folder})
configure_package_config_file(cmake/memlayersConfig.cmake.in memlayersConfig.cmake
  INSTALL_DESTINATION ${config_folder})
write_basic_package_version_file(memlayersConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/memlayersConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/memlayersConfigVersion.cmake DESTINATION ${config_folder})
