# SPDX-License-Identifier: Apache-2.0
# What a person types. `make help` lists it.

BUILD := build/release
JOBS ?= 2
PREFIX ?= /usr/local

.PHONY: help dependencies dev-dependencies configure build demo demo-real test test-cpp test-python check format lint sanitize \
        emulate soak fuzz bench peers peers-install acceptance install python clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

dependencies:
	@scripts/install_dependencies.sh

dev-dependencies:
	@scripts/install_dependencies.sh --dev

configure: dependencies
	@tests=OFF; if [ -f .venv/installed-dev ]; then tests=ON; fi; mkdir -p build; \
	cmake --preset release -DMEMLAYERS_TESTS=$$tests > build/configure.log 2>&1 || { cat build/configure.log; exit 1; }

build: configure  ## the library and the command, in build/release
	@cmake --build $(BUILD) -j $(JOBS) --target memlayers_cli

demo: build  ## train a memory model and its dense twin on real facts, side by side, and ask them
	@scripts/demo.sh

demo-real: build  ## give a pretrained model a memory, teach it 20 facts, ask it, take them back: 20 minutes at most
	@scripts/demo_real.sh

test: dev-dependencies configure test-cpp test-python  ## everything, C++ and Python

test-cpp:
	@cmake --build $(BUILD) -j $(JOBS)
	@ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

test-python:  # real tokenizers are tested as far as they can be had
	@.venv/bin/python scripts/fetch_tokenizers.py > /dev/null || true
	@PYTHONPATH=python MEMLAYERS_LIBRARY=$(abspath $(BUILD)/libmemlayers.so) \
	  .venv/bin/python -m pytest -q tests/python

check: dev-dependencies lint sanitize  ## format, clang-tidy, sanitizers, instruction sets, README
	@scripts/check_readme.sh

lint:  ## clang-format, and clang-tidy on what changed since it held (FULL=1: on all)
	@scripts/lint.sh

format:  ## apply clang-format
	@git ls-files '*.cpp' '*.h' '*.inl' | xargs clang-format-19 -i

sanitize:  ## the torch-free parts and the operators under address and undefined behaviour sanitizers, the former under thread
	@for preset in asan tsan; do \
	  cmake --preset $$preset > /dev/null && cmake --build --preset $$preset -j $(JOBS) && \
	  ctest --preset $$preset -j $(JOBS) || exit 1; \
	done

emulate: dev-dependencies  ## the kernels' tests on an emulated CPU with AVX-512 (Debian; some minutes)
	@JOBS=$(JOBS) scripts/emulate_avx512.sh

soak: dev-dependencies configure fuzz  ## fuzz targets, and the long variants of tests that kill and cut: minutes to hours
	@cmake --build $(BUILD) -j $(JOBS)
	@MEMLAYERS_SOAK=1 ctest --test-dir $(BUILD) -R 'pool_store|parallel_kill|grow_kill|grow_folder' --output-on-failure --timeout 36000 -j $(JOBS)
	@MEMLAYERS_SOAK=1 PYTHONPATH=python MEMLAYERS_LIBRARY=$(abspath $(BUILD)/libmemlayers.so) \
	  .venv/bin/python -m pytest -q -s tests/python/test_serve_kill.py tests/python/test_serve_fuzz.py

fuzz: dev-dependencies  ## the readers of files under libFuzzer, a minute each (FUZZ_SECONDS)
	@cmake --preset fuzz > /dev/null && cmake --build --preset fuzz -j $(JOBS)
	@scripts/fuzz.sh build/fuzz

bench: dev-dependencies  ## Google Benchmark programs, in build/bench
	@cmake --preset release -B build/bench -DMEMLAYERS_BENCHMARKS=ON -DMEMLAYERS_TESTS=OFF > /dev/null
	@cmake --build build/bench -j $(JOBS)
	@for program in build/bench/*_bench; do $$program || exit 1; done

peers-install: dependencies  ## the packages that bench/peers compares with, into .venv
	@.venv/bin/python -m pip install -q --disable-pip-version-check -r bench/peers/requirements.txt

peers: build peers-install  ## a layer's training step beside PyTorch and packages from PyPI: build/peers, docs/step_time*.svg
	@.venv/bin/python bench/peers/run.py --plot docs/step_time.svg
	@.venv/bin/python bench/peers/run.py --dim 256 --k-dim 128 --out build/peers-256 --plot docs/step_time_256.svg

acceptance: build  ## every line of the table in docs/performance.md; nothing else should run
	@.venv/bin/python bench/acceptance.py

install: build  ## into PREFIX (default /usr/local)
	@cmake --install $(BUILD) --prefix $(PREFIX)

python: build  ## the Python package, into .venv
	@MEMLAYERS_LIBRARY=$(abspath $(BUILD)/libmemlayers.so) .venv/bin/python -m pip install -q ./python

clean:  ## remove what was built
	@rm -rf build
