/*
 * test_xenstore.c - the PV kernel's xenstore client against a daemon that is right, slow, wrong or hostile.
 *
 * Owns: a ring in this process, the daemon behind it, and a clock that goes on by itself.
 * Why a daemon that runs where the client waits: one thread, so every interleaving is chosen by the seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../guest/arch/xen/kernel.h"
#include <xen/io/xs_wire.h>

#define MS 1000000ull

static struct start_info info;
struct start_info *start_info = &info;
static FS_ALIGNED(4096) unsigned char page[FS_PAGE_BYTES];
static struct xenstore_domain_interface *ring = (void *)page;
static uint64_t now, sent, waits, rng;

/* What the daemon does with the next request. */
static enum mood { RIGHT, REFUSES, SILENT, WRONG_ID, WRONG_TYPE, TOO_LONG, OVERFULL, EVENT_FIRST, READS_TOO_MUCH, NOISE } mood;
static uint32_t at_once;                /* bytes of an answer a wait */
static char store[64][2][300];          /* path, value */
static unsigned nodes;
static unsigned char answer[8192];
static uint32_t answer_bytes, answer_sent;

static uint64_t below(uint64_t n)
{
    rng = rng * 6364136223846793005ull + 1442695040888963407ull;
    return (rng >> 33) % n;
}

/* ---- what the client calls ---- */

uint64_t arch_time_ns(void) { return now += 1000; }
uint64_t memory_pfn(uint64_t mfn)
{
    return mfn == 77 ? ((uint64_t)(uintptr_t)page - DIRECT_BASE) / FS_PAGE_BYTES : FS_FRAME_NONE;
}
bool event_port_good(evtchn_port_t port) { return port == 3; }
void event_clear(evtchn_port_t port) { assert_int_equal(port, 3); }
static void daemon_turn(void);
void event_send(evtchn_port_t port)
{
    assert_int_equal(port, 3);
    sent++;
    daemon_turn();
}
void event_wait(evtchn_port_t *ports, uint32_t count, uint64_t ns)
{
    assert_int_equal(count, 1);
    assert_int_equal(ports[0], 3);
    waits++;
    now += ns;
    daemon_turn();
}

/* ---- the daemon ---- */

static void reply(uint32_t type, uint32_t id, const void *body, uint32_t bytes)
{
    struct xsd_sockmsg head = { .type = type, .req_id = id, .len = bytes };

    assert_true(answer_bytes + sizeof(head) + bytes <= sizeof(answer));
    memcpy(answer + answer_bytes, &head, sizeof(head));
    memcpy(answer + answer_bytes + sizeof(head), body, bytes);
    answer_bytes += (uint32_t)sizeof(head) + bytes;
}

static char *find(const char *path)
{
    for (unsigned i = 0; i < nodes; i++) {
        if (strcmp(store[i][0], path) == 0) {
            return store[i][1];
        }
    }
    return NULL;
}

static void handle(const struct xsd_sockmsg *head, char *body)
{
    uint32_t type = head->type, id = head->req_id;
    const char *value = find(body);

    assert_int_equal(head->tx_id, 0);
    switch (mood) {
    case REFUSES:    reply(XS_ERROR, id, "EACCES", 7); return;
    case WRONG_ID:   reply(type, id + 1, "OK", 3); return;
    case WRONG_TYPE: reply(XS_RM, id, "OK", 3); return;
    case SILENT:     return;
    case TOO_LONG: {
        struct xsd_sockmsg long_one = { .type = type, .req_id = id, .len = XENSTORE_PAYLOAD_MAX + 1 };
        memcpy(answer + answer_bytes, &long_one, sizeof(long_one));
        answer_bytes += sizeof(long_one);
        return;
    }
    case OVERFULL:   ring->rsp_prod = ring->rsp_cons + XENSTORE_RING_SIZE + 1; return;
    case READS_TOO_MUCH: ring->req_cons = ring->req_prod + 1; return;
    case EVENT_FIRST: reply(XS_WATCH_EVENT, 0, "control/shutdown\0frameshift", 28); break;
    default: break;
    }
    if (type == XS_WRITE) {
        size_t path = strlen(body) + 1;
        char *to = find(body);

        if (to == NULL) {
            strcpy(store[nodes][0], body);
            to = store[nodes++][1];
        }
        memcpy(to, body + path, head->len - path);
        to[head->len - path] = '\0';
        reply(type, id, "OK", 3);
    } else if (type == XS_READ && value != NULL) {
        reply(type, id, value, (uint32_t)strlen(value));
    } else if (type == XS_READ) {
        reply(XS_ERROR, id, "ENOENT", 7);
    } else {
        assert_int_equal(type, XS_WATCH);
        assert_string_equal(body + strlen(body) + 1, "frameshift");
        assert_int_equal(head->len, strlen(body) + 1 + sizeof("frameshift"));
        reply(type, id, "OK", 3);
        reply(XS_WATCH_EVENT, 0, "control/shutdown\0frameshift", 28);
    }
}

static void take_requests(void)
{
    static unsigned char in[8192];
    static uint32_t got;

    while (ring->req_cons != ring->req_prod && ring->req_prod - ring->req_cons <= XENSTORE_RING_SIZE) {
        struct xsd_sockmsg head;

        in[got++] = (unsigned char)ring->req[MASK_XENSTORE_IDX(ring->req_cons)];
        ring->req_cons++;
        memcpy(&head, in, sizeof(head));
        if (got >= sizeof(head) && got == sizeof(head) + head.len) {
            in[got] = 0;
            got = 0;
            handle(&head, (char *)in + sizeof(head));
        }
    }
}

static void daemon_turn(void)
{
    if (mood == NOISE) {
        for (unsigned i = 0; i < 64; i++) {
            page[below(sizeof(*ring))] = (unsigned char)below(256);
        }
        ring->rsp_prod = ring->rsp_cons + (uint32_t)below(200);
        return;
    }
    if (mood != SILENT) {
        take_requests();
    }
    for (uint32_t i = 0; i < at_once && answer_sent < answer_bytes && ring->rsp_prod - ring->rsp_cons < XENSTORE_RING_SIZE; i++) {
        ring->rsp[MASK_XENSTORE_IDX(ring->rsp_prod)] = (char)answer[answer_sent++];
        ring->rsp_prod++;
    }
    if (answer_sent == answer_bytes) {
        answer_sent = answer_bytes = 0;
    }
}

static int setup(void **state)
{
    (void)state;
    memset(page, 0, sizeof(page));
    ring->req_cons = ring->req_prod = 0xffffff00u;              /* indices wrap soon */
    ring->rsp_cons = ring->rsp_prod = 0xffffff80u;
    info = (struct start_info){ .store_mfn = 77, .store_evtchn = 3 };
    mood = RIGHT;
    at_once = UINT32_MAX;
    nodes = 0;
    answer_bytes = answer_sent = 0;
    rng = 1;
    assert_true(xenstore_open());
    (void)xenstore_fired();
    return 0;
}

/* ---- tests ---- */

static void test_open(void **state)
{
    (void)state;
    info.store_mfn = 78;
    assert_false(xenstore_open());
    assert_false(xenstore_write("a", "b"));                     /* nothing to write to */
    info = (struct start_info){ .store_mfn = 77, .store_evtchn = 4096 };
    assert_false(xenstore_open());
}

static void test_right(void **state)
{
    char value[64], path[32];

    (void)state;
    for (unsigned i = 0; i < 60; i++) {                         /* round the ring more than once */
        at_once = i % 3 == 0 ? 1 + i : UINT32_MAX;
        snprintf(path, sizeof(path), "data/n%u", i % 40);
        snprintf(value, sizeof(value), "%u is what it says", i);
        assert_true(xenstore_write(path, value));
        memset(value, 0, sizeof(value));
        assert_true(xenstore_read(path, value, sizeof(value)));
        assert_int_equal(atoi(value), (int)i);
    }
    assert_true(xenstore_write("data/empty", ""));
    assert_true(xenstore_read("data/empty", value, sizeof(value)));
    assert_string_equal(value, "");
    assert_false(xenstore_read("data/none", value, sizeof(value)));
    assert_true(xenstore_write("data/after", "1"));             /* a refusal is no end */
}

static void test_watches(void **state)
{
    char value[8];

    (void)state;
    assert_false(xenstore_fired());
    assert_true(xenstore_watch("control/shutdown"));
    assert_true(xenstore_fired());                              /* each watch fires once at the beginning */
    assert_false(xenstore_fired());
    assert_true(xenstore_write("data/x", "7"));
    mood = EVENT_FIRST;                                         /* it fires between a request and its answer */
    at_once = 5;
    assert_true(xenstore_read("data/x", value, sizeof(value)));
    assert_string_equal(value, "7");
    assert_true(xenstore_fired());
    mood = RIGHT;
    at_once = 10;                                               /* an event that comes in parts fires when it is whole */
    reply(XS_WATCH_EVENT, 0, "control/shutdown\0frameshift", 28);
    for (unsigned i = 0; i < 4; i++) {
        daemon_turn();
        assert_false(xenstore_fired());
    }
    daemon_turn();
    assert_true(xenstore_fired());
    reply(XS_READ, 9, "7", 1);                                  /* nobody asked */
    daemon_turn();
    (void)xenstore_fired();
    assert_false(xenstore_write("data/x", "8"));
}

static void test_values(void **state)
{
    char value[16];

    (void)state;
    memset(store[0][1], 'v', 290);
    strcpy(store[0][0], "long");
    store[0][1][290] = '\0';
    nodes = 1;
    memset(value, '#', sizeof(value));
    assert_false(xenstore_read("long", value, sizeof(value)));
    assert_int_equal(value[0], '#');                            /* nothing of it was written */
    store[0][1][16] = '\0';
    assert_false(xenstore_read("long", value, sizeof(value)));  /* no room for its end */
    store[0][1][15] = '\0';
    assert_true(xenstore_read("long", value, sizeof(value)));
    assert_int_equal(strlen(value), 15);
}

/* After each of these nothing is believed any more, until the ring is opened anew. */
static void test_wrong(void **state)
{
    static const enum mood moods[] = { SILENT, WRONG_ID, WRONG_TYPE, TOO_LONG, OVERFULL, READS_TOO_MUCH };

    for (unsigned i = 0; i < FS_ARRAY_SIZE(moods); i++) {
        uint64_t start, before;

        setup(state);
        mood = moods[i];
        start = now;
        assert_false(xenstore_write("data/x", "1") && xenstore_write("data/x", "2"));
        assert_true(now - start < 60000 * MS);                  /* it does not wait for ever */
        mood = RIGHT;
        before = sent;
        assert_false(xenstore_write("data/x", "3"));
        assert_int_equal(sent, before);                         /* and it does not even ask */
        assert_true(strlen(xenstore_trouble()) > 5);
    }
    setup(state);
    mood = REFUSES;
    assert_false(xenstore_write("data/x", "1"));
    mood = RIGHT;
    assert_true(xenstore_write("data/x", "1"));
}

static void test_noise(void **state)
{
    char value[32];

    for (uint64_t seed = 1; seed <= 300; seed++) {
        setup(state);
        rng = seed;
        mood = NOISE;
        for (unsigned i = 0; i < 4; i++) {
            uint64_t start = now;

            if (xenstore_read("data/x", value, sizeof(value))) {
                assert_true(memchr(value, '\0', sizeof(value)) != NULL);
            }
            (void)xenstore_fired();
            assert_true(now - start < 60000 * MS);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_open, setup), cmocka_unit_test_setup(test_right, setup), cmocka_unit_test_setup(test_watches, setup),
        cmocka_unit_test_setup(test_values, setup), cmocka_unit_test_setup(test_wrong, setup), cmocka_unit_test_setup(test_noise, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
