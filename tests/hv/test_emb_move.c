/*
 * test_emb_move.c - the PV mover on the embedded machine: whole guests leave a DIMM, under every shape of guest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "embedded/embedded.h"
#include "mover.h"
#include "range.h"

#define NODE_PAGES 16384u

static struct emb_machine *machine(uint64_t seed)
{
    struct emb_config c = { .nodes = { { NODE_PAGES, 0 }, { NODE_PAGES, 0 }, { NODE_PAGES, 0 } }, .node_count = 3, .seed = seed, .anon_pages = 4 };
    struct emb_machine *m = emb_machine_create(&c);
    assert_non_null(m);
    return m;
}

static uint16_t guest(struct emb_machine *m, struct emb_domain_config c)
{
    uint16_t domid;
    assert_int_equal(emb_domain_create(m, &c, &domid), 0);
    return domid;
}

struct session {
    char dir[64];
    struct hv_backend *be;
    struct journal *journal;
    struct room room;
    struct mfn_range_set ranges;
    struct hv_evacuate_options options;
    struct mover_ctx ctx;
};

static void session_begin(struct session *s, struct emb_machine *m, uint32_t node)
{
    *s = (struct session){ .dir = "/tmp/emb-move-XXXXXX" };
    assert_non_null(mkdtemp(s->dir));
    s->be = emb_backend(m);
    assert_non_null(s->be);
    assert_int_equal(journal_open(s->dir, false, &s->journal, NULL), FS_OK);
    assert_int_equal(s->be->ops->host(s->be, &s->ctx.host, NULL), FS_OK);
    assert_int_equal(mfn_set_add(&s->ranges, emb_node_range(m, node)), FS_OK);
    bool barred[HV_NODES_MAX] = { 0 };
    barred[node] = true;
    room_init(&s->room, &s->ctx.host, barred, 0);
    s->options.verify = true;
    s->ctx = (struct mover_ctx){ .be = s->be, .journal = s->journal, .options = &s->options, .ranges = &s->ranges, .room = &s->room, .host = s->ctx.host };
}

static void session_end(struct session *s)
{
    assert_int_equal(journal_finish(s->journal, NULL), FS_OK);
    journal_close(s->journal);
    s->be->ops->close(s->be);
    mfn_set_free(&s->ranges);
    char cmd[128];
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", s->dir);
    assert_int_equal(system(cmd), 0);
}

/* Frames of the domain in the node, as an owner scan finds them. */
static size_t scan(struct hv_backend *be, uint16_t domid, struct mfn_range range, struct mover_list *list)
{
    struct hv_frame *frames = calloc(mfn_range_pages(range), sizeof(*frames));
    assert_non_null(frames);
    assert_int_equal(be->ops->frames(be, range, frames, NULL), FS_OK);
    size_t n = 0;
    for (uint64_t i = 0; i < mfn_range_pages(range); i++) {
        if (frames[i].owner == HV_FRAME_DOMAIN && frames[i].domid == domid) {
            assert_int_equal(mover_list_add(list, mfn_add(range.start, i), frames[i].gfn), FS_OK);
            n++;
        }
    }
    free(frames);
    return n;
}

static void move_away(struct emb_machine *m, uint16_t domid, uint32_t node, const struct mover_ops *mover)
{
    struct session s;
    session_begin(&s, m, node);
    struct mfn_range range = emb_node_range(m, node);
    struct mover_list list = { .base = range.start };
    struct hv_mark_result *marks = calloc(mfn_range_pages(range), sizeof(*marks));
    struct hv_domain dom;
    struct hv_domain_report report = { 0 };
    struct mover_result result = { .report = &report };
    struct fs_error err = { "" };
    uint64_t held, in_range = emb_guest_frames_in(m, domid, range, &held);

    size_t n = scan(s.be, domid, range, &list);
    assert_int_equal(n, in_range);
    assert_int_equal(s.be->ops->domain(s.be, domid, &dom, NULL), FS_OK);
    fs_status_t st = mover->move(&s.ctx, &dom, &list, &result, &err);
    if (st != FS_OK) {
        fprintf(stderr, "move: %s: %s\n", fs_status_name(st), err.text);
    }
    assert_int_equal(st, FS_OK);
    assert_int_equal(emb_guest_check(m, domid, stderr), 0);
    assert_int_equal(emb_fsck(m, stderr), 0);
    assert_true(emb_guest_alive(m, domid));
    uint64_t left = emb_guest_frames_in(m, domid, range, &held);
    assert_int_equal(left, held);
    assert_int_equal(result.blocker_count, held);
    assert_int_equal(report.moved, in_range - held);
    assert_int_equal(report.mismatches, 0);
    assert_int_equal(emb_domain_pause_count(m, domid), 0);
    free(result.blockers);
    free(marks);
    mover_list_free(&list);
    session_end(&s);
}

static void pv_shapes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct emb_machine *m = machine(seed);
        struct emb_domain_config c = { .kind = HV_DOMAIN_PV, .name = "pv", .pages = 4096, .vcpus = 1 + (uint32_t)seed % 4, .seed = seed, .node = 1,
                                       .p2m_list_only = seed == 2, .p2m_linear_only = seed == 3, .ballooned = seed % 2 ? 30 : 0,
                                       .no_fifo = seed == 5, .offline_vcpus = seed == 7 ? 1 : 0, .any_node = seed == 6 };
        uint16_t domid = guest(m, c);
        assert_true(emb_guest_run(m, domid, 300) > 0);
        move_away(m, domid, 1, &mover_pv);
        assert_true(emb_guest_run(m, domid, 300) > 0);
        move_away(m, domid, 0, &mover_pv);
        assert_true(emb_guest_run(m, domid, 300) > 0);
        assert_int_equal(emb_guest_check(m, domid, stderr), 0);
        emb_machine_destroy(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pv_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
