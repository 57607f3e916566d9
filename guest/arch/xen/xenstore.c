/*
 * xenstore.c - a client of xenstore, over the ring that the toolstack set up.
 *
 * Owns: this end of the ring: req_prod and rsp_cons; one request at a time; a message that has come in part.
 * Invariants:
 *   I1  every index and length that the daemon writes is read once and checked: more than a ring in flight, a payload above
 *       XENSTORE_PAYLOAD_MAX, a type or request id that was not asked for, each end the connection for good (`broken`).
 *   I2  of a payload at most ANSWER_BYTES are kept, the rest is counted and dropped: no length from outside is one of ours.
 *   I3  nothing waits for ever: XENSTORE_LIMIT_NS for an answer or for room.
 * Lock order: none (one vCPU).
 * Why: what this domain says of itself (data/frameshift) and what it is asked for (control/shutdown) are nodes there.  A watch makes
 *   the asking cheap: two words of the ring are looked at, and no request is sent until something has changed.
 * Cost: a request is one event and a wait for dom0; a look for watches reads two words.
 */
#include "kernel.h"
#include "frameshift/assert.h"
#include <xen/io/xs_wire.h>

#define XENSTORE_LIMIT_NS 20000000000ull
#define STEP_NS           20000000ull
#define ANSWER_BYTES      256u              /* of values and error words */
#define WATCH_TOKEN       "frameshift"

static struct xenstore_domain_interface *ring;
static evtchn_port_t port;
static uint32_t last_id;
static bool fired;
static const char *broken;                  /* I1: why nothing is sent any more */
static const char *trouble = "";

static struct { struct xsd_sockmsg head; uint32_t got; char body[ANSWER_BYTES]; } in;

const char *xenstore_trouble(void)
{
    return trouble;
}

evtchn_port_t xenstore_port(void)
{
    return port;
}

static bool fail(const char *words)
{
    trouble = words;
    return false;
}

static bool fail_for_good(const char *words)
{
    broken = words;
    return fail(words);
}

bool xenstore_open(void)
{
    uint64_t pfn = memory_pfn(start_info->store_mfn);

    ring = NULL;
    if (pfn == FS_FRAME_NONE || !event_port_good(start_info->store_evtchn)) {
        return fail("start_info names no page of ours, or no event channel");
    }
    ring = direct_map(pfn);
    port = start_info->store_evtchn;
    broken = NULL;
    in.got = 0;
    return true;
}

/* ---- bytes ---- */

/* Bytes that the daemon has written and we have not read; above a ring: nonsense (I1). */
static uint32_t waiting(void)
{
    return __atomic_load_n(&ring->rsp_prod, __ATOMIC_ACQUIRE) - ring->rsp_cons;
}

static uint32_t unread(void)
{
    return ring->req_prod - __atomic_load_n(&ring->req_cons, __ATOMIC_ACQUIRE);
}

static void wait_for_daemon(void)
{
    event_clear(port);
    if (waiting() == 0) {
        event_wait(&port, 1, STEP_NS);
    }
}

static bool send_bytes(const char *bytes, uint32_t count, uint64_t since)
{
    for (uint32_t i = 0; i < count;) {
        uint32_t used = unread();

        if (used > XENSTORE_RING_SIZE) {
            return fail_for_good("the daemon took more than was sent");
        }
        if (used == XENSTORE_RING_SIZE) {
            if (arch_time_ns() - since > XENSTORE_LIMIT_NS) {
                return fail_for_good("the daemon does not read");           /* I3; half a request is out */
            }
            event_send(port);
            wait_for_daemon();
            continue;
        }
        ring->req[MASK_XENSTORE_IDX(ring->req_prod)] = bytes[i++];
        __atomic_store_n(&ring->req_prod, ring->req_prod + 1, __ATOMIC_RELEASE);
    }
    return true;
}

/* Take what is there. True: a whole message is in `in`. */
static bool take_message(void)
{
    uint32_t there = waiting();

    if (there > XENSTORE_RING_SIZE) {
        return fail_for_good("the daemon wrote more than a ring");
    }
    while (there > 0) {
        char byte = ring->rsp[MASK_XENSTORE_IDX(ring->rsp_cons)];

        if (in.got < sizeof(in.head)) {
            ((char *)&in.head)[in.got] = byte;
        } else if (in.got - sizeof(in.head) < ANSWER_BYTES) {               /* I2 */
            in.body[in.got - sizeof(in.head)] = byte;
        }
        in.got++;
        there--;
        __atomic_store_n(&ring->rsp_cons, ring->rsp_cons + 1, __ATOMIC_RELEASE);
        if (in.got >= sizeof(in.head) && in.head.len > XENSTORE_PAYLOAD_MAX) {
            return fail_for_good("the daemon sends a longer message than there can be");
        }
        if (in.got >= sizeof(in.head) && in.got - sizeof(in.head) == in.head.len) {
            in.got = 0;
            event_send(port);                       /* there is room again */
            return true;
        }
    }
    return false;
}

/* ---- requests ---- */

/* The answer to request `id`; watches that fire meanwhile are noted. */
static bool receive(uint32_t type, uint32_t id, uint64_t since)
{
    for (;;) {
        if (!take_message()) {
            if (broken != NULL) {
                return false;
            }
            if (arch_time_ns() - since > XENSTORE_LIMIT_NS) {
                return fail_for_good("the daemon does not answer");         /* a late answer would be taken for another's */
            }
            wait_for_daemon();
            continue;
        }
        if (in.head.type == XS_WATCH_EVENT) {
            fired = true;
            continue;
        }
        if (in.head.req_id != id || (in.head.type != type && in.head.type != XS_ERROR)) {
            return fail_for_good("the daemon answers what was not asked");
        }
        return in.head.type == type ? true : fail("the daemon refuses");
    }
}

static uint32_t length(const char *text)
{
    uint32_t n = 0;

    while (text[n] != '\0') {
        n++;
    }
    return n;
}

/* First and second go with or without their end of text. */
static bool request(uint32_t type, const char *first, const char *second, bool second_ends)
{
    uint64_t since = arch_time_ns();
    uint32_t first_bytes = length(first) + 1, second_bytes = second != NULL ? length(second) + second_ends : 0;
    struct xsd_sockmsg head = { .type = type, .req_id = ++last_id, .tx_id = 0, .len = first_bytes + second_bytes };

    if (ring == NULL) {
        return fail("there is no ring");
    }
    if (broken != NULL) {
        return fail(broken);
    }
    ASSERT_CMP(head.len, <=, XENSTORE_PAYLOAD_MAX);
    if (!send_bytes((const char *)&head, sizeof(head), since) || !send_bytes(first, first_bytes, since)
        || (second != NULL && !send_bytes(second, second_bytes, since))) {
        return false;
    }
    event_send(port);
    return receive(type, head.req_id, since);
}

bool xenstore_write(const char *path, const char *value)
{
    return request(XS_WRITE, path, value, false);
}

bool xenstore_read(const char *path, char *value, size_t bytes)
{
    ASSERT_CMP(bytes, >, 0);
    if (!request(XS_READ, path, NULL, false)) {
        return false;
    }
    if (in.head.len >= bytes || in.head.len > ANSWER_BYTES) {
        return fail("a value is too long");
    }
    for (uint32_t i = 0; i < in.head.len; i++) {
        if (in.body[i] == '\0') {
            return fail("a value is no text");
        }
        value[i] = in.body[i];
    }
    value[in.head.len] = '\0';
    return true;
}

bool xenstore_watch(const char *path)
{
    return request(XS_WATCH, path, WATCH_TOKEN, true);
}

bool xenstore_fired(void)
{
    bool was;

    while (ring != NULL && broken == NULL && waiting() != 0 && take_message()) {
        if (in.head.type != XS_WATCH_EVENT) {
            (void)fail_for_good("the daemon answers what was not asked");
        }
        fired = true;
    }
    was = fired;
    fired = false;
    return was;
}
