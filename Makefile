# Millrace: one non-recursive Makefile. `make help` lists what can be asked of it.
#
# Sources are found, not listed: src/*/*.c and src/*/*/*.c. A file ending in _test.c is a cmocka program of its own, linked
# with the folders that LAYERS lets its folder use; src/main/main.c is the only file with the broker's main(). Everything
# is written below build/<flavour>/, so flavours never disturb one another; only the release binary is also build/millrace.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

VERSION := 0.1.0
FLAVOUR ?= release
PREFIX ?= /usr/local
DESTDIR ?=
PYTHON ?= /usr/bin/python3
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 9000
B := build/$(FLAVOUR)

# ---------------------------------------------------------------------------------------------------------- flavours
# gcc builds what is shipped; clang builds everything that is only tested, so each warning set sees every line.
HARDEN := -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=2
ASAN := -fsanitize=address,undefined -fno-sanitize-recover=all

FLAVOURS := release asan ubsan tsan cov fuzz fuzzcov sites
CC_release   := gcc
OPT_release  := -O2 $(HARDEN)
CC_asan      := clang
OPT_asan     := -O1 $(ASAN)
CC_ubsan     := clang
OPT_ubsan    := -O1 -fsanitize=undefined -fno-sanitize-recover=all
CC_tsan      := clang
OPT_tsan     := -O1 -fsanitize=thread
CC_cov       := clang
OPT_cov      := -O1 -fprofile-instr-generate -fcoverage-mapping
CC_fuzz      := clang
OPT_fuzz     := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -DMILLRACE_FUZZ
CC_fuzzcov   := clang
OPT_fuzzcov  := -O1 -fsanitize=fuzzer-no-link -fprofile-instr-generate -fcoverage-mapping -DMILLRACE_FUZZ
# Nothing inlined, no call in place of a return: each call has an address of its own, by which tests/sim/faults knows it.
CC_sites     := gcc
OPT_sites    := -O1 -fno-inline -fno-optimize-sibling-calls
ifeq ($(filter $(FLAVOUR),$(FLAVOURS)),)
$(error FLAVOUR=$(FLAVOUR) is not one of: $(FLAVOURS))
endif
CC := $(CC_$(FLAVOUR))

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wimplicit-fallthrough -Werror
# Where bytes are parsed or stored a silent narrowing is a bug; a change of sign alone is not worth the casts.
WARN_BYTES := -Wconversion -Wno-sign-conversion
BYTE_FOLDERS := fmt proto journal store

, := ,
PACKAGES := libpcre2-8 jansson inih libisal libssl libcrypto libxxhash zlib liblz4 libzstd libedit
LIB_CFLAGS := $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
# libsnappy is C++. As a shared library it brings libstdc++, whose start touches 0.9 MB of every broker, for four C functions that
# few clients ask for. What is shipped has the few objects of both that these need inside, where the system has such archives.
has_archive = $(findstring /,$(shell $(CC) -print-file-name=$(1)))
SNAPPY_release := $(if $(and $(call has_archive,libsnappy.a),$(call has_archive,libstdc++.a)),-Wl$(,)-Bstatic -lsnappy -lstdc++ -Wl$(,)-Bdynamic)
LIBS := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null || echo -lpcre2-8 -ljansson -linih -lisal -lssl -lcrypto -lz -llz4 -lzstd -ledit) \
	$(or $(SNAPPY_$(FLAVOUR)),-lsnappy) -lm
CPPFLAGS := -Isrc -D_GNU_SOURCE -DMILLRACE_VERSION='"$(VERSION)"' $(LIB_CFLAGS)
# Intrusive lists inside larger structs were miscompiled by gcc 12's path-based alias analysis (a loop that moves a list
# lost its reload), so the type-based one stays off, as in most houses that use such lists.
CFLAGS := -std=gnu11 -fno-strict-aliasing -g -fno-omit-frame-pointer -fPIE -pthread $(OPT_$(FLAVOUR)) $(WARN)
# Relative relocations are packed: a start reads 200 KB less.
LDFLAGS := -pie -pthread -Wl,-z,relro,-z,now,-z,pack-relative-relocs $(filter -fsanitize=% -fprofile% -fcoverage% -fno-sanitize%,$(OPT_$(FLAVOUR)))
COMPILE = $(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP

# ------------------------------------------------------------------------------------------------------------ layers
LAYER_NAMES := $(shell sed -n 's/^\([a-z0-9]*\):.*/\1/p' LAYERS)
$(foreach l,$(LAYER_NAMES),$(eval MAY_$l := $(shell sed -n 's/^$l://p' LAYERS)))
also = $(sort $(1) $(foreach l,$(1),$(MAY_$l)))
reach = $(call also,$(call also,$(call also,$(1))))

# ----------------------------------------------------------------------------------------------------------- sources
SOURCES := $(sort $(wildcard src/*/*.c src/*/*/*.c))
TESTS := $(filter %_test.c,$(SOURCES))
MAIN := src/main/main.c
PARTS := $(filter-out $(TESTS) $(MAIN),$(SOURCES))
OBJ = $(patsubst %.c,$(B)/obj/%.o,$(1))
layer_objects = $(call OBJ,$(filter src/$(1)/%,$(PARTS)))
FILLED := $(foreach l,$(LAYER_NAMES),$(if $(filter src/$l/%,$(PARTS)),$l))

# Programs of the tests and of the benchmark: a file with main() is one program, linked with its folder's other files and
# the whole library. A fuzz target has LLVMFuzzerTestOneInput instead of main and is a program of the fuzz flavours only.
# tests/crash/nbdkit_*.c are plug-ins for nbdkit, preload_*.c are preloaded into the broker: linked with nothing of ours.
PLUGINS := $(wildcard tests/crash/nbdkit_*.c)
PRELOADS := $(wildcard tests/crash/preload_*.c)
OUTSIDE := $(sort $(filter-out $(PLUGINS) $(PRELOADS),$(wildcard tests/sim/*.c tests/crash/*.c tests/clients/*.c tests/issue/*.c tests/sql/*.c tests/fuzz/*.c bench/*.c)))
FUZZERS := $(sort $(wildcard tests/fuzz/fuzz_*.c))
MAIN_LINE := ^(int )?main *\(
WITH_MAIN := $(if $(OUTSIDE),$(shell grep -lE '$(MAIN_LINE)' $(OUTSIDE)))
SHARED := $(filter-out $(WITH_MAIN) $(FUZZERS),$(OUTSIDE))
PROGRAMS := $(patsubst %.c,$(B)/%,$(WITH_MAIN))
PROGRAMS += $(patsubst tests/crash/%.c,$(B)/tests/crash/%.so,$(PRELOADS))
ifneq ($(wildcard /usr/include/nbdkit-plugin.h),)
PROGRAMS += $(patsubst tests/crash/%.c,$(B)/tests/crash/%.so,$(PLUGINS))
endif
FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(FUZZERS))

UNIT := $(patsubst src/%.c,$(B)/unit/%,$(TESTS))
# Functions of libc that this one puts its own in place of are a sanitizer's too: the two never end, or fail before main.
NOT_SANITIZED := $(if $(filter asan tsan,$(FLAVOUR)),$(B)/unit/os/os_posix_test)
CHOSEN := $(foreach t,$(filter-out $(NOT_SANITIZED),$(UNIT)),$(if $(findstring $(or $(ONLY),/),$t),$t))
LIBRARY := $(B)/libmillrace.a
BINARY := $(if $(wildcard $(MAIN)),$(B)/millrace)
ifeq ($(FLAVOUR),release)
BINARY += $(if $(wildcard $(MAIN)),build/millrace)
endif

# ----------------------------------------------------------------------------------------------------------- targets
.PHONY: browser bench-mqtt bench-nexmark nexmark-oracle sql-random mqtt-suites stomp-suite activemq bench-stomp all help flow crash power power-replay soak suites kafka kafka-clients kafka-golden java history cage limits mutants unit unit-build programs test bench bench-kafka tidy format coverage install uninstall clean
.PHONY: fuzz-build fuzz-smoke fuzz-coverage version FORCE

all: $(LIBRARY) $(BINARY)  ## build the broker (default): build/millrace, or build/FLAVOUR/millrace with FLAVOUR=...
	@$(if $(wildcard $(MAIN)),,echo "src/main/main.c is not there yet: only the library was built")

help:  ## this list
	@echo "make TARGET [FLAVOUR=$(subst $() ,|,$(FLAVOURS))] [V=1]"
	@sed -nE 's/^([a-zA-Z_-]+( [a-zA-Z_-]+)*):[^#]*## (.*)/\1|\3/p' Makefile | awk -F'|' '{ printf "  %-22s %s\n", $$1, $$2 }'
	@echo "  fuzz-NAME              fuzz one target for FUZZ_SECONDS ($(FUZZ_SECONDS)); NAME: $(or $(FUZZ_NAMES),none yet)"

unit: unit-build  ## build and run the unit tests (ONLY=text keeps those whose path contains it)
	@$(PYTHON) tools/unit-run $(CHOSEN)

unit-build: $(CHOSEN)  ## build the unit tests only
	@:

programs: $(PROGRAMS)  ## build the C programs of tests/ and bench/
	@:

test:  ## everything, as ./test does it
	./test

bench: all programs  ## the benchmark tables, brokers side by side; writes docs/benchmarks.md, docs/benchmarks-mqtt.md, and with Maven docs/benchmarks-kafka.md
	bench/compare; first=$$?; \
	if [ -x /usr/sbin/mosquitto ]; then bench/mqtt || first=$$?; else echo "without mosquitto there is no MQTT to compare with"; fi; \
	if command -v mvn > /dev/null; then bench/kafka || exit $$?; else echo "without Maven there is no Kafka to compare with"; fi; \
	exit $$first

bench-kafka: all  ## the Kafka part of it: Millrace and a real Apache Kafka (needs Java and Maven); writes docs/benchmarks-kafka.md
	bench/kafka

bench-mqtt: all programs  ## the MQTT part of it: Millrace and Debian's Mosquitto (needs the package mosquitto); writes docs/benchmarks-mqtt.md
	bench/mqtt

bench-nexmark: all  ## continuous SQL: Nexmark's queries, latency of windows, idle queries, a restart with state; writes docs/benchmarks-sql.md
	bench/nexmark

nexmark-oracle: programs  ## q0 to q23 over EVENTS (1000000) events against SQLite, in order and late, for batches of 1, 7 and 1024 rows; writes docs/sql-oracle.md
	tests/sql/oracle --events $(or $(EVENTS),1000000) --report

sql-random: programs  ## QUERIES (10000) random queries over small random streams against SQLite; SEED=N (from the clock) says which
	MILLRACE_SQL_QUERIES=$(or $(QUERIES),10000) MILLRACE_SQL_SEED=$(or $(SEED),$$(date +%s)) $(PYTHON) -m pytest -q -s -p no:cacheprovider tests/sql/test_random.py

bench-stomp: all programs  ## STOMP beside ActiveMQ (needs Java and the package activemq); writes docs/benchmarks-stomp.md
	bench/stomp

flow: all  ## the long form of the flow tests; writes docs/flow.md
	$(PYTHON) tests/flow/scenario.py --write docs/flow.md

mutants: all  ## deliberate faults of the broker (tests/mutants), each of which a test must find; writes docs/mutants.md
	tests/mutants/run

crash: all programs  ## 200 × kill -9 under load with an independent checker; writes docs/crash.md
	tests/crash/kill9 --cycles 200 --report

power: all programs  ## 100 × power cut on two kinds of disk, and the controls (needs root); writes docs/crash.md
	tests/crash/power --cycles 100 --report

power-replay: all programs  ## 1,200 states of a disk rebuilt from a log of its writes and flushes (needs root; STATES=N); writes docs/crash.md
	tests/crash/replay --states $(or $(STATES),1200) --workloads $(or $(WORKLOADS),6) --report
	tests/crash/syncfail --report

soak: all  ## mixed load at 70 % of capacity for SOAK_SECONDS (9000): drift of memory, descriptors, disk, p99; writes docs/soak.md
	tests/soak/run --seconds $(SOAK_SECONDS) --report

history: all programs  ## 1000 × stopped, clock moved, disk full under load, then killed (root for the full disk)
	tests/crash/history --cycles 1000

cage: all  ## 20 GB of messages under a memory limit of 256 MB, killed twice, read back (needs root; about 15 minutes)
	tests/limits/cage --bytes 2e10

limits: all  ## a small disk filled and drained 1000 times, and what else disks do (needs root); a million queues, 15,000 connections
	tests/limits/scale --queues 10000,100000,1000000 --connections 15000
	tests/limits/disk --rounds 1000

suites: all  ## test suites of pika, rabbitmq-c, amqplib, kombu, py-amqp against both brokers; writes docs/suites.md
	tests/suites/run

stomp-suite: all  ## stomp.py's own tests against it (a clone of stomp.py below MILLRACE_SUITES_SRC; root)
	tests/suites/stomp

mqtt-suites: all  ## the public MQTT suites of Eclipse Paho (client_test.py, client_test5.py; needs git and the network, or MILLRACE_SUITES_SRC)
	tests/suites/mqtt

browser: all  ## a page in headless Chromium publishes and receives by MQTT and STOMP over WebSocket (installs chromium); writes docs/websocket.md
	@top=$(CURDIR) bash -c '. tools/setup.sh && millrace_need test browser'
	tests/browser/run --report

activemq: all  ## the same STOMP frames to ActiveMQ 5.17 and to its dialect here (needs Java and the package activemq)
	tests/suites/activemq

kafka:  ## a real Kafka on port KAFKA_PORT (9092) until Ctrl-C, to try things against (needs Java and Maven)
	tests/suites/kafka_peer.py --port $(or $(KAFKA_PORT),9092)

kafka-clients: all  ## newest Kafka clients of npm, pip and Go, one script against a real Kafka and Millrace; writes docs/compatibility.md
	tests/suites/kafka_clients

kafka-golden:  ## play the rows of tests/clients/kafka_cases*.py to a real Kafka and record its answers (needs Java and Maven)
	tests/clients/kafka_rows.py --record

java: all  ## Apache Kafka's own Java clients and Streams against it, with each of JAVA (java); writes docs/compatibility.md (needs a JDK, Maven)
	tests/suites/java_clients.py --report --java $(or $(JAVA),java)

asan ubsan tsan cov:  ## build that flavour
	@$(MAKE) --no-print-directory FLAVOUR=$@ all unit-build programs

test-asan test-ubsan test-tsan:  ## run the tests with that flavour
	./test --flavour $(patsubst test-%,%,$@)

tidy:  ## layers, banned calls, headers that compile alone, names, lengths, layout
	@$(PYTHON) tools/tidy

format:  ## lay out every C file
	clang-format -i $(wildcard src/*/*.[ch] src/*/*/*.[ch] tests/*/*.[ch] bench/*.[ch])

coverage:  ## line coverage of the unit tests, per file
	@$(MAKE) --no-print-directory FLAVOUR=cov unit-build
	@tools/coverage unit

fuzz-smoke:  ## every fuzz target for FUZZ_SECONDS each
	@tools/fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_NAMES)

fuzz-%:
	@tools/fuzz --seconds $(FUZZ_SECONDS) $*

fuzz-build: $(foreach n,$(FUZZ_NAMES),$(B)/tests/fuzz/fuzz_$n)  ## build the fuzz targets (FLAVOUR=fuzz)

fuzz-coverage:  ## line coverage of parser and recovery by the fuzz corpora, at least 85 %
	@$(MAKE) --no-print-directory FLAVOUR=fuzzcov fuzz-build
	@tools/coverage fuzz --least 85

install: all  ## install below DESTDIR/PREFIX: binary (without what only a debugger reads), manual pages, systemd unit
	install -D -m 755 build/millrace "$(DESTDIR)$(PREFIX)/bin/millrace"
	strip --strip-debug "$(DESTDIR)$(PREFIX)/bin/millrace"
	for page in man/*.[1-8]; do \
	    [ -e "$$page" ] || continue; \
	    install -D -m 644 "$$page" "$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}"; \
	done
	install -d "$(DESTDIR)$(PREFIX)/lib/systemd/system"
	sed 's|@BINDIR@|$(PREFIX)/bin|g' packaging/millrace.service > "$(DESTDIR)$(PREFIX)/lib/systemd/system/millrace.service"
	chmod 644 "$(DESTDIR)$(PREFIX)/lib/systemd/system/millrace.service"

uninstall:  ## remove what install put there; data folders stay
	rm -f "$(DESTDIR)$(PREFIX)/bin/millrace" "$(DESTDIR)$(PREFIX)/lib/systemd/system/millrace.service"
	for page in man/*.[1-8]; do rm -f "$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}"; done

clean:  ## remove build/
	rm -rf build

version:
	@echo $(VERSION)

# ------------------------------------------------------------------------------------------------------------- rules
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$(1)' '$(patsubst $(B)/%,%,$@)')

# A change of flags or of the set of files rebuilds what it concerns; the stamps change only when their text does.
define stamp
	@mkdir -p $(@D); printf '%s\n' '$(subst ','\'',$(1))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(1))' > $@
endef
$(B)/flags: FORCE
	$(call stamp,$(COMPILE) $(LDFLAGS) $(LIBS) $(WARN_BYTES) $(BYTE_FOLDERS))
$(B)/parts: FORCE
	$(call stamp,$(PARTS))

folder = $(word 2,$(subst /, ,$(1)))
extra = $(if $(filter %_test.c,$(1)),,$(if $(filter $(BYTE_FOLDERS),$(call folder,$(1))),$(WARN_BYTES)))
$(B)/obj/src/%.o: src/%.c $(B)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) $(call extra,$<) -c $< -o $@

$(B)/obj/tests/%.o: tests/%.c $(B)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -Itests -c $< -o $@

$(B)/obj/bench/%.o: bench/%.c $(B)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -c $< -o $@

$(LIBRARY): $(call OBJ,$(PARTS)) $(B)/parts
	$(call say,AR)
	@mkdir -p $(@D); rm -f $@
	$(Q)ar rcs $@ $(filter %.o,$^)

define layer_rule
$(B)/lib/$(1).a: $(call layer_objects,$(1)) $(B)/parts
	@mkdir -p $$(@D); rm -f $$@
	$(Q)ar rcs $$@ $$(filter %.o,$$^)
endef
$(foreach l,$(FILLED),$(eval $(call layer_rule,$l)))

GROUP = -Wl,--start-group $(filter %.a,$^) -Wl,--end-group
$(B)/millrace: $(call OBJ,$(MAIN)) $(LIBRARY)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $(filter %.o,$^) $(GROUP) $(LIBS) -o $@

# Renamed into place, so that a broker running from the old file is not disturbed.
build/millrace: build/release/millrace
	@cp $< $@.new && mv -f $@.new $@

define unit_rule
$(B)/unit/$(1): $(B)/obj/src/$(1).o $(foreach l,$(filter $(FILLED),$(call reach,$(call folder,src/$(1)))),$(B)/lib/$l.a)
	$$(call say,LD)
	@mkdir -p $$(@D)
	$(Q)$(CC) $(LDFLAGS) $$(filter %.o,$$^) $$(GROUP) -lcmocka $(LIBS) -o $$@
endef
$(foreach t,$(TESTS),$(eval $(call unit_rule,$(patsubst src/%.c,%,$t))))

define program_rule
$(B)/$(1): $(B)/obj/$(1).o $(call OBJ,$(filter $(dir $(1))%,$(SHARED))) $(LIBRARY)
	$$(call say,LD)
	@mkdir -p $$(@D)
	$(Q)$(CC) $(LDFLAGS) $$(filter %.o,$$^) $$(GROUP) $$(if $$(filter %_test,$$@),-lcmocka) $(LIBS) -o $$@
endef
$(foreach p,$(patsubst %.c,%,$(WITH_MAIN)),$(eval $(call program_rule,$p)))

define fuzz_rule
$(B)/tests/fuzz/fuzz_$(1): $(B)/obj/tests/fuzz/fuzz_$(1).o $(call OBJ,$(filter tests/fuzz/%,$(SHARED))) $(LIBRARY)
	$$(call say,LD)
	@mkdir -p $$(@D)
	$(Q)$(CC) $(subst fuzzer-no-link,fuzzer,$(LDFLAGS)) $$(filter %.o,$$^) $$(GROUP) $(LIBS) -o $$@
endef
$(foreach n,$(FUZZ_NAMES),$(eval $(call fuzz_rule,$n)))

$(B)/tests/crash/%.so: tests/crash/%.c $(B)/flags
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)gcc -D_GNU_SOURCE -std=gnu11 -O2 -g -fPIC -shared $(WARN) $< -o $@

-include $(shell [ -d $(B)/obj ] && find $(B)/obj -name '*.d')
