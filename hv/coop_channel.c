/*
 * coop_channel.c - the tool's end of frameshift/abi.h.
 *
 * Owns: the mapping of the shared pages, indices, ids.
 * Invariants:
 *   I1  pages are found by pfn in the guest's p2m; a frame is mapped only if the M2P agrees, and the machine refuses
 *       what the domain does not own.
 *   I2  our indices are ours: the guest's response_produced is read once a look, and must lie in [consumed, produced].
 *   I3  an answer is copied, then checked: id and op as sent, status known, count not above what was asked, reserved 0.
 *   I4  waiting is always by coop_wait, so that the guest runs, and always bounded by timeout_ns without an answer.
 * Lock order: none.
 * Why sessions: after a kill nobody knows how far the last tool came; a guest that took up a new number is idle.
 * Cost: a request is one list page written and one wait of WAIT_NS or more.
 */
#include "coop_channel.h"

#include <stdlib.h>
#include <string.h>

#include "bitmap.h"
#include "frameshift/assert.h"
#include "pv_p2m.h"

#define WAIT_NS 50000ull

static struct fs_abi_control *control(const struct coop_channel *ch)
{
    return ch->map;
}

static struct fs_abi_move *list_page(const struct coop_channel *ch, unsigned slot)
{
    return (struct fs_abi_move *)(void *)((char *)ch->map + (slot + 1u) * FS_PAGE_BYTES);
}

static fs_status_t bad(const struct coop_channel *ch, const char *what, uint64_t value, struct fs_error *err)
{
    return fs_fail(err, FS_BAD_INPUT, "domain %u: its shared page is no good: %s is %#llx; it cannot be asked to move pages (exclude it)",
                   ch->dom->domid, what, (unsigned long long)value);
}

/* ---- mapping -------------------------------------------------------------------------- */

struct wanted { const uint64_t *pfns; mfn_t *out; size_t count; uint64_t least, most; };

static void note_wanted(void *arg, uint64_t pfn, mfn_t m)
{
    struct wanted *w = arg;
    for (size_t i = 0; pfn >= w->least && pfn <= w->most && i < w->count; i++) {
        if (w->pfns[i] == pfn) {
            w->out[i] = m;
        }
    }
}

/* The frames of pfns, checked (I1). */
static fs_status_t look_up(const struct coop_channel *ch, const uint64_t *pfns, size_t count, mfn_t *out, struct fs_error *err)
{
    struct wanted w = { pfns, out, count, UINT64_MAX, 0 };
    uint64_t *gfns = malloc((count + 1) * sizeof(*gfns)), pfn_count;
    if (gfns == NULL) {
        return FS_NO_MEMORY;
    }
    for (size_t i = 0; i < count; i++) {
        out[i] = MFN_NONE;
        w.least = pfns[i] < w.least ? pfns[i] : w.least;
        w.most = pfns[i] > w.most ? pfns[i] : w.most;
    }
    fs_status_t s = pv_p2m_each(ch->be, ch->dom, ch->limit_pfns, note_wanted, &w, &pfn_count, err);
    for (size_t i = 0; i < count && s == FS_OK; i++) {
        s = mfn_is_none(out[i]) ? bad(ch, "a pfn without a frame", pfns[i], err) : FS_OK;
    }
    if (s == FS_OK) {
        s = ch->be->ops->m2p(ch->be, out, count, gfns, err);
    }
    for (size_t i = 0; i < count && s == FS_OK; i++) {
        s = gfns[i] == pfns[i] ? FS_OK : bad(ch, "a pfn that the M2P does not confirm", pfns[i], err);
    }
    free(gfns);
    return s;
}

static fs_status_t map_frames(const struct coop_channel *ch, const mfn_t *frames, size_t count, enum hv_map_prot prot, void **out, struct fs_error *err)
{
    uint64_t *list = malloc((count + 1) * sizeof(*list));
    int *page_err = calloc(count + 1, sizeof(*page_err));
    fs_status_t s = list == NULL || page_err == NULL ? FS_NO_MEMORY : FS_OK;
    *out = NULL;
    for (size_t i = 0; i < count && s == FS_OK; i++) {
        list[i] = frames[i].n;
    }
    if (s == FS_OK) {
        s = ch->be->ops->map(ch->be, ch->dom->domid, list, count, prot, page_err, out, err);
    }
    for (size_t i = 0; i < count && s == FS_OK; i++) {
        if (page_err[i] != 0) {
            ch->be->ops->unmap(ch->be, *out, count);
            *out = NULL;
            s = bad(ch, "a frame that cannot be mapped", list[i], err);
        }
    }
    free(list);
    free(page_err);
    return s;
}

fs_status_t coop_map(struct coop_channel *ch, struct fs_error *err)
{
    mfn_t frames[COOP_SHARED_PAGES];
    void *map;
    fs_status_t s = look_up(ch, ch->pfns, COOP_SHARED_PAGES, frames, err);
    if (s == FS_OK) {
        s = map_frames(ch, frames, COOP_SHARED_PAGES, HV_MAP_WRITE, &map, err);
    }
    if (s == FS_OK) {
        if (ch->map != NULL) {
            ch->be->ops->unmap(ch->be, ch->map, COOP_SHARED_PAGES);
        }
        ch->map = map;
        memcpy(ch->frames, frames, sizeof(frames));
    }
    return s;
}

void coop_close(struct coop_channel *ch)
{
    if (ch->map != NULL) {
        ch->be->ops->unmap(ch->be, ch->map, COOP_SHARED_PAGES);
        ch->map = NULL;
    }
}

bool coop_is_shared(const struct coop_channel *ch, uint64_t pfn)
{
    for (unsigned i = 0; i < COOP_SHARED_PAGES; i++) {
        if (ch->pfns[i] == pfn) {
            return true;
        }
    }
    return false;
}

/* ---- opening ---------------------------------------------------------------------------- */

/* What the control page says, checked; the page itself is mapped for the moment. */
static fs_status_t read_constants(struct coop_channel *ch, struct fs_error *err)
{
    struct fs_abi_control c;
    mfn_t frame;
    void *map;
    fs_status_t s = look_up(ch, ch->pfns, 1, &frame, err);
    if (s == FS_OK) {
        s = map_frames(ch, &frame, 1, HV_MAP_READ, &map, err);
    }
    if (s != FS_OK) {
        return s;
    }
    memcpy(&c, map, sizeof(c));
    ch->be->ops->unmap(ch->be, map, 1);
    if (c.magic != FS_ABI_MAGIC) {
        return bad(ch, "magic", c.magic, err);
    }
    if (c.version != FS_ABI_VERSION) {
        return bad(ch, "version", c.version, err);
    }
    if (c.pfn_end > ch->limit_pfns || c.pfn_end == 0) {
        return bad(ch, "pfn_end", c.pfn_end, err);
    }
    if (c.block_pages != FS_ABI_BLOCK_PAGES) {
        return bad(ch, "block_pages", c.block_pages, err);
    }
    if (c.export_pages > 0 && (c.export_pfn >= c.pfn_end || c.export_pages > c.pfn_end - c.export_pfn ||
                               c.export_pages > c.pfn_end / (FS_ABI_BLOCK_PAGES * FS_ABI_BLOCKS_PER_PAGE) + 1)) {
        return bad(ch, "export_pages", c.export_pages, err);
    }
    for (unsigned i = 0; i < FS_ABI_SLOTS; i++) {
        if (c.list_pfn[i] >= c.pfn_end || coop_is_shared(ch, c.list_pfn[i])) {
            return bad(ch, "list_pfn", c.list_pfn[i], err);
        }
        ch->pfns[i + 1] = c.list_pfn[i];
    }
    ch->pfn_end = c.pfn_end;
    ch->export_pfn = c.export_pfn;
    ch->export_pages = c.export_pages;
    ch->features = c.features;
    return FS_OK;
}

static bool stopped_by_user(const struct coop_channel *ch)
{
    return ch->interrupted != NULL && *ch->interrupted != 0;
}

/* Let the guest run; FS_TIMEOUT once the time since *since is over. */
static fs_status_t wait_a_little(struct coop_channel *ch, uint64_t since, const char *what, struct fs_error *err)
{
    if (ch->be->ops->clock_ns(ch->be) - since > ch->timeout_ns) {
        return fs_fail(err, FS_TIMEOUT, "domain %u did not %s in %llu ms: is it stopped or overloaded? exclude it, or allow more time", ch->dom->domid,
                       what, (unsigned long long)(ch->timeout_ns / 1000000));
    }
    return ch->be->ops->coop_wait(ch->be, ch->dom->domid, WAIT_NS, err);
}

static fs_status_t begin_session(struct coop_channel *ch, struct fs_error *err)
{
    struct fs_abi_control *c = control(ch);
    uint64_t since = ch->be->ops->clock_ns(ch->be);
    fs_status_t s = FS_OK;
    ch->session = __atomic_load_n(&c->session_guest, __ATOMIC_ACQUIRE) + 1;
    ch->session += ch->session == 0;
    if (__atomic_load_n(&c->session_hv, __ATOMIC_RELAXED) == ch->session) {
        ch->session += 2;                       /* a tool that was killed asked for that one: it may come late */
    }
    __atomic_store_n(&c->session_hv, ch->session, __ATOMIC_RELEASE);
    while (s == FS_OK && __atomic_load_n(&c->session_guest, __ATOMIC_ACQUIRE) != ch->session) {
        s = stopped_by_user(ch) ? fs_fail(err, FS_INTERRUPTED, "stopped by a signal") : wait_a_little(ch, since, "begin a session", err);
    }
    ch->produced = ch->consumed = 0;
    return s;
}

fs_status_t coop_open(struct coop_channel *ch, struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns, uint64_t timeout_ns,
                      const volatile int *interrupted, struct fs_error *err)
{
    struct hv_coop found;
    *ch = (struct coop_channel){ .be = be, .dom = dom, .limit_pfns = limit_pfns, .timeout_ns = timeout_ns, .interrupted = interrupted };
    if (be->ops->coop_find == NULL || be->ops->coop_wait == NULL) {
        return fs_fail(err, FS_UNSUPPORTED, "this machine has no way to guests that move their own pages");
    }
    fs_status_t s = be->ops->coop_find(be, dom->domid, &found, err);
    if (s == FS_OK && found.version != FS_ABI_VERSION) {
        s = fs_fail(err, FS_BAD_VERSION, "domain %u speaks version %u of abi.h, this tool %u", dom->domid, found.version, FS_ABI_VERSION);
    }
    if (s != FS_OK) {
        return s;
    }
    for (unsigned i = 0; i < COOP_SHARED_PAGES; i++) {
        ch->pfns[i] = i == 0 ? found.control.n : FS_FRAME_NONE;
    }
    s = read_constants(ch, err);
    if (s == FS_OK) {
        s = coop_map(ch, err);
    }
    if (s == FS_OK) {
        s = begin_session(ch, err);
    }
    if (s != FS_OK) {
        coop_close(ch);
    }
    return s;
}

/* ---- requests ------------------------------------------------------------------------------ */

void coop_send(struct coop_channel *ch, const struct fs_abi_request *request, const struct fs_abi_move *list)
{
    unsigned slot = ch->produced % FS_ABI_SLOTS;
    ASSERT(!coop_full(ch));
    ASSERT_CMP(request->count, <=, FS_ABI_LIST_MAX);
    ch->sent[slot] = *request;
    ch->sent[slot].id = ch->produced;
    if (list != NULL) {
        memcpy(list_page(ch, slot), list, request->count * sizeof(*list));
    }
    memcpy(&control(ch)->request[slot], &ch->sent[slot], sizeof(ch->sent[slot]));
    __atomic_store_n(&control(ch)->request_produced, ++ch->produced, __ATOMIC_RELEASE);
}

/* Is the oldest answer there? (I2) */
static fs_status_t answered(const struct coop_channel *ch, bool *out, struct fs_error *err)
{
    uint32_t produced = __atomic_load_n(&control(ch)->response_produced, __ATOMIC_ACQUIRE);
    if (produced - ch->consumed > ch->produced - ch->consumed) {
        return bad(ch, "response_produced", produced, err);
    }
    if (__atomic_load_n(&control(ch)->broken, __ATOMIC_RELAXED) != 0) {
        return bad(ch, "broken", 1, err);
    }
    *out = produced != ch->consumed;
    return FS_OK;
}

/* Did the guest move the control page to the frame that it was given? Then go on there. */
static fs_status_t follow(struct coop_channel *ch, mfn_t to, struct fs_error *err)
{
    uint64_t gfn;
    fs_status_t s = ch->be->ops->m2p(ch->be, &to, 1, &gfn, err);
    if (s != FS_OK || gfn != ch->pfns[0]) {
        return s;
    }
    struct fs_error words;
    s = coop_map(ch, &words);                   /* FS_BAD_INPUT: the p2m does not say so yet */
    return s == FS_BAD_INPUT ? FS_OK : s == FS_OK ? s : fs_fail(err, s, "%s", words.text);
}

static bool response_ok(const struct fs_abi_request *q, const struct fs_abi_response *a)
{
    bool counted = q->op == FS_ABI_MOVE;
    return a->id == q->id && a->op == q->op && a->status <= FS_ABI_STATUS_NO_MEMORY && a->reserved == 0 && (!counted || a->count <= q->count);
}

fs_status_t coop_receive(struct coop_channel *ch, struct fs_abi_response *out, uint32_t *status, mfn_t control_to, struct fs_error *err)
{
    uint64_t since = ch->be->ops->clock_ns(ch->be);
    unsigned slot = ch->consumed % FS_ABI_SLOTS;
    bool there = false;
    ASSERT(!coop_idle(ch));
    fs_status_t s = answered(ch, &there, err);
    while (s == FS_OK && !there) {
        s = wait_a_little(ch, since, "answer a request", err);
        if (s == FS_OK && !mfn_is_none(control_to) && !mfn_eq(ch->frames[0], control_to)) {
            s = follow(ch, control_to, err);
        }
        if (s == FS_OK) {
            s = answered(ch, &there, err);
        }
    }
    if (s == FS_OK && !mfn_is_none(control_to)) {
        s = coop_map(ch, err);                  /* the lists have moved with it */
    }
    if (s != FS_OK) {
        return s;
    }
    memcpy(out, &control(ch)->response[slot], sizeof(*out));                    /* I3 */
    if (!response_ok(&ch->sent[slot], out)) {
        return bad(ch, "an answer's id, op, status or count", out->id, err);
    }
    for (uint32_t i = 0; status != NULL && i < ch->sent[slot].count; i++) {
        uint32_t e = __atomic_load_n(&list_page(ch, slot)[i].status, __ATOMIC_RELAXED);
        status[i] = i < out->count ? e : FS_ABI_ENTRY_NONE;
    }
    ch->consumed++;
    return FS_OK;
}

/* ---- the export ------------------------------------------------------------------------------ */

static void read_blocks(const struct fs_abi_block *page, uint64_t first_block, uint64_t *free_pages, uint64_t count)
{
    for (unsigned b = 0; b < FS_ABI_BLOCKS_PER_PAGE; b++) {
        uint64_t pfn = (first_block + b) * FS_ABI_BLOCK_PAGES;
        for (uint64_t i = 0; i < FS_ABI_BLOCK_PAGES && pfn + i < count; i++) {
            if (page[b].free[i / 64] >> i % 64 & 1) {
                bitmap_set(free_pages, pfn + i);
            }
        }
    }
}

fs_status_t coop_read_export(struct coop_channel *ch, uint64_t *free_pages, uint64_t count, struct fs_error *err)
{
    struct fs_abi_request q = { .op = FS_ABI_QUERY, .flags = FS_ABI_QUERY_EXPORT };
    struct fs_abi_response a;
    coop_send(ch, &q, NULL);
    fs_status_t s = coop_receive(ch, &a, NULL, MFN_NONE, err);
    if (s != FS_OK || a.status != FS_ABI_STATUS_OK || ch->export_pages == 0) {
        return s;
    }
    uint64_t *pfns = malloc(ch->export_pages * sizeof(*pfns));
    mfn_t *frames = malloc(ch->export_pages * sizeof(*frames));
    s = pfns == NULL || frames == NULL ? FS_NO_MEMORY : FS_OK;
    for (uint32_t i = 0; i < ch->export_pages && s == FS_OK; i++) {
        pfns[i] = ch->export_pfn + i;
    }
    if (s == FS_OK) {
        s = look_up(ch, pfns, ch->export_pages, frames, err);
    }
    for (uint32_t i = 0; i < ch->export_pages && s == FS_OK; i++) {
        void *map = NULL;
        s = map_frames(ch, &frames[i], 1, HV_MAP_READ, &map, err);
        if (s == FS_OK) {
            ASSERT(map != NULL);
            read_blocks(map, (uint64_t)i * FS_ABI_BLOCKS_PER_PAGE, free_pages, count);
            ch->be->ops->unmap(ch->be, map, 1);
        }
    }
    free(pfns);
    free(frames);
    return s;
}
