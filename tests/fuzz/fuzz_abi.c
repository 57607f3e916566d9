/*
 * fuzz_abi.c - include/frameshift/abi.h from both sides: a hostile guest for the tool, a hostile tool for the guest's memory core.
 *
 * The first byte chooses the side.
 * Tool's side: a domain whose shared pages hold what the input says; whenever the tool waits, the "guest" writes more of it.  Nothing
 * that coop_open() to coop_read_export() hand out may be out of bounds, and they end.
 * Guest's side: a booted kernel of guest/, whose request ring and lists are written by the input.  The kernel's own checks and the
 * machine's must find nothing, whatever was asked; a page may have moved, its M2P and direct map agree.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "coop_channel.h"
#include "coop_info.h"
#include "drill/coop_guest.h"

static const uint64_t pages = 512;

struct side {
    struct fuzz_input in;
    struct emb_machine *m;
    uint8_t *direct;
    uint64_t control, first;            /* pfns: the control page; the first of those that the input may name */
};

/* ---- the tool's side ---- */

static void write_some(struct side *s)
{
    struct fs_abi_control *c = (struct fs_abi_control *)(void *)(s->direct + s->control * FS_PAGE_BYTES);
    for (uint8_t n = fuzz_u8(&s->in) % 8; n > 0; n--) {
        uint32_t at = fuzz_u16(&s->in) % (sizeof(*c) / 8);
        uint64_t value = fuzz_u8(&s->in) < 0x80 ? fuzz_u8(&s->in) : fuzz_u64(&s->in);
        memcpy((uint8_t *)c + at * 8, &value, sizeof(value));
    }
}

/* A table that is nearly right. */
static void answer_info(struct side *s, const struct fs_abi_request *q, struct fs_abi_response *a, void *page)
{
    uint8_t how = fuzz_u8(&s->in);
    memset(page, 0, FS_PAGE_BYTES);
    a->status = how & 1 ? a->status : FS_ABI_STATUS_OK;
    a->count = how & 2 ? a->count : 1;
    a->value[FS_ABI_INFO_TOTAL] = how & 4 ? fuzz_u64(&s->in) : q->argument[1] % 4096 + a->count + fuzz_u8(&s->in) % 3;
    if (q->argument[0] == FS_ABI_TABLE_ZONES) {
        struct fs_abi_zone *z = page;
        *z = (struct fs_abi_zone){ .kind = fuzz_u8(&s->in) % 4, .free_pages = fuzz_u16(&s->in), .score = fuzz_u8(&s->in) % 110 };
        z->unusable[fuzz_u8(&s->in) % FS_ABI_ORDERS] = (uint16_t)(fuzz_u16(&s->in) % 1100);
        z->free[fuzz_u8(&s->in) % FS_ABI_TYPES][fuzz_u8(&s->in) % FS_ABI_ORDERS] = fuzz_u16(&s->in);
    } else {
        struct fs_abi_value *v = page;
        memset(v->name, 'a', fuzz_u8(&s->in) % (sizeof(v->name) + 1));
        v->name[0] = (char)(how & 8 ? fuzz_u8(&s->in) : 'b');
        v->least = how & 16 ? fuzz_u64(&s->in) : 0;
        v->most = how & 32 ? fuzz_u64(&s->in) : 0;
        v->flags = how & 64 ? fuzz_u8(&s->in) : 0;
    }
}

/* A guest that is now and then as it should be: otherwise nothing behind the handshake is ever reached. */
static void guest_writes(void *arg)
{
    struct side *s = arg;
    struct fs_abi_control *c = (struct fs_abi_control *)(void *)(s->direct + s->control * FS_PAGE_BYTES);
    uint8_t how = fuzz_u8(&s->in);
    if (!(how & 1)) {
        if (c->session_guest != c->session_hv) {
            c->request_produced = c->response_produced = 0;
            c->session_guest = c->session_hv;
        } else if (c->response_produced != c->request_produced) {
            uint32_t slot = c->response_produced % FS_ABI_SLOTS;
            c->response[slot] = (struct fs_abi_response){ .id = c->request[slot].id, .op = c->request[slot].op, .status = fuzz_u8(&s->in) % 7,
                                                          .count = fuzz_u8(&s->in) };
            struct fs_abi_move *list = (struct fs_abi_move *)(void *)(s->direct + c->list_pfn[slot] % pages * FS_PAGE_BYTES);
            for (unsigned i = 0; i < 4 && c->list_pfn[slot] % pages > s->first; i++) {
                list[fuzz_u8(&s->in) % FS_ABI_LIST_MAX].status = fuzz_u8(&s->in) % 32;
            }
            if (c->request[slot].op >= FS_ABI_INFO && c->list_pfn[slot] % pages > s->first) {
                answer_info(s, &c->request[slot], &c->response[slot], list);
            }
            c->response_produced++;
        }
    }
    if (how & 2) {
        write_some(s);
    }
}

/* False: the channel is of no more use. */
static bool ask(struct coop_channel *ch, struct fuzz_input *in)
{
    struct fs_abi_move list[FS_ABI_LIST_MAX];
    struct fs_abi_request r = { .id = ch->produced, .op = (uint16_t)(1 + fuzz_u8(in) % 7), .flags = fuzz_u8(in) & 1 };
    struct fs_abi_response out;
    uint32_t status[FS_ABI_LIST_MAX];
    memset(list, 0, sizeof(list));
    if (r.op == FS_ABI_MOVE) {
        r.count = 1 + fuzz_u8(in) % FS_ABI_LIST_MAX;
        for (uint32_t i = 0; i < r.count && i < 8; i++) {
            list[i] = (struct fs_abi_move){ .pfn = fuzz_u16(in), .from = fuzz_u16(in), .to = fuzz_u16(in) };
        }
    }
    coop_send(ch, &r, r.op == FS_ABI_MOVE ? list : NULL);
    if (coop_receive(ch, &out, status, MFN_NONE, NULL) != FS_OK) {
        return false;
    }
    if (out.id != r.id || out.op != r.op) {
        abort();
    }
    return true;
}

/* What frameshift meminfo and the movers ask; whoever had no answer to a request asks no more (coop_channel.h). */
static void questions(struct coop_channel *ch, struct fuzz_input *in, uint64_t *free_pages)
{
    struct hv_meminfo_value *values;
    struct hv_meminfo_zone *zones;
    struct hv_meminfo_set made;
    size_t count;
    ch->features |= fuzz_u8(in) & FS_ABI_FEATURE_INFO;
    if (coop_idle(ch) && coop_info_values(ch, fuzz_u8(in) & 1 ? FS_ABI_TABLE_COUNTERS : FS_ABI_TABLE_TUNABLES, &values, &count, NULL) == FS_OK) {
        for (size_t i = 0; i < count; i++) {
            if (values[i].name[0] == '\0' || memchr(values[i].name, 0, sizeof(values[i].name)) == NULL || values[i].least > values[i].most) {
                abort();
            }
        }
        free(values);
    }
    if (coop_idle(ch) && coop_info_zones(ch, &zones, &count, NULL) == FS_OK) {
        for (size_t i = 0; i < count; i++) {
            if (zones[i].kind >= HV_ZONE_KINDS || zones[i].free_pages > pages || zones[i].score > 100) {
                abort();
            }
        }
        free(zones);
    }
    if (coop_idle(ch)) {
        (void)!coop_info_tune(ch, "extfrag_threshold", fuzz_u16(in), &made, NULL);
    }
    if (coop_idle(ch) && coop_read_export(ch, free_pages, fuzz_u16(in) % (pages + 1), NULL) == FS_OK) {
        (void)!coop_map(ch, NULL);
    }
}

static void tool_side(struct fuzz_input in)
{
    struct emb_config c = { .nodes = { { 2048, 0 }, { 1024, 0 } }, .node_count = 2, .seed = 1, .virtual_clock = true };
    struct emb_core_config k = { .name = "core", .pages = pages, .vcpus = 1 };
    struct emb_core_boot boot;
    struct side s = { .in = in, .m = emb_machine_create(&c) };
    struct hv_domain dom;
    struct coop_channel ch;
    uint16_t domid;
    char number[24];
    struct hv_backend *be = s.m ? emb_backend(s.m) : NULL;
    if (!be || emb_core_create(s.m, &k, &domid) != 0 || emb_core_boot(s.m, domid, &boot) != 0) {
        abort();
    }
    s.direct = boot.direct;
    s.control = boot.first_free;
    s.first = boot.first_free + 1;
    struct fs_abi_control *page = (struct fs_abi_control *)(void *)(s.direct + s.control * FS_PAGE_BYTES);
    *page = (struct fs_abi_control){ .magic = FS_ABI_MAGIC, .version = FS_ABI_VERSION, .pfn_end = pages, .block_pages = FS_ABI_BLOCK_PAGES,
                                     .export_pfn = s.first + 8, .export_pages = 1 };
    for (unsigned i = 0; i < FS_ABI_SLOTS; i++) {
        page->list_pfn[i] = s.first + 1 + i;
    }
    write_some(&s);
    (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)(fuzz_u8(&s.in) < 0xf0 ? s.control : fuzz_u64(&s.in)));
    (void)emb_core_publish(s.m, domid, FS_ABI_KEY_CONTROL, number);
    (void)emb_core_publish(s.m, domid, FS_ABI_KEY_VERSION, fuzz_u8(&s.in) < 0xf0 ? "1" : "2x");
    emb_core_step_with(s.m, domid, guest_writes, &s);
    if (be->ops->domain(be, domid, &dom, NULL) == FS_OK && coop_open(&ch, be, &dom, 4 * pages, 3000000, NULL, NULL) == FS_OK) {
        uint64_t free_pages[512 / 64 + 1] = { 0 };
        for (unsigned i = 0; i < 6 && ask(&ch, &s.in); i++) {
        }
        questions(&ch, &s.in, free_pages);
        coop_close(&ch);
    }
    be->ops->close(be);
    if (emb_fsck(s.m, stderr) != 0) {
        abort();
    }
    emb_core_step_with(s.m, domid, NULL, NULL);
    emb_core_unmap(s.m, domid);
    if (emb_domain_destroy(s.m, domid) != 0 || emb_fsck(s.m, stderr) != 0) {
        abort();
    }
    emb_machine_destroy(s.m);
}

/* ---- the guest's side ---- */

static uint64_t a_number(struct fuzz_input *in, uint64_t limit)
{
    uint8_t how = fuzz_u8(in);
    return how < 0xe0 ? fuzz_u16(in) % limit : fuzz_u64(in);
}

static void hostile_request(struct fuzz_input *in, struct coop_guest *c, struct fs_abi_control *page)
{
    struct guest *g = coop_guest_kernel(c);
    uint32_t slot = page->request_produced % FS_ABI_SLOTS;
    struct fs_abi_request *r = &page->request[slot];
    struct fs_abi_move *list = g->coop->list[slot];
    uint8_t how = fuzz_u8(in);
    *r = (struct fs_abi_request){ .id = fuzz_u8(in), .op = (uint16_t)(how < 0xf0 ? 1u + how % 7 : fuzz_u16(in)), .flags = fuzz_u8(in) % 4 };
    r->count = r->op == FS_ABI_MOVE ? (uint32_t)(fuzz_u8(in) < 0xf0 ? 1u + fuzz_u8(in) % 8 : a_number(in, 256)) : fuzz_u8(in) >= 0xf0;
    if (r->op == FS_ABI_INFO) {
        r->argument[0] = a_number(in, 5);
        r->argument[1] = a_number(in, 200);
    } else if (r->op != FS_ABI_MOVE && r->op != FS_ABI_TUNE) {
        r->argument[0] = a_number(in, 2048);
    }
    for (unsigned i = 0; i < 8; i++) {
        uint64_t pfn = a_number(in, g->machine.pages);
        uint64_t from = pfn < g->machine.pages ? (uint64_t)g->machine.p2m[pfn] : 0;
        list[i] = (struct fs_abi_move){ .pfn = pfn, .from = fuzz_u8(in) < 0xe0 ? from : a_number(in, 8192), .to = a_number(in, 8192) };
    }
    if (r->op == FS_ABI_TUNE) {
        static const char *const names[] = { "extfrag_threshold", "compaction_proactiveness", "compact_memory", "compact_node", "claim_policy",
                                             "claim_window", "min_free_pages", "nothing" };
        struct fs_abi_value v = { .value = a_number(in, 2048) };
        const char *name = names[fuzz_u8(in) % 8];
        memcpy(v.name, name, strlen(name));
        v.name[31] = (char)(fuzz_u8(in) < 0xf0 ? 0 : fuzz_u8(in));
        v.reserved = fuzz_u8(in) >= 0xf0;
        r->count = fuzz_u8(in) < 0xf0 ? 1 : r->count;
        memcpy(list, &v, sizeof(v));
    }
    page->request_produced += how == 0xff ? fuzz_u8(in) : 1;
}

static void guest_side(struct fuzz_input in)
{
    struct emb_config c = { .nodes = { { 5120, 0 }, { 1024, 0 } }, .node_count = 2, .seed = 1, .virtual_clock = true };
    struct coop_guest_config k = { .name = "coop", .pages = 4096, .vcpus = 1, .boot = { .seed = 1 } };
    struct emb_machine *m = emb_machine_create(&c);
    struct coop_guest *guest;
    struct hv_backend *be = m ? emb_backend(m) : NULL;
    mfn_t spare[16];
    size_t done = 0;
    if (!be || coop_guest_create(m, &k, &guest) != 0) {
        abort();
    }
    uint16_t domid = coop_guest_domid(guest);
    (void)be->ops->set_max_pages(be, domid, 4096 + 16, NULL);
    (void)be->ops->increase(be, domid, 1, 16, spare, &done, NULL);        /* frames that a MOVE may go to */
    struct fs_abi_control *page = coop_guest_kernel(guest)->coop->control;
    page->session_hv = 7;
    coop_guest_step(guest, 2);
    for (unsigned i = 0; i < 24 && in.at < in.bytes; i++) {
        hostile_request(&in, guest, page);
        if (done > 0 && fuzz_u8(&in) < 0xa0) {                             /* some targets are right */
            coop_guest_kernel(guest)->coop->list[(page->request_produced - 1) % FS_ABI_SLOTS][0].to = spare[i % done].n;
        }
        coop_guest_step(guest, 1 + fuzz_u8(&in) % 4);
        if (page->broken || fuzz_u8(&in) >= 0xf0) {
            page->session_hv++;
            coop_guest_step(guest, 1);
        }
    }
    if (coop_guest_check(guest, stderr) != 0 || emb_fsck(m, stderr) != 0) {
        abort();
    }
    be->ops->close(be);
    coop_guest_destroy(guest);
    if (emb_fsck(m, stderr) != 0) {
        abort();
    }
    emb_machine_destroy(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_input in = { data, bytes, 0 };
    if (fuzz_u8(&in) & 1) {
        guest_side(in);
    } else {
        tool_side(in);
    }
    return 0;
}
