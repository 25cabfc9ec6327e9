# Compilations are remembered between builds and folders (~/.cache/ccache), where ccache is installed and no other
# launcher is named. Paths below the source folder count as relative, so that another clone finds them too.
find_program(MEMLAYERS_CCACHE ccache)
if(MEMLAYERS_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  foreach(language C CXX)
    set(CMAKE_${language}_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}
      CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_MAXSIZE=8G ${MEMLAYERS_CCACHE})
  endforeach()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-fpch-preprocess)  # without it ccache does not see which precompiled header is used
  endif()
endif()
