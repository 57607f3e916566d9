# The guest memory core: rules of its own, included by the top Makefile.
#
#   guest/lib, guest/mm      freestanding: no header but the compiler's and ours
#   guest/workload           tasks that verify their memory, over the core's interfaces; freestanding too
#   guest/arch/hosted        the machine as a process, for tests and benches
#   guest/arch/xen           the machine as a PV guest: build/guest/frameshift-guest.elf
#   tests/guest/test_*.c     unit tests     tests/bench/*.c     replay, alloc

GUEST_CORE_SRC := $(wildcard guest/lib/*.c) $(wildcard guest/mm/*.c) $(wildcard guest/workload/*.c)
GUEST_HOSTED_SRC := $(wildcard guest/arch/hosted/*.c)
GUEST_TEST_SRC := $(wildcard tests/guest/test_*.c)
GUEST_TEST_LIB_SRC := $(filter-out tests/guest/test_%,$(wildcard tests/guest/*.c))

GUEST_CORE_OBJ := $(GUEST_CORE_SRC:%.c=$(BUILD)/obj/%.o)
GUEST_HOSTED_OBJ := $(GUEST_HOSTED_SRC:%.c=$(BUILD)/obj/%.o)
# For a program that links the engine too (it brings its own fs_assert_fail).
GUEST_OBJ := $(GUEST_CORE_OBJ) $(filter-out %/assert_hosted.o,$(GUEST_HOSTED_OBJ))
GUEST_TEST_LIB_OBJ := $(GUEST_TEST_LIB_SRC:%.c=$(BUILD)/obj/%.o)
GUEST_TESTS := $(GUEST_TEST_SRC:%.c=$(BUILD)/%)
TESTS += $(GUEST_TESTS)
# tests/guest/guest_fault.c: page allocations that fail on request.
GUEST_TEST_WRAP := -Wl,--wrap=alloc_pages,--wrap=alloc_pages_node,--wrap=alloc_pages_nodemask,--wrap=kmem_cache_alloc

GUEST_CC_INCLUDE := $(shell $(CC) -print-file-name=include)
GUEST_FLAGS = -std=c11 $(WARN) $(OPT) $(SAN) $(COVERAGE) -MMD -MP -Iinclude
# The PV kernel links the very objects that the tests run, so they keep to what a kernel may do: nothing below the stack pointer,
# where Xen pushes frames, and no vector registers, which nobody saves.
GUEST_KERNEL_FLAGS := $(if $(filter x86_64%,$(shell $(CC) -dumpmachine)),-mno-red-zone -mgeneral-regs-only -fno-stack-protector)
GUEST_FREESTANDING = -ffreestanding -nostdinc -isystem $(GUEST_CC_INCLUDE) $(GUEST_KERNEL_FLAGS)

$(BUILD)/obj/guest/mm/%.o: guest/mm/%.c Makefile guest/guest.mk
	@mkdir -p $(@D)
	$(CC) $(GUEST_FLAGS) $(GUEST_FREESTANDING) $(CFLAGS) -c -o $@ $<

$(BUILD)/obj/guest/lib/%.o: guest/lib/%.c Makefile guest/guest.mk
	@mkdir -p $(@D)
	$(CC) $(GUEST_FLAGS) $(GUEST_FREESTANDING) $(CFLAGS) -c -o $@ $<

$(BUILD)/obj/guest/workload/%.o: guest/workload/%.c Makefile guest/guest.mk
	@mkdir -p $(@D)
	$(CC) $(GUEST_FLAGS) $(GUEST_FREESTANDING) $(CFLAGS) -c -o $@ $<

$(BUILD)/obj/guest/arch/hosted/%.o: guest/arch/hosted/%.c Makefile guest/guest.mk
	@mkdir -p $(@D)
	$(CC) $(GUEST_FLAGS) -D_GNU_SOURCE $(CFLAGS) -c -o $@ $<

# A paravirtual guest in a process, over whatever machine fills in struct guest_host. Xen's public headers are gnu11.
GUEST_EMB_SRC := $(wildcard guest/arch/embedded/*.c)
GUEST_EMB_OBJ := $(GUEST_EMB_SRC:%.c=$(BUILD)/obj/%.o)
$(BUILD)/obj/guest/arch/embedded/%.o: guest/arch/embedded/%.c Makefile guest/guest.mk
	@mkdir -p $(@D)
	$(CC) $(GUEST_FLAGS) -D_GNU_SOURCE $(XEN_DEFS) $(CFLAGS) -c -o $@ $<

$(BUILD)/obj/tests/guest/%.o: tests/guest/%.c Makefile guest/guest.mk
	@mkdir -p $(@D)
	$(CC) $(GUEST_FLAGS) -D_GNU_SOURCE -Iguest/mm -Iguest/lib -Iguest/arch/hosted $(CFLAGS) -c -o $@ $<

# Archives, so that a program takes only what it calls.
$(BUILD)/libguest.a: $(GUEST_CORE_OBJ)
$(BUILD)/libguest-test.a: $(GUEST_TEST_LIB_OBJ)
$(BUILD)/libguest-pic.a: $(GUEST_CORE_SRC:%.c=$(BUILD)/pic/%.o)
$(BUILD)/libguest.a $(BUILD)/libguest-test.a $(BUILD)/libguest-pic.a:
	@rm -f $@
	$(AR) rcs $@ $^
GUEST_TEST_LIBS := $(BUILD)/libguest-test.a $(BUILD)/libguest.a

$(BUILD)/tests/guest/test_%: $(BUILD)/obj/tests/guest/test_%.o $(GUEST_HOSTED_OBJ) $(GUEST_TEST_LIBS)
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $(filter %.o,$^) -Wl,--start-group $(GUEST_TEST_LIBS) -Wl,--end-group $(GUEST_TEST_WRAP) -lcmocka -lpthread

# The PV kernel's xenstore client, the very file, against a daemon of the test's own; Xen's headers are gnu11.
$(BUILD)/obj/tests/guest/test_xenstore.o: GUEST_FLAGS += -std=gnu11 -D__XEN_INTERFACE_VERSION__=0x00040d00
$(BUILD)/tests/guest/test_xenstore: $(BUILD)/obj/tests/guest/test_xenstore.o $(BUILD)/obj/guest/arch/xen/xenstore.o $(BUILD)/obj/guest/arch/hosted/assert_hosted.o
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $^ -lcmocka

# Nothing outside arch.h and the four functions that a compiler may call by itself, and what a sanitizer's build calls (no kernel is one).
.PHONY: guest-symbols
guest-symbols: $(GUEST_CORE_OBJ)
	@mkdir -p $(BUILD)/guest
	@nm -A $(GUEST_CORE_OBJ) | awk '$$2 == "U" { print $$3 }' | sort -u > $(BUILD)/guest/wanted
	@nm --defined-only $(GUEST_CORE_OBJ) | awk 'NF == 3 { print $$3 }' | sort -u > $(BUILD)/guest/defined
	@grep -oE 'arch_[a-z_0-9]+' guest/arch/arch.h | sort -u > $(BUILD)/guest/allowed
	@printf '%s\n' fs_assert_fail memset memcpy memmove memcmp >> $(BUILD)/guest/allowed
	@if comm -23 $(BUILD)/guest/wanted $(BUILD)/guest/defined | grep -v '^__[a-z]*san_' | grep -vxFf $(BUILD)/guest/allowed; then \
		echo "guest/mm or guest/lib needs the symbols above: not in arch.h" >&2; exit 1; fi

# Benches: each tests/bench/NAME.c of this list is a program, the rest are their parts.
GUEST_BENCHES := $(BUILD)/bench/replay $(BUILD)/bench/alloc $(BUILD)/bench/subject_mm.so $(BUILD)/bench/subject_mm_counted.so $(BUILD)/bench/subject_plain.so
GUEST_REPLAY_OBJ := $(patsubst %,$(BUILD)/obj/tests/bench/%.o,replay report linux_baseline after world figures pagetrace pagekinds compressed)
all: $(GUEST_BENCHES)
bench: $(GUEST_BENCHES)

$(BUILD)/obj/tests/bench/%.o: tests/bench/%.c Makefile guest/guest.mk
	@mkdir -p $(@D)
	$(CC) $(GUEST_FLAGS) -D_GNU_SOURCE -Iguest/mm -Iguest/lib -Iguest/arch/hosted $(CFLAGS) -c -o $@ $<

$(BUILD)/bench/replay: $(GUEST_REPLAY_OBJ) $(GUEST_HOSTED_OBJ) $(BUILD)/libguest.a
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $^ -lzstd -ljansson -lpthread

GUEST_REPLAY_PARTS := $(filter-out %/replay.o %/report.o %/linux_baseline.o,$(GUEST_REPLAY_OBJ))
$(BUILD)/tests/guest/test_pagetrace $(BUILD)/tests/guest/test_replay_loads: $(BUILD)/tests/guest/%: $(BUILD)/obj/tests/guest/%.o $(GUEST_REPLAY_PARTS) $(GUEST_HOSTED_OBJ) $(GUEST_TEST_LIBS)
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $(filter %.o,$^) -Wl,--start-group $(GUEST_TEST_LIBS) -Wl,--end-group $(GUEST_TEST_WRAP) -lcmocka -lzstd -ljansson -lpthread

$(BUILD)/bench/alloc: $(BUILD)/obj/tests/bench/alloc.o
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $^ -ljansson -lpthread -ldl

# The five situations of thread 000, the comparison of thread 004, the seed tests of thread 002 (tests/situations).
GUEST_SITUATION_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/situations/*.c))
GUEST_SITUATION_PARTS := $(filter-out %/main.o %/report.o %/tables.o,$(GUEST_SITUATION_OBJ))
GUEST_SITUATION_WRAP := -Wl,--wrap=alloc_pages,--wrap=alloc_pages_node
GUEST_BENCHES += $(BUILD)/bench/situations
all: $(BUILD)/bench/situations

$(BUILD)/obj/tests/situations/%.o: tests/situations/%.c Makefile guest/guest.mk
	@mkdir -p $(@D)
	$(CC) $(GUEST_FLAGS) -D_GNU_SOURCE $(CFLAGS) -c -o $@ $<

$(BUILD)/bench/situations: $(GUEST_SITUATION_OBJ) $(GUEST_HOSTED_OBJ) $(BUILD)/libguest.a
	@mkdir -p $(@D)
	$(CC) $(SAN) $(GUEST_SITUATION_WRAP) -o $@ $^ -ljansson -lpthread

$(addprefix $(BUILD)/tests/guest/test_situations,_weak _tables) $(BUILD)/tests/guest/test_situations: $(BUILD)/tests/guest/%: $(BUILD)/obj/tests/guest/%.o \
    $(GUEST_SITUATION_PARTS) $(GUEST_HOSTED_OBJ) $(BUILD)/libguest.a
	@mkdir -p $(@D)
	$(CC) $(SAN) $(GUEST_SITUATION_WRAP) -o $@ $^ -lcmocka -lpthread

# The core once more, position-independent, as a subject of the speed driver.
GUEST_PIC_OBJ := $(patsubst %.c,$(BUILD)/pic/%.o,$(GUEST_HOSTED_SRC))

$(BUILD)/pic/guest/mm/%.o $(BUILD)/pic/guest/lib/%.o $(BUILD)/pic/guest/workload/%.o: GUEST_PIC_FLAGS = $(GUEST_FREESTANDING)
$(BUILD)/pic/guest/arch/%.o $(BUILD)/pic/tests/%.o: GUEST_PIC_FLAGS = -D_GNU_SOURCE -Iguest/mm -Iguest/lib -Iguest/arch/hosted
$(BUILD)/pic/%.o: %.c Makefile guest/guest.mk
	@mkdir -p $(@D)
	$(CC) $(GUEST_FLAGS) $(GUEST_PIC_FLAGS) -fPIC -ftls-model=initial-exec -fvisibility=hidden $(CFLAGS) -c -o $@ $<

# The same source twice: frozen pages, and counted ones.
$(BUILD)/pic/tests/bench/subject_mm_counted.o: tests/bench/subject_mm.c Makefile guest/guest.mk
	@mkdir -p $(@D)
	$(CC) $(GUEST_FLAGS) $(GUEST_PIC_FLAGS) -DSUBJECT_COUNTED -fPIC -ftls-model=initial-exec -fvisibility=hidden $(CFLAGS) -c -o $@ $<

$(BUILD)/bench/subject_mm.so $(BUILD)/bench/subject_mm_counted.so: $(BUILD)/bench/%.so: $(BUILD)/pic/tests/bench/%.o $(GUEST_PIC_OBJ) $(BUILD)/libguest-pic.a
	@mkdir -p $(@D)
	$(CC) $(SAN) -shared -o $@ $^ -lpthread

$(BUILD)/bench/subject_plain.so: $(BUILD)/pic/tests/bench/subject_plain.o
	@mkdir -p $(@D)
	$(CC) $(SAN) -shared -o $@ $^ -lpthread

$(BUILD)/tests/guest/test_alloc_driver: $(BUILD)/obj/tests/guest/test_alloc_driver.o | $(GUEST_BENCHES)
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $< -lcmocka -ljansson

-include $(GUEST_PIC_OBJ:.o=.d) $(wildcard $(BUILD)/pic/tests/bench/*.d) $(GUEST_CORE_SRC:%.c=$(BUILD)/pic/%.d)

# The PV kernel, for x86-64 and without sanitizers, which need a C library. Xen's headers come after the compiler's own.
GUEST_XEN_SRC := $(wildcard guest/arch/xen/*.c guest/arch/xen/*.S)
GUEST_XEN_OBJ := $(patsubst %,$(BUILD)/obj/%.o,$(basename $(GUEST_XEN_SRC)))
GUEST_XEN_FLAGS = $(GUEST_FREESTANDING) -idirafter /usr/include -D__XEN_INTERFACE_VERSION__=0x00040d00
GUEST_KERNEL := $(BUILD)/guest/frameshift-guest.elf
ifneq ($(GUEST_KERNEL_FLAGS),)
ifeq ($(strip $(SAN)),)
all: $(GUEST_KERNEL)
endif
endif

$(BUILD)/obj/guest/arch/xen/%.o: guest/arch/xen/%.c Makefile guest/guest.mk
	@mkdir -p $(@D)
	$(CC) $(GUEST_FLAGS) $(GUEST_XEN_FLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/obj/guest/arch/xen/%.o: guest/arch/xen/%.S Makefile guest/guest.mk
	@mkdir -p $(@D)
	$(CC) -MMD -MP -idirafter /usr/include $(CFLAGS) -c -o $@ $<

$(GUEST_KERNEL): $(GUEST_XEN_OBJ) $(BUILD)/libguest.a guest/arch/xen/kernel.lds
	@mkdir -p $(@D)
	$(LD) -static --no-dynamic-linker -z noexecstack -z max-page-size=4096 --build-id=none \
		-T guest/arch/xen/kernel.lds -o $@ $(filter %.o,$^) $(filter %.a,$^)
