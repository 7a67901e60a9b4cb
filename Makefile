# The only entry for people who work on dno. `make` lists what there is.

GO ?= go
# Pinned: the tools are no dependencies of the module.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help test race check fmt vet lint cross purego arm64 faults fuzz bench proto kernels embedded-prompts model embedded-model pin-model

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

test: ## the tests
	$(GO) test ./...

race: ## the race detector on the concurrent packages
	$(GO) test -race -run 'Parallel|Threads' ./core/engine/...
	$(GO) test -race ./core/host ./core/loop ./core/rundir ./core/script ./core/serve ./core/engine/generate \
	  ./plugins/internal/client ./plugins/internal/openai ./plugins/oracle/http ./plugins/oracle/judge ./sdk/...

check: fmt vet lint cross ## everything but the tests

fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt-clean:"; echo "$$out"; exit 1; }

vet:
	$(GO) vet ./...

lint:
	$(GO) run $(STATICCHECK) ./...

cross: ## other systems and the pure Go kernels compile
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) build ./...
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 $(GO) build ./...
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 $(GO) build ./...
	CGO_ENABLED=0 GOOS=linux GOARCH=riscv64 $(GO) build ./core/engine/kernel
	CGO_ENABLED=0 $(GO) build -tags purego ./...

purego: ## the engine's tests on the pure Go kernels
	$(GO) test -tags purego ./core/engine/...

# Emulation is slow: the kernels' tests and, of the rest of the engine, the golden values. Some 90 s of CPU time.
ARM64 = CGO_ENABLED=0 GOOS=linux GOARCH=arm64 $(GO)
arm64: ## the arm64 kernels, under emulation (needs qemu-aarch64: apt-get install qemu-user)
	$(GO) -C core/engine/kernel/_neon test ./...
	$(ARM64) vet ./core/engine/kernel
	$(ARM64) test -timeout 30m -exec qemu-aarch64 ./core/engine/kernel
	$(ARM64) test -timeout 30m -exec qemu-aarch64 -run Golden ./core/engine/graph ./core/engine/generate ./core/engine

faults: ## a disk that fails at each call in turn, in each way
	$(GO) vet -tags failpoint ./core/fsx ./core/loop ./cmd/dno
	$(GO) test -count=1 -timeout 60m -tags failpoint -run TestF1F2F3 ./core/loop ./cmd/dno

FUZZTIME ?= 60s
fuzz: ## every fuzz target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; done

bench: ## the engine's benchmarks
	$(GO) test -run '^$$' -bench . ./core/engine/...

kernels: ## write the assembly anew
	$(GO) generate ./core/engine/kernel

proto: ## write the wire contract's Go anew (needs protoc, protoc-gen-go and protoc-gen-go-grpc)
	protoc -I sdk/pluginpb --go_out=sdk/pluginpb --go_opt=paths=source_relative \
	  --go-grpc_out=sdk/pluginpb --go-grpc_opt=paths=source_relative plugin.proto

embedded-prompts: ## write the embedded prompts anew
	$(GO) run ./scripts/geometry/generate -files scripts/geometry/files

# The embedded model, or one like it: make model OUT=dir SEED=1 (another draw of corpus and weights),
# make model OUT=dir SLIPS=0 (the same without slips).
SEED ?= 0
SLIPS ?= $(shell sed -n 's/^const Slips = //p' scripts/geometry/geometry.go)
model: ## train a model like the embedded one: OUT=dir [SEED=n] [SLIPS=p]
	@test -n "$(OUT)" || { echo "name a folder: make model OUT=dir"; exit 2; }
	rm -rf $(OUT).tmp && mkdir -p $(OUT).tmp
	$(GO) run ./scripts/geometry/generate -model $(OUT).tmp/start -corpus $(OUT).tmp/corpus.jsonl -seed $(SEED) -slips $(SLIPS)
	$(GO) run ./cmd/dno sft --model $(OUT).tmp/start --data $(OUT).tmp/corpus.jsonl --out $(OUT) \
	  --steps 4500 --batch 64 --lr 3e-3 --warmup 50 --seed $(SEED) --precision float32 --bf16
	rm -rf $(OUT).tmp

embedded-model: ## train the embedded model anew (some ten minutes on 2 cores)
	$(MAKE) model OUT=scripts/geometry/files/model SEED=0
	rm scripts/geometry/files/model/manifest.json # the hash is pinned
	$(MAKE) pin-model MODEL=scripts/geometry/files/model

# The same commands give other weights with another instruction set: each has its hash. In float32 the levels above
# avx512 are avx512.
pin-model: ## note the hash of MODEL for the instruction set in use (DNO_KERNEL forces one)
	level=$$($(GO) run ./cmd/dno version --json | sed -n 's/.*"kernel": "\([a-z0-9]*\)".*/\1/p' | sed 's/^\(avx512vnni\|bf16\|vnni\)$$/avx512/'); \
	sum=$$(sha256sum $(MODEL)/model.safetensors | cut -d' ' -f1); pins=scripts/geometry/model.sha256; \
	{ grep -v "^$$level " $$pins; echo "$$level $$sum"; } | sort > $$pins.new && mv $$pins.new $$pins
