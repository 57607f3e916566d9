/*
 * hap_refs.c - asking the machine about candidate pages, and whether the answers are complete.
 *
 * Owns: hap_refs(), hap_held_ask(): the reading of frame_refs and of the event channel states.
 * Invariants:
 *  I1 a frame without an answer is never innocent; it is asked again a few times, since a line of
 *     Xen's console can be torn by another CPU's;
 *  I2 innocent is a frame whose owner is the domain and whose type count is 0, or that is
 *     not the domain's at all (then it is another domain's frame at the same gfn);
 *  I3 what completes the count is the type references, not the pages: several vCPUs may have their
 *     vcpu_info in one page.  Places in shared_info do not count: they keep their last contents
 *     when a vCPU registers elsewhere.  So a guest that never registers is left alone.
 * Why array candidates come in two steps: any page of small numbers has the loose shape of an
 * event array, thousands in a guest.  Guests as we know them mask all words that they do not
 * use, so the nearly-all-masked pages are asked about first.  Only if that leaves the
 * count short, so are all that agree with what Xen says of the channels, but for the few that
 * may have changed between Xen's answer and our look.
 * Cost: one dump of the event channels, and milliseconds a frame.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "hap_priv.h"
#include "held_shape.h"

#define PORTS_MAX      131072u
#define WORDS_PER_PAGE 1024u
#define INDICES_MAX    (PORTS_MAX / WORDS_PER_PAGE)
#define VCPUS_MAX      512u
#define TRIES          4u
#define ASK_BATCH      16u
#define WIDE_MAX       20000u           /* frames that are asked about at all: a minute or so */

#define PORT_VALID(s)  (((s) & 0x80u) != 0)
#define PORT_FIFO(s)   (((s) & 0x04u) != 0)
#define PORT_MASKED(s) (((s) & 0x02u) != 0)
#define PORT_KIND(s)   (((unsigned)(s) >> 4) & 7u)

struct hap_ports {
    uint8_t *state;                 /* PORTS_MAX bytes */
    size_t count;
    uint8_t used[INDICES_MAX];      /* an event array page of this index has a channel */
    uint32_t pages;                 /* how many are used */
    bool told;                      /* the machine tells kinds of channels, so that "not FIFO" means something */
};

fs_status_t hap_refs(struct hap_job *job, const mfn_t *mfns, size_t count, struct hv_frame_refs *out, struct fs_error *err)
{
    if (!job->ops->frame_refs) {
        return fs_fail(err, FS_UNSUPPORTED, "this machine does not tell the references to a frame");
    }
    fs_status_t st = job->ops->frame_refs(job->be, mfns, count, out, err);
    for (unsigned attempt = 1; attempt < TRIES && st == FS_OK; attempt++) {         /* I1 */
        for (size_t i = 0; i < count && st == FS_OK; i++) {
            if (!out[i].known) {
                st = job->ops->frame_refs(job->be, &mfns[i], 1, &out[i], err);
            }
        }
    }
    return st;
}

fs_status_t hap_ports_read(struct hap_job *job, struct fs_error *err)
{
    struct hap_ports *p = calloc(1, sizeof(*p));

    if (!p || !(p->state = calloc(1, PORTS_MAX))) {
        free(p);
        return fs_fail(err, FS_NO_MEMORY, "no memory for event channel states");
    }
    job->held.ports = p;
    fs_status_t st = job->ops->evtchn_state(job->be, job->domid, p->state, PORTS_MAX, &p->count, err);
    if (st != FS_OK) {
        return hap_why(job, st, err);
    }
    if (p->count > PORTS_MAX) {
        return fs_fail(err, FS_BAD_INPUT, "domain %u: %zu event channels", job->domid, p->count);
    }
    for (size_t port = 0; port < p->count; port++) {
        uint8_t s = p->state[port];

        p->told |= PORT_VALID(s) && PORT_KIND(s) != 0;
        if (PORT_VALID(s) && PORT_FIFO(s) && !p->used[port / WORDS_PER_PAGE]) {
            p->used[port / WORDS_PER_PAGE] = 1;
            p->pages++;
        }
    }
    return FS_OK;
}

uint32_t hap_ports_limit(const struct hap_ports *p)
{
    return (uint32_t)p->count;
}

void hap_ports_free(struct hap_ports *p)
{
    if (p) {
        free(p->state);
        free(p);
    }
}

/* At most one in eight channels, and two more, may have changed between Xen's answer and our look. */
static bool agrees(const uint8_t *page, const struct hap_ports *p, size_t index)
{
    size_t valid = 0, different = 0;

    for (size_t port = index * WORDS_PER_PAGE; port < p->count && port < (index + 1) * WORDS_PER_PAGE; port++) {
        uint32_t word;

        if (!PORT_VALID(p->state[port]) || !PORT_FIFO(p->state[port])) {
            continue;
        }
        memcpy(&word, page + port % WORDS_PER_PAGE * 4, sizeof(word));
        valid++;
        different += (word >> 30 & 1) != PORT_MASKED(p->state[port]);
    }
    return different <= valid / 8 + 2;
}

bool hap_ports_agree(const struct hap_ports *p, const void *page)
{
    for (size_t index = 0; index < INDICES_MAX; index++) {
        if (p->used[index] && agrees(page, p, index)) {
            return true;
        }
    }
    return false;
}

static void judge(struct hap_job *job, struct hap_candidate *c, const struct hv_frame_refs *r)
{
    if (!r->known) {
        c->verdict = HAP_UNCLEAR;
    } else if (r->domid == job->domid && r->type_count > 0 && !r->xen_heap) {
        c->verdict = HAP_HELD;
        c->type_count = r->type_count;
    } else {
        c->verdict = HAP_INNOCENT;                          /* I2 */
    }
}

static fs_status_t ask_batch(struct hap_job *job, const uint32_t *cands, size_t n, struct fs_error *err)
{
    mfn_t mfns[64] = { { 0 } };
    struct hv_frame_refs refs[64] = { 0 };

    for (size_t i = 0; i < n; i++) {
        mfns[i] = mfn_make(job->held.list[cands[i]].mfn);
    }
    fs_status_t st = hap_refs(job, mfns, n, refs, err);
    for (size_t i = 0; i < n && st == FS_OK; i++) {
        judge(job, &job->held.list[cands[i]], &refs[i]);
    }
    return st;
}

struct tally { uint64_t vcpus, controls, arrays; };

/* A page counts for what it most likely is: two kinds in one page would only make the count fall short, i.e. safer. */
static struct tally tally(const struct hap_held *h)
{
    struct tally t = { 0 };

    for (size_t i = 0; i < h->count; i++) {
        const struct hap_candidate *c = &h->list[i];

        if (c->verdict != HAP_HELD) {
            continue;
        }
        if (c->kinds & HELD_VCPU) {
            t.vcpus += c->type_count;
        } else if (c->kinds & HELD_CONTROL) {
            t.controls += c->type_count;
        } else {
            t.arrays += c->type_count;
        }
    }
    return t;
}

/* May Xen hold a page of this candidate's kind that is not yet known? */
static bool open_question(const struct hap_job *job, const struct hap_candidate *c, const struct tally *t, bool wide)
{
    return (c->kinds & HELD_VCPU && t->vcpus < job->dom.vcpus)
        || (c->kinds & HELD_CONTROL && t->controls < job->dom.vcpus)
        || (c->kinds & HELD_ARRAY && (c->likely & HELD_ARRAY || (wide && c->array_agrees)));
}

/* The likely ones first: once every vCPU's page is known, no other can be one (hap_held.c, I4), and the rest need no asking. */
static fs_status_t ask_all(struct hap_job *job, bool likely, bool wide, size_t *asked, struct fs_error *err)
{
    struct hap_held *h = &job->held;
    uint32_t cands[ASK_BATCH];
    size_t n = 0;
    struct tally t = tally(h);
    fs_status_t st = FS_OK;

    for (size_t i = 0; i < h->count && st == FS_OK && *asked < WIDE_MAX; i++) {
        const struct hap_candidate *c = &h->list[i];

        if ((c->verdict != HAP_UNASKED && c->verdict != HAP_UNCLEAR) || c->mfn == FS_FRAME_NONE || (c->likely != 0) != likely
            || !open_question(job, c, &t, wide)) {
            continue;
        }
        cands[n++] = (uint32_t)i;
        ++*asked;
        if (n == ASK_BATCH) {
            st = ask_batch(job, cands, n, err);
            t = tally(h);
            n = 0;
        }
    }
    return n > 0 && st == FS_OK ? ask_batch(job, cands, n, err) : st;
}

static void compare(struct hap_job *job, const struct hap_ports *p, char *missing, size_t bytes)
{
    struct hap_held *h = &job->held;
    struct tally t = tally(h);
    unsigned online = job->dom.vcpus_online;

    h->fifo = p->pages > 0;
    if (!p->told) {
        (void)snprintf(missing, bytes, "Xen does not tell the kinds of its event channels");
    } else if (t.vcpus < online) {
        (void)snprintf(missing, bytes, "vcpu_info of %u of %u online vCPUs was found", (unsigned)t.vcpus, online);
    } else if (h->fifo && t.arrays < p->pages) {
        (void)snprintf(missing, bytes, "%u of %u event array pages were found", (unsigned)t.arrays, p->pages);
    } else if (h->fifo && t.controls < online) {
        (void)snprintf(missing, bytes, "event control blocks of %u of %u online vCPUs were found", (unsigned)t.controls, online);
    }
    h->vcpus_closed = t.vcpus >= job->dom.vcpus;
    h->controls_closed = t.controls >= job->dom.vcpus;
}

fs_status_t hap_held_ask(struct hap_job *job, bool wide, bool *complete, char *missing, size_t missing_bytes, struct fs_error *err)
{
    *complete = false;
    missing[0] = '\0';
    if (job->dom.vcpus == 0 || job->dom.vcpus > VCPUS_MAX || job->dom.vcpus_online > job->dom.vcpus) {
        (void)snprintf(missing, missing_bytes, "%u vCPUs, %u online", job->dom.vcpus, job->dom.vcpus_online);
        return FS_OK;
    }
    size_t asked = 0;
    fs_status_t st = ask_all(job, true, wide, &asked, err);
    if (st == FS_OK) {
        st = ask_all(job, false, wide, &asked, err);
    }
    mover_phase(job->report, "held.asked", 0, asked);
    if (st == FS_UNSUPPORTED) {
        (void)snprintf(missing, missing_bytes, "Xen cannot be asked (%.120s)", err ? err->text : "");
        return FS_OK;
    }
    if (st == FS_OK) {
        compare(job, job->held.ports, missing, missing_bytes);
        *complete = missing[0] == '\0';
    }
    return hap_why(job, st, err);
}
