# make demo     from one float start to float, int8 and int4 in as many steps: table, transcription, page
# make ablation five precisions x three seeds on the digits (else the embedded corpus): table, page, dashboard; stopped, it goes on
# make evidence all runs of the README's tables: says what is left and how long it takes, goes on where it stopped, publishes
# make test     all tests
# make kernels  compiles the optional kernels; says why when it cannot
# make gpu      on a machine with a GPU: correctness, tests, times, a short training, in ten minutes; OUT=DIR keeps its logs there
# make trace    without a GPU: what a step of training would launch on one, compiled, counted, its time by a model
# make sanitize the C++ kernels with checks of memory and arithmetic (AddressSanitizer, UBSan), and their tests; minutes
# make wheel    dist/nibble_asr-*.whl with the compiled kernels inside, for machines without a compiler
# make check    ruff, format, types
# make docs     docs/ as a site, in runs/site
# make results  RESULTS.md from results/*.jsonl
# make clean    removes .venv, runs and generated data

PYTHON ?= $(shell command -v python3.12 >/dev/null 2>&1 && python3.12 -V >/dev/null 2>&1 && echo python3.12 || echo python3)
BIN := .venv/bin
ABLATION := $(if $(wildcard data/digits),digits,demo)

.PHONY: demo ablation evidence test kernels gpu trace sanitize wheel check docs results clean setup
setup: kernels

# pip's own progress shows; about five gigabytes the first time, since torch brings its CUDA libraries.
.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f"Python {v[0]}.{v[1]} found; Nibble needs 3.11 or 3.12: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e ".[embedded,export,bench,media,hugging_face,sweep,tensorboard,dashboard,foundation,docs,test,dev]"
	touch $@

demo: kernels
	$(BIN)/python train.py experiment=demo_start hydra.run.dir=runs/demo_start resume=true
	$(BIN)/python train.py -m experiment=demo quant=float,int8,int4 resume=true
	$(BIN)/python -m nibble.commands.demo
	$(BIN)/python -m nibble.report runs/demo part=test-commands

ablation: kernels
	@test $(ABLATION) = digits || echo "data/digits is not there, so this is the embedded corpus (experiment=demo); for the table of RESULTS.md, make data/digits first: python train.py experiment=digits data.fsdd_dir=DIR"
	$(BIN)/python train.py -m quant=float,int8,int4,int4a4,int2 seed=1,2,3 experiment=$(ABLATION) resume=true
	$(BIN)/python -m nibble.report runs/$(ABLATION)
	$(BIN)/python -m nibble.dashboard output=runs/$(ABLATION)/dashboard.json

evidence: kernels
	$(BIN)/python -m nibble.commands.evidence

test: kernels
	$(BIN)/python -m pytest -n 2 --dist loadfile

kernels: .venv/ready
	$(BIN)/python -m nibble.kernels.build

# What transcribes, exports and serves; training needs the checkout's conf/ and train.py.
wheel: .venv/ready
	$(BIN)/python -m nibble.kernels.build cpu require=true
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

# A copy of the sources, so that the library in use stays as it is. CPython and torch free little when they end: no leaks.
SANITIZED := $(CURDIR)/runs/sanitized
sanitize: .venv/ready
	rm -rf $(SANITIZED)
	mkdir -p $(dir $(SANITIZED))
	cp -r src $(SANITIZED)
	find $(SANITIZED) -name '*.so' -delete
	PYTHONPATH=$(SANITIZED) CXXFLAGS='-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all' \
	    $(BIN)/python -c 'from nibble.kernels.cpu import build; print(build.build())'
	PYTHONPATH=$(SANITIZED) NIBBLE_KERNELS=cpu ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    LD_PRELOAD="$$($${CXX:-g++} -print-file-name=libasan.so) $$($${CXX:-g++} -print-file-name=libstdc++.so)" \
	    $(BIN)/python -m pytest -s -p no:cacheprovider $(addprefix tests/kernels/test_,refused_calls.py cpu_kernels.py linear_ops.py fused_ops.py)

gpu: .venv/ready
	$(BIN)/python -m nibble.bench.gpu out=$(or $(OUT),runs/gpu)

trace: .venv/ready
	$(BIN)/python tests/gpu_trace/run_trace.py --whole

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/mkdocs build

results: .venv/ready
	$(BIN)/python -m nibble.report

clean:
	rm -rf .venv runs data .mypy_cache .pytest_cache .ruff_cache .hypothesis
