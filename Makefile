# Frameshift: one Makefile, no recursion but for `make deps` and the sanitizer builds.
#
#   make            the tool (build/frameshift)
#   make drill      the main job, as a drill        make xen-drill   the same on real Xen under QEMU
#   make test       every test, real Xen included   make soak        1,000 drills
#   make deps       install what is missing (apt)   make layers who may include whom
#
# Sources are found by folder: hv/*.c (the engine), hv/xen/*.c, hv/embedded/*.c (backends),
# tools/*.c (the CLI), tests/hv/test_*.c and tests/conform/test_*.c (one cmocka program each),
# guest/guest.mk (the guest core's own rules).

BUILD    ?= build
CC       := $(if $(filter default undefined,$(origin CC)),gcc,$(CC))
CSTD     := -std=c11 -D_GNU_SOURCE
WARN     := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Werror
OPT      ?= -O2 -g
SAN      ?=
COVERAGE := $(if $(INSTRUMENT),-fsanitize-coverage=trace-pc)
CFLAGS_ALL = $(CSTD) $(WARN) $(OPT) $(SAN) $(COVERAGE) -MMD -MP -Iinclude -Ihv -DFRAMESHIFT_VERSION='"$(VERSION)"' $(CFLAGS)
# libxenctrl's unstable interface and Xen's public headers are asked for by name, by the backends only.
# The backends alone compile as gnu11: those headers use anonymous members by an extension.
XEN_DEFS := -std=gnu11 -D__XEN_TOOLS__ -D__XEN_INTERFACE_VERSION__=0x00041100
VERSION  := 0.1.0
PREFIX   ?= /usr/local

HV_SRC   := $(wildcard hv/*.c)
XEN_SRC  := $(wildcard hv/xen/*.c)
EMB_SRC  := $(wildcard hv/embedded/*.c)
TOOL_SRC := $(wildcard tools/*.c)
# Programs that link the engine, the embedded machine and a guest kernel: the tool, and tests/drill/test_*.c.
DRILL_SRC := $(wildcard tools/drill/*.c)
DRILL_TEST_SRC := $(wildcard tests/drill/test_*.c)
DRILL_OBJ := $(DRILL_SRC:%.c=$(BUILD)/obj/%.o)
DRILL_TEST_LIB_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out tests/drill/test_%,$(wildcard tests/drill/*.c)))
TEST_SRC := $(wildcard tests/hv/test_*.c) $(wildcard tests/conform/test_*.c) $(wildcard tests/tools/test_*.c)
TEST_LIB_SRC := $(filter-out tests/hv/test_%,$(wildcard tests/hv/*.c)) $(filter-out tests/conform/test_% tests/conform/main_%,$(wildcard tests/conform/*.c))

HV_OBJ   := $(HV_SRC:%.c=$(BUILD)/obj/%.o)
XEN_OBJ  := $(XEN_SRC:%.c=$(BUILD)/obj/%.o)
EMB_OBJ  := $(EMB_SRC:%.c=$(BUILD)/obj/%.o)
TOOL_OBJ := $(TOOL_SRC:%.c=$(BUILD)/obj/%.o)
TEST_LIB_OBJ := $(TEST_LIB_SRC:%.c=$(BUILD)/obj/%.o)
TESTS    := $(TEST_SRC:%.c=$(BUILD)/%) $(DRILL_TEST_SRC:%.c=$(BUILD)/%)
# Tests of the CLI: its parts without the verbs, and the whole of it on a machine of canned answers.
TOOL_LIB_OBJ := $(filter-out $(BUILD)/obj/tools/main.o $(BUILD)/obj/tools/session.o $(BUILD)/obj/tools/verb_%.o,$(TOOL_OBJ))
FAKE_TOOL := $(BUILD)/tests/tools/frameshift-fake
HV_LIBS  := -lz -lpthread
XEN_LIBS := -lxenctrl -lxenforeignmemory -lxencall -lxenstore -lxenhypfs -lxentoollog
TOOL_LIBS := -ljansson

.PHONY: all test drill soak fuzz-programs xen-drill deps fmt lint layers asan tsan fuzz bench clean install unit tests
.SECONDARY:
.DELETE_ON_ERROR:

all: $(if $(wildcard hv/hv.c),$(BUILD)/frameshift)

-include guest/guest.mk

# An archive, so that a program takes only what it calls: unit tests never pull hv/open.o, and so link no libxenctrl.
$(BUILD)/libhv.a: $(HV_OBJ) $(EMB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

# tools/drill binds a guest kernel to the embedded machine; the kernel's archive gives what it calls.
$(BUILD)/frameshift: $(TOOL_OBJ) $(DRILL_OBJ) $(XEN_OBJ) $(GUEST_EMB_OBJ) $(BUILD)/libguest.a $(BUILD)/libhv.a
	$(CC) $(SAN) -o $@ $^ $(XEN_LIBS) $(HV_LIBS) $(TOOL_LIBS)

$(BUILD)/obj/hv/xen/%.o $(BUILD)/obj/hv/embedded/%.o: CFLAGS_ALL += $(XEN_DEFS)
$(BUILD)/obj/tests/conform/%.o: CFLAGS_ALL += $(XEN_DEFS)

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

# A unit test links the engine and the embedded machine, never libxenctrl.
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(TEST_LIB_OBJ) $(BUILD)/libhv.a
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $(filter-out %.a,$^) $(filter %.a,$^) -lcmocka $(HV_LIBS) $(TOOL_LIBS)

$(BUILD)/obj/tools/drill/%.o $(BUILD)/obj/tests/drill/%.o: CFLAGS_ALL += $(XEN_DEFS) -Itools

$(DRILL_TEST_SRC:%.c=$(BUILD)/%): $(BUILD)/%: $(BUILD)/obj/%.o $(DRILL_TEST_LIB_OBJ) $(DRILL_OBJ) $(GUEST_EMB_OBJ) $(GUEST_CORE_OBJ) $(BUILD)/obj/tests/hv/no_xen.o $(BUILD)/libhv.a
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $(filter-out %.a,$^) $(filter %.a,$^) -lcmocka $(HV_LIBS)

# Situations of thread 000 with a machine underneath: the same ageing as on the hosted machine (tests/situations).
$(BUILD)/tests/drill/test_situations: $(patsubst %,$(BUILD)/obj/tests/situations/%.o,site files ager census)

$(filter $(BUILD)/tests/tools/%,$(TESTS)): $(TOOL_LIB_OBJ) $(BUILD)/obj/tests/tools/canned.o

# The engine comes as an archive: what the fake defines is not taken from it.
$(FAKE_TOOL): $(TOOL_OBJ) $(BUILD)/obj/tests/tools/fake_hv.o $(BUILD)/obj/tests/tools/canned.o $(BUILD)/libhv.a
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $^ $(HV_LIBS) $(TOOL_LIBS)

# The suite over the backend interface, as a program for dom0 of a test host.
$(BUILD)/conform-xen: $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/conform/conform*.c) tests/conform/main_xen.c) $(XEN_OBJ) \
                      $(patsubst %,$(BUILD)/obj/hv/%.o,backend status assert range)
	$(CC) $(SAN) -o $@ $^ $(XEN_LIBS) -lpthread

tests: $(TESTS) $(FAKE_TOOL)

unit: all tests
	tests/run-unit.sh $(BUILD)

test: deps
	@$(MAKE) --no-print-directory all tests $(BUILD)/conform-xen
	@tests/run-all.sh $(BUILD)

xen-drill: deps
	@$(MAKE) --no-print-directory all
	@tests/drill/xen-drill.sh $(BUILD)

drill: deps
	@$(MAKE) --no-print-directory all
	@mkdir -p $(BUILD)/drill
	@$(BUILD)/frameshift drill --threads --json=$(BUILD)/drill/drill.jsonl --html $(BUILD)/drill/drill.html
	@echo "Results: $(BUILD)/drill/drill.html, drill.jsonl"

# 1,000 seeds, and every call of a drill failing once: minutes.
soak: all tests
	SEEDS=1000 STRIDE=1 $(BUILD)/tests/hv/test_drill
	SEEDS=100 STRIDE=1 $(BUILD)/tests/drill/test_drill_coop

# What the engine costs: prints figures and which required ones are met. The allocator's benches are programs of their own (doc/GUEST.md).
WRAPPED := -Wl,--wrap=malloc -Wl,--wrap=calloc -Wl,--wrap=realloc -Wl,--wrap=free
$(BUILD)/obj/tests/bench/engine.o $(BUILD)/obj/tests/bench/tool.o: GUEST_FLAGS += -Ihv $(XEN_DEFS)
$(BUILD)/bench/engine: $(BUILD)/obj/tests/bench/engine.o $(BUILD)/obj/tests/bench/tool.o $(DRILL_OBJ) $(GUEST_EMB_OBJ) $(BUILD)/libguest.a $(BUILD)/libhv.a
	@mkdir -p $(@D)
	$(CC) $(SAN) $(WRAPPED) -o $@ $^ $(HV_LIBS)

# Its own flags: it links the engine's machine and the guest kernel, and times the host's mmap() apart.
$(BUILD)/obj/tests/bench/shrink.o: GUEST_FLAGS += -D_GNU_SOURCE -Ihv -Itools $(XEN_DEFS)
$(BUILD)/bench/shrink: $(BUILD)/obj/tests/bench/shrink.o $(BUILD)/obj/tools/drill/coop_guest.o $(GUEST_EMB_OBJ) $(BUILD)/libguest.a $(BUILD)/obj/tests/hv/no_xen.o $(BUILD)/libhv.a
	@mkdir -p $(@D)
	$(CC) $(SAN) -Wl,--wrap=mmap,--wrap=mremap -o $@ $^ $(HV_LIBS)

# Every stop of a guest that moves its own pages.
$(BUILD)/obj/tests/bench/stops.o: GUEST_FLAGS += -D_GNU_SOURCE -Ihv -Itools $(XEN_DEFS)
$(BUILD)/bench/stops: $(BUILD)/obj/tests/bench/stops.o $(BUILD)/obj/tests/bench/tool.o $(DRILL_OBJ) $(GUEST_EMB_OBJ) $(BUILD)/libguest.a $(BUILD)/obj/tests/hv/no_xen.o $(BUILD)/libhv.a
	@mkdir -p $(@D)
	$(CC) $(SAN) -Wl,--wrap=arch_stop_machine,--wrap=mmap -o $@ $^ $(HV_LIBS)

bench: $(BUILD)/bench/engine $(BUILD)/bench/shrink $(BUILD)/bench/stops
	$(BUILD)/bench/engine
	$(BUILD)/bench/shrink
	$(BUILD)/bench/stops

# Fuzz targets: tests/fuzz/fuzz_NAME.c with tests/fuzz/corpus/NAME. Ordinary builds replay the corpus (part of make unit); `make fuzz` builds all
# of it with coverage and sanitizers and looks for new inputs for FUZZ_SECONDS each.
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZERS  := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/tests/fuzz/%)
FUZZ_SECONDS ?= 120
$(BUILD)/obj/tests/fuzz/driver.o: COVERAGE :=
tests: $(FUZZERS)
$(BUILD)/obj/tests/fuzz/%.o: CFLAGS_ALL += $(XEN_DEFS) -Itools
$(FUZZERS): $(BUILD)/tests/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(BUILD)/obj/tests/fuzz/driver.o $(BUILD)/obj/tools/drill/coop_guest.o $(GUEST_EMB_OBJ) $(BUILD)/libguest.a \
    $(BUILD)/obj/tests/hv/no_xen.o $(BUILD)/libhv.a
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $^ $(HV_LIBS)

fuzz:
	@$(MAKE) --no-print-directory BUILD=build/fuzz OPT="-O1 -g" SAN="-fsanitize=address,undefined -fno-sanitize-recover=all" INSTRUMENT=1 fuzz-programs
	@for t in $(FUZZ_SRC:tests/fuzz/fuzz_%.c=%); do mkdir -p tests/fuzz/corpus/$$t; \
		build/fuzz/tests/fuzz/fuzz_$$t --seconds $(FUZZ_SECONDS) --seed $$(date +%s) tests/fuzz/corpus/$$t || exit 1; done

fuzz-programs: $(FUZZERS)

deps:
	@tests/deps.sh

fmt:
	git clang-format --extensions c,h

lint:
	tests/style.sh
	clang-tidy --quiet $(HV_SRC) $(TOOL_SRC) -- $(CSTD) -Iinclude -Ihv -DFRAMESHIFT_VERSION='"$(VERSION)"'

layers:
	@tests/layers.sh

asan:
	@TEST_LIMIT_S=$${TEST_LIMIT_S:-1800} $(MAKE) --no-print-directory BUILD=build/asan OPT="-O1 -g -DFS_SLOW_CHECKS" SAN="-fsanitize=address,undefined -fno-sanitize-recover=all" unit

# gcc warns that the thread sanitizer does not understand fences: those are between us and a guest's memory, which no other thread here touches.
# Fewer seeds than usual: most of those runs have one thread.
tsan:
	@TEST_LIMIT_S=$${TEST_LIMIT_S:-3600} SEEDS=$${SEEDS:-6} $(MAKE) --no-print-directory BUILD=build/tsan OPT="-O1 -g" SAN="-fsanitize=thread $(if $(findstring clang,$(CC)),,-Wno-tsan)" unit

install: all
	install -D -m 0755 $(BUILD)/frameshift $(DESTDIR)$(PREFIX)/sbin/frameshift
	install -D -m 0644 doc/man/frameshift.1 $(DESTDIR)$(PREFIX)/share/man/man1/frameshift.1
	install -D -m 0644 tools/frameshift.bash-completion $(DESTDIR)$(PREFIX)/share/bash-completion/completions/frameshift

clean:
	rm -rf build

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
