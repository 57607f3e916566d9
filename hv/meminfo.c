/*
 * meminfo.c - a guest's memory as its own kernel sees it, and its settings, by abi.h.
 *
 * Owns: the order of one look: settings are checked, then made, then everything is read.
 * Invariants:
 *   I1  the journal's lock is held from before the first word with the guest: a session ends another tool's requests.
 *   I2  no setting is made unless every one of them has a name that the guest knows and a value within its limits.
 * Lock order: the journal's lock.
 * Why not from outside: what is free, of which type, and why a request would fail, the machine cannot see.
 * Cost: four requests, and one for each setting.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coop_info.h"
#include "hv_priv.h"
#include "journal.h"

#define TIMEOUT_NS 60000000000ull

static fs_status_t find_guest(struct hv *hv, const char *guest, struct hv_domain *dom, struct fs_error *err)
{
    uint16_t domid;
    fs_status_t s = hv_domain_find(hv, guest, &domid, err);
    if (s == FS_OK) {
        s = hv->be->ops->domain(hv->be, domid, dom, err);
    }
    if (s != FS_OK) {
        return s;
    }
    if (dom->kind != HV_DOMAIN_PV) {
        return fs_fail(err, FS_UNSUPPORTED, "domain %u (%s) does not speak abi.h (doc/ABI.md): look at /proc/buddyinfo and /proc/vmstat inside it", domid,
                       dom->name);
    }
    if (dom->paused || dom->shutdown) {
        return fs_fail(err, FS_REFUSED, "domain %u (%s) is %s and cannot answer; let it run first", domid, dom->name, dom->paused ? "paused" : "shut down");
    }
    return FS_OK;
}

static fs_status_t open_channel(struct hv *hv, struct coop_channel *ch, const struct hv_domain *dom, struct fs_error *err)
{
    struct hv_host host;
    struct fs_error words = { "" };
    fs_status_t s = hv->be->ops->host(hv->be, &host, err);
    if (s != FS_OK) {
        return s;
    }
    s = coop_open(ch, hv->be, dom, host.max_mfn * 2 + (1u << 20), TIMEOUT_NS, &hv->interrupted, &words);
    if (s == FS_NOT_FOUND || s == FS_UNSUPPORTED) {
        return fs_fail(err, FS_UNSUPPORTED, "domain %u (%s) does not speak abi.h (doc/ABI.md): look at /proc/buddyinfo and /proc/vmstat inside it",
                       dom->domid, dom->name);
    }
    return s == FS_OK ? FS_OK : fs_fail(err, s, "%s", words.text);
}

/* I2 */
static fs_status_t check_settings(const struct hv_meminfo *m, const struct hv_meminfo_want *wants, size_t count, struct fs_error *err)
{
    for (size_t i = 0; i < count; i++) {
        const struct hv_meminfo_value *v = NULL;
        for (size_t k = 0; k < m->tunable_count; k++) {
            v = strcmp(m->tunables[k].name, wants[i].name) == 0 ? &m->tunables[k] : v;
        }
        if (v == NULL) {
            return fs_fail(err, FS_REFUSED, "%s has no setting called %s; `frameshift meminfo %s` lists them; nothing was set", m->name, wants[i].name,
                           m->name);
        }
        if (wants[i].value < v->least || wants[i].value > v->most) {
            return fs_fail(err, FS_REFUSED, "%s: %s takes %llu to %llu, not %llu; nothing was set", m->name, v->name, (unsigned long long)v->least,
                           (unsigned long long)v->most, (unsigned long long)wants[i].value);
        }
    }
    return FS_OK;
}

static fs_status_t look(struct coop_channel *ch, const struct hv_meminfo_want *wants, size_t count, struct hv_meminfo *out, struct fs_error *err)
{
    fs_status_t s = coop_info_values(ch, FS_ABI_TABLE_TUNABLES, &out->tunables, &out->tunable_count, err);
    if (s == FS_OK) {
        s = check_settings(out, wants, count, err);
    }
    for (size_t i = 0; i < count && s == FS_OK; i++) {
        s = coop_info_tune(ch, wants[i].name, wants[i].value, &out->sets[out->set_count], err);
        out->set_count += s == FS_OK;
    }
    if (s == FS_OK && count > 0) {
        free(out->tunables);
        s = coop_info_values(ch, FS_ABI_TABLE_TUNABLES, &out->tunables, &out->tunable_count, err);
    }
    if (s == FS_OK) {
        s = coop_info_zones(ch, &out->zones, &out->zone_count, err);
    }
    return s == FS_OK ? coop_info_values(ch, FS_ABI_TABLE_COUNTERS, &out->counters, &out->counter_count, err) : s;
}

fs_status_t hv_meminfo(struct hv *hv, const char *guest, const struct hv_meminfo_want *wants, size_t count, struct hv_meminfo *out, struct fs_error *err)
{
    struct hv_domain dom;
    struct coop_channel ch;
    struct journal *journal = NULL;
    *out = (struct hv_meminfo){ .domid = FS_DOMID_NONE };
    if (count > HV_MEMINFO_SETS_MAX) {
        return fs_fail(err, FS_USAGE, "more than %u settings at once", HV_MEMINFO_SETS_MAX);
    }
    fs_status_t s = journal_open(hv_state_dir(hv), false, &journal, err);       /* I1 */
    if (s != FS_OK) {
        return s;
    }
    s = find_guest(hv, guest, &dom, err);
    if (s == FS_OK) {
        out->domid = dom.domid;
        (void)snprintf(out->name, sizeof(out->name), "%s", dom.name);
        s = open_channel(hv, &ch, &dom, err);
    }
    if (s == FS_OK) {
        s = look(&ch, wants, count, out, err);
        coop_close(&ch);
    }
    journal_close(journal);
    return s;
}

void hv_meminfo_free(struct hv_meminfo *m)
{
    free(m->zones);
    free(m->counters);
    free(m->tunables);
    *m = (struct hv_meminfo){ .domid = FS_DOMID_NONE };
}
