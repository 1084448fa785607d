# vmfactory: everything is built below build/; `make help` lists the targets.
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.SECONDARY:

PREFIX ?= /usr/local
DESTDIR ?=
# Where the installed specs look for the guest images; lib/vmfactory/build-image makes them there.
GUEST_DIR ?= /var/lib/vmfactory/guest
CC = gcc
WERROR ?= $(if $(CI),-Werror)
# SAN=asan, SAN=tsan or SAN=fuzz builds a tree of its own with those sanitizers.
SAN ?=

# Every Debian package that building, the demo and the tests use.
DEPS := gcc libc6-dev make pkg-config libuv1-dev libcjson-dev libssl-dev libcurl4-openssl-dev \
        libmicrohttpd-dev libnl-3-dev libnl-route-3-dev libmnl-dev libnftnl-dev jq curl \
        libcriterion-dev python3 python3-yaml python3-jsonschema qemu-system-x86 qemu-utils \
        gcc-multilib binutils cpio kmod busybox-static e2fsprogs zstd ca-certificates iproute2 \
        nftables
# What only `make check` uses: clang for libFuzzer; promtool and a real Prometheus, which takes some 320 MB with what it needs and,
# where systemd runs, starts a service on port 9090, so the demo does without.
CHECK_DEPS := prometheus clang libclang-rt-14-dev
# And what only `make lint` uses.
LINT_DEPS := clang-format clang-tidy cppcheck
PKGS := libuv libcjson libcrypto libmicrohttpd libcurl libnl-3.0 libnl-route-3.0 libmnl libnftnl

B := build$(if $(SAN),/$(SAN))
GUEST := build/guest
# The library's folders, lowest first; an include may only point back along this list.
LIB_DIRS := $(wildcard base vmm net templates factory pool)

san_asan := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
san_tsan := -fsanitize=thread
san_fuzz := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# libFuzzer is clang's.
$(if $(filter fuzz,$(SAN)),$(eval CC = clang))
SANFLAGS := $(san_$(SAN))
CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=c17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -Wall -Wextra -Wshadow \
    -Wstrict-prototypes -Wmissing-prototypes -Wvla -fno-strict-aliasing -fno-common \
    -fstack-protector-strong $(WERROR) $(CFLAGS) $(SANFLAGS) $(PKG_CFLAGS)
# Expanded only in recipes: before `make deps` there may be no pkg-config.
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
PKG_LIBS = $(shell pkg-config --libs $(PKGS)) -pthread -lm

LIB_SRC := $(wildcard $(addsuffix /*.c,$(LIB_DIRS)))
LIB := $(B)/libvmfactory.a
# Each folder of tools/ with C in it is a program: tools/bench -> vmfactory-bench, tools/vmfactoryd -> vmfactoryd.
PROGRAMS := $(filter-out common client,$(patsubst tools/%/,%,$(sort $(dir $(wildcard tools/*/*.c)))))
# What programs share, the end-to-end tests too.
COMMON_SRC := $(wildcard tools/common/*.c)
# These stand alone: they link the codec of the agent protocol and libc, nothing else.
ALONE := agent floor
bin = $(if $(filter vmfactory%,$(1)),$(1),vmfactory-$(1))
PROG_BINS := $(foreach p,$(PROGRAMS),$(B)/$(call bin,$(p)))
UNIT_SRC := $(wildcard tests/unit/*.c)
E2E_SRC := $(wildcard tests/e2e/*.c) $(addprefix tests/unit/,leak_check.c summary.c asset_server.c asset_support.c)
# Helper programs of the tests, one a file (stand-ins for a VMM that misbehaves).
FAKE_SRC := $(wildcard tests/fakes/*.c)
# Fuzz targets, one a file.
FUZZ_SRC := $(wildcard tests/fuzz/*.c)
FUZZERS := $(FUZZ_SRC:tests/fuzz/%.c=%)
FAKES := $(FAKE_SRC:tests/fakes/%.c=$(B)/tests/%)
# What tests preload into the daemon.
PRELOADS := $(patsubst tests/preload/%.c,$(B)/tests/%.so,$(wildcard tests/preload/*.c))
TINY := $(GUEST)/tiny.elf
obj = $(patsubst %.c,$(B)/obj/%.o,$(1))

# For the parts that only compile; tests share the cores with their VMs.
JOBS = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

.PHONY: help
help:
	@echo 'make TARGET, as root where packages are missing:'
	@echo '  demo        install what is missing, build, run the daemon with real VMs from start to stop'
	@echo '  check       install what is missing, build, run all tests, also under ASan+UBSan and TSan'
	@echo '  all         build the programs and the guest agent'
	@echo '  guest       build the guest images (needs the network for the kernel package, once)'
	@echo '  bench       time the clone chain against a hand-written floor and cold boots, on each VMM there is;'
	@echo '              VF_CLOUD_HYPERVISOR and VF_FIRECRACKER name programs that are not on PATH, for demo and check too'
	@echo '  check-unit, check-e2e, check-asan, check-tsan, check-fuzz: parts of check; T=PATTERN picks tests'
	@echo '  fuzz        fuzz each parser of what others send, FUZZ_SECONDS (600) each; 10 in check-fuzz'
	@echo '  lint        clang-format, clang-tidy, cppcheck, gcc -fanalyzer'
	@echo '  deps        install the Debian packages: $(words $(DEPS)) of them, listed first'
	@echo '  install     into $$(DESTDIR)$$(PREFIX), by default /usr/local'
	@echo '  deb         a Debian package of it; check-deb installs it on a bare Debian 12 (root, debootstrap)'
	@echo '  clean       remove build/ (clean-guest: only the guest images; they are kept by clean)'

.PHONY: all
all: $(PROG_BINS) $(if $(SAN),,$(TINY))

# ---- packages
missing = $(shell for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done)
.PHONY: deps deps-check deps-lint deps-deb
deps deps-check deps-lint deps-deb: want = $(DEPS) $($(patsubst deps-%,%,$@)_extra)
check_extra = $(CHECK_DEPS)
lint_extra = $(LINT_DEPS)
deb_extra = $(DEB_DEPS)
deps deps-check deps-lint deps-deb:
	@m='$(strip $(call missing,$(want)))'; [ -z "$$m" ] || { \
	  echo "Will install these Debian packages (and what they depend on): $$m"; \
	  [ "$$(id -u)" = 0 ] || { echo "Not root: run 'sudo make $@' first." >&2; exit 1; }; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -q -y --no-install-recommends $$m; }

# ---- compiling
$(B)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(LIB): $(call obj,$(LIB_SRC))
	@rm -f $@
	ar rcs $@ $^

define program
$(B)/$(call bin,$(1)): $(call obj,$(wildcard tools/$(1)/*.c)) $(if $(filter $(1),$(ALONE)),$(call obj,base/wire.c base/sha256_small.c),$(call obj,$(COMMON_SRC)) $(LIB))
	$$(CC) $$(SANFLAGS) $(if $(filter agent,$(1)),$(if $(SAN),,-static)) -o $$@ $$^ $(if $(filter $(1),$(ALONE)),,$$(PKG_LIBS))
endef
$(foreach p,$(filter-out vmfactory,$(PROGRAMS)),$(eval $(call program,$(p))))

# ---- the client library, the command, and what is made from the command's own tables. In one object whose hidden
# symbols are made local, parts of base/ go along without being seen.
CLIENT_SRC := $(wildcard tools/client/*.c)
CLIENT_BASE := base/clock.c base/error.c base/utf8.c $(wildcard base/json*.c)
COMMAND_SRC := $(wildcard tools/vmfactory/*.c)
CLIENT_SO := libvmfactory-client.so.1
MADE_FROM_COMMAND := $(addprefix build/,man/vmfactory.1 completion.bash completion.zsh)
CLIENT_ALL := $(addprefix build/,libvmfactory-client.a $(CLIENT_SO) example-acquire) $(MADE_FROM_COMMAND)
all: $(if $(SAN),,$(CLIENT_ALL))
$(B)/pic/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<
$(B)/pic/client.o: $(patsubst %.c,$(B)/pic/%.o,$(CLIENT_SRC) $(CLIENT_BASE))
	$(CC) -r -nostdlib -o $@ $^
	objcopy --localize-hidden $@
$(B)/libvmfactory-client.a: $(B)/pic/client.o
	@rm -f $@
	ar rcs $@ $^
$(B)/$(CLIENT_SO): $(B)/pic/client.o
	$(CC) $(SANFLAGS) -shared -Wl,-soname,$(CLIENT_SO) -Wl,-z,defs -o $@ $^ -lcjson -lm
	ln -sf $(CLIENT_SO) $(B)/libvmfactory-client.so
# As a user of the library would: its header and the shared one, nothing else of ours.
build/example-acquire: tools/client/examples/acquire.c tools/client/vmfactory-client.h build/$(CLIENT_SO)
	$(CC) -Itools/client -Wall -Wextra $(WERROR) $(CFLAGS) -o $@ $< -Lbuild -lvmfactory-client
$(B)/vmfactory: $(call obj,$(COMMAND_SRC)) $(B)/libvmfactory-client.a $(LIB)
	$(CC) $(SANFLAGS) -o $@ $^ -lcjson -lcrypto -lm -pthread
build/man/vmfactory.1: build/vmfactory
	@mkdir -p $(@D)
	build/vmfactory generate man >$@.tmp
	mv $@.tmp $@
build/completion.%: build/vmfactory
	build/vmfactory generate $* >$@.tmp
	mv $@.tmp $@

UNIT_MORE := $(CLIENT_SRC) $(filter-out %/main.c,$(COMMAND_SRC))
$(B)/tests/unit: $(call obj,$(UNIT_SRC) $(UNIT_MORE)) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) -o $@ $^ $(PKG_LIBS) -lssl -lcriterion
$(B)/tests/e2e: $(call obj,$(E2E_SRC) $(COMMON_SRC) $(CLIENT_SRC)) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) -o $@ $^ $(PKG_LIBS) -lssl -lcriterion
$(B)/tests/%.so: tests/preload/%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(filter-out $(SANFLAGS),$(ALL_CFLAGS)) -shared -fPIC -o $@ $<
$(B)/tests/%: $(B)/obj/tests/fakes/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) -o $@ $^ $(PKG_LIBS)

$(B)/fuzzers/%: $(B)/obj/tests/fuzz/%.o $(call obj,$(wildcard tools/client/http.c)) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) -fsanitize=fuzzer -o $@ $^ $(PKG_LIBS)

-include $(wildcard $(B)/obj/*/*.d $(B)/obj/*/*/*.d $(B)/pic/*/*.d $(B)/pic/*/*/*.d)

# ---- guests
include tests/guests/tiny.mk
.PHONY: guest
guest: $(GUEST)/.stamp
$(GUEST)/.stamp: tools/image/build-image build/vmfactory-agent
	tools/image/build-image --agent build/vmfactory-agent --out $(GUEST)
	touch $@

# ---- tests. CI prints Criterion's synthesis; a test a host can't run says SKIPPED with its reason.
T ?= *
# Criterion runs each test in a process of its own. Of three e2e tests one mostly waits, for a deadline or a guest.
UNIT_RUN = timeout 600 $(B)/tests/unit --filter '$(T)' -j2
# A test that hangs fails the run instead of holding it up.
E2E_RUN = VF_BUILD=$(abspath build) VF_TESTS=$(abspath $(B)/tests) timeout 1200 $(B)/tests/e2e --filter '$(T)' -j3
# A sanitizer reports a leak or a race when the process ends, after Criterion has called the test
# passed: so reports go to files, and a file fails the run.
san_log = $(abspath $(B))/report-$@
san_run = $(if $(SAN),rm -f $(san_log).*; export ASAN_OPTIONS=log_path=$(san_log) \
    TSAN_OPTIONS=log_path=$(san_log); $(1); r=$$?; if cat $(san_log).* 2>/dev/null; then \
    echo '$@: a sanitizer has reported the above' >&2; exit 1; fi; exit $$r,$(1))
.PHONY: tests check check-unit check-e2e check-asan check-tsan
tests: $(B)/tests/unit $(B)/tests/e2e $(FAKES) $(PRELOADS)
check: deps-check
	$(MAKE) $(JOBS) all guest tests
	$(MAKE) check-unit
	$(MAKE) check-e2e
	$(MAKE) check-asan
	$(MAKE) check-tsan
	$(MAKE) check-fuzz
	$(MAKE) check-packaging
check-unit: $(B)/tests/unit
	$(call san_run,$(UNIT_RUN))
check-e2e: tests $(if $(SAN),,all guest)
	$(call san_run,$(E2E_RUN))
check-asan:
	$(MAKE) $(JOBS) all guest
	$(MAKE) $(JOBS) SAN=asan all tests
	$(MAKE) SAN=asan check-unit
	$(MAKE) SAN=asan check-e2e
check-tsan:
	$(MAKE) $(JOBS) SAN=tsan build/tsan/tests/unit
	$(MAKE) SAN=tsan check-unit

# ---- fuzzing: every target for FUZZ_SECONDS, two at a time. What is found lies in build/fuzz/found/; run a target on
# the file to see it again. check-fuzz starts from the same number each time, so that CI can be repeated.
FUZZ_SECONDS ?= 600
fuzz_dirs = build/fuzz/corpus/$$1 tests/fuzz/seeds/$$1
fuzz_run = mkdir -p build/fuzz/found && printf '%s\n' $(FUZZERS) | \
    xargs -P 2 -I{} sh -c 'mkdir -p build/fuzz/corpus/$$1 && \
        build/fuzz/fuzzers/$$1 -max_total_time=$(1) -timeout=20 -rss_limit_mb=2048 -max_len=8192 $(2) \
            -artifact_prefix=build/fuzz/found/$$1- $(fuzz_dirs) >build/fuzz/$$1.log 2>&1 \
        || { tail -n 60 build/fuzz/$$1.log; echo "fuzz: $$1 FAILED; the input is in build/fuzz/found/" >&2; exit 1; }; \
        echo "fuzz: $$1: $$(grep -o "^Done [0-9]* runs" build/fuzz/$$1.log) in $(1) s, nothing found"' sh {}
.PHONY: fuzzers fuzz check-fuzz
fuzzers: $(FUZZERS:%=$(B)/fuzzers/%)
fuzz:
	$(MAKE) $(JOBS) SAN=fuzz fuzzers
	@$(call fuzz_run,$(FUZZ_SECONDS),)
check-fuzz:
	$(MAKE) $(JOBS) SAN=fuzz fuzzers
	@$(call fuzz_run,10,-seed=1)

# ---- running
.PHONY: demo bench
# Both also run Cloud Hypervisor and Firecracker where VF_CLOUD_HYPERVISOR, VF_FIRECRACKER or PATH names them, with the
# tiny guest; tools/common/find-vmm puts the tests' shim before one where this host needs it.
SHIM := build/tests/kvm-shim build/tests/kvm_nested.so
bench_vmm = if f=$$(tools/common/find-vmm build $(1)); then set -- "$$@" --$(1) "$$f"; \
    else echo "$(1) will be skipped: $$f" >&2; fi
demo: deps
	$(MAKE) $(JOBS) all guest $(SHIM)
	tools/demo/demo build templates/specs/linux.json
bench: deps
	$(MAKE) $(JOBS) all guest $(SHIM)
	@set --; $(call bench_vmm,cloud-hypervisor); $(call bench_vmm,firecracker); \
	    set -x; build/vmfactory-bench --specs templates/specs "$$@" $(BENCH_ARGS)

# ---- lint
C_FILES := $(wildcard */*.[ch] tools/*/*.[ch] tests/*/*.[ch] tests/guests/*/*.[ch])
LINT_C := $(LIB_SRC) $(wildcard tools/*/*.c)
.PHONY: lint format
lint: deps-lint
	clang-format --dry-run -Werror $(C_FILES)
	# Both take a cleanup attribute for a leak, so leaks are left to ASan.
	cppcheck --quiet --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	    --suppress=missingIncludeSystem --suppress=memleak --suppress=resourceLeak \
	    --std=c11 -D_GNU_SOURCE -I. -j2 \
	    --library=.cppcheck.cfg $(LINT_C)
	@for f in $(LIB_SRC); do $(CC) $(ALL_CFLAGS) -fanalyzer -Werror -Wno-analyzer-malloc-leak \
	    -Wno-analyzer-fd-leak -Wno-analyzer-file-leak -c -o /dev/null $$f || exit 1; done
	clang-tidy --quiet $(LINT_C) -- -std=c17 -D_GNU_SOURCE -I. $(PKG_CFLAGS)
format:
	clang-format -i $(C_FILES)

# ---- install
.PHONY: install
install: all install-daemon
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/vmfactory \
	    $(DESTDIR)$(PREFIX)/share/vmfactory/specs $(DESTDIR)$(PREFIX)/share/doc/vmfactory
	install -m 755 build/vmfactory-bench build/vmfactory-floor \
	    $(DESTDIR)$(PREFIX)/bin
	install -m 755 build/vmfactory-agent tools/image/build-image \
	    $(DESTDIR)$(PREFIX)/lib/vmfactory
	install -m 644 templates/spec.schema.json $(DESTDIR)$(PREFIX)/share/vmfactory
	for s in linux linux-root; do \
	    sed 's|"../../build/guest/|"$(GUEST_DIR)/|' templates/specs/$$s.json \
	        >$(DESTDIR)$(PREFIX)/share/vmfactory/specs/$$s.json || exit 1; done
	chmod 644 $(DESTDIR)$(PREFIX)/share/vmfactory/specs/*.json
	install -m 644 README.md LICENSE $(wildcard docs/*.md) docs/openapi.yaml $(DESTDIR)$(PREFIX)/share/doc/vmfactory

include packaging/packaging.mk

install: install-client
.PHONY: install-client
install-client: all
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin lib/pkgconfig include share/man/man1 share/man/man3 \
	    share/bash-completion/completions share/zsh/site-functions share/doc/vmfactory/examples)
	install -m 755 build/vmfactory $(DESTDIR)$(PREFIX)/bin
	install -m 644 build/libvmfactory-client.a build/$(CLIENT_SO) $(DESTDIR)$(PREFIX)/lib
	ln -sf $(CLIENT_SO) $(DESTDIR)$(PREFIX)/lib/libvmfactory-client.so
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' tools/client/vmfactory-client.pc.in \
	    >$(DESTDIR)$(PREFIX)/lib/pkgconfig/vmfactory-client.pc
	chmod 644 $(DESTDIR)$(PREFIX)/lib/pkgconfig/vmfactory-client.pc
	install -m 644 tools/client/vmfactory-client.h $(DESTDIR)$(PREFIX)/include
	install -m 644 build/man/vmfactory.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 docs/man/libvmfactory-client.3 $(DESTDIR)$(PREFIX)/share/man/man3
	install -m 644 build/completion.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vmfactory
	install -m 644 build/completion.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_vmfactory
	for d in assets classes specs; do install -d $(DESTDIR)$(PREFIX)/share/doc/vmfactory/examples/$$d && \
	    install -m 644 docs/examples/$$d/*.json $(DESTDIR)$(PREFIX)/share/doc/vmfactory/examples/$$d || exit 1; done
	install -m 755 tools/client/examples/acquire.py $(DESTDIR)$(PREFIX)/share/doc/vmfactory/examples
	install -m 644 tools/client/examples/acquire.c $(DESTDIR)$(PREFIX)/share/doc/vmfactory/examples

.PHONY: clean clean-guest
clean:
	find build -mindepth 1 -maxdepth 1 ! -name guest -exec rm -rf {} + 2>/dev/null || true
clean-guest:
	rm -rf $(GUEST)
