# A thin front: CMake builds, scripts/ do the rest.  `make help` lists the targets.
#
# Variables: PREFIX and DESTDIR for install; FUZZ_RUNS, the cases of each fuzz target; CC, the compiler of
# a build folder that does not exist yet; FAMILY, the family that the demo trains beside its flat twin;
# BENCH_GPU, the options of bench/gpu.
PREFIX ?= /usr/local
FUZZ_RUNS ?= 20000

# CMake chooses the compiler unless the user named one.
ifneq ($(origin CC),default)
export CC
endif

.PHONY: all help demo test test-gpu test-peers bench bench-gpu install debug asan fuzz format tidy clean

all:
	@scripts/install-dependencies build
	@scripts/build release product

help:
	@echo 'make            build the program and the library into build/release'
	@echo 'make demo       train three small models, compare and sample them, in some minutes;'
	@echo '                FAMILY=ngpt (or another): that family beside its flat twin'
	@echo 'make test       build and run all tests: release, sanitizers, fuzzing'
	@echo 'make bench      measure the speed of this machine'
	@echo 'make test-gpu   run the tests that need an NVIDIA GPU'
	@echo 'make test-peers compare with transformers, tokenizers, tiktoken, lm-evaluation-harness (PyPI)'
	@echo 'make bench-gpu  measure this GPU, beside PyTorch where it is installed; writes docs/performance.md'
	@echo 'make install    install under PREFIX ($(PREFIX)), below DESTDIR if set'
	@echo 'make debug      build everything without optimization into build/debug'
	@echo 'make asan       build everything under the sanitizers into build/asan'
	@echo 'make fuzz       run FUZZ_RUNS ($(FUZZ_RUNS)) cases through each fuzz target'
	@echo 'make format     format the sources (clang-format 14)'
	@echo 'make tidy       examine the sources (clang-tidy)'
	@echo 'make clean      remove build/'

demo:
	@scripts/install-dependencies build demo
	@scripts/build release product
	@FAMILY='$(FAMILY)' scripts/demo

test:
	@scripts/install-dependencies build test
	@KAPPA_FUZZ_RUNS=$(FUZZ_RUNS) scripts/test

bench:
	@scripts/install-dependencies build bench
	@scripts/build release
	@bench/run

test-gpu:
	@scripts/install-dependencies build
	@scripts/test-gpu

test-peers:
	@scripts/install-dependencies build
	@scripts/test-peers

bench-gpu:
	@scripts/install-dependencies build
	@scripts/build release product
	@bench/gpu $(BENCH_GPU)

install: all
	@DESTDIR='$(DESTDIR)' cmake --install build/release --prefix '$(PREFIX)'

debug asan:
	@scripts/install-dependencies build
	@scripts/build $@

fuzz:
	@scripts/install-dependencies build test
	@KAPPA_FUZZ_RUNS=$(FUZZ_RUNS) scripts/test fuzz

format:
	@scripts/format

tidy:
	@scripts/install-dependencies build test
	@scripts/tidy

clean:
	rm -rf build
