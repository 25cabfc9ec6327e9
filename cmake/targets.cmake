# How a row of cmake/sources.cmake becomes part of a target.

# Adds a table's files to a target. A group is compiled as one file where MEMLAYERS_UNITY says so.
function(memlayers_add_sources target table)
  set(rows ${${table}_sources})
  while(rows)
    list(POP_FRONT rows file group)
    target_sources(${target} PRIVATE ${PROJECT_SOURCE_DIR}/${file})
    if(group MATCHES "\\*$")
      set_source_files_properties(${PROJECT_SOURCE_DIR}/${file} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
      string(REPLACE "*" "" group "${group}")
    endif()
    if(MEMLAYERS_UNITY AND NOT group STREQUAL "-")
      set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
      set_source_files_properties(${PROJECT_SOURCE_DIR}/${file} PROPERTIES UNITY_GROUP ${table}_${group})
    endif()
  endwhile()
endfunction()

# A part that does not know torch: a static library memlayers_<name> of its table.
function(memlayers_part name)
  add_library(memlayers_${name} STATIC)
  memlayers_add_sources(memlayers_${name} ${name})
  target_include_directories(memlayers_${name} PUBLIC include src)
  target_compile_options(memlayers_${name} PRIVATE -Wconversion)
endfunction()
