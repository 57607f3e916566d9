/*
 * workload.c - tasks that use memory as programs do: starting, stepping, counting.
 *
 * Owns: struct workload, the version tables, what a pattern is.
 * Invariants:
 *   I1  the bytes of a line follow from key, page, line and version. All writes of a task have different versions (65,534 of them, then they
 *       begin anew), so what one process wrote is never taken for what another one, or an older copy, has.
 *   I2  a task changes its version only when the write has succeeded, and a line is in one page: a write is done or it is not.
 *   I3  what the core refuses for lack of memory is counted and no fault; everything else that it refuses is one.
 * Lock order: none; a task is one CPU's at a time.
 * Why: copies of what was written would need as much memory again, and would be moved about themselves.
 * Cost: two bytes a line of 512; verifying a line costs its generation.
 */
#include "workload_priv.h"
#include "../mm/page_alloc.h"
#include "frameshift/assert.h"

static const struct { const char *name, *text; } kinds[WORKLOAD_KINDS] = {
#define X(name, text) { #name, text },
    WORKLOAD_LIST(X)
#undef X
};

static const struct workload_ops *const ops_of[WORKLOAD_KINDS] = {
    [WORKLOAD_ANON] = &workload_user_ops, [WORKLOAD_FORK] = &workload_user_ops, [WORKLOAD_SHM] = &workload_user_ops,
    [WORKLOAD_MLOCK] = &workload_user_ops, [WORKLOAD_FILE] = &workload_file_ops, [WORKLOAD_SLAB] = &workload_slab_ops,
    [WORKLOAD_HUGE] = &workload_unit_ops, [WORKLOAD_DMA] = &workload_unit_ops, [WORKLOAD_POLICY] = &workload_policy_ops,
    [WORKLOAD_THP] = &workload_huge_ops, [WORKLOAD_POOL] = &workload_huge_ops,
};

const char *workload_name(enum workload_kind kind)
{
    return (unsigned)kind < WORKLOAD_KINDS ? kinds[kind].name : "bad";
}

const char *workload_text(enum workload_kind kind)
{
    return (unsigned)kind < WORKLOAD_KINDS ? kinds[kind].text : "bad";
}

const char *workload_fault_name(enum workload_fault fault)
{
    static const char *const names[] = { "bytes", "gone", "link", "frame", "store", "place" };
    return (unsigned)fault < FS_ARRAY_SIZE(names) ? names[fault] : "bad";
}

/* ---- patterns ---- */

static uint64_t mix(uint64_t x)                     /* the finalizer of splitmix64, public domain */
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

uint64_t task_random(struct workload_task *t, uint64_t below)
{
    t->rng += 0x9e3779b97f4a7c15ull;
    return mix(t->rng) % below;
}

uint16_t task_next_version(struct workload_task *t)
{
    t->serial = t->serial + 1u >= VERSION_HOLE ? 1 : (uint16_t)(t->serial + 1u);
    return t->serial;
}

void pattern_fill(uint64_t key, uint64_t page, uint32_t line, uint16_t version, bool zero, unsigned char *to)
{
    uint64_t x = mix(key ^ mix(page * LINES + line) ^ (uint64_t)version << 48);

    if (zero && version == 0) {
        memset(to, 0, LINE_BYTES);
        return;
    }
    for (uint32_t i = 0; i < LINE_WORDS; i++) {
        uint64_t word = x * (2 * (uint64_t)i + 1) + i;

        memcpy(to + i * sizeof(word), &word, sizeof(word));
    }
}

/* ---- reporting ---- */

void task_wrong_at(struct workload_task *t, enum workload_fault fault, uint64_t pfn, uint64_t page, uint64_t byte, uint64_t is, uint64_t should_be)
{
    const struct workload_wrong wrong = { .kind = t->kind, .task = t->number, .fault = fault, .page = page, .byte = byte, .pfn = pfn, .is = is,
                                          .should_be = should_be };

    t->stats.wrong++;
    if (t->w->config.wrong != NULL) {
        t->w->config.wrong(t->w->config.ctx, &wrong);
    }
}

void task_wrong(struct workload_task *t, enum workload_fault fault, uint64_t page, uint64_t byte, uint64_t is, uint64_t should_be)
{
    task_wrong_at(t, fault, FS_FRAME_NONE, page, byte, is, should_be);
}

bool task_went(struct workload_task *t, mm_status_t status, uint64_t page)
{
    if (status == MM_ENOMEM) {
        t->stats.refused++;
    } else if (status != MM_OK) {
        task_wrong(t, WORKLOAD_GONE, page, 0, (uint64_t)status, MM_OK);
    }
    return status == MM_OK;
}

/* The first byte of the line that is not as it should be (t->should); LINE_BYTES: none. */
static uint32_t wrong_byte(struct workload_task *t, uint64_t key, uint64_t page, uint32_t line, uint16_t version, bool zero, const unsigned char *bytes)
{
    uint32_t i = 0;

    pattern_fill(key, page, line, version, zero, t->should);
    t->stats.bytes_verified += LINE_BYTES;
    if (memcmp(bytes, t->should, LINE_BYTES) == 0) {
        return LINE_BYTES;
    }
    while (i + 1 < LINE_BYTES && bytes[i] == t->should[i]) {
        i++;
    }
    return i;
}

void task_check_line(struct workload_task *t, uint64_t pfn, uint64_t key, uint64_t page, uint32_t line, uint16_t version, bool zero,
                     const unsigned char *bytes)
{
    uint32_t i = wrong_byte(t, key, page, line, version, zero, bytes);

    if (i < LINE_BYTES) {
        task_wrong_at(t, WORKLOAD_BYTES, pfn, page, line * LINE_BYTES + i, bytes[i], t->should[i]);
    }
}

/* ---- versions ---- */

mm_status_t versions_init(struct versions *v, struct mm *mm, uint32_t pages)
{
    unsigned order = 0;

    while ((size_t)FS_PAGE_BYTES << order < pages * LINES * sizeof(uint16_t)) {
        order++;
    }
    *v = (struct versions){ .mm = mm, .pages = pages };
    v->unit = alloc_pages(mm, GFP_KERNEL | __GFP_ACCOUNT | __GFP_ZERO | (order > 0 ? __GFP_COMP : 0u), order);
    if (v->unit == NULL) {
        return MM_ENOMEM;
    }
    v->at = arch_page_address(page_pfn(v->unit));
    return MM_OK;
}

void versions_free(struct versions *v)
{
    if (v->unit != NULL) {
        page_put(v->mm, v->unit);
    }
    *v = (struct versions){ .unit = NULL };
}

void versions_copy(struct versions *to, const struct versions *from)
{
    ASSERT_CMP(to->pages, ==, from->pages);
    memcpy(to->at, from->at, from->pages * LINES * sizeof(uint16_t));
}

/* ---- user memory ---- */

void task_user_write(struct workload_task *t, struct mm_struct *mm, uint64_t va, uint64_t key, struct versions *v, uint32_t page, uint32_t line)
{
    uint16_t *version = &v->at[page * LINES + line], next = task_next_version(t);

    pattern_fill(key, page, line, next, true, t->line);
    if (task_went(t, vm_user_write(mm, va + (uint64_t)page * FS_PAGE_BYTES + line * LINE_BYTES, t->line, LINE_BYTES), page)) {
        *version = next;                            /* I2 */
        t->stats.bytes_written += LINE_BYTES;
    }
}

static uint64_t user_pfn(struct mm_struct *mm, uint64_t va)
{
    struct page *p = follow_page(mm, va);
    uint64_t pfn = p != NULL ? p->pfn : FS_FRAME_NONE;

    if (p != NULL) {
        page_put(mm->vm->mm, p);
    }
    return pfn;
}

void task_user_check(struct workload_task *t, struct mm_struct *mm, uint64_t va, uint64_t key, const struct versions *v, uint32_t page,
                     bool zero)
{
    if (v->at[page * LINES] == VERSION_HOLE) {
        mm_status_t status = vm_user_read(mm, va + (uint64_t)page * FS_PAGE_BYTES, t->line, 1);

        if (status != MM_EINVAL) {
            task_wrong(t, WORKLOAD_GONE, page, 0, (uint64_t)status, MM_EINVAL);
        }
        return;
    }
    for (uint32_t line = 0; line < LINES; line++) {
        if (!task_went(t, vm_user_read(mm, va + (uint64_t)page * FS_PAGE_BYTES + line * LINE_BYTES, t->line, LINE_BYTES), page)) {
            return;
        }
        uint32_t i = wrong_byte(t, key, page, line, v->at[page * LINES + line], zero, t->line);

        if (i < LINE_BYTES) {
            task_wrong_at(t, WORKLOAD_BYTES, user_pfn(mm, va + (uint64_t)page * FS_PAGE_BYTES), page, line * LINE_BYTES + i, t->line[i], t->should[i]);
        }
    }
}

/* ---- tasks ---- */

static mm_status_t task_start(struct workload *w, enum workload_kind kind)
{
    struct workload_task *t = kmem_cache_alloc(w->task_cache, GFP_KERNEL | __GFP_ZERO);
    mm_status_t status;

    if (t == NULL) {
        return MM_ENOMEM;
    }
    t->w = w;
    t->kind = kind;
    t->number = w->count;
    t->pages = w->config.pages;
    t->key = mix(w->config.seed + 0x1234567 * (uint64_t)w->count);
    t->rng = mix(t->key);
    status = ops_of[kind]->start(t);
    if (status != MM_OK) {
        ops_of[kind]->stop(t);
        kmem_cache_free(w->task_cache, t);
        return status;
    }
    w->tasks[w->count++] = t;
    return MM_OK;
}

mm_status_t workload_start(struct workload *w, const struct workload_config *config)
{
    mm_status_t status = MM_OK;

    *w = (struct workload){ .config = *config };
    if (config->vm == NULL || config->kinds == 0 || config->kinds > WORKLOAD_ALL || config->tasks == 0
        || config->tasks > WORKLOAD_TASKS_MAX / WORKLOAD_KINDS || config->pages < 16 || config->pages > WORKLOAD_PAGES_MAX) {
        return MM_EINVAL;
    }
    w->task_cache = kmem_cache_create(config->vm->mm, "workload_task", sizeof(struct workload_task), 64, 0, NULL, NULL);
    if (w->task_cache == NULL) {
        return MM_ENOMEM;
    }
    for (uint32_t i = 0; i < config->tasks && status == MM_OK; i++) {
        for (unsigned k = 0; k < WORKLOAD_KINDS && status == MM_OK; k++) {
            status = config->kinds >> k & 1 ? task_start(w, (enum workload_kind)k) : MM_OK;
        }
    }
    if (status != MM_OK) {
        workload_stop(w);
    }
    return status;
}

void workload_stop(struct workload *w)
{
    mm_status_t status;

    while (w->count > 0) {
        struct workload_task *t = w->tasks[--w->count];

        ops_of[t->kind]->stop(t);
        kmem_cache_free(w->task_cache, t);
    }
    status = kmem_cache_destroy(w->task_cache);
    ASSERT_CMP(status, ==, MM_OK);
    w->task_cache = NULL;
}

uint64_t workload_step(struct workload *w, uint32_t task)
{
    struct workload_task *t = w->tasks[task];
    uint64_t wrong = t->stats.wrong;

    ASSERT_CMP(task, <, w->count);
    t->stats.steps++;
    ops_of[t->kind]->step(t);
    return t->stats.wrong - wrong;
}

uint64_t workload_verify(struct workload *w, uint32_t task)
{
    struct workload_task *t = w->tasks[task];
    uint64_t wrong = t->stats.wrong;

    ASSERT_CMP(task, <, w->count);
    ops_of[t->kind]->verify(t);
    return t->stats.wrong - wrong;
}

uint64_t workload_verify_all(struct workload *w)
{
    uint64_t wrong = 0;

    for (uint32_t i = 0; i < w->count; i++) {
        wrong += workload_verify(w, i);
    }
    return wrong;
}

void workload_restored(struct workload *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        if (w->tasks[i]->kind == WORKLOAD_DMA) {
            units_restored(w->tasks[i]);
        }
    }
}

uint32_t workload_device_pages(const struct workload *w, uint32_t task, pfn_t *list, uint32_t max)
{
    ASSERT_CMP(task, <, w->count);
    return w->tasks[task]->kind == WORKLOAD_DMA ? unit_device_pages(w->tasks[task], list, max) : 0;
}

enum workload_kind workload_task_kind(const struct workload *w, uint32_t task)
{
    ASSERT_CMP(task, <, w->count);
    return w->tasks[task]->kind;
}

struct workload_stats workload_task_stats(const struct workload *w, uint32_t task)
{
    ASSERT_CMP(task, <, w->count);
    return w->tasks[task]->stats;
}

struct workload_stats workload_total(const struct workload *w)
{
    struct workload_stats sum = { .steps = 0 };

    for (uint32_t i = 0; i < w->count; i++) {
        const struct workload_stats *s = &w->tasks[i]->stats;

        sum.steps += s->steps;
        sum.bytes_verified += s->bytes_verified;
        sum.bytes_written += s->bytes_written;
        sum.refused += s->refused;
        sum.places_verified += s->places_verified;
        sum.regions += s->regions;
        sum.regions_exchanged += s->regions_exchanged;
        sum.regions_refused += s->regions_refused;
        sum.wrong += s->wrong;
    }
    return sum;
}
