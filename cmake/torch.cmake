# Finds libtorch: CMAKE_PREFIX_PATH first, else the torch of the repository's virtual environment, else
# that of python3.
find_package(Torch QUIET)
if(NOT Torch_FOUND)
  foreach(python ${PROJECT_SOURCE_DIR}/.venv/bin/python python3)
    execute_process(COMMAND ${python} -c "import torch.utils; print(torch.utils.cmake_prefix_path)"
                    OUTPUT_VARIABLE torch_prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET
                    RESULT_VARIABLE result)
    if(result EQUAL 0)
      list(APPEND CMAKE_PREFIX_PATH ${torch_prefix})
      break()
    endif()
  endforeach()
  find_package(Torch REQUIRED)
endif()
# Torch's headers are not ours to warn about.
get_target_property(torch_includes torch INTERFACE_INCLUDE_DIRECTORIES)
if(torch_includes)
  set_target_properties(torch PROPERTIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${torch_includes}")
endif()
# The OpenMP runtime that comes with torch, so that a process has one.
cmake_path(GET TORCH_LIBRARY PARENT_PATH torch_library_folder)
if(EXISTS ${torch_library_folder}/libgomp.so.1)
  set(OpenMP_gomp_LIBRARY ${torch_library_folder}/libgomp.so.1 CACHE FILEPATH "torch's libgomp")
endif()
