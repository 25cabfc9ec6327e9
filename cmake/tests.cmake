# Tests: one executable a file, one ctest entry an executable; those of the operators once per instruction set, those of
# several processes once per number of them.
find_package(GTest REQUIRED)
set(torch_free_parts kernels io pool dist jinja text http api)

if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  add_test(NAME isa_symbols COMMAND ${PROJECT_SOURCE_DIR}/scripts/check_isa_symbols.sh
    $<TARGET_OBJECTS:memlayers_kernels>)
  if(CMAKE_BUILD_TYPE STREQUAL "Release" AND MEMLAYERS_TORCH)
    add_test(NAME prefetches COMMAND ${PROJECT_SOURCE_DIR}/scripts/check_prefetches.sh
      "$<TARGET_OBJECTS:memlayers>;$<TARGET_OBJECTS:memlayers_kernels>")
  endif()
endif()

# --- What they share ------------------------------------------------------------------------------

file(GLOB_RECURSE support CONFIGURE_DEPENDS tests/support/*.cpp)
list(FILTER support EXCLUDE REGEX precompiled)
add_library(memlayers_test_support STATIC ${support})
set_source_files_properties(tests/support/source_folder.cpp PROPERTIES
  COMPILE_DEFINITIONS MEMLAYERS_SOURCE_FOLDER="${PROJECT_SOURCE_DIR}")
# What it needs of ours comes from what is tested: the static parts, or the shared library.
target_include_directories(memlayers_test_support PUBLIC tests src include)
target_link_libraries(memlayers_test_support PUBLIC GTest::gmock GTest::gtest)

# Compiling is most of what a test of this size takes: without optimization, and with a header of
# their own, these take half as long.
set(test_options ${MEMLAYERS_TEST_OPTIMIZATION})
if(CMAKE_CXX_FLAGS MATCHES "sanitize=[a-z,]*undefined")
  # Half of what is compiled would be checks of pointers inside googletest and the standard library;
  # the address sanitizer sees a bad one, and what is tested keeps them.
  list(APPEND test_options -fno-sanitize=null,alignment,object-size,vptr)
endif()

# A precompiled header that tests reuse: memlayers_<name>.
function(memlayers_test_headers name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "LINK;HEADERS")
  add_library(memlayers_${name} OBJECT tests/support/precompiled.cpp)
  target_include_directories(memlayers_${name} PRIVATE tests src include)
  target_link_libraries(memlayers_${name} PRIVATE ${arg_LINK} GTest::gtest_main GTest::gmock)
  target_compile_options(memlayers_${name} PRIVATE ${test_options})
  target_precompile_headers(memlayers_${name} PRIVATE ${arg_HEADERS} <gmock/gmock.h> <gtest/gtest.h>)
endfunction()

memlayers_test_headers(plain_header LINK nlohmann_json::nlohmann_json HEADERS <nlohmann/json.hpp>)
if(MEMLAYERS_TORCH)
  memlayers_test_headers(test_header LINK memlayers HEADERS ${torch_headers})
endif()

# --- How they are run -----------------------------------------------------------------------------

# As root and as a user, with more processes than cores, and without a network.
function(memlayers_mpi_test name processes)
  if(CMAKE_CXX_FLAGS MATCHES "sanitize=thread")  # which does not know the locks inside MPI
    return()
  endif()
  add_test(NAME ${name}_${processes} COMMAND ${PROJECT_SOURCE_DIR}/scripts/mpirun_here.sh
    ${processes} $<TARGET_FILE:${name}>)
  set_tests_properties(${name}_${processes} PROPERTIES LABELS mpi PROCESSORS 2 TIMEOUT 120)
endfunction()

function(memlayers_run_test name part stem)
  if(stem MATCHES "_mpi_test$")  # alone, and by some processes of this machine
    target_sources(${name} PRIVATE tests/dist/mpi_main.cpp)
    add_test(NAME ${name}_1 COMMAND ${name})
    set(counts 2 3 4)
    if(stem STREQUAL "sharded_pool_mpi_test")
      list(APPEND counts 8)
    endif()
    foreach(processes IN LISTS counts)
      memlayers_mpi_test(${name} ${processes})
    endforeach()
  elseif(part STREQUAL "ops")
    target_sources(${name} PRIVATE tests/ops/isa_main.cpp)
    foreach(isa portable avx2 avx512 avx512vnni)
      add_test(NAME ${name}_${isa} COMMAND ${name})
      set_tests_properties(${name}_${isa} PROPERTIES LABELS ops SKIP_RETURN_CODE 77
        # Under the address sanitizer: torch and OpenMP keep what they allocate.
        ENVIRONMENT "MEMLAYERS_ISA=${isa};ASAN_OPTIONS=detect_leaks=0")
    endforeach()
  else()
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES LABELS ${part})
  endif()
  if(part STREQUAL "cli")  # these run the command
    add_dependencies(${name} memlayers_cli)
    if(stem MATCHES "^parallel_")  # whose processes wait for each other, and not for long
      set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
    endif()
  endif()
endfunction()

# --- The tests ------------------------------------------------------------------------------------

if(MEMLAYERS_TORCH)  # they need nothing of torch's headers
  foreach(plain ops/isa_main ops/missed_steps_test dist/mpi_main generate/text_cutter_test train/event_file_test
      train/processes_test train/schedule_test)
    set_source_files_properties(tests/${plain}.cpp PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
  endforeach()
endif()
file(GLOB_RECURSE test_sources CONFIGURE_DEPENDS tests/*_test.cpp)
foreach(source IN LISTS test_sources)
  cmake_path(GET source PARENT_PATH folder)
  cmake_path(GET folder FILENAME part)
  cmake_path(GET source STEM stem)
  set(name ${part}_${stem})
  if(part IN_LIST torch_free_parts)
    add_executable(${name} ${source})
    target_link_libraries(${name} PRIVATE memlayers_test_support memlayers_${part} memlayers_io
      nlohmann_json::nlohmann_json GTest::gtest_main)
    target_precompile_headers(${name} REUSE_FROM memlayers_plain_header)
  elseif(MEMLAYERS_TORCH AND (part STREQUAL "ops" OR NOT MEMLAYERS_ONLY_OPS))
    add_executable(${name} ${source})
    target_include_directories(${name} PRIVATE src tests)
    target_link_libraries(${name} PRIVATE memlayers_test_support memlayers
      nlohmann_json::nlohmann_json GTest::gtest_main)
    target_precompile_headers(${name} REUSE_FROM memlayers_test_header)
  else()
    continue()
  endif()
  target_compile_options(${name} PRIVATE ${test_options})
  memlayers_run_test(${name} ${part} ${stem})
endforeach()

# Asked by tests/python/test_json_schema.py.
add_executable(json_schema_walk tests/api/json_schema_walk.cpp)
target_include_directories(json_schema_walk PRIVATE tests)
target_link_libraries(json_schema_walk PRIVATE memlayers_api nlohmann_json::nlohmann_json)

if(MEMLAYERS_TORCH AND NOT MEMLAYERS_ONLY_OPS)  # another project, that only knows what is installed
  add_test(NAME package_find_package COMMAND ${PROJECT_SOURCE_DIR}/tests/package/run.sh
    ${CMAKE_BINARY_DIR} ${CMAKE_BINARY_DIR}/package-test)
  set_tests_properties(package_find_package PROPERTIES LABELS slow)
  file(GLOB examples CONFIGURE_DEPENDS examples/cpp/*.cpp)
  foreach(source IN LISTS examples)
    cmake_path(GET source STEM stem)
    add_executable(example_${stem} ${source})
    target_link_libraries(example_${stem} PRIVATE memlayers GTest::gmock)  # googletest: of the header
    target_precompile_headers(example_${stem} REUSE_FROM memlayers_test_header)
    target_compile_options(example_${stem} PRIVATE ${test_options})
  endforeach()
  add_test(NAME examples_cpp COMMAND ${PROJECT_SOURCE_DIR}/tests/examples/run.sh
    ${CMAKE_BINARY_DIR} ${CMAKE_BINARY_DIR} ${CMAKE_BINARY_DIR}/examples-test)
endif()
