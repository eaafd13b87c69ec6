# The commands of this repository. `make` lists them.

SHELL := /bin/bash
CARGO ?= cargo
# Where cargo puts what it builds, also when it was told another place.
BIN = $(or $(CARGO_TARGET_DIR),target)/debug

# Pinned: a new version of a tool is a change of its own.
CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_DEB_VERSION := 3.8.0
CARGO_FUZZ_VERSION := 0.13.2
TOOLS = $(abspath $(or $(CARGO_TARGET_DIR),target))/tools
MDBOOK_VERSION := 0.4.52
# Where tests of the packages have theirs, and the hosts that these are installed on.
TESTED = $(abspath $(or $(CARGO_TARGET_DIR),target))/packages-test

.DEFAULT_GOAL := help
.PHONY: help install console build demo demo-down test test-kernel test-packages test-images named book lint openapi reference schemathesis fuzz packages reproducible images bench bench-dataplane soak tenants

help: ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

install: ## Install the Debian packages that are missing (as root); starts and enables no service
	@packaging/install-packages.sh

# What npm builds goes into the program. It is built again when a source is newer.
CONSOLE_SOURCES := $(shell find console/src console/scripts console/*.html console/*.json console/*.ts -type f -not -path '*/generated/*' 2>/dev/null) docs/openapi.json

console: console/dist/index.html.gz ## Build the web console, which becomes part of wicketgate

console/dist/index.html.gz: $(CONSOLE_SOURCES)
	cd console && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && npm run --silent build

build: console ## Build wicketgate and wicketgate-agent
	$(CARGO) build --locked --workspace --bins

demo: ## Show the product working on this machine (as root); KEEP=1 leaves it running
	@packaging/install-packages.sh demo
	@$(MAKE) --no-print-directory build
	@RUST_LOG=$${RUST_LOG:-warn} $(BIN)/wicketgate demo $(if $(KEEP),--keep)

demo-down: ## End a demo that was left running, and remove what it made
	@test -x $(BIN)/wicketgate || { echo "wicketgate is not built: run \`make build\`" >&2; exit 1; }
	@$(BIN)/wicketgate demo --down

# Every executable that a test starts is built with the tests, once.
test: install console ## Run every test (as root: they make network namespaces); also under a kernel with ESP, and of the packages
	cd console && npm run --silent unit
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  set -x; $(CARGO) nextest run --locked --workspace $(if $(CI),--profile ci); \
	else \
	  echo "cargo-nextest is not installed: cargo test runs the same tests"; \
	  set -x; $(CARGO) test --locked --workspace --no-fail-fast; \
	fi
	@$(MAKE) --no-print-directory test-kernel
	@$(MAKE) --no-print-directory test-packages

test-kernel: install console ## Run the end-to-end tests of ESP in the kernel, under Debian's kernel in qemu
	$(CARGO) test --locked --workspace --test it --test command_line --no-run
	set -e; export WICKETGATE_TEST_LIBRESWAN; \
	WICKETGATE_TEST_LIBRESWAN=$$(packaging/unpack.sh libreswan) || [ -z "$$CI" ]; \
	GUEST_FILES="$(abspath $(BIN))/wicketgate $(abspath $(BIN))/wicketgate-agent $$WICKETGATE_TEST_LIBRESWAN" \
	GUEST_ENV="WICKETGATE_TEST_ESP WICKETGATE_TEST_LIBRESWAN RUST_BACKTRACE" WICKETGATE_TEST_ESP=kernel \
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=$(abspath tests/kernel/run.sh) \
	  $(CARGO) test --locked --workspace --test it -- \
	  --include-ignored --test-threads 1 kernel_esp overlapping entry_point libreswan guard own_address

# The packages contain the executables of the tests, which are there already.
test-packages: install build cargo-deb ## Follow docs/QUICKSTART.md line by line on hosts with systemd, over real IPsec (as root)
	packaging/root.sh $(TESTED)/root.tar systemd systemd-sysv dbus charon-systemd
	PROFILE=dev STATIC=no OUT=$(TESTED)/packages CARGO_DEB=$(TOOLS)/bin/cargo-deb packaging/build-packages.sh
	WICKETGATE_TEST_PACKAGES=$(TESTED)/packages WICKETGATE_TEST_ROOT=$(TESTED)/root.tar \
	  $(CARGO) test --locked --workspace --test it -- --ignored --nocapture e2e::packages

# An agent without shared libraries is a build of its own: minutes, at the first time.
test-images: install build cargo-deb ## Run the OCI images: the server's, and the agent's behind a gateway (as root)
	PROFILE=dev OUT=$(TESTED)/static CARGO_DEB=$(TOOLS)/bin/cargo-deb packaging/build-packages.sh
	OUT=$(TESTED)/static IMAGES=$(TESTED)/images packaging/build-images.sh
	WICKETGATE_TEST_IMAGES=$(TESTED)/images $(CARGO) test --locked --workspace --test it -- --ignored --nocapture e2e::images

named: install ## Measure how soon faults are named, for docs/TROUBLESHOOTING.md (as root, on a quiet machine); RUNS=3
	@tests/named.sh

lint: ## Check the formatting and the lints
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

openapi: ## Update docs/openapi.json from the code
	UPDATE_OPENAPI=1 $(CARGO) test --locked --workspace --lib --quiet openapi::

reference: ## Update docs/reference from the code, docs/openapi.json and packaging/etc
	UPDATE_REFERENCE=1 $(CARGO) test --locked --workspace --lib --bins --test structure --quiet reference

schemathesis: console ## Try the API with whatever its document allows, and more: one of the tests, alone (as root)
	$(CARGO) build --locked --workspace --bins
	$(CARGO) test --locked --workspace --test it -- contract::schemathesis --nocapture

# For one, and for longer: `make fuzz TARGET=vici_message SECONDS=600`.
fuzz: console ## Search for inputs that break a parser: each of fuzz/targets, for a minute; TARGET=, SECONDS=60
	@packaging/install-packages.sh fuzz
	@test -x $(TOOLS)/bin/cargo-fuzz || $(CARGO) install --locked cargo-fuzz --version $(CARGO_FUZZ_VERSION) --root $(TOOLS)
	PATH="$(TOOLS)/bin:$$PATH" SECONDS_EACH=$(or $(SECONDS),60) fuzz/run.sh $(TARGET)

packages: cargo-deb cargo-cyclonedx console ## Build the Debian packages, with debug symbols apart, a static agent, and lists of what they contain, into target/packages
	packaging/build-release.sh
	CARGO_DEB=$(TOOLS)/bin/cargo-deb packaging/build-packages.sh
	PATH="$(TOOLS)/bin:$$PATH" packaging/sbom.sh

reproducible: ## Build the commit in two directories and compare the executables; ONLY=wicketgate-agent for one of them
	@packaging/reproducible.sh

images: packages ## Build an OCI image of each role from the packages, into target/images (as root)
	packaging/build-images.sh

book: ## Render the pages of docs/ as a book, into target/book
	@test -x $(TOOLS)/bin/mdbook || $(CARGO) install --locked mdbook --version $(MDBOOK_VERSION) --no-default-features --root $(TOOLS)
	$(TOOLS)/bin/mdbook build docs --dest-dir $(abspath $(or $(CARGO_TARGET_DIR),target))/book

.PHONY: cargo-deb cargo-cyclonedx
cargo-cyclonedx:
	@test -x $(TOOLS)/bin/cargo-cyclonedx || $(CARGO) install --locked cargo-cyclonedx --version $(CARGO_CYCLONEDX_VERSION) --root $(TOOLS)

cargo-deb:
	@packaging/install-packages.sh packages
	@test -x $(TOOLS)/bin/cargo-deb || $(CARGO) install --locked cargo-deb --version $(CARGO_DEB_VERSION) --root $(TOOLS)

# Whom the data plane is compared with: the last release, its dependencies as they are now (those that it locks do not
# build with this compiler), TLS by OpenSSL. Only for the benchmark.
RATHOLE_VERSION := 0.5.0
RATHOLE_ROOT = $(or $(CARGO_TARGET_DIR),target)/bench/rathole-$(RATHOLE_VERSION)
# For one: `make bench-dataplane BENCH="short ping-pong --quick"`.
BENCH ?=

bench: bench-dataplane ## Measure the data plane beside others, how long a share takes, what 200 tunnels cost, and what the API bears
	$(CARGO) bench --locked -p wicketgate --bench provision
	$(CARGO) bench --locked -p wicketgate --bench tunnels
	$(CARGO) bench --locked -p wicketgate --bench contract

soak: console ## Run the product under load and churn for ten minutes, or SECONDS=…, and print what grows (as root)
	@packaging/install-packages.sh demo
	$(CARGO) build --locked --workspace --bins --release
	SOAK_SECONDS=$(or $(SECONDS),600) $(CARGO) bench --locked -p wicketgate --bench soak

tenants: console ## Measure one customer while another uses every quota to its limit, a minute each, or SECONDS=… (as root)
	$(CARGO) build --locked --workspace --bins --release
	TENANTS_SECONDS=$(or $(SECONDS),60) $(CARGO) bench --locked -p wicketgate --bench tenants

bench-dataplane: ## Measure the data plane only; BENCH="short ping-pong --quick" for a part of it
	@packaging/install-packages.sh bench
	@test -x $(RATHOLE_ROOT)/bin/rathole || $(CARGO) install rathole --version $(RATHOLE_VERSION) \
	  --no-default-features --features server,client,tls --root $(RATHOLE_ROOT)
	$(CARGO) build --locked --workspace --bins --release
	RATHOLE=$(abspath $(RATHOLE_ROOT))/bin/rathole $(CARGO) bench --locked -p wicketgate --bench dataplane -- $(BENCH)
