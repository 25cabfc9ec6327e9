# Finds SentencePiece as a static library, so that none of its symbols meet torch's (scripts/install_dependencies.sh).
set(sentencepiece_folder ${PROJECT_SOURCE_DIR}/.venv/sentencepiece)
find_path(SENTENCEPIECE_INCLUDE sentencepiece_trainer.h HINTS ${sentencepiece_folder}/include)
find_library(SENTENCEPIECE_STATIC libsentencepiece.a HINTS ${sentencepiece_folder}/lib)
find_library(SENTENCEPIECE_TRAIN_STATIC libsentencepiece_train.a HINTS ${sentencepiece_folder}/lib)
if(NOT SENTENCEPIECE_INCLUDE OR NOT SENTENCEPIECE_STATIC OR NOT SENTENCEPIECE_TRAIN_STATIC)
  message(FATAL_ERROR "expected SentencePiece as a static library, found none in CMAKE_PREFIX_PATH or "
                      ".venv/sentencepiece: scripts/install_dependencies.sh builds it there")
endif()
