/*
 * coop_fiber.c - kernel threads whose stacks lie in guest memory.
 *
 * Owns: struct fiber: a thread that recurses, keeps numbers in every frame of its stack, waits at the deepest point, and
 * finds them again on the way back.
 * Invariants: I1  it calls nothing of the machine: a CPU that stands still in a stop must not do so on a stack that moves.
 */
#include "coop_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../guest/mm/page_alloc.h"

/* The thread sanitizer wants to know which stack it is on. */
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
static void *sanitizer_new(void) { return __tsan_create_fiber(0); }
static void *sanitizer_this(void) { return __tsan_get_current_fiber(); }
static void sanitizer_switch(void *to) { __tsan_switch_to_fiber(to, 0); }
#else
static void *sanitizer_new(void) { return NULL; }
static void *sanitizer_this(void) { return NULL; }
static void sanitizer_switch(void *to) { (void)to; }
#endif

static void wait_here(struct fiber *f)
{
    sanitizer_switch(f->sanitizer_outside);
    (void)swapcontext(&f->inside, &f->outside);
}

#if defined(__SANITIZE_ADDRESS__)
__attribute__((no_sanitize("address")))
#endif
static uint64_t dive(struct fiber *f, unsigned depth, uint64_t seed)
{
    volatile uint64_t numbers[48];
    uint64_t wrong = 0;

    for (unsigned i = 0; i < 48; i++) {
        numbers[i] = seed * (i + 1);
    }
    if (depth > 0) {
        wrong = dive(f, depth - 1, seed + 1);
    } else {
        wait_here(f);
    }
    for (unsigned i = 0; i < 48; i++) {
        wrong += numbers[i] != seed * (i + 1);
    }
    return wrong;
}

static void fiber_main(unsigned low, unsigned high)
{
    struct fiber *f = (struct fiber *)(((uintptr_t)high << 32) | low);

    for (;;) {
        f->wrong += dive(f, (unsigned)(f->seed % 20), f->seed);
        f->checks++;
        f->seed = f->seed * 6364136223846793005ull + 1442695040888963407ull;
    }
}

void fiber_init(struct fiber *f, struct guest *g, uint64_t seed)
{
    uintptr_t self = (uintptr_t)f;

    *f = (struct fiber){ .stack = alloc_pages(g->mm, GFP_KERNEL | __GFP_ZERO, FIBER_ORDER), .seed = seed, .sanitizer_inside = sanitizer_new() };
    assert_non_null(f->stack);
    assert_int_equal(getcontext(&f->inside), 0);
    f->inside.uc_stack.ss_sp = arch_page_address(page_pfn(f->stack));
    f->inside.uc_stack.ss_size = (size_t)FS_PAGE_BYTES << FIBER_ORDER;
    f->inside.uc_link = NULL;
    makecontext(&f->inside, (void (*)(void))fiber_main, 2, (unsigned)self, (unsigned)(self >> 32));
}

void fiber_step(void *arg, struct guest *g, uint64_t random)
{
    struct fiber *f = arg;

    (void)g, (void)random;
    f->sanitizer_outside = sanitizer_this();
    sanitizer_switch(f->sanitizer_inside);
    (void)swapcontext(&f->outside, &f->inside);
}
