/*
 * be_coop.c - guests that move their own pages: what they published, and letting them run.
 *
 * Owns: core->keys, the table that stands for xenstore's data/frameshift.
 * Invariants: I1 what a guest published is text of bounded length; numbers in it are parsed strictly (digits only,
 * no overflow), whatever else is FS_BAD_INPUT;
 * I2 the M2P is read without the lock, one aligned word at a time, as a guest reads Xen's.
 * Lock order: the machine's lock, but not while the guest runs.
 * Why a wait: in deterministic mode the guest runs only where somebody waits for it.
 * Cost: O(keys).
 */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "emb_backend.h"
#include "emb_core.h"
#include "frameshift/abi.h"

uint64_t emb_core_m2p(const struct emb_machine *m, uint64_t mfn)
{
    return emb_is_ram(m, mfn) ? __atomic_load_n(&m->frames[mfn].m2p1, __ATOMIC_RELAXED) - 1 : FS_FRAME_NONE;
}

int emb_core_publish(struct emb_machine *m, uint16_t domid, const char *key, const char *value)
{
    struct emb_key *at = NULL;
    if (strlen(key) >= sizeof(at->key) || strlen(value) >= sizeof(at->value) || key[0] == '\0') {
        return -EINVAL;
    }
    emb_lock(m);
    struct emb_domain *d = emb_domain_find(m, domid);
    int rc = d && d->core ? -ENOSPC : -ESRCH;
    for (uint32_t i = 0; rc == -ENOSPC && i < EMB_KEYS; i++) {
        at = &d->core->keys[i];
        if (at->key[0] == '\0' || strcmp(at->key, key) == 0) {
            memcpy(at->key, key, strlen(key) + 1);
            memcpy(at->value, value, strlen(value) + 1);
            rc = 0;
        }
    }
    emb_unlock(m);
    return rc;
}

static const char *published(const struct emb_domain *d, const char *key)
{
    for (uint32_t i = 0; d->core && i < EMB_KEYS; i++) {
        if (strncmp(d->core->keys[i].key, key, sizeof(d->core->keys[i].key)) == 0) {
            return d->core->keys[i].value;
        }
    }
    return NULL;
}

/* I1 */
static bool number(const char *text, uint64_t max, uint64_t *out)
{
    uint64_t n = 0;
    if (text[0] == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || n > (max - (uint64_t)(*text - '0')) / 10) {
            return false;
        }
        n = n * 10 + (uint64_t)(*text - '0');
    }
    *out = n;
    return true;
}

fs_status_t emb_op_coop_find(struct hv_backend *be, uint16_t domid, struct hv_coop *out, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    uint64_t version = 0, control = 0;
    fs_status_t s = emb_enter_domain(be, EMB_OP_coop_find, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    const char *v = published(d, FS_ABI_KEY_VERSION), *p = published(d, FS_ABI_KEY_CONTROL);
    if (!v || !p) {
        s = fs_fail(err, FS_NOT_FOUND, "domain %u does not say that it moves its own pages", domid);
    } else if (!number(v, UINT32_MAX, &version) || !number(p, UINT64_MAX / 2, &control)) {
        s = fs_fail(err, FS_BAD_INPUT, "domain %u published a version or a page that is no number", domid);
    } else {
        *out = (struct hv_coop){ .version = (uint32_t)version, .control = pfn_make(control) };
    }
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_coop_wait(struct hv_backend *be, uint16_t domid, uint64_t ns, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_coop_wait, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    emb_step_fn step = d->core && d->core->host_pid == emb_pid() && emb_domain_runs(d) ? d->core->step : NULL;
    void *arg = step ? d->core->step_arg : NULL;
    emb_charge(c.m, ns);
    emb_leave(&c);
    if (step) {
        step(arg);
    } else {
        (void)nanosleep(&(struct timespec){ .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) }, NULL);
    }
    return FS_OK;
}
