# Fireclaw: two commands on a fresh Debian machine with Rust.
#
#   make run     sets everything up and runs a command in a microVM
#   make test    sets everything up and passes every test
#   make demo    sets everything up and talks with an agent on IRC

SHELL := /bin/bash
.DEFAULT_GOAL := help

# What the processor lacks of what the prebuilt model server needs.
LACKING := $(shell for flag in avx avx2 fma f16c bmi2; do \
    grep -qwm1 $$flag /proc/cpuinfo || echo $$flag; done)

# Debian's packages, each with its reason. Nothing here starts a service; the IRC servers
# and the registry, whose packages would, are unpacked beside (tools/unpack), and with them
# skopeo and umoci, which make and push the images of the tests.
#
# `make run` and `make demo`:
#   qemu-system-x86   the VMM where KVM does not work
#   mmdebstrap        kernel and base image
#   e2fsprogs         workspaces
#   uidmap            mmdebstrap without root
PACKAGES := qemu-system-x86 mmdebstrap e2fsprogs uidmap
# `make demo` as well, for its model server:
#   python3-pip       fetches it, and the language model
#   libgomp1          what it computes with
# and where the processor cannot run the prebuilt one, so that it is compiled:
#   cmake, make, g++
DEMO_PACKAGES := $(PACKAGES) python3-pip libgomp1 $(if $(LACKING),cmake make g++)
# `make test` as well:
#   nftables          packet rules of network interfaces
#   slirp4netns       network interfaces with policy full, without root
#   busybox-static    a root file system without anything of ours
#   util-linux        unshare, for tests in namespaces
#   iproute2          taps and bridges in the tests' own networks
#   tmux              a terminal for programs that need one
#   strace            kills a command at each of its steps
#   g++               the fuzzer's runtime
TEST_PACKAGES := $(DEMO_PACKAGES) nftables slirp4netns busybox-static util-linux iproute2 tmux strace g++

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
CARGO ?= cargo

.PHONY: help packages test-packages build setup run demo test lint fuzz bench man clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

# Installs those of the packages $(1) that are missing.
define install
	@missing=$$(for p in $(1); do \
	    dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	    echo "installing:" $$missing; \
	    $(SUDO) apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing; fi
endef

packages: ## Install the Debian packages that `make run` needs
	$(call install,$(PACKAGES))

test-packages: ## Install the Debian packages that the tests need
	$(call install,$(TEST_PACKAGES))
	tools/unpack ngircd target/tools/ngircd
	tools/unpack inspircd target/tools/inspircd
	tools/unpack docker-registry target/tools/docker-registry
	tools/unpack skopeo target/tools/skopeo
	tools/unpack umoci target/tools/umoci

build: packages ## Build the fireclaw command
	$(CARGO) build --release

setup: build ## Prepare kernel and base image under FIRECLAW_HOME
	./target/release/fireclaw setup

run: setup ## Run uname in a microVM
	./target/release/fireclaw run -v "uname -a"

demo: setup ## Start an overseer with a model and talk with an agent
	$(call install,$(DEMO_PACKAGES))
	tools/unpack ngircd "$${FIRECLAW_HOME:-$$HOME/.fireclaw}/tools/ngircd"
	tools/demo

test: test-packages lint ## Check style and run every test, with real VMs
	$(CARGO) test --workspace --no-fail-fast
	$(MAKE) fuzz

lint: ## Formatting, clippy, licences and advisories
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	tools/deny

fuzz: ## A short run of every fuzz target
	tools/fuzz 10

bench: build ## Measure against the floor; prints a table, writes target/bench.json
	$(CARGO) run --release -p xtask -- bench

man: build ## Write the manual pages to target/man
	./target/release/fireclaw man --dir target/man

clean: ## Remove what was built (not FIRECLAW_HOME)
	$(CARGO) clean
