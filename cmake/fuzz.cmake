# Fuzz targets: one executable a file, for scripts/fuzz.sh.
add_library(memlayers_fuzz_support STATIC tests/support/memory_file_system.cpp
  tests/support/store_testing.cpp)
target_include_directories(memlayers_fuzz_support PUBLIC tests)
target_link_libraries(memlayers_fuzz_support PUBLIC memlayers_pool memlayers_text memlayers_jinja memlayers_api)
add_executable(make_fuzz_corpus tests/fuzz/make_corpus.cpp)
target_link_libraries(make_fuzz_corpus PRIVATE memlayers_fuzz_support)
add_custom_target(fuzz DEPENDS make_fuzz_corpus)  # and nothing that they do not need
file(GLOB fuzz_sources CONFIGURE_DEPENDS tests/fuzz/*_fuzz.cpp)
foreach(source IN LISTS fuzz_sources)
  cmake_path(GET source STEM name)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE memlayers_fuzz_support)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzz ${name})
endforeach()
