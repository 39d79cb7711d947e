# The one way in: `make run` on a fresh machine needs Rust, a C compiler, make and Perl.
# ARGS go to the program: make run ARGS="--listen 127.0.0.1:9000"

# What cargo would build into; scripts read the same variable.
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
CARGO_DENY = tools=$$(scripts/install-lint-tools) && "$$tools/cargo-deny" --locked

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: build-tools ## Build the release and start the server
	cargo build --release --locked -p starlink-server
	exec "$(TARGET_DIR)/release/starlink-server" serve --allow-exec $(ARGS)

.PHONY: build
build: build-tools ## Build everything for development
	cargo build --locked --workspace --all-targets

# The programs come first: the tests that kill and restart a server run them, and `cargo test` alone
# builds the programs of no other package than the one it tests, and none for other architectures.
.PHONY: test
test: build-tools test-tools ## Run every test, on SQLite and PostgreSQL, then Schemathesis
	cargo build --locked --workspace --bins
	scripts/build-foreign-agents
	scripts/fetch-foreign-engines
	scripts/with-postgres cargo test --locked --workspace
	scripts/schemathesis

.PHONY: lint
lint: build-tools lint-tools ## Check format, lints, documentation, licences and scripts
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
	$(CARGO_DENY) check --hide-inclusion-graph licenses bans sources
	scripts/lint-scripts

# Apart from `lint`, because it needs the advisory database from the network.
.PHONY: audit
audit: ## Check the dependencies for known vulnerabilities (needs the network)
	$(CARGO_DENY) check advisories

.PHONY: bench
bench: build-tools test-tools bench-tools ## Measure the release on SQLite and PostgreSQL, beside Slurm
	cargo build --release --locked -p tests --bins
	"$(TARGET_DIR)/release/starlink-bench" $(ARGS)

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: clean
clean: ## Remove all that was built
	cargo clean

.PHONY: build-tools
build-tools:
	@scripts/check-build-tools

.PHONY: test-tools
test-tools:
	@scripts/install-test-tools

.PHONY: bench-tools
bench-tools:
	@scripts/install-bench-tools

.PHONY: lint-tools
lint-tools:
	@scripts/install-lint-tools >/dev/null
