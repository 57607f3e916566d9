/*
 * conform.c - the runner of the backend suite, and its helpers.
 *
 * Owns: running, counting, and reporting the checks; finding frames and nodes to test with.
 * Invariants:
 *  I1  a check counts as passed only if it ran to its end and no expectation failed.
 *  I2  after each check the guests that were there are there, unpaused and not shut down
 *      (heavy checks, which replace a guest, excepted): a check that leaves a guest stopped fails.
 * Output: one line a check, "ok", "FAIL" or "skip"; details before it.  Cost: seconds.
 */
#include "conform.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void conform_fail(struct conform *c, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    c->check_failed = true;
    printf("  %s:%d: ", file, line);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

void conform_skip(struct conform *c, const char *fmt, ...)
{
    va_list ap;
    c->check_skipped = true;
    printf("  skipped: ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

void conform_note(struct conform *c, const char *fmt, ...)
{
    va_list ap;
    (void)c;
    printf("  ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

bool conform_refresh(struct conform *c, uint16_t domid, struct hv_domain *out)
{
    fs_status_t s = c->ops->domain(c->be, domid, out, &c->err);
    if (s != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "domain(%u): %s", domid, c->err.text);
    }
    return s == FS_OK;
}

static bool find_guest(struct conform *c, const char *name, uint8_t kind, struct hv_domain *out)
{
    struct hv_domain *list = NULL;
    size_t count = 0;
    bool found = false;
    if (c->ops->domains(c->be, &list, &count, &c->err) != FS_OK) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].name, name) == 0 && list[i].kind == kind && !list[i].dying) {
            *out = list[i];
            found = true;
        }
    }
    free(list);
    return found;
}

static bool guest_runs(struct conform *c, const char *name, uint8_t kind, struct hv_domain *out)
{
    if (!find_guest(c, name, kind, out)) {
        conform_fail(c, __FILE__, __LINE__, "guest %s is not there", name);
        return false;
    }
    if (out->paused || out->shutdown) {
        conform_fail(c, __FILE__, __LINE__, "guest %s was left %s", name, out->paused ? "paused" : "shut down");
        return false;
    }
    return true;
}

static void run_one(struct conform *c, const struct conform_check *k)
{
    if (c->only ? strncmp(k->name, c->only, strlen(c->only)) != 0 : k->heavy) {
        return;
    }
    c->check_failed = c->check_skipped = false;
    c->err.text[0] = '\0';
    if ((k->needs_pv && !c->pv_name) || (k->needs_hap && !c->hap_name)) {
        conform_skip(c, "no such guest");
    } else if ((!c->pv_name || guest_runs(c, c->pv_name, HV_DOMAIN_PV, &c->pv)) &&
               (!c->hap_name || guest_runs(c, c->hap_name, HV_DOMAIN_HAP, &c->hap))) {
        uint64_t start = c->ops->clock_ns(c->be);
        k->fn(c);
        conform_note(c, "%.1f ms", (double)(c->ops->clock_ns(c->be) - start) / 1e6);
        struct hv_domain d;                                     /* I2 */
        if (c->pv_name) {
            (void)guest_runs(c, c->pv_name, HV_DOMAIN_PV, &d);
        }
        if (c->hap_name) {
            (void)guest_runs(c, c->hap_name, HV_DOMAIN_HAP, &d);
        }
    }
    c->run++;
    c->failed += c->check_failed;
    c->skipped += !c->check_failed && c->check_skipped;
    printf("%s %s\n", c->check_failed ? "FAIL" : c->check_skipped ? "skip" : "ok", k->name);
    fflush(stdout);
}

unsigned conform_run(struct conform *c)
{
    const struct conform_check *groups[] = { conform_host_checks, conform_pv_checks, conform_hap_checks, conform_offline_checks };
    c->ops = c->be->ops;
    for (size_t g = 0; g < FS_ARRAY_SIZE(groups); g++) {
        for (const struct conform_check *k = groups[g]; k->name; k++) {
            run_one(c, k);
        }
    }
    printf("conform %s: %u checks, %u failed, %u skipped\n", c->ops->name, c->run, c->failed, c->skipped);
    return c->failed;
}

/* ---- helpers ---- */

struct hv_frame *conform_all_frames(struct conform *c, uint64_t *max_mfn)
{
    struct hv_host host;
    if (c->ops->host(c->be, &host, &c->err) != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "host: %s", c->err.text);
        return NULL;
    }
    struct hv_frame *out = calloc(host.max_mfn, sizeof *out);
    struct mfn_range all = { mfn_make(0), mfn_make(host.max_mfn) };
    if (!out || c->ops->frames(c->be, all, out, &c->err) != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "frames: %s", c->err.text);
        free(out);
        return NULL;
    }
    *max_mfn = host.max_mfn;
    return out;
}

mfn_t *conform_frames_of(struct conform *c, uint16_t domid, size_t *count)
{
    uint64_t max;
    struct hv_frame *all = conform_all_frames(c, &max);
    mfn_t *list = all ? calloc(max, sizeof *list) : NULL;
    *count = 0;
    for (uint64_t m = 0; list && m < max; m++) {
        if (all[m].owner == HV_FRAME_DOMAIN && all[m].domid == domid) {
            list[(*count)++] = mfn_make(m);
        }
    }
    free(all);
    return list;
}

struct mfn_range conform_unowned_run(struct conform *c, uint64_t pages, uint64_t align)
{
    uint64_t max, run = 0;
    struct mfn_range none = { mfn_make(0), mfn_make(0) };
    struct hv_frame *all = conform_all_frames(c, &max);
    if (!all) {
        return none;
    }
    /* From the top down: the upper nodes are the emptier ones. */
    for (uint64_t m = max; m-- > 0;) {
        run = all[m].owner == HV_FRAME_UNOWNED ? run + 1 : 0;
        if (run >= pages && m % align == 0) {
            free(all);
            return (struct mfn_range){ mfn_make(m), mfn_make(m + pages) };
        }
    }
    free(all);
    return none;
}

uint32_t conform_node_with(struct conform *c, uint64_t pages)
{
    struct hv_host host;
    if (c->ops->host(c->be, &host, &c->err) != FS_OK) {
        return UINT32_MAX;
    }
    for (uint32_t i = host.node_count; i-- > 0;) {
        if (host.nodes[i].free_pages > pages) {
            return host.nodes[i].id;
        }
    }
    return UINT32_MAX;
}

uint64_t conform_free_pages(struct conform *c)
{
    struct hv_host host;
    return c->ops->host(c->be, &host, &c->err) == FS_OK ? host.free_pages : UINT64_MAX;
}
