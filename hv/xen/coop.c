/*
 * coop.c - guests that move their own pages: what they say in xenstore, and letting them run.
 *
 * Owns: coop_find(), coop_wait().
 * Invariants:
 *  I1  a guest writes what it likes below its data folder: both nodes are texts of digits of bounded value, or
 *      the answer is FS_BAD_INPUT.  The page that they lead to is checked by whoever maps it (coop_channel.c).
 *  I2  a guest that says nothing, or only half, moves no pages: FS_NOT_FOUND, which is no fault.  The guest
 *      writes the version last.
 *  I3  a wait ends: after WAIT_MOST_NS at the latest, whatever is asked for, and at once if the domain is gone.
 * Why no event channel: a guest that polls needs none, and dom0 would need a device more (evtchn) and a port of
 * each guest; requests are hundreds of pages each, so a poll's 50 us are little beside one.
 * Cost: two xenstore reads; a wait is a sleep and one hypercall.
 */
#include "xen_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "frameshift/abi.h"

#define WAIT_MOST_NS 100000000ull
#define PATH_BYTES   96u

/* *text NULL: the guest says nothing. */
static fs_status_t published(struct xen_be *x, uint16_t domid, const char *key, char **text, struct fs_error *err)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "/local/domain/%u/data/frameshift/%s", domid, key);
    errno = 0;
    *text = xen_store_read(x, path);
    if (!*text && errno != ENOENT && errno != 0) {      /* 0: a node that holds no text */
        return fs_fail(err, FS_IO, "xenstore does not tell %s: %s", path, strerror(errno));
    }
    return FS_OK;
}

fs_status_t xen_coop_find(struct hv_backend *be, uint16_t domid, struct hv_coop *out, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    uint64_t version = 0, control = 0;
    char *v = NULL, *p = NULL;
    fs_status_t s = published(x, domid, FS_ABI_KEY_VERSION, &v, err);
    if (s == FS_OK) {
        s = published(x, domid, FS_ABI_KEY_CONTROL, &p, err);
    }
    if (s != FS_OK) {
        ;                               /* an answer that did not come is not a no */
    } else if (!v || !p) {
        s = fs_fail(err, FS_NOT_FOUND, "domain %u does not say that it moves its own pages", domid);
    } else if (!xen_parse_u64(v, UINT32_MAX, &version) || !xen_parse_u64(p, UINT64_MAX / 2, &control)) {
        s = fs_fail(err, FS_BAD_INPUT, "domain %u: data/frameshift in xenstore holds a version or a page that is no number", domid);
    } else {
        *out = (struct hv_coop){ .version = (uint32_t)version, .control = pfn_make(control) };
    }
    free(v);
    free(p);
    return s;
}

fs_status_t xen_coop_wait(struct hv_backend *be, uint16_t domid, uint64_t ns, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    uint64_t most = ns < WAIT_MOST_NS ? ns : WAIT_MOST_NS;
    struct timespec t = { .tv_sec = (time_t)(most / 1000000000u), .tv_nsec = (long)(most % 1000000000u) };
    xc_domaininfo_t info;
    (void)nanosleep(&t, NULL);          /* a signal ends it early: the caller looks again */
    if (!xen_domain_info(x, domid, &info) || (info.flags & XEN_DOMINF_dying)) {
        return fs_fail(err, FS_GUEST_GONE, "domain %u is gone", domid);
    }
    return FS_OK;
}
