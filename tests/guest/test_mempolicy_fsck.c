/*
 * test_mempolicy_fsck.c - every fault that mempolicy_fsck() knows is planted, found, and gone when it is taken back; what the dump says.
 */
#include "cache_check.h"
#include "arch_hosted.h"
#include "mbind.h"
#include "mempolicy_fsck.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define NODES      4u
#define RAM_PAGES  (NODES * 4096u)
#define VA         0x20000000ull
#define SHM_VA     0x20100000ull
#define PAGE       ((uint64_t)FS_PAGE_BYTES)

static struct guest g;
static struct mm_struct *mm, *child;
static struct address_space shm;
static uint64_t found[MPOL_FSCK_FAULTS];
static bool planted[MPOL_FSCK_FAULTS];

static void note(void *ctx, enum mpol_fsck_fault fault, const struct mm_struct *of, uint64_t va, uint64_t is, uint64_t should_be)
{
    (void)ctx;
    (void)of;
    (void)va;
    (void)is;
    (void)should_be;
    assert_true(fault < MPOL_FSCK_FAULTS);
    found[fault]++;
}

static void expect_none(void)
{
    memset(found, 0, sizeof(found));
    assert_int_equal(mempolicy_fsck(&g.vm, MPOL_FSCK_PLACES, note, NULL), 0);
}

static void expect(enum mpol_fsck_fault fault)
{
    memset(found, 0, sizeof(found));
    if (mempolicy_fsck(&g.vm, MPOL_FSCK_PLACES, note, NULL) == 0 || found[fault] == 0) {
        fail_msg("%s was planted and not found", mpol_fsck_name(fault));
    }
    assert_true(mempolicy_fsck(&g.vm, MPOL_FSCK_PLACES, NULL, NULL) > 0);
    planted[fault] = true;
}

#define PLANT(lvalue, wrong, fault)         \
    do {                                    \
        __typeof__(lvalue) was_ = (lvalue); \
        (lvalue) = (wrong);                 \
        expect(MPOL_FSCK_##fault);          \
        (lvalue) = was_;                    \
        expect_none();                      \
    } while (0)

static void map(uint64_t va, uint64_t pages, unsigned flags, struct address_space *file)
{
    assert_int_equal(vm_mmap(mm, &va, pages * PAGE, flags, file, 0), MM_OK);
}

static void bind(uint64_t va, uint64_t pages, enum mpol_mode mode, nodemask_t nodes)
{
    assert_int_equal(vm_mbind(mm, va, pages * PAGE, mode, nodes, MPOL_MF_MOVE_ALL | MPOL_MF_STRICT, NULL), MM_OK);
}

static int setup(void **state)
{
    unsigned char byte = 1;

    (void)state;
    guest_init_nodes(&g, RAM_PAGES, NODES, 64, NODES, 0);
    assert_int_equal(address_space_init(&g.vm, &shm, GFP_HIGH_MOVABLE, NULL, NULL), MM_OK);
    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    map(VA, 16, VM_ACCESS, NULL);
    map(SHM_VA, 16, VM_ACCESS | VM_SHARED, &shm);
    bind(VA, 8, MPOL_INTERLEAVE, 0xf);
    bind(VA + 8 * PAGE, 4, MPOL_BIND, 0x6);
    bind(SHM_VA + 2 * PAGE, 4, MPOL_BIND, 0x8);
    bind(SHM_VA + 6 * PAGE, 6, MPOL_INTERLEAVE, 0x5);
    for (uint64_t i = 0; i < 14; i++) {
        assert_int_equal(vm_user_write(mm, VA + i * PAGE, &byte, 1), MM_OK);
        assert_int_equal(vm_user_write(mm, SHM_VA + i * PAGE, &byte, 1), MM_OK);
    }
    assert_int_equal(vm_set_mempolicy(mm, MPOL_LOCAL, 0), MM_OK);
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    expect_none();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    expect_none();
    mm_put(child);
    mm_put(mm);
    address_space_destroy(&shm);
    expect_none();
    guest_free(&g);
    return 0;
}

static void test_policies(void **state)
{
    struct vm_area *v = find_vma(mm, VA), *shared = find_vma(mm, SHM_VA);
    struct mempolicy *stray;

    (void)state;
    assert_int_equal(v->policy->refs, 2);               /* the child's vma has the same one */
    PLANT(v->policy->refs, 1, REFS);
    PLANT(v->policy->refs, 3, REFS);
    PLANT(mm->policy->refs, 1, REFS);
    PLANT(shm.policy.first->policy->refs, 2, REFS);
    PLANT(mm->policy, NULL, REFS);
    PLANT(v->policy, NULL, REFS);
    PLANT(v->policy->mode, MPOL_DEFAULT, MODE);
    PLANT(v->policy->mode, MPOL_MODES, MODE);
    PLANT(v->policy->mode, MPOL_LOCAL, MODE);
    PLANT(v->policy->mode, MPOL_PREFERRED, MODE);
    PLANT(v->policy->nodes, 0, MODE);
    PLANT(mm->policy->nodes, 1, MODE);
    PLANT(v->policy->nodes, 0x1f, NODE);
    PLANT(shared->policy, v->policy, VMA);
    assert_int_equal(mpol_new(&g.vm, MPOL_BIND, 1, &stray), MM_OK);
    expect(MPOL_FSCK_LOST);
    mpol_put(&g.vm, stray);
    expect_none();
}

static void test_ranges(void **state)
{
    struct policy_range *first = shm.policy.first, *second = first->next, *spare;

    (void)state;
    assert_true(shm.policy.count == 2 && first->end == second->first && second->next == NULL);
    PLANT(shm.policy.count, 3, RANGES);
    PLANT(shm.policy.count, 1, RANGES);
    PLANT(first->next, NULL, LOST);
    PLANT(first->end, first->first, RANGE);
    PLANT(first->end, first->end + 1, RANGE);
    PLANT(first->policy, NULL, RANGE);
    PLANT(second->policy, first->policy, MERGE);
    PLANT(shm.policy.lock.held, 1, LOCK_HELD);
    assert_int_equal(policy_ranges_new(&g.vm, 1, &spare), MM_OK);
    expect(MPOL_FSCK_LOST);
    policy_ranges_free(&g.vm, spare);
    expect_none();
}

/* Policies that came after the pages: private, mapped by nobody but an object, and each mode. */
static void test_places(void **state)
{
    static const struct { uint64_t va; enum mpol_mode mode; nodemask_t wrong, right; } cases[] = {
        { VA, MPOL_INTERLEAVE, 0x7, 0xf }, { VA + 8 * PAGE, MPOL_BIND, 0x9, 0x6 }, { VA + 8 * PAGE, MPOL_PREFERRED, 0x8, 0x1 },
        { SHM_VA + 2 * PAGE, MPOL_BIND, 0x7, 0x8 }, { SHM_VA + 6 * PAGE, MPOL_INTERLEAVE, 0xa, 0x5 },
    };

    (void)state;
    for (size_t i = 0; i < FS_ARRAY_SIZE(cases); i++) {
        assert_int_equal(vm_mbind(mm, cases[i].va, 4 * PAGE, cases[i].mode, cases[i].wrong, 0, NULL), MM_OK);
        expect(MPOL_FSCK_PLACE);
        assert_int_equal(mempolicy_fsck(&g.vm, 0, NULL, NULL), 0);     /* where pages are is a question that is asked for */
        bind(cases[i].va, 4, cases[i].mode, cases[i].wrong);
        assert_int_equal(vm_munmap(child, VA, 0x200000), MM_OK);        /* the child's policies are still the old ones */
        expect_none();
        bind(cases[i].va, 4, cases[i].mode, cases[i].right);
        expect_none();
    }
}

static void test_every_fault_was_planted(void **state)
{
    (void)state;
    for (enum mpol_fsck_fault f = 0; f < MPOL_FSCK_FAULTS; f++) {
        if (!planted[f]) {
            fail_msg("%s was never planted", mpol_fsck_name(f));
        }
        assert_true(strcmp(mpol_fsck_name(f), "bad") != 0 && strlen(mpol_fsck_text(f)) > 8);
    }
    assert_string_equal(mpol_fsck_name(MPOL_FSCK_FAULTS), "bad");
    assert_string_equal(mpol_fsck_text(MPOL_FSCK_FAULTS), "bad");
}

/* ---- the dump ---- */

static char lines[16][300];
static unsigned line_count;

static void keep(void *ctx, const char *line)
{
    (void)ctx;
    assert_true(line_count < 16);
    strncpy(lines[line_count++], line, sizeof(lines[0]) - 1);
}

static void test_dump(void **state)
{
    (void)state;
    line_count = 0;
    mempolicy_dump(mm, keep, NULL);
    assert_int_equal(line_count, 4);
    assert_string_equal(lines[0], "0x20000000 interleave:0-3 anon=8 dirty=8 N0=2 N1=2 N2=2 N3=2");
    assert_string_equal(lines[1], "0x20008000 bind:1-2 anon=4 dirty=4 N1=4");
    assert_string_equal(lines[2], "0x2000c000 local anon=2 dirty=2 N0=2");
    assert_string_equal(lines[3], "0x20100000 local shm mapped=14 dirty=14 N0=7 N2=3 N3=4");
    assert_int_equal(vm_mbind(mm, VA + 8 * PAGE, 4 * PAGE, MPOL_BIND, 0xd, 0, NULL), MM_OK);
    line_count = 0;
    mempolicy_dump(mm, keep, NULL);
    assert_string_equal(lines[1], "0x20008000 bind:0,2-3 anon=4 dirty=4 N1=4 misplaced=4");
    line_count = 0;
    shared_policy_dump(&shm.policy, keep, NULL);
    assert_int_equal(line_count, 2);
    assert_string_equal(lines[0], "0x2-0x6 bind:3");
    assert_string_equal(lines[1], "0x6-0xc interleave:0,2");
    assert_int_equal(vm_mbind(mm, VA + 8 * PAGE, 4 * PAGE, MPOL_BIND, 0x6, 0, NULL), MM_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_policies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ranges, setup, teardown),
        cmocka_unit_test_setup_teardown(test_places, setup, teardown),
        cmocka_unit_test(test_every_fault_was_planted),
        cmocka_unit_test_setup_teardown(test_dump, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
