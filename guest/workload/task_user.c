/*
 * task_user.c - processes: anonymous memory, fork and copy-on-write, shared memory, mlocked memory.
 *
 * Owns: struct user_task.
 * Invariants:
 *   I1  member i of the family sees expected[i] (SHM: all see expected[0]); a child begins with a copy of its parent's.
 *   I2  MLOCK: every page of the first half of the window is mapped at every moment.
 *   I3  ANON: a page that was unmapped is mapped again at once, and reads as zeros.
 * Lock order: none.
 * Why: each of the four keeps a different promise of the core under test: contents, separation, sharing, presence.
 * Cost: a step writes a line or two and verifies two pages; a fork copies the version table.
 */
#include "workload_priv.h"
#include "../mm/page_alloc.h"

#define CHECK_PAGES 2u
#define RESIDENT_NS 2000000000ull

static struct versions *expected(struct workload_task *t, uint32_t member)
{
    return &t->u.user.expected[t->kind == WORKLOAD_SHM ? 0 : member];
}

static mm_status_t map_window(struct workload_task *t, struct mm_struct *mm)
{
    struct user_task *u = &t->u.user;
    bool shm = t->kind == WORKLOAD_SHM;

    return vm_mmap(mm, &u->va, (uint64_t)t->pages * FS_PAGE_BYTES, VM_ACCESS | (shm ? VM_SHARED : 0u), shm ? &u->shm : NULL, 0);
}

static mm_status_t user_start(struct workload_task *t)
{
    struct user_task *u = &t->u.user;
    uint32_t members = t->kind == WORKLOAD_SHM ? 2 : 1;
    mm_status_t status = MM_OK;

    if (t->kind == WORKLOAD_SHM) {
        status = address_space_init(task_vm(t), &u->shm, GFP_HIGH_MOVABLE, NULL, NULL);
        u->shm_made = status == MM_OK;
    }
    for (uint32_t i = 0; i < members && status == MM_OK; i++) {
        status = mm_create(task_vm(t), &u->mm[i]);
        u->mm[i] = status == MM_OK ? u->mm[i] : NULL;
        status = status == MM_OK ? map_window(t, u->mm[i]) : status;
    }
    if (status == MM_OK) {
        status = versions_init(&u->expected[0], task_mm(t), t->pages);
    }
    if (status == MM_OK && t->kind == WORKLOAD_MLOCK) {
        status = vm_mlock(u->mm[0], u->va, (uint64_t)(t->pages / 2) * FS_PAGE_BYTES);
    }
    return status;
}

static void member_end(struct workload_task *t, uint32_t i)
{
    struct user_task *u = &t->u.user;

    if (u->mm[i] != NULL) {
        mm_put(u->mm[i]);
        u->mm[i] = NULL;
    }
    versions_free(&u->expected[i]);
}

static void user_stop(struct workload_task *t)
{
    for (uint32_t i = 0; i < FAMILY_MAX; i++) {
        member_end(t, i);
    }
    if (t->u.user.shm_made) {
        address_space_destroy(&t->u.user.shm);
    }
}

static uint32_t some_member(struct workload_task *t)
{
    uint32_t i = (uint32_t)task_random(t, FAMILY_MAX);

    return t->u.user.mm[i] != NULL ? i : 0;
}

/* ---- what a step does ---- */

static void fork_member(struct workload_task *t, uint32_t parent)
{
    struct user_task *u = &t->u.user;
    uint32_t child = 1 + (uint32_t)task_random(t, FAMILY_MAX - 1);

    if (child == parent) {
        return;
    }
    member_end(t, child);
    if (!task_went(t, versions_init(&u->expected[child], task_mm(t), t->pages), 0)) {
        return;
    }
    versions_copy(&u->expected[child], &u->expected[parent]);      /* I1 */
    if (!task_went(t, mm_fork(u->mm[parent], &u->mm[child]), 0)) {
        u->mm[child] = NULL;
        versions_free(&u->expected[child]);
    }
}

static void set_versions(struct versions *v, uint32_t first, uint32_t pages, uint16_t version)
{
    for (uint32_t i = first * LINES; i < (first + pages) * LINES; i++) {
        v->at[i] = version;
    }
}

static void map_pages(struct workload_task *t, uint32_t first, uint32_t pages)
{
    struct user_task *u = &t->u.user;
    uint64_t va = u->va + (uint64_t)first * FS_PAGE_BYTES;

    if (task_went(t, vm_mmap(u->mm[0], &va, (uint64_t)pages * FS_PAGE_BYTES, VM_ACCESS, NULL, 0), first)) {
        set_versions(&u->expected[0], first, pages, 0);
    }
}

/* Throw a few pages away and map them anew (I3). */
static void remap(struct workload_task *t)
{
    struct user_task *u = &t->u.user;
    uint32_t first = (uint32_t)task_random(t, t->pages), n = 1 + (uint32_t)task_random(t, 8);

    n = n < t->pages - first ? n : t->pages - first;
    if (task_went(t, vm_munmap(u->mm[0], u->va + (uint64_t)first * FS_PAGE_BYTES, (uint64_t)n * FS_PAGE_BYTES), first)) {
        set_versions(&u->expected[0], first, n, VERSION_HOLE);
        map_pages(t, first, n);
    }
}

static void unprotect(struct workload_task *t)
{
    struct user_task *u = &t->u.user;
    uint32_t page = u->read_only - 1;

    if (task_went(t, vm_mprotect(u->mm[0], u->va + (uint64_t)page * FS_PAGE_BYTES, FS_PAGE_BYTES, VM_ACCESS), page)) {
        u->read_only = 0;
    }
}

/* No right to write, and a write that has to be refused; then as before. */
static void protect(struct workload_task *t)
{
    struct user_task *u = &t->u.user;
    uint32_t page = (uint32_t)task_random(t, t->pages);
    uint64_t va = u->va + (uint64_t)page * FS_PAGE_BYTES, word = 0;

    if (u->expected[0].at[page * LINES] == VERSION_HOLE || !task_went(t, vm_mprotect(u->mm[0], va, FS_PAGE_BYTES, VM_READ), page)) {
        return;
    }
    if (vm_user_write(u->mm[0], va, &word, sizeof(word)) == MM_OK) {
        task_wrong(t, WORKLOAD_GONE, page, 0, MM_OK, MM_EINVAL);
    }
    u->read_only = page + 1;
    unprotect(t);
}

/* I2 */
static void check_resident(struct workload_task *t, uint32_t page)
{
    struct user_task *u = &t->u.user;
    struct page *p = NULL;

    uint64_t until = arch_time_ns() + RESIDENT_NS;

    /* A page on its way to another frame is seen as out until it has arrived. */
    while ((p = follow_page(u->mm[0], u->va + (uint64_t)page * FS_PAGE_BYTES)) == NULL && arch_time_ns() < until) {
        arch_cpu_relax();
    }
    if (p == NULL) {
        task_wrong(t, WORKLOAD_GONE, page, 0, 0, 1);
    } else {
        page_put(task_mm(t), p);
    }
}

static void relock_part(struct workload_task *t)
{
    struct user_task *u = &t->u.user;
    uint32_t half = t->pages / 2, first = half + (uint32_t)task_random(t, t->pages - half), n = t->pages - first;
    uint64_t va = u->va + (uint64_t)first * FS_PAGE_BYTES;

    /* The second half is locked and unlocked as it comes. */
    n = n < 8 ? n : 8;
    if (task_random(t, 2) == 0) {
        (void)task_went(t, vm_mlock(u->mm[0], va, (uint64_t)n * FS_PAGE_BYTES), first);
    } else {
        (void)task_went(t, vm_munlock(u->mm[0], va, (uint64_t)n * FS_PAGE_BYTES), first);
    }
}

static void check_page(struct workload_task *t, uint32_t member, uint32_t page)
{
    if (t->kind == WORKLOAD_MLOCK && page < t->pages / 2) {
        check_resident(t, page);
    }
    task_user_check(t, t->u.user.mm[member], t->u.user.va, t->key, expected(t, member), page, true);
}

static void write_page(struct workload_task *t, uint32_t member, uint32_t page)
{
    struct versions *v = expected(t, member);

    if (v->at[page * LINES] == VERSION_HOLE) {
        map_pages(t, page, 1);
    }
    if (v->at[page * LINES] != VERSION_HOLE && t->u.user.read_only != page + 1) {
        task_user_write(t, t->u.user.mm[member], t->u.user.va, t->key, v, page, (uint32_t)task_random(t, LINES));
    }
}

static void user_step(struct workload_task *t)
{
    uint32_t member = some_member(t), what = (uint32_t)task_random(t, 100);

    if (t->u.user.read_only != 0) {                 /* memory was short */
        unprotect(t);
    }
    if (t->kind == WORKLOAD_FORK && what < 4) {
        fork_member(t, member);
    } else if (t->kind == WORKLOAD_FORK && what < 6 && member != 0) {
        member_end(t, member);
    } else if (t->kind == WORKLOAD_ANON && what < 4) {
        remap(t);
    } else if (t->kind == WORKLOAD_ANON && what < 8) {
        protect(t);
    } else if (t->kind == WORKLOAD_MLOCK && what < 5) {
        relock_part(t);
    } else {
        for (uint32_t i = 1 + what % 3; i > 0; i--) {
            write_page(t, member, (uint32_t)task_random(t, t->pages));
        }
    }
    for (uint32_t i = 0; i < CHECK_PAGES; i++) {
        t->cursor = (t->cursor + 1) % t->pages;
        check_page(t, some_member(t), t->cursor);
    }
}

static void user_verify(struct workload_task *t)
{
    for (uint32_t i = 0; i < FAMILY_MAX; i++) {
        for (uint32_t page = 0; page < t->pages && t->u.user.mm[i] != NULL; page++) {
            check_page(t, i, page);
        }
    }
}

const struct workload_ops workload_user_ops = { user_start, user_stop, user_step, user_verify };
